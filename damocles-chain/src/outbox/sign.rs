//! From a recorded call to a signed message.

use super::{Account, Outbox, run::Step};
use crate::{
    actor::{ActorCall, encode},
    lotus_json::{SignedMessage, message_cid, signed_message_cid, text_of, to_core},
    signer::{SignRequest, SignerError, verify},
};
use damocles_core::{
    Recovery,
    chain::{Call, CallKind, ChainError, ChainErrorKind, SubmitKey, TipsetRef},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use std::{collections::BTreeMap, sync::atomic::Ordering};

/// Epochs from the challenge of a deadline to its end, on every network: a proof names an epoch in them.
const CHALLENGE_TO_CLOSE: i64 = 80;

impl Outbox {
    /// Gives a call its nonce and signature, records both, and pushes it.
    pub(super) async fn sign(&self, head: &TipsetRef, key: &SubmitKey, call: &Call) -> Result<Step, ChainError> {
        let encoded = match encode(call) {
            Ok(_) if is_too_late(head, call) => {
                self.store.drop_call(key, "its window had closed before it was sent").await?;
                return Ok(Step::Moved);
            }
            Ok(encoded) => encoded,
            Err(e) => {
                self.store.drop_call(key, &e.to_string()).await?;
                return Ok(Step::Moved);
            }
        };
        let sender = self.senders.of(call)?;
        self.check_network().await?;
        let value = self.node.value(head, call).await?;
        let account = self.node.account(head, &sender).await?;
        let in_flight = self.store.signed_from(&sender, account.nonce).await?;
        let nonce = self.free_nonce(&sender, &account, &in_flight).await?;
        let mut message = self.node.price(head, call, unpriced(encoded, sender, nonce, value)).await?;
        message.sequence = nonce;
        let reserved = call.kind() != CallKind::PoSt && self.senders.proves(&sender);
        let reserve = if reserved { self.reserve.clone() } else { TokenAmount::default() };
        check_funds(&account, &in_flight, &message, reserve)?;
        let signed = self.signed(message).await?;
        if self.store.sign(key, &signed, &signed_message_cid(&signed)).await? {
            self.push(head, key, &signed).await?;
        }
        Ok(Step::Moved)
    }

    /// The next nonce: the one that the node names, unless more are used here. A nonce that is too high would stop
    /// all messages of the sender for ever, so that each between it and the account's must be somebody's.
    async fn free_nonce(
        &self,
        sender: &Address,
        account: &Account,
        in_flight: &BTreeMap<u64, Option<SignedMessage>>,
    ) -> Result<u64, ChainError> {
        let used = self.store.next_nonce(sender).await?;
        let told = self.node.next_nonce(sender).await?;
        if (account.nonce..told).find(|nonce| !in_flight.contains_key(nonce)).is_some() {
            let pooled = self.node.pooled(sender).await?;
            let of_somebody = |nonce: &u64| in_flight.contains_key(nonce) || pooled.contains(nonce);
            if let Some(missing) = (account.nonce..told).find(|nonce| !of_somebody(nonce)) {
                return Err(ChainError::new(ChainErrorKind::Malformed, "read nonce")
                    .with("sender", text_of(sender))
                    .with("nonce", told)
                    .with("account nonce", account.nonce)
                    .with("in no pool", missing));
            }
        }
        Ok(told.max(used).max(account.nonce))
    }

    async fn signed(&self, message: Message) -> Result<SignedMessage, ChainError> {
        let sender = message.from;
        let bytes = message_cid(&message).to_bytes();
        let failed = |e| ChainError::new(ChainErrorKind::NoSender, "sign").with("sender", text_of(&sender)).because(e);
        let request = SignRequest::message(message.clone());
        let signature = self.signer.sign(&to_core(&sender), &request).await.map_err(failed)?;
        // A signer far away may be broken; a message that the node refuses for ever would block its nonce.
        if !verify(&sender, &signature, &bytes) {
            return Err(ChainError::new(ChainErrorKind::NoSender, "sign")
                .with("sender", text_of(&sender))
                .with("what", "the signature is not the sender's"));
        }
        Ok(SignedMessage { message, signature })
    }

    async fn check_network(&self) -> Result<(), ChainError> {
        if !self.suits.load(Ordering::Acquire) {
            let network = self.node.network_name().await?;
            let unsuitable = |e: SignerError| {
                let hint = e.hint().unwrap_or_default().to_owned();
                ChainError::new(ChainErrorKind::NoSender, "sign").hint_with(hint).because(e)
            };
            self.signer.suits(&network).map_err(unsuitable)?;
            self.suits.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Whether a proof can land in its window no more.
fn is_too_late(head: &TipsetRef, call: &Call) -> bool {
    match call {
        Call::SubmitWindowedPoSt(post) => head.epoch.0 >= post.commit_epoch.0.saturating_add(CHALLENGE_TO_CLOSE),
        _ => false,
    }
}

/// The most that a message takes from its sender.
fn cost(message: &Message) -> TokenAmount {
    &message.value + message.gas_fee_cap.clone() * message.gas_limit
}

/// Refuses a message that the sender cannot pay together with what it sent before: once it has a nonce, everything
/// after it would wait until somebody sends money.
fn check_funds(
    account: &Account,
    in_flight: &BTreeMap<u64, Option<SignedMessage>>,
    message: &Message,
    reserve: TokenAmount,
) -> Result<(), ChainError> {
    let before: TokenAmount = in_flight.values().flatten().map(|signed| cost(&signed.message)).sum();
    let needed = cost(message) + &before + &reserve;
    if account.balance >= needed {
        return Ok(());
    }
    Err(ChainError::new(ChainErrorKind::Rejected, "pay for message")
        .recover_by(Recovery::RETRY)
        .with("sender", text_of(&message.from))
        .with("balance", &account.balance)
        .with("cost", cost(message))
        .with("in flight", before)
        .with("reserve", reserve)
        .hint_with("send funds to the sender"))
}

fn unpriced(call: ActorCall, from: fvm_shared::address::Address, nonce: u64, value: TokenAmount) -> Message {
    Message {
        version: 0,
        from,
        to: call.to,
        sequence: nonce,
        value,
        method_num: call.method,
        params: call.params,
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
    }
}
