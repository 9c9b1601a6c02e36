//! What the chain says about a miner's deadlines.

use crate::{Deadlines, Options};
use damocles_core::{
    ActorId, Error,
    chain::{ChainClient, ChainError, TipsetRef},
    post::{PoStError, PoStErrorKind, ProvingView},
};
use futures::future::try_join_all;
use std::{future::Future, time::Duration};

/// Takes the snapshot that planning needs: the current deadline and [`Options::lookahead`] after it.
///
/// # Errors
///
/// The chain did not answer, or not in time.
pub async fn take_view(
    chain: &dyn ChainClient,
    miner: ActorId,
    at: &TipsetRef,
    options: &Options,
) -> Result<ProvingView, PoStError> {
    let failed = |e: PoStError| e.with("miner", miner).with("epoch", at.epoch);
    let current = ask("read deadline", options.chain_timeout, chain.deadline(at, miner)).await.map_err(failed)?;
    let deadlines = Deadlines::of(&current).ok_or_else(|| {
        let shape = format!("{} deadlines of {} epochs", current.deadlines, current.challenge_window);
        failed(Error::new(PoStErrorKind::Chain, "read deadline").with("shape", shape))
    })?;
    let ahead = options.lookahead.min(deadlines.count() - 1);
    let reads = (0..=ahead).map(|by| async move {
        let index = deadlines.after(current.index, by);
        let state = ask("read partitions", options.chain_timeout, chain.partitions(at, miner, index)).await?;
        Ok::<_, PoStError>((index, state))
    });
    let states = try_join_all(reads).await.map_err(failed)?;
    Ok(ProvingView { at: at.clone(), miner, current, deadlines: states })
}

/// Waits for an answer of the chain, not for ever.
pub(crate) async fn ask<T>(
    op: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, ChainError>>,
) -> Result<T, PoStError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(Error::new(PoStErrorKind::Chain, op).because(e)),
        Err(e) => Err(Error::new(PoStErrorKind::Chain, op).with("limit", format!("{limit:?}")).because(e)),
    }
}
