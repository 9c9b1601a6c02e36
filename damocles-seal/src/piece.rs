//! The commitment of a file.

use damocles_core::{CommP, PaddedPieceSize, PieceInfo};
use filecoin_proofs_api::{RegisteredSealProof, UnpaddedBytesAmount, seal::generate_piece_commitment};
use std::{
    io::{self, Read as _},
    path::Path,
};

/// A file as a piece: what the chain will call it, and how many of its bytes are data.
///
/// The piece has the smallest size that holds the file; the rest is zeros.
///
/// # Errors
///
/// The file cannot be read, or is empty.
pub fn piece_of_file(path: &Path) -> io::Result<(PieceInfo, u64)> {
    let file = fs_err::File::open(path)?;
    let payload = file.metadata()?.len();
    if payload == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is empty", path.display())));
    }
    let size = padded_size(payload)?;
    let unpadded = size.unpadded().bytes();
    let source = file.chain(io::repeat(0)).take(unpadded);
    // The tree is the same for every sector size: the proof type only has to be one that the library knows.
    let proof = RegisteredSealProof::StackedDrg2KiBV1_1;
    let info = generate_piece_commitment(proof, source, UnpaddedBytesAmount(unpadded)).map_err(io::Error::other)?;
    Ok((PieceInfo { comm_p: CommP(info.commitment), size }, payload))
}

fn padded_size(payload: u64) -> io::Result<PaddedPieceSize> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "no piece is that large");
    let quads = payload.div_ceil(127).checked_mul(128).and_then(u64::checked_next_power_of_two);
    PaddedPieceSize::try_from(quads.ok_or_else(too_large)?).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{CommD, SectorSize, zero_comm_d};

    #[test]
    fn sizes_are_the_smallest_that_fit() {
        for (payload, size) in [(1, 128), (127, 128), (128, 256), (2032, 2048), (2033, 4096)] {
            assert_eq!(padded_size(payload).unwrap().bytes(), size, "{payload}");
        }
        assert!(padded_size(u64::MAX).is_err());
    }

    #[test]
    fn zeros_are_what_the_protocol_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros");
        std::fs::write(&path, vec![0; 2000]).unwrap();
        let (piece, payload) = piece_of_file(&path).unwrap();
        assert_eq!(payload, 2000);
        assert_eq!(CommD::from(piece.comm_p), zero_comm_d(SectorSize::KiB2));
        std::fs::write(&path, b"data").unwrap();
        assert_ne!(CommD::from(piece_of_file(&path).unwrap().0.comm_p), zero_comm_d(SectorSize::KiB2));
        std::fs::write(&path, b"").unwrap();
        assert!(piece_of_file(&path).is_err());
    }
}
