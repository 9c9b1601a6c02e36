//! What a sector may be given of the pieces that wait.

use damocles_core::SectorSize;

/// What a sector may be given of the pieces that wait.
///
/// A sector that was given pieces, or that was settled without any, keeps that under any terms of later questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceTerms {
    /// At most so many pieces; as many as fit if it is absent.
    pub most: Option<u64>,
    /// The padded bytes that the pieces must have together: if those that wait have less, none is given.
    pub least: u64,
    /// Whether a sector that gets none is committed capacity for ever. Otherwise it may be given some later.
    pub settles: bool,
}

impl PieceTerms {
    /// Nothing but what the sector was given before: one that was given none is committed capacity from here on.
    pub const NONE: Self = Self { most: Some(0), least: 0, settles: true };
}

impl Default for PieceTerms {
    fn default() -> Self {
        Self { most: None, least: 0, settles: true }
    }
}

/// A sector holds no more pieces, however small: as many deals as the market actor takes for one of 32 GiB, so that its
/// proof still fits into a message.
const MOST: u64 = 256;

/// A sector that is being filled, one piece after the other.
///
/// All sizes are powers of two, and pieces lie in a sector by their size, the largest first: so each lies at a multiple
/// of its own size, and pieces fit if the sum of their sizes does.
#[derive(Debug)]
pub(crate) struct Filling {
    size: u64,
    used: u64,
    left: u64,
    least: u64,
}

impl Filling {
    pub(crate) fn new(size: SectorSize, terms: &PieceTerms) -> Self {
        Self { size: size.bytes(), used: 0, left: terms.most.unwrap_or(MOST).min(MOST), least: terms.least }
    }

    /// The padded size of the largest piece that can follow; none if no piece can.
    pub(crate) fn room(&self) -> Option<u64> {
        let room = self.size.saturating_sub(self.used);
        (self.left > 0 && room > 0).then_some(room)
    }

    /// Takes a piece of this padded size, which is not larger than the room.
    pub(crate) fn take(&mut self, size: u64) {
        self.used = self.used.saturating_add(size);
        self.left = self.left.saturating_sub(1);
    }

    /// Whether what was taken is enough.
    pub(crate) fn is_enough(&self) -> bool {
        self.used > 0 && self.used >= self.least
    }
}
