//! The circuits of the proofs library, by kind and sector size.

use std::fmt;

use bellperson::Circuit;
use blstrs::Scalar;
use filecoin_proofs::constants::{DefaultPieceHasher, SectorShapeBase, SectorShapeSub8, SectorShapeTop2};
use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs::types::{MerkleTreeTrait, PoRepConfig, PoStConfig};
use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::parameter_cache::CacheableParameters;
use storage_proofs_porep::stacked::{StackedCircuit, StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCircuit, FallbackPoStCompound};
use storage_proofs_update::constants::TreeRHasher;
use storage_proofs_update::{EmptySectorUpdate, EmptySectorUpdateCircuit, EmptySectorUpdateCompound, PublicParams};

use super::error::ParamsError;

/// One circuit: what it proves, and for which sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitId {
    /// What the circuit proves.
    pub kind: CircuitKind,
    /// Bytes of a sector.
    pub sector_size: u64,
}

/// What a circuit proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CircuitKind {
    /// A replica was sealed as claimed (commit phase 2). Shared by the V1_1 seal proof, synthetic and non-interactive PoRep.
    PoRep,
    /// The replicas of a partition are still stored. Shared by the V1 and V1_2 proof types.
    WindowPoSt,
    /// The replica drawn with a winning ticket is still stored.
    WinningPoSt,
    /// Data was put into a sector that was sealed empty.
    SectorUpdate,
}

/// Where the parameters of a sector size come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From the published trapdoors.
    Generated,
    /// From Filecoin's trusted set-up.
    TrustedSetUp,
}

/// Does something with a circuit whose type depends on the [`CircuitId`].
pub(crate) trait BlankCircuit {
    /// What comes of it.
    type Output;
    /// `make` returns the same blank circuit on each call.
    fn with<C: Circuit<Scalar>>(self, make: impl Fn() -> C) -> Self::Output;
}

const KIB_2: u64 = 2 << 10;
const MIB_8: u64 = 8 << 20;
const MIB_512: u64 = 512 << 20;
const GIB_32: u64 = 32 << 30;
const GIB_64: u64 = 64 << 30;

impl CircuitKind {
    /// Every kind, in the order in which the circuits are worth preparing.
    pub const ALL: [Self; 4] = [Self::PoRep, Self::WindowPoSt, Self::WinningPoSt, Self::SectorUpdate];
}

impl CircuitId {
    /// The circuit of this kind for sectors of this many bytes.
    pub const fn new(kind: CircuitKind, sector_size: u64) -> Self {
        Self { kind, sector_size }
    }

    /// The circuits that sealing and both PoSts need.
    pub const fn for_sealing(sector_size: u64) -> [Self; 3] {
        [
            Self::new(CircuitKind::PoRep, sector_size),
            Self::new(CircuitKind::WindowPoSt, sector_size),
            Self::new(CircuitKind::WinningPoSt, sector_size),
        ]
    }

    /// The library's name for the circuit's parameters, without version and extension.
    ///
    /// # Errors
    /// When Filecoin has no sectors of this size.
    pub fn cache_identifier(&self) -> Result<String, ParamsError> {
        match self.sector_size {
            KIB_2 | MIB_8 | MIB_512 => self.identifier_of::<SectorShapeBase>(),
            GIB_32 => self.identifier_of::<SectorShapeSub8>(),
            GIB_64 => self.identifier_of::<SectorShapeTop2>(),
            _ => Err(ParamsError::UnknownSectorSize { circuit: *self }),
        }
    }

    pub(crate) fn source(&self) -> Result<Source, ParamsError> {
        match self.sector_size {
            KIB_2 | MIB_8 | MIB_512 => Ok(Source::Generated),
            GIB_32 | GIB_64 => Ok(Source::TrustedSetUp),
            _ => Err(ParamsError::UnknownSectorSize { circuit: *self }),
        }
    }

    /// Core-seconds that the generator takes, measured; the basis of estimates, never of decisions.
    pub(crate) fn core_seconds(&self) -> u64 {
        match (self.kind, self.sector_size) {
            (CircuitKind::PoRep, KIB_2) => 86,
            (CircuitKind::PoRep, MIB_8) => 115,
            (CircuitKind::PoRep, _) => 160,
            (CircuitKind::WindowPoSt, KIB_2) => 2,
            (CircuitKind::WindowPoSt, _) => 5,
            (CircuitKind::WinningPoSt, KIB_2) => 5,
            (CircuitKind::WinningPoSt, MIB_8) => 10,
            (CircuitKind::WinningPoSt, _) => 15,
            (CircuitKind::SectorUpdate, KIB_2) => 50,
            (CircuitKind::SectorUpdate, MIB_8) => 335,
            // Extrapolated from its constraints: 86 challenges instead of 10.
            (CircuitKind::SectorUpdate, _) => 2900,
        }
    }

    /// Calls `user` with the blank circuit. Only for the sizes that have parameters of ours.
    pub(crate) fn with_blank<U: BlankCircuit>(&self, user: U) -> Result<U::Output, ParamsError> {
        match self.source()? {
            Source::Generated => self.with_blank_of::<SectorShapeBase, U>(user),
            Source::TrustedSetUp => Err(ParamsError::TrustedSetUpOnly { circuit: *self }),
        }
    }

    fn with_blank_of<Tree, U>(&self, user: U) -> Result<U::Output, ParamsError>
    where
        Tree: 'static + MerkleTreeTrait<Hasher = TreeRHasher>,
        U: BlankCircuit,
    {
        Ok(match self.kind {
            CircuitKind::PoRep => {
                let params = public_params::<Tree>(&self.porep_config()?).map_err(|e| self.library(e))?;
                user.with(|| {
                    <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
                        '_,
                        StackedDrg<'_, Tree, DefaultPieceHasher>,
                        StackedCircuit<Tree, DefaultPieceHasher>,
                    >>::blank_circuit(&params)
                })
            }
            CircuitKind::WindowPoSt | CircuitKind::WinningPoSt => {
                let config = self.post_config()?;
                let params = match self.kind {
                    CircuitKind::WindowPoSt => window_post_public_params::<Tree>(&config),
                    _ => winning_post_public_params::<Tree>(&config),
                };
                let params = params.map_err(|e| self.library(e))?;
                user.with(|| {
                    <FallbackPoStCompound<Tree> as CompoundProof<
                        '_,
                        FallbackPoSt<'_, Tree>,
                        FallbackPoStCircuit<Tree>,
                    >>::blank_circuit(&params)
                })
            }
            CircuitKind::SectorUpdate => {
                let params = PublicParams::from_sector_size(self.sector_size);
                user.with(|| {
                    <EmptySectorUpdateCompound<Tree> as CompoundProof<
                        '_,
                        EmptySectorUpdate<Tree>,
                        EmptySectorUpdateCircuit<Tree>,
                    >>::blank_circuit(&params)
                })
            }
        })
    }

    fn identifier_of<Tree>(&self) -> Result<String, ParamsError>
    where
        Tree: 'static + MerkleTreeTrait<Hasher = TreeRHasher>,
    {
        match self.kind {
            CircuitKind::PoRep => self.porep_config()?.get_cache_identifier::<Tree>().map_err(|e| self.library(e)),
            CircuitKind::WindowPoSt | CircuitKind::WinningPoSt => {
                self.post_config()?.get_cache_identifier::<Tree>().map_err(|e| self.library(e))
            }
            CircuitKind::SectorUpdate => {
                Ok(<EmptySectorUpdateCompound<Tree> as CacheableParameters<
                    EmptySectorUpdateCircuit<Tree>,
                    PublicParams,
                >>::cache_identifier(&PublicParams::from_sector_size(self.sector_size)))
            }
        }
    }

    fn porep_config(&self) -> Result<PoRepConfig, ParamsError> {
        let proof = match self.sector_size {
            KIB_2 => RegisteredSealProof::StackedDrg2KiBV1_1,
            MIB_8 => RegisteredSealProof::StackedDrg8MiBV1_1,
            MIB_512 => RegisteredSealProof::StackedDrg512MiBV1_1,
            GIB_32 => RegisteredSealProof::StackedDrg32GiBV1_1,
            GIB_64 => RegisteredSealProof::StackedDrg64GiBV1_1,
            _ => return Err(ParamsError::UnknownSectorSize { circuit: *self }),
        };
        Ok(proof.as_v1_config())
    }

    fn post_config(&self) -> Result<PoStConfig, ParamsError> {
        use RegisteredPoStProof as P;
        let window = self.kind == CircuitKind::WindowPoSt;
        let proof = match self.sector_size {
            KIB_2 if window => P::StackedDrgWindow2KiBV1_2,
            MIB_8 if window => P::StackedDrgWindow8MiBV1_2,
            MIB_512 if window => P::StackedDrgWindow512MiBV1_2,
            GIB_32 if window => P::StackedDrgWindow32GiBV1_2,
            GIB_64 if window => P::StackedDrgWindow64GiBV1_2,
            KIB_2 => P::StackedDrgWinning2KiBV1,
            MIB_8 => P::StackedDrgWinning8MiBV1,
            MIB_512 => P::StackedDrgWinning512MiBV1,
            GIB_32 => P::StackedDrgWinning32GiBV1,
            GIB_64 => P::StackedDrgWinning64GiBV1,
            _ => return Err(ParamsError::UnknownSectorSize { circuit: *self }),
        };
        Ok(proof.as_v1_config())
    }

    fn library(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ParamsError {
        ParamsError::Library { circuit: *self, source: error.into() }
    }
}

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = match self.sector_size {
            s if s >= 1 << 30 => (s >> 30, "GiB"),
            s if s >= 1 << 20 => (s >> 20, "MiB"),
            s if s >= 1 << 10 => (s >> 10, "KiB"),
            s => (s, "B"),
        };
        write!(f, "{} {size} {unit}", self.kind)
    }
}

impl fmt::Display for CircuitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoRep => "PoRep",
            Self::WindowPoSt => "WindowPoSt",
            Self::WinningPoSt => "WinningPoSt",
            Self::SectorUpdate => "SectorUpdate",
        })
    }
}

#[cfg(test)]
mod tests {
    use filecoin_proofs_api::RegisteredSealProof as Seal;

    use super::*;

    #[test]
    fn interactive_synthetic_and_non_interactive_porep_share_one_circuit() {
        let ours = CircuitId::new(CircuitKind::PoRep, KIB_2).cache_identifier().unwrap();
        for proof in [
            Seal::StackedDrg2KiBV1,
            Seal::StackedDrg2KiBV1_1_Feat_SyntheticPoRep,
            Seal::StackedDrg2KiBV1_2_Feat_NonInteractivePoRep,
        ] {
            assert_eq!(proof.as_v1_config().get_cache_identifier::<SectorShapeBase>().unwrap(), ours, "{proof:?}");
        }
    }

    #[test]
    fn both_window_post_types_share_one_circuit() {
        let ours = CircuitId::new(CircuitKind::WindowPoSt, KIB_2).cache_identifier().unwrap();
        let v1 = RegisteredPoStProof::StackedDrgWindow2KiBV1.as_v1_config();
        assert_eq!(v1.get_cache_identifier::<SectorShapeBase>().unwrap(), ours);
    }

    #[test]
    fn every_published_size_has_its_own_names_in_the_library_s_list() {
        let mut seen = std::collections::BTreeSet::new();
        for size in [KIB_2, MIB_8, MIB_512, GIB_32, GIB_64] {
            for kind in CircuitKind::ALL {
                let id = CircuitId::new(kind, size);
                let identifier = id.cache_identifier().unwrap();
                assert!(
                    storage_proofs_core::parameter_cache::get_parameter_data(&identifier).is_some(),
                    "{id}: {identifier}"
                );
                assert!(seen.insert(identifier), "{id}");
            }
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        for size in [0, 1, 4096, 16 << 20, u64::MAX] {
            let id = CircuitId::new(CircuitKind::PoRep, size);
            assert!(matches!(id.cache_identifier(), Err(ParamsError::UnknownSectorSize { .. })), "{size}");
            assert!(matches!(id.source(), Err(ParamsError::UnknownSectorSize { .. })), "{size}");
        }
    }
}
