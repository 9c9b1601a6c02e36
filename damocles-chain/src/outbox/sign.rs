//! From recorded calls to signed messages.

use super::{
    Account, Outbox, OutboxState, Recorded, Simulate,
    deliver::how_many,
    lane::Lane,
    pricing::{self, Estimate, Price},
    run::{Notes, Went},
    senders::of_signer,
    store::{Page, Purpose, Signing, Version},
};
use crate::{
    actor::{ActorCall, ActorsVersion, encode},
    lotus_json::{SignedMessage, message_cid, text_of, to_core},
    signer::{SignRequest, SignerError, verify},
};
use damocles_core::{
    Recovery,
    chain::{Call, CallKind, ChainError, ChainErrorKind, TipsetRef},
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{METHOD_SEND, address::Address, econ::TokenAmount, message::Message};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use tracing::warn;

/// Epochs from the challenge of a deadline to its end, on every network: a proof names an epoch in them.
const CHALLENGE_TO_CLOSE: i64 = 80;
/// Messages that get their nonces together.
const TOGETHER: usize = 100;
/// Messages of one sender that are on their way at the same time, but for proofs: Lotus takes 1,000.
const WINDOW: usize = 600;

/// What is known of a sender while its messages are signed.
struct Desk {
    sender: Address,
    account: Account,
    next: u64,
    base_fee: TokenAmount,
    /// What the messages on their way may cost.
    committed: TokenAmount,
    on_their_way: usize,
    /// The premium that lands, as far as it was asked for transfers.
    premium: Option<TokenAmount>,
}

/// What became of a call on its way to a signature.
enum Drawn {
    Signed(Box<SignedMessage>, Option<String>),
    Dropped,
    /// It waits for a lower base fee.
    Waits,
    /// Its window has closed, if the next heads say so too.
    Closed,
}

impl Outbox {
    /// Gives calls of a lane without nonce their nonces and signatures, records both, and pushes them: the proofs of
    /// spacetime, or all others.
    pub(super) async fn sign_recorded(&self, lane: &Lane, head: &TipsetRef, proofs: bool) -> Went {
        let Some(sender) = lane.sender else {
            return if proofs { Went::Well } else { self.note_without_sender().await };
        };
        let (mut went, mut after) = (Went::Well, i64::MIN);
        loop {
            let most = i64::try_from(WINDOW).unwrap_or(i64::MAX);
            let Page { mut rows, next } = match self.store.recorded(Some(&sender), proofs, after, most).await {
                Ok(page) => page,
                Err(e) => {
                    warn!(error = e.chain(), "the outbox cannot be read");
                    return Went::Badly;
                }
            };
            if rows.is_empty() && next.is_none() {
                return went;
            }
            lane.late_last(&mut rows, |row| &row.key);
            let mut desk = match self.desk(head, sender).await {
                Ok(desk) => desk,
                Err(e) => {
                    let mut notes = Notes::default();
                    for row in rows.iter().take(how_many(&e)) {
                        notes.take(&row.key, OutboxState::Recorded, row.error.as_deref(), Some(&e));
                    }
                    self.note(notes).await;
                    return went.max(Went::of(&e));
                }
            };
            let mut signed = 0;
            for part in rows.chunks(TOGETHER) {
                let room = if proofs { TOGETHER } else { WINDOW.saturating_sub(desk.on_their_way) };
                let Some(part) = part.get(..part.len().min(room)).filter(|p| !p.is_empty()) else { return went };
                let (done, how) = self.sign_part(lane, head, &mut desk, part).await;
                signed += done;
                went = went.max(how);
                if went == Went::Away || (!proofs && lane.gives_way(head)) {
                    return went;
                }
            }
            // What is left of this page does not move now, and must not keep later ones from moving.
            let Some(next) = next else { return went };
            if signed == 0 {
                after = next;
            }
        }
    }

    /// Draws messages for some calls, records them together and pushes them. How many were signed.
    async fn sign_part(&self, lane: &Lane, head: &TipsetRef, desk: &mut Desk, rows: &[Recorded]) -> (usize, Went) {
        let (mut went, mut notes, mut batch) = (Went::Well, Notes::default(), Vec::new());
        for row in rows {
            // What waits goes on with the newer head, after what is on its way.
            if !batch.is_empty() && row.call.kind() != CallKind::PoSt && lane.gives_way(head) {
                break;
            }
            let now = row.error.as_deref();
            match self.draw(lane, head, desk, row).await {
                Ok(Drawn::Signed(signed, doubt)) => {
                    notes.take_text(&row.key, OutboxState::Signed, None, doubt);
                    let version = Version::new(Purpose::Call, *signed, head.epoch.0);
                    batch.push(Signing { key: row.key.clone(), version });
                }
                Ok(Drawn::Dropped) => {}
                Ok(Drawn::Waits) => {
                    let text = "it waits for the base fee to fall".to_owned();
                    notes.take_text(&row.key, OutboxState::Recorded, now, Some(text));
                }
                Ok(Drawn::Closed) => {
                    let text =
                        "its window has closed as the last head has it, and it is given up if the next ones agree";
                    notes.take_text(&row.key, OutboxState::Recorded, now, Some(text.to_owned()));
                }
                Err(e) => {
                    notes.take(&row.key, OutboxState::Recorded, now, Some(&e));
                    went = went.max(Went::of(&e));
                    if went == Went::Away {
                        lane.was_late(&row.key);
                        break;
                    }
                }
            }
        }
        let recorded = match self.store.sign(&batch).await {
            Ok(true) => true,
            // One was dropped meanwhile: the nonces of all others are wrong.
            Ok(false) => false,
            Err(e) => {
                warn!(error = e.chain(), "the outbox cannot be written");
                false
            }
        };
        if !recorded {
            return (0, Went::Away);
        }
        for signing in &batch {
            lane.in_time(&signing.key);
        }
        let pushed = self.push_signed(lane, head, &batch, &mut notes).await;
        self.note(notes).await;
        (batch.len(), went.max(pushed))
    }

    /// Pushes messages that were recorded just now.
    pub(super) async fn push_signed(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        batch: &[Signing],
        notes: &mut Notes,
    ) -> Went {
        let rows: Vec<_> = batch.iter().map(|s| (&s.key, &s.version, None)).collect();
        self.push(lane, head, &rows, notes).await
    }

    async fn desk(&self, head: &TipsetRef, sender: Address) -> Result<Desk, ChainError> {
        self.check_network(head).await?;
        let account = self.node.account(head, &sender).await?;
        let in_flight = self.store.signed_from(&sender, account.nonce).await?;
        let next = self.free_nonce(&sender, &account, &in_flight).await?;
        let base_fee = self.node.base_fee(head).await?;
        let committed = in_flight.values().flatten().map(|signed| cost(&signed.message)).sum();
        let on_their_way = in_flight.len();
        Ok(Desk { sender, account, next, base_fee, committed, on_their_way, premium: None })
    }

    /// Makes the message of a call, if it can be sent now.
    async fn draw(&self, lane: &Lane, head: &TipsetRef, desk: &mut Desk, row: &Recorded) -> Result<Drawn, ChainError> {
        let call = &row.call;
        let encoded = match encode(call) {
            Ok(_) if closes(call).is_some_and(|close| head.epoch.0 >= close) => {
                if !lane.has_closed(&row.key, Some(&head.key)) {
                    return Ok(Drawn::Closed);
                }
                self.stands(head).await?;
                self.store.drop_call(&row.key, "its window had closed before it was sent").await?;
                return Ok(Drawn::Dropped);
            }
            Ok(encoded) => encoded,
            Err(e) => {
                self.store.drop_call(&row.key, &e.to_string()).await?;
                return Ok(Drawn::Dropped);
            }
        };
        lane.has_closed(&row.key, None);
        if self.waits(head, desk, row).await? {
            return Ok(Drawn::Waits);
        }
        let policy = self.fees.policy(call.kind());
        let value = self.node.value(head, call).await?;
        let message = unpriced(encoded, desk.sender, desk.next, value);
        let said = self.estimate(lane, head, desk, call, &message).await?;
        let message = pricing::first(policy, &desk.base_fee, &said)?.onto(message);
        let reserve =
            if call.kind() == CallKind::PoSt { TokenAmount::default() } else { self.reserve_of(&desk.sender) };
        check_funds(&desk.account, &desk.committed, &message, reserve)?;
        let doubt = self.try_out(head, &message).await?;
        let cost = cost(&message);
        let signed = self.signed(message).await?;
        desk.next += 1;
        desk.committed += cost;
        desk.on_their_way += 1;
        Ok(Drawn::Signed(Box::new(signed), doubt))
    }

    /// What all but proofs of spacetime leave to a sender.
    pub(super) fn reserve_of(&self, sender: &Address) -> TokenAmount {
        if self.senders.proves(sender) { self.reserve.clone() } else { TokenAmount::default() }
    }

    /// Whether a call waits for a lower base fee.
    async fn waits(&self, head: &TipsetRef, desk: &Desk, row: &Recorded) -> Result<bool, ChainError> {
        let policy = self.fees.policy(row.call.kind());
        let above = policy.wait_above.is_some_and(|most| desk.base_fee > super::in_chain(most));
        if !above {
            return Ok(false);
        }
        let since = match row.waits_since {
            Some(since) => since,
            None => {
                self.store.waits(&row.key, head.epoch.0).await?;
                head.epoch.0
            }
        };
        Ok(head.epoch.0.saturating_sub(since) < policy.wait_most)
    }

    async fn estimate(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        desk: &mut Desk,
        call: &Call,
        message: &Message,
    ) -> Result<Estimate, ChainError> {
        if !is_transfer(message) {
            return self.node.estimate(Some(call), message.clone()).await;
        }
        // A node runs all that waits before a message to tell what it needs.
        let limit = lane.transfer_limit(&message.to, head.epoch.0);
        if let (Some(limit), Some(premium)) = (limit, &desk.premium) {
            return Ok(Estimate { limit, is_guess: false, premium: premium.clone() });
        }
        let asked = Message { gas_limit: limit.unwrap_or_default(), ..message.clone() };
        let said = self.node.estimate(Some(call), asked).await?;
        if limit.is_none() {
            lane.transfers_need(message.to, head.epoch.0, said.limit);
        }
        desk.premium = Some(said.premium.clone());
        Ok(said)
    }

    /// Tries a message out where the policy says so. What to say of it if it fails and is sent all the same.
    async fn try_out(&self, head: &TipsetRef, message: &Message) -> Result<Option<String>, ChainError> {
        if self.fees.simulate == Simulate::Off {
            return Ok(None);
        }
        let Some(would) = self.node.simulate(head, message).await?.filter(|would| would.exit_code != 0) else {
            return Ok(None);
        };
        let refused = ChainError::new(ChainErrorKind::Rejected, "simulate message")
            .recover_by(Recovery::RETRY)
            .with("exit code", damocles_core::chain::ExitCode(would.exit_code))
            .with("actor", would.error);
        if self.fees.simulate == Simulate::Refuse {
            return Err(refused.hint_with("it is tried again at every head and sent as soon as it would succeed"));
        }
        Ok(Some(refused.chain()))
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
        let odd = || {
            ChainError::new(ChainErrorKind::Malformed, "read nonce")
                .with("sender", text_of(sender))
                .with("nonce", told)
                .with("account nonce", account.nonce)
        };
        // A pool counts on from the state: one of both is wrong, or another head's.
        if told < account.nonce {
            return Err(odd());
        }
        if (account.nonce..told).find(|nonce| !in_flight.contains_key(nonce)).is_some() {
            let pooled = self.node.pooled(sender).await?;
            let of_somebody = |nonce: &u64| in_flight.contains_key(nonce) || pooled.contains_key(nonce);
            if let Some(missing) = (account.nonce..told).find(|nonce| !of_somebody(nonce)) {
                return Err(odd().with("in no pool", missing));
            }
        }
        Ok(told.max(used))
    }

    pub(super) async fn signed(&self, message: Message) -> Result<SignedMessage, ChainError> {
        let sender = message.from;
        let bytes = message_cid(&message).to_bytes();
        let failed = |e| of_signer("sign", e).with("sender", text_of(&sender));
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

    /// Refuses networks that our keys or our messages are not for. The version is asked for at every head: an upgrade
    /// comes while this runs.
    pub(super) async fn check_network(&self, head: &TipsetRef) -> Result<(), ChainError> {
        if !self.suits.load(Ordering::Acquire) {
            let network = self.node.network_name().await?;
            let unsuitable = |e: SignerError| {
                let hint = e.hint().unwrap_or_default().to_owned();
                ChainError::new(ChainErrorKind::NoSender, "sign").hint_with(hint).because(e)
            };
            self.signer.suits(&network).map_err(unsuitable)?;
            self.suits.store(true, Ordering::Release);
        }
        let version = self.node.network_version(head).await?;
        ActorsVersion::of(version).map(drop).map_err(|e| {
            ChainError::new(ChainErrorKind::Rejected, "send messages")
                .recover_by(Recovery::RETRY)
                .with("network version", version)
                .hint_with("install a release of damocles that knows this network version: until then nothing is sent")
                .because(e)
        })
    }
}

/// The epoch at which the window of a proof closes.
pub(super) fn closes(call: &Call) -> Option<i64> {
    match call {
        Call::SubmitWindowedPoSt(post) => Some(post.commit_epoch.0.saturating_add(CHALLENGE_TO_CLOSE)),
        _ => None,
    }
}

/// Whether a message moves money and does nothing else.
pub(super) fn is_transfer(message: &Message) -> bool {
    message.method_num == METHOD_SEND && message.params.is_empty()
}

/// The most that a message takes from its sender.
pub(super) fn cost(message: &Message) -> TokenAmount {
    &message.value + message.gas_fee_cap.clone() * message.gas_limit
}

/// Refuses a message that the sender cannot pay together with what it sent before: once it has a nonce, everything
/// after it would wait until somebody sends money. What is missing changes with every head and is not said here: trouble
/// that is noted is to be news only where it is another.
pub(super) fn check_funds(
    account: &Account,
    before: &TokenAmount,
    message: &Message,
    reserve: TokenAmount,
) -> Result<(), ChainError> {
    let needed = cost(message) + before + &reserve;
    if account.balance >= needed {
        return Ok(());
    }
    Err(ChainError::new(ChainErrorKind::Rejected, "pay for message")
        .recover_by(Recovery::RETRY)
        .with("sender", text_of(&message.from))
        .with("what", "its balance does not cover the message beside what is on its way")
        .with("reserve", reserve)
        .hint_with("send funds to the sender"))
}

/// A message that does nothing but fill a nonce.
pub(super) fn nothing(sender: Address, nonce: u64) -> Message {
    let call = ActorCall { to: sender, method: METHOD_SEND, params: RawBytes::default() };
    unpriced(call, sender, nonce, TokenAmount::default())
}

fn unpriced(call: ActorCall, from: Address, nonce: u64, value: TokenAmount) -> Message {
    let price = Price { limit: 0, cap: TokenAmount::default(), premium: TokenAmount::default() };
    price.onto(Message {
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
    })
}
