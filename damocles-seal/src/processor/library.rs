//! Our words in the proofs library's.

use super::{ProcessorError, contract::is_disk_full};
use damocles_core::{
    AggregationType, BoxError, CommP, PaddedPieceSize, PieceInfo, PoRepKind, PoStProofType, SealProofType,
    SectorNumber, SectorSize, pool::PoolErrorKind,
};
use filecoin_proofs_api::{
    PieceInfo as LibraryPiece, RegisteredAggregationProof, RegisteredPoStProof, RegisteredSealProof,
    RegisteredUpdateProof, SectorId, UnpaddedBytesAmount,
};
use std::error::Error as StdError;

pub(crate) use super::names::{TREE_D, prover_id};

/// The library's word for a seal proof.
pub(crate) fn seal_proof(proof_type: SealProofType) -> RegisteredSealProof {
    use RegisteredSealProof::*;
    match (proof_type.kind(), proof_type.sector_size()) {
        (PoRepKind::Interactive, SectorSize::KiB2) => StackedDrg2KiBV1_1,
        (PoRepKind::Interactive, SectorSize::MiB8) => StackedDrg8MiBV1_1,
        (PoRepKind::Interactive, SectorSize::MiB512) => StackedDrg512MiBV1_1,
        (PoRepKind::Interactive, SectorSize::GiB32) => StackedDrg32GiBV1_1,
        (PoRepKind::Interactive, SectorSize::GiB64) => StackedDrg64GiBV1_1,
        (PoRepKind::Synthetic, SectorSize::KiB2) => StackedDrg2KiBV1_1_Feat_SyntheticPoRep,
        (PoRepKind::Synthetic, SectorSize::MiB8) => StackedDrg8MiBV1_1_Feat_SyntheticPoRep,
        (PoRepKind::Synthetic, SectorSize::MiB512) => StackedDrg512MiBV1_1_Feat_SyntheticPoRep,
        (PoRepKind::Synthetic, SectorSize::GiB32) => StackedDrg32GiBV1_1_Feat_SyntheticPoRep,
        (PoRepKind::Synthetic, SectorSize::GiB64) => StackedDrg64GiBV1_1_Feat_SyntheticPoRep,
        (PoRepKind::NonInteractive, SectorSize::KiB2) => StackedDrg2KiBV1_2_Feat_NonInteractivePoRep,
        (PoRepKind::NonInteractive, SectorSize::MiB8) => StackedDrg8MiBV1_2_Feat_NonInteractivePoRep,
        (PoRepKind::NonInteractive, SectorSize::MiB512) => StackedDrg512MiBV1_2_Feat_NonInteractivePoRep,
        (PoRepKind::NonInteractive, SectorSize::GiB32) => StackedDrg32GiBV1_2_Feat_NonInteractivePoRep,
        (PoRepKind::NonInteractive, SectorSize::GiB64) => StackedDrg64GiBV1_2_Feat_NonInteractivePoRep,
    }
}

/// The library's word for a way to aggregate.
pub(crate) fn aggregation(aggregation: AggregationType) -> RegisteredAggregationProof {
    match aggregation {
        AggregationType::SnarkPackV1 => RegisteredAggregationProof::SnarkPackV1,
        AggregationType::SnarkPackV2 => RegisteredAggregationProof::SnarkPackV2,
    }
}

/// The library's word for the update proof of sectors of this size.
pub(crate) fn update_proof(size: SectorSize) -> RegisteredUpdateProof {
    match size {
        SectorSize::KiB2 => RegisteredUpdateProof::StackedDrg2KiBV1,
        SectorSize::MiB8 => RegisteredUpdateProof::StackedDrg8MiBV1,
        SectorSize::MiB512 => RegisteredUpdateProof::StackedDrg512MiBV1,
        SectorSize::GiB32 => RegisteredUpdateProof::StackedDrg32GiBV1,
        SectorSize::GiB64 => RegisteredUpdateProof::StackedDrg64GiBV1,
    }
}

/// The library's word for a PoSt proof. What the chain calls V1_1 since FIP-0061 is its V1_2.
pub(crate) fn post_proof(proof_type: PoStProofType) -> RegisteredPoStProof {
    use RegisteredPoStProof::*;
    match proof_type {
        PoStProofType::Winning(SectorSize::KiB2) => StackedDrgWinning2KiBV1,
        PoStProofType::Winning(SectorSize::MiB8) => StackedDrgWinning8MiBV1,
        PoStProofType::Winning(SectorSize::MiB512) => StackedDrgWinning512MiBV1,
        PoStProofType::Winning(SectorSize::GiB32) => StackedDrgWinning32GiBV1,
        PoStProofType::Winning(SectorSize::GiB64) => StackedDrgWinning64GiBV1,
        PoStProofType::Window(SectorSize::KiB2) => StackedDrgWindow2KiBV1_2,
        PoStProofType::Window(SectorSize::MiB8) => StackedDrgWindow8MiBV1_2,
        PoStProofType::Window(SectorSize::MiB512) => StackedDrgWindow512MiBV1_2,
        PoStProofType::Window(SectorSize::GiB32) => StackedDrgWindow32GiBV1_2,
        PoStProofType::Window(SectorSize::GiB64) => StackedDrgWindow64GiBV1_2,
    }
}

/// The library's word for a sector.
pub(crate) fn sector_id(number: SectorNumber) -> SectorId {
    SectorId::from(number.0)
}

/// The library's word for pieces.
pub(crate) fn pieces(pieces: &[PieceInfo]) -> Result<Vec<LibraryPiece>, ProcessorError> {
    pieces.iter().map(piece).collect()
}

fn piece(piece: &PieceInfo) -> Result<LibraryPiece, ProcessorError> {
    let size = UnpaddedBytesAmount(piece.size.unpadded().bytes());
    LibraryPiece::new(piece.comm_p.0, size).map_err(|e| failed(format!("use piece {}", piece.comm_p), e))
}

/// A piece of zeros.
pub(crate) fn zero_piece(size: PaddedPieceSize) -> Result<PieceInfo, ProcessorError> {
    let zeros = filecoin_proofs::pieces::zero_padding(UnpaddedBytesAmount(size.unpadded().bytes()));
    let zeros = zeros.map_err(|e| failed(format!("commit to {} zeros", size.bytes()), e))?;
    Ok(PieceInfo { comm_p: CommP(zeros.commitment), size })
}

/// A failure of the library. It wraps its causes so that a full disk does not show in the usual place.
pub(crate) fn failed<E>(what: impl Into<String>, error: E) -> ProcessorError
where
    E: Into<BoxError> + AsRef<dyn StdError + Send + Sync>,
{
    let full = is_disk_full(error.as_ref());
    let mut failed = ProcessorError::new(what, error);
    if full {
        failed.kind = PoolErrorKind::DiskFull;
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::zero_comm_d;

    #[test]
    fn sectors_of_zeros_have_the_constants_as_commitments() {
        for size in SectorSize::ALL {
            let whole = PaddedPieceSize::try_from(size.bytes()).unwrap();
            assert_eq!(zero_piece(whole).unwrap().comm_p.0, zero_comm_d(size).0, "{size}");
        }
    }

    #[test]
    fn proof_types_agree_in_size_and_kind() {
        for size in SectorSize::ALL {
            for seal in [SealProofType::of, SealProofType::synthetic, SealProofType::non_interactive] {
                let word = seal_proof(seal(size));
                assert_eq!(u64::from(word.sector_size()), size.bytes());
                let [number, ..] = word.as_v1_config().porep_id;
                assert_eq!(i64::from(number), seal(size).number());
            }
            assert_eq!(u64::from(update_proof(size).sector_size()), size.bytes());
            for proof in [PoStProofType::window(size), PoStProofType::Winning(size)] {
                assert_eq!(u64::from(post_proof(proof).sector_size()), size.bytes());
            }
        }
    }

    #[test]
    fn a_full_disk_shows_through_the_library() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        #[derive(Debug)]
        struct Wrapped(std::io::Error);
        impl From<Wrapped> for BoxError {
            fn from(wrapped: Wrapped) -> Self {
                wrapped.0.to_string().into()
            }
        }
        impl AsRef<dyn StdError + Send + Sync> for Wrapped {
            fn as_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
                &self.0
            }
        }
        assert_eq!(failed("x", Wrapped(full)).kind, PoolErrorKind::DiskFull);
    }
}
