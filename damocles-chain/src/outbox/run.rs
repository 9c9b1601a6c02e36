//! The loop that turns recorded calls into messages on chain.

use super::{CheckedSenders, FINALITY, Node, OutboxEntry, OutboxState, Push, Row, Search, Store, receipt_of};
use crate::{
    actor::{ActorCall, encode},
    lotus_json::{SignedMessage, message_cid, signed_message_cid, text_of, to_core},
    signer::{SignRequest, Signer, verify},
};
use cid::Cid;
use damocles_core::{
    CancellationToken, Event, EventSink, MessageEvent,
    chain::{
        BoxStream, Call, CallKind, ChainError, ChainErrorKind, HeadChange, MessageId, MessageState, SubmitKey,
        TipsetRef,
    },
};
use futures::{FutureExt as _, StreamExt as _};
use fvm_shared::{econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tracing::warn;

/// A node forgets its pool when it restarts, so a message that does not land is pushed again after so many epochs.
const PUSH_AGAIN: i64 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LAST_DELAY: Duration = Duration::from_secs(30);

/// The outbox. `run` must be running for anything to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    store: Store,
    node: Arc<dyn Node>,
    signer: Arc<dyn Signer>,
    senders: CheckedSenders,
    events: Arc<dyn EventSink>,
    wake: Notify,
    suits: AtomicBool,
    /// When each message was last looked at or pushed; what is lost with the process is only done again.
    looked: Mutex<HashMap<SubmitKey, i64>>,
    landed: Mutex<HashSet<SubmitKey>>,
}

impl Outbox {
    pub(crate) fn new(
        store: Store,
        node: Arc<dyn Node>,
        signer: Arc<dyn Signer>,
        senders: CheckedSenders,
        events: Arc<dyn EventSink>,
    ) -> Self {
        Self {
            store,
            node,
            signer,
            senders,
            events,
            wake: Notify::new(),
            suits: AtomicBool::new(false),
            looked: Mutex::default(),
            landed: Mutex::default(),
        }
    }

    /// Records a call.
    pub(crate) async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        let id = MessageId::new(&key.0);
        if self.store.get(&key.0).await?.is_some() {
            return Ok(id);
        }
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "submit").with("key", key).because(e);
        encode(call).map_err(rejected)?;
        self.senders.of(call)?;
        if self.store.record(key, call).await? {
            self.emit(key, MessageEvent::Recorded);
            self.wake.notify_one();
        }
        Ok(id)
    }

    /// All calls, for operators.
    pub(crate) async fn entries(&self) -> Result<Vec<OutboxEntry>, ChainError> {
        Ok(self.store.all().await?.iter().map(Row::entry).collect())
    }

    /// Where a message stands on the chain of `head`.
    pub(crate) async fn state(
        &self,
        id: &MessageId,
        confidence: i64,
        head: &TipsetRef,
    ) -> Result<MessageState, ChainError> {
        let row = self.store.get(id.as_str()).await?;
        let row = row.ok_or_else(|| ChainError::new(ChainErrorKind::NotFound, "find message").with("message", id))?;
        let deep = |epoch: i64| head.epoch.0.saturating_sub(epoch) >= confidence;
        match (row.state, row.signed.zip(row.cid), row.receipt) {
            (OutboxState::Dropped, ..) => Ok(MessageState::Dropped { reason: row.error.unwrap_or_default() }),
            (OutboxState::Settled, _, Some(receipt)) if deep(receipt.epoch.0) => Ok(MessageState::Landed(receipt)),
            (OutboxState::Signed, Some((signed, cid)), _) => match self.node.search(head, &signed, &cid).await? {
                Search::Landed(found) if deep(found.epoch) => {
                    let said = self.said(&found).await;
                    Ok(MessageState::Landed(receipt_of(row.call.kind(), &found, said)))
                }
                _ => Ok(MessageState::Pending { trouble: row.error }),
            },
            _ => Ok(MessageState::Pending { trouble: row.error }),
        }
    }

    async fn said(&self, found: &super::Found) -> Option<String> {
        if found.exit_code == 0 { None } else { self.node.said(&found.message).await }
    }

    /// Works on every head and every submission until cancelled.
    pub(crate) async fn run(&self, mut heads: BoxStream<HeadChange>, cancel: CancellationToken) {
        let work = async {
            let mut head: Option<TipsetRef> = None;
            let mut delay = None;
            loop {
                let retry = async {
                    match delay {
                        Some(delay) => tokio::time::sleep(delay).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    change = heads.next() => note_head(&mut head, change),
                    () = self.wake.notified() => {}
                    () = retry => {}
                }
                // Only the newest of the heads that are waiting matters.
                while let Some(change) = heads.next().now_or_never() {
                    note_head(&mut head, change);
                }
                let Some(head) = &head else { continue };
                let clean = self.pass(head).await;
                delay = if clean { None } else { Some(delay.map_or(FIRST_DELAY, |d: Duration| LAST_DELAY.min(d * 2))) };
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    /// Moves every unfinished call as far as it goes. Whether all went well.
    pub(crate) async fn pass(&self, head: &TipsetRef) -> bool {
        let mut rows = match self.store.unfinished().await {
            Ok(rows) => rows,
            Err(e) => {
                warn!(error = e.chain(), "the outbox cannot be read");
                return false;
            }
        };
        // Proofs of spacetime have a deadline: no other message, nor a slow search for one, may stand before them.
        rows.sort_by_key(|row| (row.call.kind() != CallKind::PoSt, row.state == OutboxState::Recorded));
        let mut clean = true;
        for row in rows {
            let moved = match row.state {
                OutboxState::Recorded => self.sign(head, &row).await,
                _ => self.deliver(head, &row).await,
            };
            let error = moved.err().map(|e| e.chain());
            clean &= error.is_none();
            if let Some(text) = &error {
                warn!(key = %row.key, error = text, "a message does not move");
            }
            if error != row.error
                && let Err(e) = self.store.note(&row.key, row.state, error).await
            {
                warn!(key = %row.key, error = e.chain(), "the outbox cannot be written");
            }
        }
        clean
    }

    /// Gives a call its nonce and signature, records both, and pushes it.
    async fn sign(&self, head: &TipsetRef, row: &Row) -> Result<(), ChainError> {
        let call = match encode(&row.call) {
            Ok(call) => call,
            Err(e) => return self.store.drop_call(&row.key, &e.to_string()).await,
        };
        let sender = self.senders.of(&row.call)?;
        self.check_network().await?;
        let value = self.node.value(head, &row.call).await?;
        let used = self.store.next_nonce(&sender).await?;
        let nonce = self.node.next_nonce(&sender).await?.max(used);
        let message = unpriced(call, sender, nonce, value);
        let mut message = self.node.price(head, &row.call, message).await?;
        message.sequence = nonce;
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
        let signed = SignedMessage { message, signature };
        let cid = signed_message_cid(&signed);
        if self.store.sign(&row.key, &signed, &cid).await? {
            self.push(head, &row.key, &signed).await?;
        }
        Ok(())
    }

    async fn check_network(&self) -> Result<(), ChainError> {
        if !self.suits.load(Ordering::Acquire) {
            let network = self.node.network_name().await?;
            let unsuitable = |e: crate::signer::SignerError| {
                let hint = e.hint().unwrap_or_default().to_owned();
                ChainError::new(ChainErrorKind::NoSender, "sign").hint_with(hint).because(e)
            };
            self.signer.suits(&network).map_err(unsuitable)?;
            self.suits.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn push(&self, head: &TipsetRef, key: &SubmitKey, signed: &SignedMessage) -> Result<Push, ChainError> {
        let pushed = self.node.push(signed).await?;
        self.looked.lock().insert(key.clone(), head.epoch.0);
        if pushed == Push::Accepted {
            self.emit(key, MessageEvent::Pushed { cid: signed_message_cid(signed).to_string() });
        }
        Ok(pushed)
    }

    /// Looks for a signed message on chain and pushes it where it is not.
    async fn deliver(&self, head: &TipsetRef, row: &Row) -> Result<(), ChainError> {
        let (Some(signed), Some(cid)) = (&row.signed, &row.cid) else {
            return Err(ChainError::new(ChainErrorKind::Outbox, "read outbox").with("key", &row.key));
        };
        let looked = self.looked.lock().get(&row.key).copied();
        if looked.is_some_and(|epoch| (0..PUSH_AGAIN).contains(&head.epoch.0.saturating_sub(epoch))) {
            return Ok(());
        }
        let searched = match self.node.search(head, signed, cid).await {
            Err(e) if self.landed.lock().contains(&row.key) => return Err(e),
            searched => searched,
        };
        if let Ok(Search::Landed(found)) = &searched {
            if self.landed.lock().insert(row.key.clone()) {
                self.emit(&row.key, MessageEvent::Landed { exit_code: found.exit_code });
            }
            if head.epoch.0.saturating_sub(found.epoch) >= FINALITY {
                let said = self.said(found).await;
                self.store.settle(&row.key, &receipt_of(row.call.kind(), found, said)).await?;
                self.forget(&row.key);
            } else {
                self.looked.lock().insert(row.key.clone(), head.epoch.0);
            }
            return Ok(());
        }
        // A message that is not known to have landed is pushed even if the node cannot look for it: the same bytes
        // twice are one message, and a nonce that is never filled stops all that follow.
        if self.push(head, &row.key, signed).await? == Push::Accepted {
            return Ok(());
        }
        if let Err(e) = searched {
            self.looked.lock().remove(&row.key);
            return Err(e);
        }
        // The nonce is used on chain and the message was not found: another message has it, or its tipset came just
        // now. Only when that is final the call may have another nonce.
        let used = self.node.nonce_before(head, FINALITY, &signed.message.from).await?;
        if used.is_some_and(|nonce| nonce > signed.message.sequence) && self.is_taken(head, signed, cid).await? {
            let reason = format!("nonce {} was used by another message", signed.message.sequence);
            self.store.unsign(&row.key, &reason).await?;
            self.forget(&row.key);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether it was another message that used up a nonce, which is final by now.
    async fn is_taken(&self, head: &TipsetRef, signed: &SignedMessage, cid: &Cid) -> Result<bool, ChainError> {
        match self.node.search(head, signed, cid).await? {
            Search::Landed(_) => return Ok(false),
            Search::Absent | Search::Taken => return Ok(true),
            Search::Unknown => {}
        }
        // A node that was restored from a snapshot has forgotten what landed before that. The message is only known
        // to be another one if the nonce was used in a part of the chain that the node has.
        let sender = &signed.message.from;
        let before = self.node.nonce_before(head, 2 * FINALITY, sender).await?;
        if before.is_some_and(|nonce| nonce > signed.message.sequence) {
            return Err(ChainError::new(ChainErrorKind::NotFound, "look for message")
                .with("message", cid)
                .with("sender", text_of(sender))
                .with("nonce", signed.message.sequence)
                .hint_with("the nonce was used before the node's history begins: use a node with a longer one"));
        }
        Ok(true)
    }

    fn forget(&self, key: &SubmitKey) {
        self.looked.lock().remove(key);
        self.landed.lock().remove(key);
    }

    fn emit(&self, key: &SubmitKey, what: MessageEvent) {
        self.events.emit(Event::Message { key: key.clone(), what });
    }
}

fn note_head(head: &mut Option<TipsetRef>, change: Option<HeadChange>) {
    if let Some(HeadChange::Apply(tipset)) = change {
        *head = Some(tipset);
    }
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
