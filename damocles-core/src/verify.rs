//! Statements about replicas, and who checks their proofs.
//!
//! Verification is given, not imported: damocles-cli hands a [`ProofVerifier`] to the sealing service, to the PoSt
//! scheduler and to the devnet. The real one lives in damocles-seal.

use crate::{
    ActorId, AggregationType, CommD, CommR, Error, Kind, PoStProofType, Recovery, SealProofType, SectorId,
    SectorNumber, SectorSize,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// 32 bytes drawn from the chain. JSON form: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Randomness(pub [u8; 32]);

impl Randomness {
    /// The form that PoSt proofs take: the two highest bits are cleared so that it is a field element.
    #[must_use]
    pub fn for_post(self) -> Self {
        let mut bytes = self.0;
        if let Some(last) = bytes.last_mut() {
            *last &= 0x3f;
        }
        Self(bytes)
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Randomness({})", hex::encode(self.0))
    }
}

impl From<Randomness> for String {
    fn from(randomness: Randomness) -> Self {
        hex::encode(randomness.0)
    }
}

impl TryFrom<String> for Randomness {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What a seal proof (PoRep) proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealStatement {
    /// The sector.
    pub sector: SectorId,
    /// The kind of proof.
    pub proof_type: SealProofType,
    /// The replica.
    pub comm_r: CommR,
    /// The data.
    pub comm_d: CommD,
    /// The ticket that the replica was made with (tag 5, raw).
    pub ticket: Randomness,
    /// The interactive seed (tag 6, raw).
    pub seed: Randomness,
}

/// What an aggregate of interactive (or synthetic) seal proofs proves: all of these seals at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateSealStatement {
    /// The miner that sealed them all.
    pub miner: ActorId,
    /// The kind of proof, one for all.
    pub proof_type: SealProofType,
    /// How the proofs were aggregated.
    pub aggregation: AggregationType,
    /// The sectors in the order in which their proofs were aggregated.
    pub sectors: Vec<AggregatedSeal>,
}

/// One seal in an [`AggregateSealStatement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregatedSeal {
    /// The sector's number.
    pub number: SectorNumber,
    /// The replica.
    pub comm_r: CommR,
    /// The data.
    pub comm_d: CommD,
    /// The ticket that the replica was made with (tag 5, raw).
    pub ticket: Randomness,
    /// The interactive seed (tag 6, raw).
    pub seed: Randomness,
}

/// What non-interactive seal proofs prove (FIP-0092), one alone or many in an aggregate: SnarkPack v2 either way.
///
/// There is no seed: challenges follow from the replica. Where an interface calls for one it is [`NI_SEED`], which the
/// proof does not depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NiSealStatement {
    /// The miner that sealed them all.
    pub miner: ActorId,
    /// The size of the sectors, from which the kind of proof follows.
    pub sector_size: SectorSize,
    /// The sectors in the order in which their proofs were aggregated.
    pub sectors: Vec<NiSeal>,
}

/// One seal in an [`NiSealStatement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NiSeal {
    /// The number that it was sealed under.
    pub number: SectorNumber,
    /// The replica.
    pub comm_r: CommR,
    /// The data: that of [`zero_comm_d`](crate::zero_comm_d) in every sector that the actor takes.
    pub comm_d: CommD,
    /// The ticket that the replica was made with (tag 5, raw).
    pub ticket: Randomness,
}

/// The constant that actors pass where a non-interactive proof has no seed.
pub const NI_SEED: Randomness = Randomness([1; 32]);

/// What a replica-update proof (empty sector update) proves: the new replica encodes the new data with the old replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatement {
    /// The size of the sector, from which the kind of proof follows.
    pub sector_size: SectorSize,
    /// The replica before.
    pub old_comm_r: CommR,
    /// The replica after.
    pub new_comm_r: CommR,
    /// The data after.
    pub new_comm_d: CommD,
}

/// A sector as a PoSt statement names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenSector {
    /// Its number.
    pub number: SectorNumber,
    /// Its replica.
    pub comm_r: CommR,
}

/// What a WindowPoSt or WinningPoSt proof proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoStStatement {
    /// The miner.
    pub miner: ActorId,
    /// The kind of proof.
    pub proof_type: PoStProofType,
    /// The challenge randomness as drawn; verifiers apply [`Randomness::for_post`].
    pub randomness: Randomness,
    /// The sectors in the order in which they were challenged.
    pub sectors: Vec<ProvenSector>,
}

/// Checks proofs. A call takes milliseconds and blocks.
///
/// # Contract
///
/// - `Ok(false)` means that the proof does not prove the statement, whatever its bytes are; rubbish is no error.
/// - An error means that no answer could be found, e.g. because a verifying key is missing.
pub trait ProofVerifier: fmt::Debug + Send + Sync + 'static {
    /// Whether `proof` proves the seal.
    ///
    /// A statement of a non-interactive kind is not proven this way: see [`verify_ni_seals`](Self::verify_ni_seals).
    fn verify_seal(&self, statement: &SealStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Whether `proof` proves all of these interactive or synthetic seals. How many the network takes (4 to 819) is for
    /// the caller to check.
    fn verify_aggregate_seals(&self, statement: &AggregateSealStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Whether `proof` proves all of these non-interactive seals. How many the network takes (1 to 65) is for the caller
    /// to check.
    fn verify_ni_seals(&self, statement: &NiSealStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Whether `proof` proves the replica update.
    fn verify_replica_update(&self, statement: &UpdateStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Whether `proof` proves the window PoSt.
    fn verify_window_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Whether `proof` proves the winning PoSt.
    fn verify_winning_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError>;

    /// Digests of the verifying keys that it uses for sectors of this kind, so that two sides can compare.
    fn keys(&self, proof_type: SealProofType) -> Result<VerifyingKeys, VerifyError>;
}

/// Digests of verifying keys: BLAKE2b-256 of the key file, in hex; `fake` for a fake verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyingKeys {
    /// The PoRep key.
    pub porep: String,
    /// The WindowPoSt key.
    pub window_post: String,
}

/// An error of a [`ProofVerifier`].
pub type VerifyError = Error<VerifyErrorKind>;

/// Why no answer could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyErrorKind {
    /// A verifying key is missing or cannot be read.
    Key,
    /// The verifier itself failed.
    Failed,
}

impl fmt::Display for VerifyErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the verifying key could not be used",
            Self::Failed => "the verifier failed",
        })
    }
}

impl Kind for VerifyErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Key => Recovery::Park,
            Self::Failed => Recovery::RETRY,
        }
    }
}
