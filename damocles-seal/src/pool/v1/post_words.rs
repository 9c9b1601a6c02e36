//! WindowPoSt in protocol v1 as data: only our own child does it, from the replicas.

use super::words::serde_by_name;
use damocles_core::{PoStProofType, SectorSize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::path::PathBuf;

/// A WindowPoSt proof by the name that the proofs library has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowProof(pub(crate) PoStProofType);

impl WindowProof {
    fn all() -> impl Iterator<Item = Self> {
        SectorSize::ALL.into_iter().map(|size| Self(PoStProofType::window(size)))
    }

    fn name(self) -> String {
        format!("StackedDrgWindow{}V1_2", self.0.sector_size())
    }
}

serde_by_name!(WindowProof);

/// `window_post`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowPoSt {
    pub(crate) miner_id: u64,
    pub(crate) proof_type: WindowProof,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) seed: [u8; 32],
}

/// A replica to prove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) sector_id: u64,
    pub(crate) comm_r: [u8; 32],
    pub(crate) cache_dir: PathBuf,
    pub(crate) sealed_file: PathBuf,
}

/// What `window_post` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowPoStOutput {
    /// In base64.
    pub(crate) proofs: Vec<String>,
    pub(crate) faults: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proofs_library_has_the_same_names() {
        use crate::processor::library;
        for proof in WindowProof::all() {
            let theirs = serde_json::to_value(library::post_proof(proof.0)).unwrap();
            assert_eq!(serde_json::to_value(proof).unwrap(), theirs);
        }
    }
}
