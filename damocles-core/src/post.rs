//! Keeping sectors proven.

use crate::{
    ActorId, Context, DeadlineIndex, Epoch, Error, Kind, PartitionIndex, PoStProofType, Recovery, SectorNumber,
    SectorSet,
    chain::{DeadlineInfo, DeadlineState, PartitionSectors, Receipt, TipsetRef},
    pool::{Task, TaskKind},
    verify::{ProvenSector, Randomness},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// A snapshot of what the chain says about a miner's deadlines: all that planning may know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvingView {
    /// Where the snapshot was taken.
    pub at: TipsetRef,
    /// The miner.
    pub miner: ActorId,
    /// The deadline that is current at `at`.
    pub current: DeadlineInfo,
    /// The deadlines that matter now, with what they hold: the current one and those that follow it.
    pub deadlines: Vec<(DeadlineIndex, DeadlineState)>,
}

/// Something that has to be done before a certain epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Duty {
    /// The miner.
    pub miner: ActorId,
    /// The deadline, as it stands in the period in which the duty falls.
    pub deadline: DeadlineInfo,
    /// What to do.
    pub what: DutyKind,
    /// The last epoch at which a message counts.
    pub due: Epoch,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DutyKind {
    /// Prove these partitions while the deadline is open.
    Prove {
        /// The partitions, in order, and what has to be covered in each.
        partitions: Vec<(PartitionIndex, SectorSet)>,
    },
    /// Check the faulty sectors of these partitions, and declare those that read well recovered before the cut-off.
    Recover {
        /// The partitions, in order, and the faulty sectors in each that are not recovering yet.
        partitions: Vec<(PartitionIndex, SectorSet)>,
    },
}

/// Decides what to prove and proves it.
///
/// # Contract
///
/// - `plan` is pure: the same view gives the same duties, most urgent first. It does no I/O and reads no clock.
/// - `fulfil` is idempotent and resumable: a duty that is already fulfilled on chain sends nothing, a proof that was
///   recorded before a crash is not made again.
/// - A proof is verified before it is recorded, recorded before it is sent, and confirmed on chain before `fulfil`
///   returns.
/// - Past the due epoch `fulfil` fails with [`PoStErrorKind::Overdue`] and sends nothing.
#[async_trait]
pub trait PoStScheduler: fmt::Debug + Send + Sync + 'static {
    /// The duties that the view calls for, most urgent first.
    fn plan(&self, view: &ProvingView) -> Vec<Duty>;

    /// Takes the snapshot of a miner that `plan` needs.
    async fn view(&self, miner: ActorId, at: &TipsetRef) -> Result<ProvingView, PoStError>;

    /// Does one duty.
    async fn fulfil(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError>;
}

/// A fulfilled duty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fulfilled {
    /// The receipts of the messages that did it, in order; none if nothing had to be sent.
    pub receipts: Vec<Receipt>,
    /// Sectors that had to be left out of a proof, or did not read well enough to be declared recovered.
    pub skipped: Vec<PartitionSectors>,
}

/// Where a replica lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPaths {
    /// The sealed file.
    pub sealed: PathBuf,
    /// The directory with `p_aux`, `t_aux` and the last tree.
    pub cache: PathBuf,
}

/// A replica and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The sector as the statement names it.
    pub sector: ProvenSector,
    /// Its files.
    pub paths: ReplicaPaths,
}

/// First half of a PoSt: read the challenged leaves of each replica. Disk work.
///
/// Sectors are read one by one: a replica that cannot be read is an answer, not a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadChallenges {
    /// The miner.
    pub miner: ActorId,
    /// The kind of proof.
    pub proof_type: PoStProofType,
    /// The challenge randomness as drawn.
    pub randomness: Randomness,
    /// All sectors that the statement names, in its order: challenges depend on the whole list.
    pub replicas: Vec<Replica>,
}

impl Task for ReadChallenges {
    const KIND: TaskKind = TaskKind::new("wdpost_read");
    type Output = Vec<ChallengeRead>;
}

/// What reading one replica gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeRead {
    /// The vanilla proof.
    Read {
        /// The sector.
        number: SectorNumber,
        /// The vanilla proof, in the proofs library's own encoding.
        #[serde(with = "hex")]
        vanilla: Vec<u8>,
    },
    /// It did not read well.
    Bad {
        /// The sector.
        number: SectorNumber,
        /// Why.
        reason: String,
    },
}

/// Second half of a PoSt: turn vanilla proofs into one SNARK. CPU or GPU work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveWindowPoSt {
    /// The miner.
    pub miner: ActorId,
    /// The kind of proof.
    pub proof_type: PoStProofType,
    /// The challenge randomness as drawn.
    pub randomness: Randomness,
    /// The sectors in the order of the statement.
    pub sectors: Vec<ProvenSector>,
    /// Their vanilla proofs in the same order, hex.
    pub vanilla: Vec<String>,
}

impl Task for ProveWindowPoSt {
    const KIND: TaskKind = TaskKind::new("window_post");
    type Output = WindowPoStProof;
}

/// A finished WindowPoSt proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPoStProof {
    /// The proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
}

/// An error of a [`PoStScheduler`].
pub type PoStError = Error<PoStErrorKind>;

/// What went wrong while proving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoStErrorKind {
    /// The chain did not answer.
    Chain,
    /// The challenges could not be read.
    Read,
    /// The prover failed.
    Prove,
    /// The proof that was made does not verify.
    BadProof,
    /// The chain did not take the proof.
    Submit,
    /// The duty's time is over.
    Overdue,
    /// The record of proofs could not be read or written.
    Record,
    /// The call was cancelled.
    Cancelled,
}

impl fmt::Display for PoStErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "the chain did not answer",
            Self::Read => "the challenges could not be read",
            Self::Prove => "the proof could not be made",
            Self::BadProof => "the proof that was made does not verify",
            Self::Submit => "the proof was not accepted",
            Self::Overdue => "the deadline has closed",
            Self::Record => "the record of proofs could not be used",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Kind for PoStErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Chain | Self::Read | Self::Prove | Self::BadProof | Self::Submit | Self::Record | Self::Cancelled => {
                Recovery::RETRY
            }
            Self::Overdue => Recovery::Abandon,
        }
    }
}
