//! Where pieces lie in a sector, and the zeros between them.

use damocles_core::PaddedPieceSize;

/// Where a piece of this padded size lies if all before `offset` is taken: at a multiple of its size.
pub(crate) fn start_of(size: u64, offset: u64) -> u64 {
    offset.next_multiple_of(size.max(1))
}

/// The pieces of zeros between two places of a sector: each as large as its place allows, so that they are the fewest.
/// Both places are multiples of the smallest piece.
pub(crate) fn fillers(from: u64, to: u64) -> impl Iterator<Item = PaddedPieceSize> {
    let mut from = from;
    std::iter::from_fn(move || {
        if from >= to {
            return None;
        }
        let room = 1 << (to - from).ilog2();
        let aligned = if from == 0 { room } else { 1 << from.trailing_zeros() };
        let size = PaddedPieceSize::try_from(room.min(aligned)).ok()?;
        from += size.bytes();
        Some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_with_the_fewest_aligned_pieces() {
        for (from, to, sizes) in [
            (0, 2048, vec![2048]),
            (128, 2048, vec![128, 256, 512, 1024]),
            (128, 512, vec![128, 256]),
            (1024, 1024, vec![]),
            (512, 2048, vec![512, 1024]),
        ] {
            assert_eq!(fillers(from, to).map(|size| size.bytes()).collect::<Vec<_>>(), sizes, "{from}..{to}");
        }
        assert_eq!([start_of(512, 0), start_of(512, 128), start_of(512, 512)], [0, 512, 512]);
    }
}
