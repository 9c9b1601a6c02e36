//! From what an actor returned to a domain value.

use super::read::amount_of;
use crate::lotus_json::to_core;
use damocles_core::{
    ActorId, SectorNumber,
    chain::{Call, ExitCode, Returned, SectorOutcome},
};
use fil_actor_miner_state::v18::{TerminateSectorsReturn, WithdrawBalanceReturn};
use fil_actor_power_state::v18::CreateMinerReturn;
use fil_actors_shared::v18::BatchReturn;
use fvm_ipld_encoding::de::DeserializeOwned;

/// Why what an actor returned says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnError {
    /// It has another shape.
    #[error("what the actor returned for {what} cannot be read")]
    Shape {
        /// The method.
        what: &'static str,
        /// Why.
        source: fvm_ipld_encoding::Error,
    },
    /// Something came where the method returns nothing.
    #[error("{got} bytes were returned by a method that returns nothing")]
    NotEmpty {
        /// How many.
        got: usize,
    },
    /// A batch that is not the one that was sent.
    #[error("the actor tells of {told} sectors, and {sent} were sent")]
    Batch {
        /// How many it tells of.
        told: u64,
        /// How many were sent.
        sent: usize,
    },
    /// Failures that are out of order, beyond the batch, or none.
    #[error("failure {index} is not one of a batch of {sent} sectors")]
    Failure {
        /// Which sector is said to have failed.
        index: u32,
        /// How many were sent.
        sent: usize,
    },
    /// A miner that is not named by its ID.
    #[error("the new miner is not named by its ID")]
    MinerId,
    /// An amount that no FIL there is makes up.
    #[error("the amount that was paid out is beyond all FIL")]
    Amount,
}

/// Reads what an actor returned for a call that it accepted (exit code 0). For any other exit code there is nothing
/// to read.
///
/// # Errors
///
/// It is not what the method returns.
pub fn decode_return(call: &Call, returned: &[u8]) -> Result<Returned, ReturnError> {
    match call {
        Call::CreateMiner(_) => {
            let made: CreateMinerReturn = read("CreateMiner", returned)?;
            let id = made.id_address.id().map_err(|_| ReturnError::MinerId)?;
            Ok(Returned::Miner { id: ActorId(id), robust: to_core(&made.robust_address) })
        }
        Call::ProveCommit(call) => batch("ProveCommitSectors3", returned, call.sectors.iter().map(|s| s.number)),
        Call::ProveCommitAggregate(call) => {
            batch("ProveCommitSectors3", returned, call.sectors.iter().map(|s| s.number))
        }
        Call::ProveReplicaUpdates(call) => {
            batch("ProveReplicaUpdates3", returned, call.sectors.iter().map(|s| s.number))
        }
        Call::ProveCommitNi(call) => batch("ProveCommitSectorsNI", returned, call.sectors.iter().map(|s| s.number)),
        Call::WithdrawBalance(_) => {
            let paid: WithdrawBalanceReturn = read("WithdrawBalance", returned)?;
            amount_of(&paid.amount_withdrawn).map(Returned::Withdrawn).ok_or(ReturnError::Amount)
        }
        Call::TerminateSectors(_) => {
            let ended: TerminateSectorsReturn = read("TerminateSectors", returned)?;
            Ok(Returned::Terminated { done: ended.done })
        }
        Call::Send(_) if !returned.is_empty() => Ok(Returned::Data(returned.to_vec())),
        _ if returned.is_empty() => Ok(Returned::Nothing),
        _ => Err(ReturnError::NotEmpty { got: returned.len() }),
    }
}

fn read<T: DeserializeOwned>(what: &'static str, returned: &[u8]) -> Result<T, ReturnError> {
    fvm_ipld_encoding::from_slice(returned).map_err(|source| ReturnError::Shape { what, source })
}

/// Failures are told by index; every other sector succeeded. The counts are the chain's and prove nothing before they
/// fit what was sent.
fn batch(
    what: &'static str,
    returned: &[u8],
    sectors: impl ExactSizeIterator<Item = SectorNumber>,
) -> Result<Returned, ReturnError> {
    // The return values of all three methods are this one, transparently.
    let told: BatchReturn = read(what, returned)?;
    let sent = sectors.len();
    let failed = u64::try_from(told.fail_codes.len()).unwrap_or(u64::MAX);
    let all = u64::from(told.success_count).saturating_add(failed);
    if u64::try_from(sent) != Ok(all) {
        return Err(ReturnError::Batch { told: all, sent });
    }
    let mut outcomes: Vec<_> = sectors.map(|number| SectorOutcome { number, exit_code: ExitCode::OK }).collect();
    let mut before = None;
    for failure in &told.fail_codes {
        let strange = ReturnError::Failure { index: failure.idx, sent };
        let index = usize::try_from(failure.idx).unwrap_or(usize::MAX);
        let Some(outcome) = outcomes.get_mut(index) else { return Err(strange) };
        if before >= Some(failure.idx) || failure.code.is_success() {
            return Err(strange);
        }
        before = Some(failure.idx);
        outcome.exit_code = ExitCode(i64::from(failure.code.value()));
    }
    Ok(Returned::Sectors(outcomes))
}

/// The miner that a successful `CreateMiner` made.
pub(crate) fn created_miner(returned: &[u8]) -> Option<ActorId> {
    let created: CreateMinerReturn = fvm_ipld_encoding::from_slice(returned).ok()?;
    created.id_address.id().ok().map(ActorId)
}
