//! What an actor returned.

use super::ExitCode;
use crate::{ActorId, Address, SectorNumber, TokenAmount};
use serde::{Deserialize, Serialize};

/// What an actor returned for a call that it accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Returned {
    /// Nothing.
    Nothing,
    /// A new miner.
    Miner {
        /// Its ID.
        id: ActorId,
        /// Its address that a reorg does not change.
        robust: Address,
    },
    /// What became of each sector, in the order of the call.
    Sectors(Vec<SectorOutcome>),
    /// How much a withdrawal paid out.
    Withdrawn(TokenAmount),
    /// A termination.
    Terminated {
        /// Whether no termination is left in the queue. Until then nothing can be withdrawn.
        done: bool,
    },
    /// What the receiver of a transfer returned.
    Data(#[serde(with = "hex")] Vec<u8>),
}

impl Returned {
    /// The sectors that were not accepted.
    pub fn failed(&self) -> impl Iterator<Item = &SectorOutcome> {
        let sectors = if let Self::Sectors(sectors) = self { sectors.as_slice() } else { &[] };
        sectors.iter().filter(|sector| !sector.exit_code.is_success())
    }
}

/// What became of one sector of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorOutcome {
    /// The sector.
    pub number: SectorNumber,
    /// How it ended.
    pub exit_code: ExitCode,
}
