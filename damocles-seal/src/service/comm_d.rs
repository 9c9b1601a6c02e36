//! The data commitment of a sector, from its pieces.

use damocles_core::{CommD, PieceInfo, SectorSize};
use sha2::{Digest, Sha256};

/// The data commitment of a sector that holds these pieces, in order, each aligned to its own size, and zeros
/// elsewhere.
///
/// # Errors
///
/// The pieces do not fit into the sector.
pub fn comm_d_of(pieces: &[PieceInfo], size: SectorSize) -> Result<CommD, CommDError> {
    let mut tree = Tree::default();
    for piece in pieces {
        tree.align(piece.size.bytes());
        tree.push(Node { size: piece.size.bytes(), hash: piece.comm_p.0 });
        if tree.filled() > size.bytes() {
            return Err(CommDError { sector: size });
        }
    }
    tree.align(size.bytes());
    match tree.0.as_slice() {
        [root] if root.size == size.bytes() => Ok(CommD(root.hash)),
        [] => Ok(CommD(zero_commitment(size.bytes()))),
        _ => Err(CommDError { sector: size }),
    }
}

/// Pieces that do not fit into a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pieces do not fit into a sector of {sector}")]
pub struct CommDError {
    sector: SectorSize,
}

#[derive(Clone, Copy)]
struct Node {
    size: u64,
    hash: [u8; 32],
}

/// Whole subtrees from left to right, each smaller than the one before.
#[derive(Default)]
struct Tree(Vec<Node>);

impl Tree {
    fn filled(&self) -> u64 {
        self.0.iter().map(|n| n.size).fold(0, u64::saturating_add)
    }

    /// Fills with zeros until a subtree of this size can follow.
    fn align(&mut self, size: u64) {
        while let Some(last) = self.0.last().copied()
            && last.size < size
        {
            self.push(Node { size: last.size, hash: zero_commitment(last.size) });
        }
    }

    fn push(&mut self, node: Node) {
        let mut node = node;
        while self.0.last().is_some_and(|left| left.size == node.size) {
            let Some(left) = self.0.pop() else { break };
            node = Node { size: node.size.saturating_mul(2), hash: pair(&left.hash, &node.hash) };
        }
        self.0.push(node);
    }
}

/// SHA-256 with the two highest bits cleared, so that the result is a field element.
fn pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hash: [u8; 32] = Sha256::new().chain_update(left).chain_update(right).finalize().into();
    if let Some(last) = hash.last_mut() {
        *last &= 0x3f;
    }
    hash
}

/// The commitment to a piece of zeros of this padded size.
pub(crate) fn zero_commitment(size: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    let mut covered = 32;
    while covered < size {
        hash = pair(&hash, &hash);
        covered = covered.saturating_mul(2);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{CommP, PaddedPieceSize, zero_comm_d};

    fn piece(fill: u8, size: u64) -> PieceInfo {
        PieceInfo { comm_p: CommP([fill; 32]), size: PaddedPieceSize::try_from(size).unwrap() }
    }

    #[test]
    fn an_empty_sector_has_the_published_commitments() {
        for size in SectorSize::ALL {
            assert_eq!(comm_d_of(&[], size).unwrap(), zero_comm_d(size), "{size}");
        }
    }

    #[test]
    fn a_piece_that_fills_the_sector_is_its_commitment() {
        let whole = piece(7, 2048);
        assert_eq!(comm_d_of(&[whole], SectorSize::KiB2).unwrap(), CommD([7; 32]));
    }

    #[test]
    fn zeros_fill_what_pieces_leave() {
        let half = [7; 32];
        let expected = CommD(pair(&half, &zero_commitment(1024)));
        assert_eq!(comm_d_of(&[piece(7, 1024)], SectorSize::KiB2).unwrap(), expected);
        let first = pair(&pair(&pair(&[1; 32], &zero_commitment(128)), &zero_commitment(256)), &zero_commitment(512));
        let expected = CommD(pair(&first, &[2; 32]));
        assert_eq!(comm_d_of(&[piece(1, 128), piece(2, 1024)], SectorSize::KiB2).unwrap(), expected);
    }

    #[test]
    fn too_much_is_refused() {
        for pieces in [vec![piece(1, 4096)], vec![piece(1, 2048), piece(2, 128)], vec![piece(1, 128), piece(2, 2048)]] {
            assert!(comm_d_of(&pieces, SectorSize::KiB2).is_err(), "{pieces:?}");
        }
    }

    #[cfg(feature = "proofs")]
    #[test]
    fn the_proofs_library_agrees() {
        use filecoin_proofs_api::{PieceInfo as LibraryPiece, RegisteredSealProof, UnpaddedBytesAmount, seal};
        // The library leaves a tree that is smaller than the sector as it is, so it is told of trailing zeros.
        let cases = [
            (&[128, 128][..], &[256, 512, 1024][..]),
            (&[128, 512, 256], &[]),
            (&[1024, 128, 128, 256], &[]),
            (&[256, 1024], &[]),
            (&[512], &[512, 1024]),
        ];
        for (sizes, fillers) in cases {
            let ours: Vec<_> = sizes.iter().zip(1..).map(|(size, fill)| piece(fill, *size)).collect();
            let zeros =
                fillers.iter().map(|size| PieceInfo { comm_p: CommP(zero_commitment(*size)), ..piece(0, *size) });
            let theirs: Vec<_> = ours
                .iter()
                .copied()
                .chain(zeros)
                .map(|p| LibraryPiece { commitment: p.comm_p.0, size: UnpaddedBytesAmount(p.size.unpadded().bytes()) })
                .collect();
            let expected = seal::compute_comm_d(RegisteredSealProof::StackedDrg2KiBV1_1, &theirs).unwrap();
            assert_eq!(comm_d_of(&ours, SectorSize::KiB2).unwrap().0, expected, "{sizes:?}");
        }
    }
}
