//! Tasks and answers of protocol v1 as data: names and casing are those of damocles 0.13.

use damocles_core::{PieceInfo, PoRepKind, SealProofType, SectorSize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// The kinds of task that can be given to a processor of protocol v1. It reads and proves a `window_post` in one, from
/// the replicas; those who ask for the two halves of it apart cannot be served by it.
pub(crate) const KINDS: [&str; 6] = ["add_pieces", "tree_d", "pc1", "pc2", "c2", "transfer"];

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) err_msg: Option<String>,
    #[serde(default)]
    pub(crate) output: Option<Value>,
}

/// A seal proof by the name that the proofs library has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealProof(pub(crate) SealProofType);

impl SealProof {
    fn all() -> impl Iterator<Item = Self> {
        let of = |size| [SealProofType::of(size), SealProofType::synthetic(size), SealProofType::non_interactive(size)];
        SectorSize::ALL.into_iter().flat_map(of).map(Self)
    }

    fn name(self) -> String {
        let version = match self.0.kind() {
            PoRepKind::Interactive => "V1_1",
            PoRepKind::Synthetic => "V1_1_Feat_SyntheticPoRep",
            PoRepKind::NonInteractive => "V1_2_Feat_NonInteractivePoRep",
        };
        format!("StackedDrg{}{version}", self.0.sector_size())
    }
}

macro_rules! serde_by_name {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.name())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                let known = Self::all().find(|proof| proof.name() == name);
                known.ok_or_else(|| de::Error::custom(format_args!("`{name}` is no proof that is made here")))
            }
        }
    };
}
#[cfg(feature = "proofs")]
pub(super) use serde_by_name;

serde_by_name!(SealProof);

/// A piece in a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) commitment: [u8; 32],
    /// Unpadded, in bytes.
    pub(crate) size: u64,
}

impl From<&PieceInfo> for Piece {
    fn from(piece: &PieceInfo) -> Self {
        Self { commitment: piece.comm_p.0, size: piece.size.unpadded().bytes() }
    }
}

/// Where the bytes of a piece are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PieceFile {
    Url(String),
    Local(PathBuf),
    Pledge,
}

/// A piece to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PieceToAdd {
    pub(crate) piece_file: PieceFile,
    pub(crate) payload_size: u64,
    /// Unpadded, in bytes.
    pub(crate) piece_size: u64,
}

/// `add_pieces`, which gives the pieces in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddPieces {
    pub(crate) seal_proof_type: SealProof,
    pub(crate) pieces: Vec<PieceToAdd>,
    pub(crate) staged_filepath: PathBuf,
}

/// `tree_d`, which gives true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TreeD {
    pub(crate) registered_proof: SealProof,
    pub(crate) staged_file: PathBuf,
    pub(crate) cache_dir: PathBuf,
}

/// `pc1`, which gives the proofs library's own output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pc1 {
    pub(crate) registered_proof: SealProof,
    pub(crate) cache_path: PathBuf,
    pub(crate) in_path: PathBuf,
    pub(crate) out_path: PathBuf,
    pub(crate) prover_id: [u8; 32],
    pub(crate) sector_id: u64,
    pub(crate) ticket: [u8; 32],
    pub(crate) piece_infos: Vec<Piece>,
}

/// `pc2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pc2 {
    pub(crate) pc1out: Value,
    pub(crate) cache_dir: PathBuf,
    pub(crate) sealed_file: PathBuf,
}

/// What `pc2` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pc2Output {
    pub(crate) registered_proof: SealProof,
    pub(crate) comm_r: [u8; 32],
    pub(crate) comm_d: [u8; 32],
}

/// What `c2` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct C2Output {
    pub(crate) proof: Vec<u8>,
}

/// `transfer`, which gives true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) stores: BTreeMap<String, Value>,
    pub(crate) routes: Vec<Route>,
}

/// One file or directory to copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) src: Place,
    pub(crate) dest: Place,
    #[serde(default)]
    pub(crate) opt: Option<RouteOption>,
}

/// One end of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    #[serde(default)]
    pub(crate) store_name: Option<String>,
    pub(crate) uri: PathBuf,
}

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RouteOption {
    pub(crate) is_dir: bool,
    pub(crate) allow_link: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_casing_are_those_of_the_old_worker() {
        let task = AddPieces {
            seal_proof_type: SealProof(SealProofType::of(SectorSize::GiB32)),
            pieces: vec![
                PieceToAdd { piece_file: PieceFile::Url("http://m/p".to_owned()), payload_size: 1, piece_size: 127 },
                PieceToAdd { piece_file: PieceFile::Local("/p/a".into()), payload_size: 2, piece_size: 254 },
                PieceToAdd { piece_file: PieceFile::Pledge, payload_size: 127, piece_size: 127 },
            ],
            staged_filepath: "/s/unsealed/s-t01000-7".into(),
        };
        let text = json!({
            "seal_proof_type": "StackedDrg32GiBV1_1",
            "pieces": [
                {"piece_file": {"url": "http://m/p"}, "payload_size": 1, "piece_size": 127},
                {"piece_file": {"local": "/p/a"}, "payload_size": 2, "piece_size": 254},
                {"piece_file": "pledge", "payload_size": 127, "piece_size": 127},
            ],
            "staged_filepath": "/s/unsealed/s-t01000-7",
        });
        assert_eq!(serde_json::to_value(&task).unwrap(), text);
        assert_eq!(serde_json::from_value::<AddPieces>(text).unwrap(), task);
        let old = serde_json::from_value::<SealProof>(json!("StackedDrg32GiBV1")).unwrap_err();
        assert!(old.to_string().contains("`StackedDrg32GiBV1` is no proof that is made here"), "{old}");
    }

    #[cfg(feature = "proofs")]
    #[test]
    fn the_proofs_library_has_the_same_names() {
        use crate::processor::library;
        for proof in SealProof::all() {
            let theirs = serde_json::to_value(library::seal_proof(proof.0)).unwrap();
            assert_eq!(serde_json::to_value(proof).unwrap(), theirs);
        }
    }
}
