//! The outbox: who submits, and what runs the lanes.

use super::{
    CheckedSenders, Fees, Limits, Node, OutboxEntry, OutboxState, Row, Search, Store,
    chain_view::BaseFees,
    funds::Purses,
    in_chain,
    lane::{Lane, parse},
    receipt_of,
    store::Purpose,
};
use crate::{actor::encode, signer::Signer};
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
use tokio::sync::{OnceCell, watch};
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
    pub(super) fees: Fees,
    pub(super) base_fees: BaseFees,
    pub(super) purses: Purses,
    events: Arc<dyn EventSink>,
    pub(super) suits: AtomicBool,
    /// The head whose height its chain bore out last.
    pub(super) stood: Mutex<Option<TipsetRef>>,
    /// Every call without nonce was put into its lane: the senders may be others than those of the last process.
    laned: OnceCell<()>,
    pub(super) lanes: Vec<Lane>,
}

impl Outbox {
    pub(crate) fn new(
        store: Store,
        node: Arc<dyn Node>,
        signer: Arc<dyn Signer>,
        senders: CheckedSenders,
        limits: &Limits,
        events: Arc<dyn EventSink>,
    ) -> Self {
        Self {
            store,
            node,
            signer,
            lanes: senders.keys().map(Some).chain([None]).map(Lane::of).collect(),
            senders,
            reserve: in_chain(limits.post_reserve),
            fees: limits.fees.clone(),
            base_fees: BaseFees::default(),
            purses: Purses::default(),
            events,
            suits: AtomicBool::new(false),
            stood: Mutex::default(),
            laned: OnceCell::new(),
        }
    }

    /// Records a call.
    pub(crate) async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        let id = MessageId::new(&key.0);
        if self.store.knows(&key.0).await? {
            return Ok(id);
        }
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "submit").with("key", key).because(e);
        encode(call).map_err(rejected)?;
        let sender = self.choose(key, call, None)?;
        if self.store.record(key, call, &sender).await? {
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

    /// Who sends the call of a key: `recorded` if it has somebody who can, else one of those who may and are neither short
    /// of money nor stuck as far as is known without asking anybody. What is chosen lasts only once it is recorded with
    /// the key.
    pub(super) fn choose(
        &self,
        key: &SubmitKey,
        call: &Call,
        recorded: Option<Address>,
    ) -> Result<Address, ChainError> {
        let is_stuck =
            |sender: &Address| self.lanes.iter().any(|lane| lane.sender.as_ref() == Some(sender) && lane.is_stuck());
        self.senders.of(key, call, recorded, |sender| !self.purses.is_low(sender) && !is_stuck(sender))
    }

    /// All calls, for operators.
    pub(crate) async fn entries(&self) -> Result<Vec<OutboxEntry>, ChainError> {
        Ok(self.store.all().await?.iter().map(Row::entry).collect())
    }

    /// A call by its name.
    pub(super) async fn row(&self, id: &MessageId) -> Result<Row, ChainError> {
        let row = self.store.get(id.as_str()).await?;
        row.ok_or_else(|| ChainError::new(ChainErrorKind::NotFound, "find message").with("message", id))
    }

    /// Where a message stands on the chain of `head`.
    pub(crate) async fn state(
        &self,
        id: &MessageId,
        confidence: i64,
        head: &TipsetRef,
    ) -> Result<MessageState, ChainError> {
        let row = self.row(id).await?;
        let deep = |epoch: i64| head.epoch.0.saturating_sub(epoch) >= confidence;
        let pending = |trouble: Option<String>| Ok(MessageState::Pending { trouble });
        match (row.state, &row.receipt) {
            (OutboxState::Dropped, _) => return Ok(MessageState::Dropped { reason: row.error.unwrap_or_default() }),
            (OutboxState::Settled, Some(receipt)) if deep(receipt.epoch.0) => {
                return Ok(MessageState::Landed(receipt.clone()));
            }
            (OutboxState::Signed, _) => {}
            _ => return pending(row.error),
        }
        // Where it was seen last, if that is still on the chain: one question, and none to the archives.
        if let (Some(tipset), Some(landed), Some(receipt)) = (&row.tipset, row.landed, &row.receipt) {
            let there = landed < head.epoch.0 && self.node.tipset_at(head, landed).await?.key.to_string() == *tipset;
            if there && row.landed_as == Purpose::Cancel {
                return pending(Some("cancelled on chain, and dropped when that is final".to_owned()));
            }
            if there {
                if deep(landed) {
                    self.stands(head).await?;
                }
                return if deep(landed) { Ok(MessageState::Landed(receipt.clone())) } else { pending(row.error) };
            }
        }
        let versions: Vec<_> = row.version.iter().chain(row.older.iter().rev()).collect();
        match self.search_all(head, &versions).await? {
            (Search::Landed(found), Purpose::Call) if deep(found.epoch) => {
                self.stands(head).await?;
                let said = self.said(&found).await;
                Ok(MessageState::Landed(receipt_of(Some(row.call.kind()), &found, said)))
            }
            _ => pending(row.error),
        }
    }

    pub(super) async fn said(&self, found: &super::Found) -> Option<String> {
        if found.exit_code == 0 { None } else { self.node.said(&found.message).await }
    }

    /// Works on every head and every submission until cancelled.
    pub(crate) async fn run(&self, mut heads: BoxStream<HeadChange>, cancel: CancellationToken) {
        let newest = watch::Sender::new(None);
        let lanes = join_all(self.lanes.iter().map(|lane| self.work(lane, newest.subscribe())));
        let view = self.follow_base_fee(newest.subscribe());
        let follow = async {
            while let Some(change) = heads.next().await {
                match change {
                    HeadChange::Apply(tipset) => {
                        for lane in &self.lanes {
                            lane.head_is(&tipset.key);
                        }
                        newest.send_replace(Some(tipset));
                    }
                    HeadChange::Revert(tipset) => {
                        for lane in &self.lanes {
                            lane.reverted(tipset.epoch.0);
                        }
                    }
                }
            }
        };
        cancel.run_until_cancelled(async { tokio::join!(follow, lanes, view) }).await;
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

    /// Puts what an earlier process recorded without a lane, or for a key that is gone, into the lanes of this one's
    /// senders.
    pub(super) async fn put_in_lanes(&self) -> Result<(), ChainError> {
        let put = async || {
            for (call, lane, has_kind) in self.store.laned().await? {
                let recorded = lane.as_deref().and_then(parse);
                let sender = self.choose(&call.key, &call.call, recorded).ok();
                if !has_kind || lane != sender.as_ref().map(crate::lotus_json::text_of) {
                    self.store.put_in_lane(&call.key, sender.as_ref(), call.call.kind()).await?;
                }
            }
            Ok(())
        };
        self.laned.get_or_try_init(put).await.copied()
    }

    /// Notes what keeps calls from moving, where that is news.
    pub(super) async fn note(&self, notes: Notes) {
        if notes.0.is_empty() {
            return;
        }
        for (key, _, text) in &notes.0 {
            if let Some(text) = text {
                warn!(%key, error = text, "a message does not move");
            }
        }
        if let Err(e) = self.store.note(&notes.0).await {
            warn!(error = e.chain(), "the outbox cannot be written");
        }
    }

    pub(super) fn wake(&self, sender: &Address) {
        for lane in self.lanes.iter().filter(|lane| lane.sender.as_ref() == Some(sender)) {
            lane.wake.notify_one();
        }
    }

    pub(super) fn emit(&self, key: &SubmitKey, what: MessageEvent) {
        self.tell(Event::Message { key: key.clone(), what });
    }

    pub(super) fn tell(&self, event: Event) {
        self.events.emit(event);
    }
}

/// What keeps calls from moving, or does no more.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<(SubmitKey, OutboxState, Option<String>)>);

impl Notes {
    /// Takes a note if it is another than the one that is there.
    pub(super) fn take(&mut self, key: &SubmitKey, state: OutboxState, now: Option<&str>, error: Option<&ChainError>) {
        self.take_text(key, state, now, error.map(ChainError::chain));
    }

    pub(super) fn take_text(&mut self, key: &SubmitKey, state: OutboxState, now: Option<&str>, text: Option<String>) {
        if text.as_deref() != now {
            self.0.push((key.clone(), state, text));
        }
    }
}

/// How a piece of work went. The worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Went {
    /// Everything moved as far as it goes.
    Well,
    /// Something did not move, and is tried again soon.
    Badly,
    /// The node is away: nothing more is asked in this pass.
    Away,
}

impl Went {
    pub(super) fn of(error: &ChainError) -> Self {
        if error.kind() == ChainErrorKind::Unavailable { Self::Away } else { Self::Badly }
    }
}
