//! Statements about replicas, and who checks their proofs.
//!
//! Verification is given, not imported: damocles-cli hands a [`ProofVerifier`] to the sealing service, to the PoSt
//! scheduler and to the devnet. The real one lives in damocles-seal.

use crate::{ActorId, CommD, CommR, Error, Kind, PoStProofType, Recovery, SealProofType, SectorId, SectorNumber};
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
    fn verify_seal(&self, statement: &SealStatement, proof: &[u8]) -> Result<bool, VerifyError>;

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
