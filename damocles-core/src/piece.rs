//! Pieces.

use crate::CommP;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The size of a piece after Fr32 padding: a power of two, at least 128 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PaddedPieceSize(u64);

impl PaddedPieceSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size before padding.
    pub const fn unpadded(self) -> UnpaddedPieceSize {
        UnpaddedPieceSize(self.0 / 128 * 127)
    }
}

impl TryFrom<u64> for PaddedPieceSize {
    type Error = PieceSizeError;

    fn try_from(bytes: u64) -> Result<Self, PieceSizeError> {
        if bytes >= 128 && bytes.is_power_of_two() { Ok(Self(bytes)) } else { Err(PieceSizeError { bytes }) }
    }
}

impl From<PaddedPieceSize> for u64 {
    fn from(size: PaddedPieceSize) -> Self {
        size.0
    }
}

/// The size of a piece before Fr32 padding: 127 bytes for every 128 of the padded size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct UnpaddedPieceSize(u64);

impl UnpaddedPieceSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size after padding.
    pub const fn padded(self) -> PaddedPieceSize {
        PaddedPieceSize(self.0 / 127 * 128)
    }
}

impl TryFrom<u64> for UnpaddedPieceSize {
    type Error = PieceSizeError;

    fn try_from(bytes: u64) -> Result<Self, PieceSizeError> {
        let padded = bytes.checked_div(127).and_then(|n| n.checked_mul(128)).unwrap_or(0);
        match PaddedPieceSize::try_from(padded) {
            Ok(size) if size.unpadded().0 == bytes => Ok(Self(bytes)),
            _ => Err(PieceSizeError { bytes }),
        }
    }
}

impl From<UnpaddedPieceSize> for u64 {
    fn from(size: UnpaddedPieceSize) -> Self {
        size.0
    }
}

/// A piece as the chain knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PieceInfo {
    /// Its commitment.
    pub comm_p: CommP,
    /// Its padded size.
    pub size: PaddedPieceSize,
}

/// A size that no piece has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceSizeError {
    bytes: u64,
}

impl fmt::Display for PieceSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes is not a piece size (padded: a power of two from 128; unpadded: 127/128 of that)",
            self.bytes
        )
    }
}

impl std::error::Error for PieceSizeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let piece = PaddedPieceSize::try_from(2048).unwrap();
        assert_eq!(piece.unpadded().bytes(), 2032);
        assert_eq!(piece.unpadded().padded(), piece);
        for bad in [0, 1, 64, 127, 129, 2047, u64::MAX] {
            assert!(PaddedPieceSize::try_from(bad).is_err(), "{bad}");
        }
        for bad in [0, 1, 126, 128, 381, u64::MAX] {
            assert!(UnpaddedPieceSize::try_from(bad).is_err(), "{bad}");
        }
    }
}
