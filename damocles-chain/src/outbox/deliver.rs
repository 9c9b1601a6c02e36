//! From a signed message to one that is on chain.

use super::{
    Account, FINALITY, Found, InFlight, Located, Outbox, OutboxState, Push, Search,
    lane::Lane,
    lookup::same_call,
    node::OnChain,
    receipt_of,
    run::{Notes, Went},
    sign::closes,
    store::{Landing, Purpose, Version},
};
use crate::{lotus_json::text_of, rpc::RpcError};
use damocles_core::{
    MessageEvent,
    chain::{CallKind, ChainError, ChainErrorKind, SubmitKey, TipsetRef},
};
use fvm_shared::address::Address;
use std::collections::BTreeSet;
use tracing::warn;

/// From so many messages on they are looked for tipset by tipset, and not one by one.
const BULK: usize = 4;
/// Messages that were found are written down so many at a time.
const FOUND_TOGETHER: usize = 16;

impl Outbox {
    /// Pushes the signed messages of a sender until they are on chain.
    pub(super) async fn deliver(&self, lane: &Lane, head: &TipsetRef, sender: &Address) -> Went {
        let mut rows = match self.store.in_flight(sender).await {
            Ok(rows) if rows.is_empty() && !lane.may_have_jumped() => return Went::Well,
            Ok(rows) => rows,
            Err(e) => {
                warn!(error = e.chain(), "the outbox cannot be read");
                return Went::Badly;
            }
        };
        let mut notes = Notes::default();
        let account = match self.node.account(head, sender).await {
            Ok(account) => account,
            Err(e) => {
                if let Some(row) = rows.first() {
                    notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), Some(&e));
                }
                self.note(notes).await;
                return Went::of(&e);
            }
        };
        match self.look_at_lost(lane, head, sender, &account).await {
            Ok(false) => {}
            Ok(true) => match self.store.in_flight(sender).await {
                Ok(more) => rows = more,
                Err(e) => {
                    warn!(error = e.chain(), "the outbox cannot be read");
                    return Went::Badly;
                }
            },
            Err(went) => return went,
        }
        lane.waits_for_proofs(rows.iter().any(|row| row.kind() == Some(CallKind::PoSt)));
        let (ran, waiting): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.nonce() < account.nonce);
        let may_send = self.may_send(head, &waiting, &mut notes).await;
        let mut went = may_send;
        // A pool answers faster than a search, and a nonce that is never filled stops all that follow.
        if may_send == Went::Well {
            went = went.max(self.keep_in_pool(lane, head, &account, &waiting, &mut notes).await);
        }
        if went != Went::Away {
            went = went.max(self.find(lane, head, sender, ran, &mut notes).await);
        }
        if went != Went::Away && may_send == Went::Well {
            went = went.max(self.reprice(lane, head, &account, &waiting, &mut notes).await);
        }
        self.note(notes).await;
        went
    }

    /// Looks again at the tipsets with messages whose nonces are not used on chain: a way of many tipsets may be lost of
    /// which only the highest is known. Whether there were some.
    async fn look_at_lost(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        sender: &Address,
        account: &Account,
    ) -> Result<bool, Went> {
        let lost = self.store.landed_from(sender, account.nonce).await.map_err(|e| {
            warn!(error = e.chain(), "the outbox cannot be read");
            Went::Badly
        })?;
        lane.compared();
        if lost.is_empty() {
            return Ok(false);
        }
        for tipset in lost {
            lane.forget_tipset(&tipset);
        }
        match self.look_at_landed(lane, head, sender).await {
            Went::Well => Ok(true),
            went => Err(went),
        }
    }

    /// Whether messages may leave at all.
    async fn may_send(&self, head: &TipsetRef, rows: &[InFlight], notes: &mut Notes) -> Went {
        if rows.is_empty() {
            return Went::Well;
        }
        let Err(e) = self.check_network(head).await else { return Went::Well };
        for row in rows.iter().take(how_many(&e)) {
            notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), Some(&e));
        }
        Went::of(&e)
    }

    /// Pushes messages, each with what was said of it last.
    pub(super) async fn push(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        rows: &[(&SubmitKey, &Version, Option<&str>)],
        notes: &mut Notes,
    ) -> Went {
        if rows.is_empty() {
            return Went::Well;
        }
        let mut went = Went::Well;
        let messages: Vec<_> = rows.iter().map(|(_, version, _)| &version.signed).collect();
        let pushed = self.node.push(&messages).await;
        for ((key, version, now), pushed) in rows.iter().zip(pushed) {
            match pushed {
                Ok(how) => {
                    if how == Push::Accepted {
                        self.emit(key, MessageEvent::Pushed { cid: version.cid.to_string() });
                    }
                    lane.pooled(key, head.epoch.0);
                    if now.is_some() {
                        notes.take(key, OutboxState::Signed, *now, None);
                    }
                }
                // That the node is away is said once.
                Err(e) if went == Went::Away && Went::of(&e) == Went::Away => {}
                Err(e) => {
                    notes.take(key, OutboxState::Signed, *now, Some(&e));
                    went = went.max(Went::of(&e));
                }
            }
        }
        went
    }

    /// Looks for messages whose nonces are used on chain.
    async fn find(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        sender: &Address,
        mut rows: Vec<InFlight>,
        notes: &mut Notes,
    ) -> Went {
        rows.retain(|row| !lane.rests(&row.key, head.epoch.0));
        lane.late_last(&mut rows, |row| &row.key);
        let Located { found: located, broken_off } = self.in_bulk(head, sender, &rows).await;
        let mut went = Went::Well;
        if let Some(e) = broken_off {
            warn!(error = e.chain(), "the last tipsets cannot be read");
            went = Went::of(&e);
            if went == Went::Away {
                rows.retain(|row| located.contains_key(&row.nonce()));
            }
        }
        // What was found is written down before much else is asked: a process that lives shortly gets on all the same.
        for part in rows.chunks(FOUND_TOGETHER) {
            let (mut landings, mut away) = (Vec::new(), false);
            for row in part {
                let seen = located.get(&row.nonce());
                let seen = seen.and_then(|on| identify(row, on).map(|purpose| (on.found.clone(), purpose)));
                let looked = match seen {
                    Some(seen) => Ok(Some(seen)),
                    None => self.look_for(lane, head, row).await,
                };
                match looked {
                    Ok(Some((found, purpose))) => landings.push(self.landing(row, &found, purpose).await),
                    Ok(None) => notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), None),
                    Err(e) => {
                        notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), Some(&e));
                        away = Went::of(&e) == Went::Away;
                        went = went.max(Went::of(&e));
                        if away {
                            lane.was_late(&row.key);
                            break;
                        }
                    }
                }
            }
            if !self.write_landings(lane, &landings).await {
                return Went::Badly;
            }
            if away {
                break;
            }
        }
        went
    }

    /// Writes down where messages are. Whether that was possible.
    async fn write_landings(&self, lane: &Lane, landings: &[Landing]) -> bool {
        if landings.is_empty() {
            return true;
        }
        if let Err(e) = self.store.landed(landings).await {
            warn!(error = e.chain(), "the outbox cannot be written");
            return false;
        }
        for landing in landings {
            lane.forget(&landing.key);
            lane.in_time(&landing.key);
        }
        true
    }

    /// Where messages are, as far as the last tipsets tell.
    async fn in_bulk(&self, head: &TipsetRef, sender: &Address, rows: &[InFlight]) -> Located {
        if rows.len() < BULK {
            return Located::default();
        }
        let first_signed = |row: &InFlight| row.older.first().unwrap_or(&row.version).signed_at.unwrap_or_default();
        let since = rows.iter().map(first_signed).min().unwrap_or_default();
        let nonces: BTreeSet<u64> = rows.iter().map(InFlight::nonce).collect();
        self.node.locate(head, since, sender, &nonces).await
    }

    async fn landing(&self, row: &InFlight, found: &Found, purpose: Purpose) -> Landing {
        if row.landed.is_none() && purpose == Purpose::Call {
            self.emit(&row.key, MessageEvent::Landed { exit_code: found.exit_code });
        }
        let said = self.said(found).await;
        Landing {
            key: row.key.clone(),
            epoch: found.epoch,
            tipset: found.tipset.to_string(),
            landed_as: purpose,
            receipt: receipt_of(row.kind(), found, said),
        }
    }

    /// Searches for a message whose nonce is used on chain.
    async fn look_for(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        row: &InFlight,
    ) -> Result<Option<(Found, Purpose)>, ChainError> {
        let versions: Vec<_> = row.versions().collect();
        let searched = self.search_all(head, &versions).await?;
        if let (Search::Landed(found), purpose) = searched {
            return Ok(Some((found, purpose)));
        }
        lane.searched(&row.key, head.epoch.0);
        // The nonce is used on chain and no message of ours was found: another message has it, or its tipset came just
        // now. Only when that is final the call may have another nonce.
        let message = &row.version.signed.message;
        let used = self.node.nonce_before(head, FINALITY, &message.from).await?;
        if used.is_some_and(|nonce| nonce > message.sequence) {
            self.overtaken(lane, head, row).await?;
        }
        Ok(None)
    }

    /// What a node says of the messages of one call, the newest first: of one that it does not know the older ones are
    /// asked for, and of those that do something else one each. That something else than the filler of a cancelled call
    /// has its nonce says nothing of the call: it may be the call itself.
    pub(super) async fn search_all(
        &self,
        head: &TipsetRef,
        versions: &[&Version],
    ) -> Result<(Search, Purpose), ChainError> {
        let mut of_call = None;
        let mut of_filler = None;
        for (purpose, said) in [(Purpose::Call, &mut of_call), (Purpose::Cancel, &mut of_filler)] {
            for version in versions.iter().filter(|v| v.purpose == purpose) {
                let told = self.node.search(head, &version.signed, &version.cid).await?;
                if let Search::Landed(found) = told {
                    return Ok((Search::Landed(found), purpose));
                }
                let is_known = told != Search::Unknown;
                *said = Some(told);
                if is_known {
                    break;
                }
            }
        }
        Ok(match (of_call, of_filler) {
            (Some(Search::Unknown), Some(Search::Absent)) => (Search::Absent, Purpose::Cancel),
            (Some(told), _) => (told, Purpose::Call),
            (None, told) => (told.unwrap_or(Search::Unknown), Purpose::Cancel),
        })
    }

    /// Takes back a nonce that another message has used for good.
    async fn overtaken(&self, lane: &Lane, head: &TipsetRef, row: &InFlight) -> Result<(), ChainError> {
        self.stands(head).await?;
        let message = &row.version.signed.message;
        // The search may have met another node, or a tipset that came meanwhile.
        let versions: Vec<_> = row.versions().collect();
        let (searched, _) = self.search_all(head, &versions).await?;
        let lost = |hint: &'static str| {
            ChainError::new(ChainErrorKind::NotFound, "look for message")
                .with("message", row.version.cid)
                .with("sender", text_of(&message.from))
                .with("nonce", message.sequence)
                .hint_with(hint)
        };
        if let Search::Landed(_) = searched {
            lane.forget(&row.key);
            return Ok(());
        }
        // A node that knows the message and says that it is nowhere contradicts the nonce: somebody used that, and a search
        // that finds nobody is no reason to send twice.
        if searched == Search::Absent {
            return Err(lost(
                "the nonce is used and the node does not find by whom: it is asked again, or use another node",
            ));
        }
        // What was on chain once and was reverted may be what the node has forgotten, unless it names another message.
        if let Some(epoch) = row.landed.filter(|_| searched != Search::Taken) {
            return Err(lost("it was on chain once and is not sent again: use a node with a longer history")
                .with("landed", epoch));
        }
        // A node that was restored from a snapshot has forgotten what landed before that. The message is only known
        // to be another one if the nonce was used in a part of the chain that the node has.
        if searched == Search::Unknown {
            let before = self.node.nonce_before(head, 2 * FINALITY, &message.from).await?;
            if before.is_some_and(|nonce| nonce > message.sequence) {
                return Err(lost("the nonce was used before the node's history begins: use a node with a longer one"));
            }
        }
        let reason = if row.cancel {
            "cancelled; its nonce was used by another message".to_owned()
        } else {
            format!("nonce {} was used by another message", message.sequence)
        };
        // It keeps its sender, unless that one's key is gone.
        let sender = row.call.as_ref().and_then(|call| self.choose(&row.key, call, Some(message.from)).ok());
        self.store.unsign(&row.key, sender.as_ref(), &reason).await?;
        lane.forget(&row.key);
        self.wake(&sender.unwrap_or(message.from));
        Ok(())
    }
}

/// On how many calls an error is noted that stops all of them: on one where it passes, for there may be hundreds.
pub(super) fn how_many(error: &ChainError) -> usize {
    let stays = matches!(error.kind(), ChainErrorKind::Rejected | ChainErrorKind::NoSender);
    if stays && RpcError::of(error).is_none() { usize::MAX } else { 1 }
}

/// Which of a call's messages is the one on chain; none if it is somebody else's.
fn identify(row: &InFlight, on_chain: &OnChain) -> Option<Purpose> {
    let same = |version: &&Version| {
        version.cid == on_chain.found.message || same_call(&version.signed.message, &on_chain.message)
    };
    row.versions().find(same).map(|version| version.purpose)
}

/// The epochs that are left to each message until the first proof that waits for it is worth nothing.
pub(super) fn time_left(rows: &[InFlight], head: i64) -> Vec<Option<i64>> {
    let mut least = None;
    let mut left: Vec<Option<i64>> = rows
        .iter()
        .rev()
        .map(|row| {
            let proof = row.call.as_ref().filter(|_| !row.cancel);
            let own = proof.and_then(closes).map(|close| close - head).filter(|left| *left > 0);
            least = [least, own].into_iter().flatten().min();
            least
        })
        .collect();
    left.reverse();
    left
}
