//! Nonces that nobody fills: what follows them lands when they are filled with nothing.

use super::{
    Account, InFlight, Outbox, OutboxState,
    deliver::time_left,
    lane::Lane,
    pool::Pool,
    pricing,
    run::{Notes, Went},
    sign::{check_funds, cost, nothing},
    store::{Held, Purpose, Version},
};
use crate::lotus_json::text_of;
use damocles_core::{
    MessageEvent,
    chain::{CallKind, ChainError, ChainErrorKind, TipsetRef},
};
use fvm_shared::{address::Address, econ::TokenAmount};
use std::collections::BTreeSet;
use tracing::{error, warn};

/// A nonce is filled after so many epochs in which nobody did: somebody else with the same key may be about to.
const PATIENCE: i64 = 10;
/// So many are filled together.
const TOGETHER: usize = 20;

impl Outbox {
    /// Sees to it that no message waits in the pool behind nonces that nobody fills: they are named, and filled when
    /// nobody else does that for some time.
    pub(super) async fn check_gap(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        account: &Account,
        rows: &[InFlight],
        pool: &Pool,
        notes: &mut Notes,
    ) -> Went {
        let Some(last) = rows.last() else { return Went::Well };
        let waiting: BTreeSet<u64> = rows.iter().map(InFlight::nonce).collect();
        // The account's nonce is the node's word: the nonces from there on may be too many to be held.
        let open = || (account.nonce..last.nonce()).filter(|n| !waiting.contains(n) && !pool.has(*n));
        if open().next().is_none() {
            lane.no_gap();
            return Went::Well;
        }
        let sender = last.version.signed.message.from;
        let Ok(ours) = self.store.held_from(&sender, account.nonce).await else { return Went::Badly };
        // One that is on chain as far as is known here comes back with the tipset that holds it, or is found again. One
        // that was final there does not: nobody looks at it any more.
        let missing: Vec<u64> =
            open().filter(|nonce| ours.get(nonce) != Some(&Held::Open)).take(pool.surely_missing(TOGETHER)).collect();
        let first = missing.first().and_then(|first| Some((*first, rows.iter().find(|row| row.nonce() > *first)?)));
        let Some((first, row)) = first else {
            lane.no_gap();
            return Went::Well;
        };
        let since = lane.missing_since(account.nonce, first, head.epoch.0);
        let mut trouble = ChainError::new(ChainErrorKind::NotFound, "wait for nonces before the message's")
            .with("sender", text_of(&sender))
            .with("nonce", row.nonce())
            .with("missing", first)
            .with("account nonce", account.nonce)
            .hint_with(
                "they are filled with messages that do nothing if nobody sends what belongs there: nothing that follows \
                 them lands before",
            );
        if head.epoch.0.saturating_sub(since) >= PATIENCE {
            let over: Vec<u64> = missing.iter().copied().filter(|nonce| ours.get(nonce) == Some(&Held::Over)).collect();
            self.take_back(&sender, &over).await;
            // A damaged row keeps its nonce: what is on its way there cannot be known.
            let free: Vec<u64> = missing.into_iter().filter(|nonce| !ours.contains_key(nonce)).collect();
            match self.fill(head, account, rows, &free).await {
                Ok(()) => lane.no_gap(),
                Err(e) => trouble = e,
            }
        }
        notes.take(&row.key, OutboxState::Signed, row.error.as_deref(), Some(&trouble));
        // What was recorded here is pushed in the next pass.
        Went::Badly
    }

    /// Sends again what was final on chain and is not there any more: the chain was another one than it seemed.
    async fn take_back(&self, sender: &Address, nonces: &[u64]) {
        if nonces.is_empty() {
            return;
        }
        match self.store.take_back(sender, nonces).await {
            Ok(keys) => {
                for key in keys {
                    error!(
                        %key,
                        "a message that was final is not on chain, and its nonce is unused: it is sent again; look at the \
                         node, for it has followed a chain that was not the network's"
                    );
                }
            }
            Err(e) => warn!(error = e.chain(), "the outbox cannot be written"),
        }
    }

    /// Records messages that do nothing but fill nonces. `rows` are the sender's messages on their way.
    async fn fill(
        &self,
        head: &TipsetRef,
        account: &Account,
        rows: &[InFlight],
        nonces: &[u64],
    ) -> Result<(), ChainError> {
        let Some(last) = rows.last().filter(|_| !nonces.is_empty()) else { return Ok(()) };
        let sender = last.version.signed.message.from;
        let is_urgent = time_left(rows, head.epoch.0).iter().any(Option::is_some);
        let policy = self.fees.policy(if is_urgent { CallKind::PoSt } else { CallKind::Other });
        let base_fee = self.node.base_fee(head).await?;
        let mut committed: TokenAmount = rows.iter().map(|row| cost(&row.version.signed.message)).sum();
        let mut fillers = Vec::new();
        for nonce in nonces {
            let message = nothing(sender, *nonce);
            let said = self.node.estimate(None, message.clone()).await?;
            let message = pricing::first(policy, &base_fee, &said)?.onto(message);
            check_funds(account, &committed, &message, TokenAmount::default())?;
            committed += cost(&message);
            fillers.push(Version::new(Purpose::Cancel, self.signed(message).await?, head.epoch.0));
        }
        for key in self.store.fill(&fillers).await? {
            warn!(%key, "a nonce that nobody used is filled");
            self.emit(&key, MessageEvent::Recorded);
        }
        Ok(())
    }
}
