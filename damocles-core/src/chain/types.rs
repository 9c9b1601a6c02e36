//! What a chain answers.

use super::ExitCode;
use crate::{
    ActorId, Address, CommR, DeadlineIndex, Epoch, ParseIdError, PoStProofType, SealProofType, SectorNumber, SectorSet,
    SectorSize, TokenAmount,
};
use cid::Cid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The blocks of a tipset, in the chain's order. JSON form: a list of CID texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TipsetKey(pub Vec<Cid>);

impl fmt::Display for TipsetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, cid) in self.0.iter().enumerate() {
            write!(f, "{}{cid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for TipsetKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for TipsetKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|t| Cid::try_from(t.as_str())).collect::<Result<_, _>>().map(Self).map_err(de::Error::custom)
    }
}

/// A tipset, by key and height.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TipsetRef {
    /// The height.
    pub epoch: Epoch,
    /// The key.
    pub key: TipsetKey,
}

/// A change of the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadChange {
    /// The new head extends or replaces the old one.
    Apply(TipsetRef),
    /// This tipset is no longer part of the chain.
    Revert(TipsetRef),
}

/// What the network is and what its protocol demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Its name, e.g. `mainnet` or `devnet-2k`.
    pub name: String,
    /// The network version, e.g. 28.
    pub version: u32,
    /// The least seconds between two epochs.
    pub block_delay_secs: u64,
    /// Epochs between a pre-commit and its seed.
    pub pre_commit_challenge_delay: i64,
    /// How far before the head tickets are drawn: the chain's finality.
    pub ticket_lookback: i64,
}

/// A miner actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerInfo {
    /// The miner.
    pub miner: ActorId,
    /// The owner's ID address.
    pub owner: Address,
    /// The worker's ID address.
    pub worker: Address,
    /// The control addresses.
    pub control: Vec<Address>,
    /// The size of its sectors.
    pub sector_size: SectorSize,
    /// The proof that new sectors are sealed with.
    pub seal_proof: SealProofType,
    /// The proof that keeps its sectors.
    pub window_post_proof: PoStProofType,
}

/// What randomness is drawn for. The domain tag, the source and the entropy follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RandomnessKind {
    /// Tickets, tag 5: the ticket that a replica is made with.
    SealTicket,
    /// Beacon, tag 6: the interactive seed.
    InteractiveSeed,
    /// Beacon, tag 4: the WindowPoSt challenge.
    WindowPoStChallenge,
    /// Beacon, tag 3: the WinningPoSt challenge.
    WinningPoStChallenge,
    /// Tickets, tag 9, no entropy: the chain commitment of a WindowPoSt.
    PoStChainCommit,
}

/// How far a sector is on chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnChain {
    /// Its number was never used.
    Absent,
    /// Pre-committed and waiting for its proof.
    PreCommitted {
        /// The replica.
        comm_r: CommR,
        /// The epoch of the ticket.
        ticket_epoch: Epoch,
        /// The epoch at which the pre-commit landed.
        epoch: Epoch,
        /// When the sector is to expire.
        expiration: Epoch,
    },
    /// Proven and not terminated.
    Active(SectorInfo),
    /// Its number is used up: the pre-commit or the sector expired or was terminated.
    Gone,
}

/// A proven sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorInfo {
    /// Its number.
    pub number: SectorNumber,
    /// How it was sealed.
    pub seal_proof: SealProofType,
    /// Its replica.
    pub comm_r: CommR,
    /// When it was proven.
    pub activation: Epoch,
    /// When it ends.
    pub expiration: Epoch,
    /// What is pledged for it.
    pub initial_pledge: TokenAmount,
}

/// The deadline that is current at a tipset. Epochs are the protocol's, see builtin-actors `DeadlineInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeadlineInfo {
    /// The epoch for which this was computed.
    pub current: Epoch,
    /// The first epoch of the proving period; it may lie in the past before genesis.
    pub period_start: Epoch,
    /// Its index.
    pub index: DeadlineIndex,
    /// The first epoch at which a proof is accepted.
    pub open: Epoch,
    /// The first epoch at which a proof is no longer accepted.
    pub close: Epoch,
    /// The epoch of the challenge.
    pub challenge: Epoch,
    /// From this epoch on, faults and recoveries of this deadline count for the next period.
    pub fault_cutoff: Epoch,
    /// Deadlines in a period: 48.
    pub deadlines: u64,
    /// Epochs in a period: 2,880.
    pub proving_period: i64,
    /// Epochs in a window: 60.
    pub challenge_window: i64,
    /// Epochs between challenge and opening: 20.
    pub challenge_lookback: i64,
    /// Epochs between the cut-off and the opening: 70.
    pub fault_declaration_cutoff: i64,
}

/// What a deadline holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlineState {
    /// The partitions that were proven in the current window.
    pub proven: Vec<u64>,
    /// The partitions in order.
    pub partitions: Vec<PartitionState>,
}

/// What a partition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// All sectors, terminated ones included.
    pub all: SectorSet,
    /// Sectors that are not terminated.
    pub live: SectorSet,
    /// Faulty sectors.
    pub faulty: SectorSet,
    /// Faulty sectors that were declared recovered.
    pub recovering: SectorSet,
    /// Live sectors that are proven and not faulty.
    pub active: SectorSet,
}

impl PartitionState {
    /// What a proof for this partition has to cover: live sectors that are not faulty, or recovering.
    pub fn to_prove(&self) -> SectorSet {
        self.live.minus(&self.faulty).union(&self.recovering)
    }
}

/// Names a submission for ever: a second submission under the same key returns the first message.
///
/// Deterministic, e.g. `precommit/1000/7/2345/1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubmitKey(pub String);

impl fmt::Display for SubmitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A submitted message, as the client that submitted it names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Wraps a client's name for a message.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a message stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageState {
    /// Recorded, not yet on chain with the confidence asked for.
    Pending {
        /// What keeps it from moving, if something does.
        trouble: Option<String>,
    },
    /// On chain, with the confidence asked for. The exit code may still say that the actor refused.
    Landed(Receipt),
    /// It will never land: nothing of it is on chain and nothing will be sent any more.
    Dropped {
        /// Why.
        reason: String,
    },
}

/// What the chain made of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The CID of the message that landed, as text.
    pub message: String,
    /// The actor's exit code; 0 is success.
    pub exit_code: i64,
    /// What the actor returned, raw.
    #[serde(with = "hex")]
    pub returned: Vec<u8>,
    /// What the actor said, if the node tells.
    pub error: Option<String>,
    /// The epoch at which the message was executed: that of the tipset that holds it.
    pub epoch: Epoch,
    /// The actor that the message created, if it created one.
    pub created: Option<ActorId>,
}

impl Receipt {
    /// Whether the actor accepted the message.
    pub fn is_success(&self) -> bool {
        self.exit().is_success()
    }

    /// The exit code, with its name and meaning.
    pub const fn exit(&self) -> ExitCode {
        ExitCode(self.exit_code)
    }
}

impl TryFrom<&Address> for ActorId {
    type Error = ParseIdError;

    fn try_from(address: &Address) -> Result<Self, ParseIdError> {
        address.actor_id().ok_or_else(|| ParseIdError::of_address(address))
    }
}
