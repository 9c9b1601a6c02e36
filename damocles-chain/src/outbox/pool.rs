//! What is in the node's pool, as far as it is shown.

use super::{
    Account, InFlight, Outbox, OutboxState,
    lane::Lane,
    run::{Notes, Went},
};
use damocles_core::chain::{CallKind, ChainError, TipsetRef};
use std::collections::BTreeSet;

/// So many messages are pushed without a look into the pool first.
const FEW: usize = 8;
/// How the trouble begins that is noted where the pool is not shown.
const NOT_SHOWN: &str = "look into the node's pool";

/// The nonces of a sender that are in the pool.
pub(super) enum Pool {
    Shown(BTreeSet<u64>),
    /// It is not shown; the node says only which nonce it expects next.
    Hidden {
        next: u64,
    },
}

impl Pool {
    /// Whether a nonce is somebody's, as far as is known.
    pub(super) fn has(&self, nonce: u64) -> bool {
        match self {
            Self::Shown(nonces) => nonces.contains(&nonce),
            Self::Hidden { next } => nonce < *next,
        }
    }

    /// How many missing nonces can be told apart from those of messages that are not seen.
    pub(super) const fn surely_missing(&self, most: usize) -> usize {
        match self {
            Self::Shown(_) => most,
            Self::Hidden { .. } => 1,
        }
    }
}

/// What a look into the pool said of a sender's messages.
struct Look<'r> {
    missing: Vec<&'r InFlight>,
    went: Went,
    /// Why the pool is not shown.
    hidden: Option<ChainError>,
}

fn is_of_pool(row: &InFlight) -> bool {
    row.error.as_ref().is_some_and(|text| text.starts_with(NOT_SHOWN))
}

impl Outbox {
    /// Sees to it that messages are in the node's pool.
    pub(super) async fn keep_in_pool(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        account: &Account,
        rows: &[InFlight],
        notes: &mut Notes,
    ) -> Went {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Went::Well };
        let new: Vec<&InFlight> = rows.iter().filter(|row| !lane.knows(&row.key)).collect();
        let look =
            new.len() > FEW || rows.iter().any(|row| lane.pooled_long_ago(&row.key, head.epoch.0)) || lane.was_shaken();
        let mut look = if look {
            match self.not_in_pool(lane, head, account, rows, notes).await {
                Ok(look) => look,
                Err(e) => {
                    notes.take(&first.key, OutboxState::Signed, first.error.as_deref(), Some(&e));
                    return Went::Away;
                }
            }
        } else {
            Look { missing: new, went: Went::Well, hidden: None }
        };
        look.missing.sort_by_key(|row| row.kind() != Some(CallKind::PoSt));
        // That the pool is not shown stays said though a message is taken.
        let said = |row: &&'_ InFlight| look.hidden.is_none() || !is_of_pool(row);
        let missing: Vec<_> = look
            .missing
            .iter()
            .map(|row| (&row.key, &row.version, row.error.as_deref().filter(|_| said(row))))
            .collect();
        let went = look.went.max(self.push(lane, head, &missing, notes).await);
        // Once for all of the lane, with the one that lands last.
        if let Some(e) = look.hidden.filter(|_| went == Went::Well && !rows.iter().any(is_of_pool)) {
            notes.take(&last.key, OutboxState::Signed, last.error.as_deref(), Some(&e));
        }
        went
    }

    /// The messages that are not in the node's pool.
    async fn not_in_pool<'r>(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        account: &Account,
        rows: &'r [InFlight],
        notes: &mut Notes,
    ) -> Result<Look<'r>, ChainError> {
        let Some(last) = rows.last() else { return Ok(Look { missing: Vec::new(), went: Went::Well, hidden: None }) };
        let sender = &last.version.signed.message.from;
        let told = match self.node.next_nonce(sender).await {
            Ok(told) => Some(told),
            Err(e) if Went::of(&e) == Went::Away => return Err(e),
            // It says nothing of the pool, and all of it is asked for.
            Err(_) => None,
        };
        let next = told.unwrap_or(account.nonce);
        // The nonce after those that wait without a gap says in a word what the whole pool says in megabytes. Which of
        // several messages of a call is there it does not say.
        let is_doubtful = |row: &InFlight| !row.older.is_empty() && !lane.knows(&row.key);
        let split = |is_there: &dyn Fn(&InFlight) -> bool| {
            let (there, missing): (Vec<_>, Vec<_>) = rows.iter().partition(|row| is_there(row));
            for row in there {
                lane.pooled(&row.key, head.epoch.0);
            }
            missing
        };
        let pooled = if next > last.nonce() { None } else { Some(self.node.pooled(sender).await) };
        if !matches!(pooled, Some(Err(_))) {
            for row in rows.iter().filter(|row| is_of_pool(row)) {
                notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), None);
            }
        }
        let (missing, pool, hidden) = match pooled {
            None => {
                lane.no_gap();
                return Ok(Look { missing: split(&|row| !is_doubtful(row)), went: Went::Well, hidden: None });
            }
            Some(Ok(pooled)) => {
                let is_there = |row: &InFlight| {
                    pooled.get(&row.nonce()).is_some_and(|cid| cid.is_none_or(|cid| cid == row.version.cid))
                };
                (split(&is_there), Some(Pool::Shown(pooled.into_keys().collect())), None)
            }
            // A node that does not show its pool, or one too large, is handed all that may have been lost.
            Some(Err(e)) => {
                let missing = split(&|row| row.nonce() < next && !is_doubtful(row));
                let hidden = ChainError::new(e.kind(), NOT_SHOWN).because(e).hint_with(
                    "what may have been lost is handed in again; of nonces that nobody fills only the first is seen: use a \
                     node that answers `MpoolPending`",
                );
                (missing, told.map(|next| Pool::Hidden { next }), Some(hidden))
            }
        };
        let went = match pool {
            Some(pool) => self.check_gap(lane, head, account, rows, &pool, notes).await,
            None => Went::Well,
        };
        Ok(Look { missing, went, hidden })
    }
}
