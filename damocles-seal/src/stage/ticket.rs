//! Drawing the ticket.

use super::{Stage, StageDeps, StageOutcome, fault, id};
use crate::{journal::SectorRecord, service::Ticket};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use std::sync::Arc;

/// Draws the ticket that the replica is made with, unless a pre-commit with an earlier one may be on chain. Its output is a [`Ticket`].
#[derive(Debug)]
pub struct TicketStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for TicketStage {
    fn id(&self) -> StageId {
        id::TICKET
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if record.dropped(&id::PRE_COMMIT).next().is_some()
            && let Some(earlier) = record.carried(&id::TICKET)
        {
            // The replica must come out as it was pre-committed. If its ticket is too old, the pre-commit says so.
            return Ok(StageOutcome::Done(earlier.output.clone()));
        }
        let ticket = deps.ask(cx, "draw ticket", deps.service.ticket(record.lease())).await?;
        StageOutcome::done(&ticket)
    }
}

/// How far behind a new ticket an old one may be. The actor takes tickets of up to a day and the finality of 900 epochs
/// (`MAX_PRE_COMMIT_RANDOMNESS_LOOKBACK`), and a new ticket is as old as the finality.
const TICKET_LIFE: i64 = 2_880;

/// A pre-commit was refused: if its ticket has become too old, everything from the ticket on is made anew.
pub(super) async fn renew_if_old(
    deps: &StageDeps,
    record: &SectorRecord,
    reason: &str,
    cx: &Context,
) -> Result<StageOutcome, SealError> {
    let used: Ticket = record.output(&id::TICKET)?;
    let new = deps.ask(cx, "draw ticket", deps.service.ticket(record.lease())).await?;
    let refused = fault::refused("pre-commit", reason)
        .with("sector", record.sector())
        .with("ticket epoch", used.epoch)
        .with("epoch of a new ticket", new.epoch);
    if new.epoch - used.epoch > TICKET_LIFE {
        return Ok(StageOutcome::Rewind { to: id::TICKET, reason: refused });
    }
    Err(refused)
}
