//! The loop that hands calls to the messager and follows them to the end.

use super::{
    VenusClient,
    messager::{MessagerRecord, MessagerState},
    prepare::closes,
    store::{Row, VenusState},
    view::{FORGOTTEN, Seen, trouble_of},
};
use crate::{
    outbox::{FINALITY, receipt_of},
    rpc::is_timeout,
};
use damocles_core::{
    CancellationToken, MessageEvent, Recovery,
    chain::{CallKind, ChainError, ChainErrorKind, HeadChange, SubmitKey, TipsetRef},
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use tokio::sync::{Notify, watch};
use tracing::warn;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// Epochs for which a messager must have shown that it will not sign a message before that is believed: it may be
/// about to save one that it had selected before.
const GIVEN_UP: i64 = 20;
/// What has landed is looked at again after so many epochs at least.
const LANDED_REST: i64 = 5;
/// Calls for which no answer came in time before a pass ends.
const MOST_LATE: u32 = 2;

/// The calls of one half of all classes. What is slow in one holds up nothing in the other.
#[derive(Debug)]
pub(super) struct Lane {
    posts: bool,
    wake: Notify,
    /// The head from which on a call is looked at again; what is lost with the process is only done again.
    rests: Mutex<HashMap<SubmitKey, i64>>,
    /// The call for which a service did not answer last: the next pass begins behind it.
    failed: Mutex<Option<SubmitKey>>,
}

impl Lane {
    /// Proofs of spacetime, and everything else.
    pub(super) fn both() -> [Self; 2] {
        [true, false].map(|posts| Self {
            posts,
            wake: Notify::new(),
            rests: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    pub(super) fn wake(&self, kind: CallKind) {
        if self.posts == (kind == CallKind::PoSt) {
            self.wake.notify_one();
        }
    }

    /// The rows of this lane, each after what failed last and that itself at the end: a call that no service can
    /// answer for holds up no other.
    fn turn(&self, rows: Vec<Row>) -> Vec<Row> {
        let mut rows: Vec<Row> =
            rows.into_iter().filter(|row| (row.call.kind() == CallKind::PoSt) == self.posts).collect();
        let failed = self.failed.lock().take();
        if let Some(place) = rows.iter().position(|row| failed.as_ref() == Some(&row.key)) {
            rows.rotate_left(place.saturating_add(1));
        }
        rows
    }

    fn rest(&self, key: &SubmitKey, until: i64) {
        self.rests.lock().insert(key.clone(), until);
    }
}

impl VenusClient {
    /// Hands calls to the messager until cancelled, beginning with what an earlier process left, and follows them until
    /// they are final. Works at every head and every submission.
    pub async fn run(&self, cancel: CancellationToken) {
        let newest = watch::Sender::new(None);
        let mut heads = self.reads.head_changes();
        let follow = async {
            while let Some(change) = heads.next().await {
                match change {
                    HeadChange::Apply(tipset) => drop(newest.send_replace(Some(tipset))),
                    HeadChange::Revert(_) => self.lanes.iter().for_each(|lane| lane.rests.lock().clear()),
                }
            }
        };
        let [posts, others] = &self.lanes;
        let work = async {
            tokio::join!(
                self.warn_of_senders(),
                follow,
                self.work(posts, newest.subscribe()),
                self.work(others, newest.subscribe())
            )
        };
        cancel.run_until_cancelled(work).await;
    }

    /// A sender whose key no wallet has is better known before its messages are due.
    async fn warn_of_senders(&self) {
        for sender in self.writer.senders() {
            match self.messager.wallet_has(&sender).await {
                Ok(true) => {}
                Ok(false) => warn!(%sender, "no wallet behind the messager has the key of this sender"),
                Err(e) => warn!(%sender, error = e.chain(), "the messager cannot be asked for a sender"),
            }
        }
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
            let clean = self.pass(lane, &head).await;
            delay = if clean { None } else { Some(delay.map_or(FIRST_DELAY, |d: Duration| LAST_DELAY.min(d * 2))) };
        }
    }

    /// Moves every unfinished call of a lane as far as it goes. Whether all went well.
    async fn pass(&self, lane: &Lane, head: &TipsetRef) -> bool {
        let rows = match self.store.unfinished().await {
            Ok(rows) => rows,
            Err(e) => {
                warn!(error = e.chain(), "the messages cannot be read");
                return false;
            }
        };
        let (mut clean, mut late) = (true, 0);
        for mut row in lane.turn(rows) {
            if lane.rests.lock().get(&row.key).is_some_and(|until| head.epoch.0 < *until) {
                continue;
            }
            match self.advance(lane, head, &mut row).await {
                Ok(trouble) => self.note(&row, trouble).await,
                Err(e) => {
                    clean = false;
                    self.note(&row, Some(e.chain())).await;
                    if e.kind() != ChainErrorKind::Unavailable {
                        continue;
                    }
                    *lane.failed.lock() = Some(row.key.clone());
                    late += 1;
                    // A question can be too much for a service that answers others. One that takes two and does not
                    // answer would cost minutes with each row.
                    if !is_timeout(&e) || late >= MOST_LATE {
                        return false;
                    }
                }
            }
        }
        clean
    }

    async fn note(&self, row: &Row, trouble: Option<String>) {
        if trouble == row.error {
            return;
        }
        if let Some(text) = &trouble {
            warn!(key = %row.key, error = text, "a message does not move");
        }
        if let Err(e) = self.store.note(&row.key, trouble.as_deref()).await {
            warn!(key = %row.key, error = e.chain(), "the messages cannot be written");
        }
    }

    /// Moves one call as far as it goes. What keeps it there, if something does.
    async fn advance(&self, lane: &Lane, head: &TipsetRef, row: &mut Row) -> Result<Option<String>, ChainError> {
        let closed = closes(&row.call).is_some_and(|epoch| head.epoch.0 >= epoch);
        if row.state == VenusState::Recorded {
            if closed {
                self.store.drop_call(&row.key, VenusState::Recorded, CLOSED).await?;
                return Ok(None);
            }
            return self.hand_in(head, row).await;
        }
        match self.refresh(row).await? {
            Some(record) => self.follow(lane, head, row, &record, closed).await,
            None if row.state == VenusState::Taken => self.follow_forgotten(lane, head, row).await,
            None if row.cancelled || closed => self.give_up(head, row, closed).await,
            None => self.hand_in(head, row).await,
        }
    }

    /// Hands a call to the messager. What it is handed lies in our table first.
    async fn hand_in(&self, head: &TipsetRef, row: &Row) -> Result<Option<String>, ChainError> {
        let sender = row.sender.map_or_else(|| self.writer.sender_of(&row.key, &row.call), Ok)?;
        let message = self.writer.write(head, sender, &row.call).await?;
        if !self.store.sent(&row.key, &message).await? {
            return Ok(None);
        }
        let spec = self.writer.spec(&row.call);
        let Err(e) = self.messager.push(&row.uid, &message, &spec).await else {
            self.store.taken(&row.key).await?;
            return Ok(None);
        };
        // A messager that has the name already says so in the words of its database, and an answer can be lost.
        if self.messager.has(&row.uid).await.unwrap_or(false) {
            return Ok(None);
        }
        // Wallets are unlocked and funds come: what is recorded is never given up for a refusal.
        Err(e.recover_by(Recovery::RETRY))
    }

    async fn follow(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        row: &Row,
        record: &MessagerRecord,
        closed: bool,
    ) -> Result<Option<String>, ChainError> {
        let seen = self.search(head, row).await?;
        if let Seen::Landed(found) = &seen {
            self.note_landed(lane, head, row, found).await?;
            return Ok(None);
        }
        lane.rest(&row.key, head.epoch.0.saturating_add(1));
        let state = record.status.state;
        let stopped = matches!(state, MessagerState::NonceConflict | MessagerState::Failed);
        if stopped && seen == Seen::Taken && self.is_overtaken(head, row).await? {
            let reason = "its nonce was used by another message";
            self.store.drop_call(&row.key, VenusState::Taken, reason).await?;
            return Ok(None);
        }
        if state == MessagerState::Failed && row.signed.is_empty() && (row.cancelled || closed) {
            return self.give_up(head, row, closed).await;
        }
        if row.gone.is_some() {
            self.store.gone(&row.key, None).await?;
        }
        // It may have been told before it had the message.
        if row.cancelled && state == MessagerState::UnFill {
            self.messager.mark_bad(&row.uid).await?;
        }
        Ok(trouble_of(record))
    }

    /// Follows what the messager has lost: what it signed before may still land.
    async fn follow_forgotten(&self, lane: &Lane, head: &TipsetRef, row: &Row) -> Result<Option<String>, ChainError> {
        if let Seen::Landed(found) = &self.search(head, row).await? {
            self.note_landed(lane, head, row, found).await?;
            return Ok(None);
        }
        lane.rest(&row.key, head.epoch.0.saturating_add(1));
        Ok(Some(FORGOTTEN.to_owned()))
    }

    /// Drops a call that is not wanted any more once the messager has long enough shown that it will not sign it.
    async fn give_up(&self, head: &TipsetRef, row: &Row, closed: bool) -> Result<Option<String>, ChainError> {
        let reason = if closed { CLOSED } else { CANCELLED };
        match row.gone {
            Some(since) if head.epoch.0.saturating_sub(since) >= GIVEN_UP => {
                self.store.drop_call(&row.key, row.state, reason).await?;
                Ok(None)
            }
            // A chain that went back begins anew.
            Some(since) if since <= head.epoch.0 => Ok(Some(reason.to_owned())),
            _ => {
                self.store.gone(&row.key, Some(head.epoch.0)).await?;
                Ok(Some(reason.to_owned()))
            }
        }
    }

    async fn note_landed(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        row: &Row,
        found: &crate::outbox::Found,
    ) -> Result<(), ChainError> {
        if row.landed != Some(found.epoch) {
            self.store.landed(&row.key, found.epoch).await?;
        }
        if row.landed.is_none() {
            self.emit(&row.key, MessageEvent::Landed { exit_code: found.exit_code });
        }
        let depth = head.epoch.0.saturating_sub(found.epoch);
        if depth >= FINALITY {
            let said = self.said(found).await;
            self.store.settle(&row.key, &receipt_of(Some(row.call.kind()), found, said)).await?;
            lane.rests.lock().remove(&row.key);
        } else {
            // The deeper a message lies, the less often it is looked at, and once more when it is final.
            let next = head.epoch.0.saturating_add(depth.max(LANDED_REST));
            lane.rest(&row.key, next.min(found.epoch.saturating_add(FINALITY)));
        }
        Ok(())
    }
}

const CLOSED: &str = "its window had closed before it was sent";
/// Why a call is dropped that an operator gave up.
pub(super) const CANCELLED: &str = "it was cancelled before it was signed";
