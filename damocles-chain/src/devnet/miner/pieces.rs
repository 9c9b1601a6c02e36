//! CommD of a sector from its pieces, as the FVM computes it: in order, aligned, filled up with zeros.

use cid::Cid;
use fil_actor_miner_state::v18::{CompactCommD, PieceActivationManifest};
use fvm_shared::{
    commcid::{cid_to_data_commitment_v1, data_commitment_v1_to_cid},
    sector::SectorSize,
};
use sha2::{Digest, Sha256};

/// The data commitment that pieces imply; that of zeros in its short form if there are none.
pub(super) fn implied(size: SectorSize, pieces: &[PieceActivationManifest]) -> Result<CompactCommD, String> {
    if pieces.is_empty() {
        return Ok(CompactCommD::empty());
    }
    Ok(CompactCommD::of(data_commitment(size, pieces)?))
}

type Node = [u8; 32];

/// The least padded piece.
const MIN_PIECE: u64 = 128;

/// The data commitment of a sector that holds `pieces`.
fn data_commitment(size: SectorSize, pieces: &[PieceActivationManifest]) -> Result<Cid, String> {
    let mut tree = Tree::default();
    let sector = size as u64;
    for piece in pieces {
        piece.size.validate().map_err(str::to_owned)?;
        let size = piece.size.0;
        tree.align(size);
        if tree.filled.checked_add(size).is_none_or(|end| end > sector) {
            return Err(format!("pieces exceed the sector size {sector}"));
        }
        let node = cid_to_data_commitment_v1(&piece.cid).map_err(|e| format!("piece {}: {e}", piece.cid))?;
        tree.push(node, size);
    }
    tree.align(sector);
    let root = tree.root().ok_or_else(|| "no pieces".to_owned())?;
    data_commitment_v1_to_cid(&root).map_err(str::to_owned)
}

/// Complete subtrees from left to right, each smaller than the one before it.
#[derive(Default)]
struct Tree {
    filled: u64,
    nodes: Vec<(Node, u64)>,
}

impl Tree {
    /// Fills with zeros up to the next multiple of `size`.
    fn align(&mut self, size: u64) {
        while !self.filled.is_multiple_of(size) {
            let gap = 1 << self.filled.trailing_zeros();
            self.push(zero(gap), gap);
        }
    }

    fn push(&mut self, node: Node, size: u64) {
        self.filled += size;
        let (mut node, mut size) = (node, size);
        while let Some((left, _)) = self.nodes.pop_if(|(_, s)| *s == size) {
            node = hash(&left, &node);
            size *= 2;
        }
        self.nodes.push((node, size));
    }

    fn root(self) -> Option<Node> {
        match self.nodes.as_slice() {
            [(node, _)] => Some(*node),
            _ => None,
        }
    }
}

/// The commitment of zeros of a size.
fn zero(size: u64) -> Node {
    let mut node = hash(&[0; 32], &[0; 32]);
    node = hash(&node, &node);
    let mut have = MIN_PIECE;
    while have < size {
        node = hash(&node, &node);
        have *= 2;
    }
    node
}

fn hash(left: &Node, right: &Node) -> Node {
    let mut out: Node = Sha256::new().chain_update(left).chain_update(right).finalize().into();
    if let Some(last) = out.last_mut() {
        *last &= 0x3f;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::zero_comm_d;
    use fvm_shared::piece::PaddedPieceSize;

    fn piece(node: Node, size: u64) -> PieceActivationManifest {
        PieceActivationManifest {
            cid: data_commitment_v1_to_cid(&node).unwrap(),
            size: PaddedPieceSize(size),
            verified_allocation_key: None,
            notify: vec![],
        }
    }

    #[test]
    fn zeros_have_the_published_commitment() {
        for size in damocles_core::SectorSize::ALL {
            assert_eq!(zero(size.bytes()), zero_comm_d(size).0, "{size}");
        }
        let from_zeros = data_commitment(SectorSize::_2KiB, &[piece(zero(512), 512)]).unwrap();
        assert_eq!(from_zeros, zero_comm_d(damocles_core::SectorSize::KiB2).cid());
    }

    #[test]
    fn pieces_are_aligned_to_their_size() {
        let (a, b) = ([1; 32].map(|x: u8| x & 0x3f), [2; 32]);
        let got = data_commitment(SectorSize::_2KiB, &[piece(a, 256), piece(b, 1024)]).unwrap();
        let left = hash(&hash(&a, &zero(256)), &zero(512));
        assert_eq!(got, data_commitment_v1_to_cid(&hash(&left, &b)).unwrap());
    }

    #[test]
    fn a_piece_too_many_is_refused() {
        let two = [piece([1; 32], 2048), piece([1; 32], 128)];
        assert!(data_commitment(SectorSize::_2KiB, &two).is_err());
        assert!(data_commitment(SectorSize::_2KiB, &[piece([1; 32], 100)]).is_err());
    }
}
