//! The outbox: who submits, and the lanes that turn recorded calls into messages on chain.

use super::{
    CheckedSenders, Node, OutboxEntry, OutboxState, Row, Search, Store, Unfinished, deliver::Looks, receipt_of,
};
use crate::{actor::encode, lotus_json::text_of, signer::Signer};
use damocles_core::{
    CancellationToken, Event, EventSink, MessageEvent,
    chain::{
        BoxStream, Call, CallKind, ChainError, ChainErrorKind, HeadChange, MessageId, MessageState, SubmitKey,
        TipsetRef,
    },
};
use futures::{StreamExt as _, future::join_all};
use fvm_shared::{address::Address, econ::TokenAmount};
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tracing::warn;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LAST_DELAY: Duration = Duration::from_secs(30);

/// The outbox. `run` must be running for anything to be sent.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(super) store: Store,
    pub(super) node: Arc<dyn Node>,
    pub(super) signer: Arc<dyn Signer>,
    pub(super) senders: CheckedSenders,
    /// What no other message may leave less of to the sender of proofs of spacetime.
    pub(super) reserve: TokenAmount,
    events: Arc<dyn EventSink>,
    pub(super) suits: AtomicBool,
    pub(super) looks: Looks,
    lanes: Vec<Lane>,
}

/// The messages of one sender, whose nonces come one after another. What a node does with the messages of one lane
/// holds up no other.
#[derive(Debug)]
struct Lane {
    /// None: the lane of what has no sender here, or no longer.
    sender: Option<Address>,
    wake: Notify,
    /// A proof of spacetime came.
    urgent: Notify,
    /// The call at which the last pass ended because the node was away: others come first in the next.
    late: Mutex<Option<SubmitKey>>,
}

impl Lane {
    fn of(sender: Option<Address>) -> Self {
        Self { sender, wake: Notify::new(), urgent: Notify::new(), late: Mutex::default() }
    }
}

/// What came of the work on one call.
pub(super) enum Step {
    /// It went as far as it goes.
    Moved,
    /// It was not looked at: what was said of it last still holds.
    Rests,
}

impl Outbox {
    pub(crate) fn new(
        store: Store,
        node: Arc<dyn Node>,
        signer: Arc<dyn Signer>,
        senders: CheckedSenders,
        reserve: TokenAmount,
        events: Arc<dyn EventSink>,
    ) -> Self {
        let lanes = senders.keys().map(Some).chain([None]).map(Lane::of).collect();
        let (suits, looks) = (AtomicBool::new(false), Looks::default());
        Self { store, node, signer, senders, reserve, events, suits, looks, lanes }
    }

    /// Records a call.
    pub(crate) async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        let id = MessageId::new(&key.0);
        if self.store.get(&key.0).await?.is_some() {
            return Ok(id);
        }
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "submit").with("key", key).because(e);
        encode(call).map_err(rejected)?;
        let sender = self.senders.of(call)?;
        if self.store.record(key, call).await? {
            self.emit(key, MessageEvent::Recorded);
            for lane in self.lanes.iter().filter(|lane| lane.sender == Some(sender)) {
                if call.kind() == CallKind::PoSt {
                    lane.urgent.notify_one();
                }
                lane.wake.notify_one();
            }
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
                    Ok(MessageState::Landed(receipt_of(Some(row.call.kind()), &found, said)))
                }
                _ => Ok(MessageState::Pending { trouble: row.error }),
            },
            _ => Ok(MessageState::Pending { trouble: row.error }),
        }
    }

    pub(super) async fn said(&self, found: &super::Found) -> Option<String> {
        if found.exit_code == 0 { None } else { self.node.said(&found.message).await }
    }

    /// Works on every head and every submission until cancelled.
    pub(crate) async fn run(&self, mut heads: BoxStream<HeadChange>, cancel: CancellationToken) {
        let newest = watch::Sender::new(None);
        let lanes = join_all(self.lanes.iter().map(|lane| self.work(lane, newest.subscribe())));
        let follow = async {
            while let Some(change) = heads.next().await {
                match change {
                    HeadChange::Apply(tipset) => drop(newest.send_replace(Some(tipset))),
                    HeadChange::Revert(tipset) => self.looks.reverted(tipset.epoch.0),
                }
            }
        };
        cancel.run_until_cancelled(async { tokio::join!(follow, lanes) }).await;
    }

    async fn work(&self, lane: &Lane, mut newest: watch::Receiver<Option<TipsetRef>>) {
        let mut delay = None;
        loop {
            let retry = async {
                match delay {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The other end lives as long as the lanes.
                _ = newest.changed() => {}
                () = lane.wake.notified() => {}
                () = retry => {}
            }
            let head = newest.borrow_and_update().clone();
            let Some(head) = head else { continue };
            let clean = self.pass_of(lane, &head).await;
            delay = if clean { None } else { Some(delay.map_or(FIRST_DELAY, |d: Duration| LAST_DELAY.min(d * 2))) };
        }
    }

    /// Moves every unfinished call of every lane as far as it goes. Whether all went well.
    #[cfg(test)]
    pub(crate) async fn pass(&self, head: &TipsetRef) -> bool {
        let mut clean = true;
        for lane in &self.lanes {
            clean &= self.pass_of(lane, head).await;
        }
        clean
    }

    async fn pass_of(&self, lane: &Lane, head: &TipsetRef) -> bool {
        loop {
            let rows = match self.rows_of(lane).await {
                Ok(rows) => rows,
                Err(e) => {
                    warn!(error = e.chain(), "the outbox cannot be read");
                    return false;
                }
            };
            // None: a proof came, so that the rows are read again.
            if let Some(clean) = self.advance(lane, head, &rows).await {
                return clean;
            }
        }
    }

    /// The calls of a lane in the order in which they are worked on. Proofs of spacetime have a deadline: no other
    /// message, nor a slow search for one, may stand before a new one.
    async fn rows_of(&self, lane: &Lane) -> Result<Vec<Unfinished>, ChainError> {
        let name = lane.sender.as_ref().map(text_of);
        let ours = |sender: Option<&str>| match sender {
            None => true,
            Some(sender) if name.is_some() => name.as_deref() == Some(sender),
            Some(sender) => self.senders.keys().all(|key| text_of(&key) != sender),
        };
        let mut rows = self.store.unfinished(ours).await?;
        rows.retain(|row| match row.recorded() {
            Some(call) => self.senders.of(call).ok() == lane.sender,
            None => true,
        });
        let late = lane.late.lock().clone();
        rows.sort_by_key(|row| {
            let proves = row.kind() == Some(CallKind::PoSt);
            (late.as_ref() == Some(&row.key), !proves, row.recorded().is_some() != proves)
        });
        Ok(rows)
    }

    /// Moves calls as far as they go. Whether all went well; none if that was broken off because a proof of
    /// spacetime came.
    async fn advance(&self, lane: &Lane, head: &TipsetRef, rows: &[Unfinished]) -> Option<bool> {
        let mut clean = true;
        for row in rows {
            let moving = async {
                match row.recorded() {
                    Some(call) => self.sign(head, &row.key, call).await,
                    None => self.deliver(head, row).await,
                }
            };
            // Work can be dropped at any point, as at the end of the process.
            let moved = if row.recorded().is_some() && row.kind() == Some(CallKind::PoSt) {
                moving.await
            } else {
                tokio::select! {
                    biased;
                    () = lane.urgent.notified() => return None,
                    moved = moving => moved,
                }
            };
            let error = match moved {
                Ok(Step::Rests) => continue,
                Ok(Step::Moved) => None,
                Err(e) => Some(e),
            };
            clean &= error.is_none();
            self.note(row, error.as_ref()).await;
            // A node that takes calls and does not answer would cost minutes with each row.
            let away = error.is_some_and(|e| e.kind() == ChainErrorKind::Unavailable);
            *lane.late.lock() = away.then(|| row.key.clone());
            if away {
                return Some(false);
            }
        }
        Some(clean)
    }

    async fn note(&self, row: &Unfinished, error: Option<&ChainError>) {
        let text = error.map(ChainError::chain);
        if text == row.error {
            return;
        }
        if let Some(text) = &text {
            warn!(key = %row.key, error = text, "a message does not move");
        }
        if let Err(e) = self.store.note(&row.key, row.state(), text).await {
            warn!(key = %row.key, error = e.chain(), "the outbox cannot be written");
        }
    }

    pub(super) fn wake(&self, sender: &Address) {
        for lane in self.lanes.iter().filter(|lane| lane.sender.as_ref() == Some(sender)) {
            lane.wake.notify_one();
        }
    }

    pub(super) fn emit(&self, key: &SubmitKey, what: MessageEvent) {
        self.events.emit(Event::Message { key: key.clone(), what });
    }
}
