//! Sector sizes and registered proof types.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The size of a sector. The protocol knows five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SectorSize {
    /// 2 KiB, for development networks.
    KiB2,
    /// 8 MiB, for development networks.
    MiB8,
    /// 512 MiB, for development networks.
    MiB512,
    /// 32 GiB.
    GiB32,
    /// 64 GiB.
    GiB64,
}

impl SectorSize {
    /// All sizes, smallest first: the order of the registered proof numbers.
    pub const ALL: [Self; 5] = [Self::KiB2, Self::MiB8, Self::MiB512, Self::GiB32, Self::GiB64];

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::KiB2 => 2 << 10,
            Self::MiB8 => 8 << 20,
            Self::MiB512 => 512 << 20,
            Self::GiB32 => 32 << 30,
            Self::GiB64 => 64 << 30,
        }
    }

    /// The bytes of data that fit before Fr32 padding: 127 of every 128.
    pub const fn unpadded_bytes(self) -> u64 {
        self.bytes() / 128 * 127
    }

    const fn index(self) -> i64 {
        match self {
            Self::KiB2 => 0,
            Self::MiB8 => 1,
            Self::MiB512 => 2,
            Self::GiB32 => 3,
            Self::GiB64 => 4,
        }
    }

    fn from_index(index: i64) -> Option<Self> {
        usize::try_from(index).ok().and_then(|i| Self::ALL.get(i).copied())
    }
}

impl TryFrom<u64> for SectorSize {
    type Error = UnknownSectorSize;

    fn try_from(bytes: u64) -> Result<Self, UnknownSectorSize> {
        Self::ALL.into_iter().find(|s| s.bytes() == bytes).ok_or_else(|| UnknownSectorSize(bytes.to_string()))
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KiB2 => "2KiB",
            Self::MiB8 => "8MiB",
            Self::MiB512 => "512MiB",
            Self::GiB32 => "32GiB",
            Self::GiB64 => "64GiB",
        })
    }
}

impl FromStr for SectorSize {
    type Err = UnknownSectorSize;

    fn from_str(text: &str) -> Result<Self, UnknownSectorSize> {
        let same = |s: &Self| s.to_string().eq_ignore_ascii_case(text.trim());
        Self::ALL.into_iter().find(same).ok_or_else(|| UnknownSectorSize(text.chars().take(40).collect()))
    }
}

impl Serialize for SectorSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SectorSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// How a replica's challenges are drawn and proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoRepKind {
    /// Challenges from a seed of the chain (V1_1).
    Interactive,
    /// The same proof, made from vanilla proofs over a smaller set of challenges that were kept from before (FIP-0059).
    Synthetic,
    /// Challenges from the replica itself, many more of them, with no pre-commit (FIP-0092).
    NonInteractive,
}

impl PoRepKind {
    const ALL: [Self; 3] = [Self::Interactive, Self::Synthetic, Self::NonInteractive];

    /// The registered number for the smallest sectors: kinds share the numbering in blocks of five.
    const fn base(self) -> i64 {
        match self {
            Self::Interactive => 5,
            Self::Synthetic => 10,
            Self::NonInteractive => 15,
        }
    }
}

/// A registered seal proof of version V1_1 or later. On the wire it is its registered number.
///
/// The network takes no new sectors of version V1 (numbers 0 to 4) since nv7, so that there is no word for it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealProofType(SectorSize, PoRepKind);

impl SealProofType {
    /// The interactive V1_1 proof for sectors of this size.
    pub const fn of(size: SectorSize) -> Self {
        Self(size, PoRepKind::Interactive)
    }

    /// The synthetic proof for sectors of this size.
    pub const fn synthetic(size: SectorSize) -> Self {
        Self(size, PoRepKind::Synthetic)
    }

    /// The non-interactive proof for sectors of this size.
    pub const fn non_interactive(size: SectorSize) -> Self {
        Self(size, PoRepKind::NonInteractive)
    }

    /// The sector size.
    pub const fn sector_size(self) -> SectorSize {
        self.0
    }

    /// How its challenges are drawn.
    pub const fn kind(self) -> PoRepKind {
        self.1
    }

    /// The registered number: 5 to 19.
    pub const fn number(self) -> i64 {
        self.1.base() + self.0.index()
    }

    /// The window-PoSt proof that keeps sectors of this type.
    pub const fn window_post(self) -> PoStProofType {
        PoStProofType::window(self.0)
    }
}

impl TryFrom<i64> for SealProofType {
    type Error = UnknownProofType;

    fn try_from(number: i64) -> Result<Self, UnknownProofType> {
        let of_kind =
            |kind: PoRepKind| number.checked_sub(kind.base()).and_then(SectorSize::from_index).map(|s| Self(s, kind));
        PoRepKind::ALL.into_iter().find_map(of_kind).ok_or(UnknownProofType { what: "seal", number })
    }
}

impl fmt::Display for SealProofType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.1 {
            PoRepKind::Interactive => "V1_1",
            PoRepKind::Synthetic => "V1_1_Feat_SyntheticPoRep",
            PoRepKind::NonInteractive => "V1_2_Feat_NiPoRep",
        };
        write!(f, "StackedDrg{}{version}", self.0)
    }
}

/// A registered PoSt proof. On the wire it is its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoStProofType {
    /// WinningPoSt, numbers 0 to 4.
    Winning(SectorSize),
    /// WindowPoSt, V1_1 (FIP-0061), numbers 10 to 14.
    Window(SectorSize),
}

impl PoStProofType {
    const WINDOW_V1_1: i64 = 10;

    /// The window-PoSt proof for sectors of this size.
    pub const fn window(size: SectorSize) -> Self {
        Self::Window(size)
    }

    /// The sector size.
    pub const fn sector_size(self) -> SectorSize {
        match self {
            Self::Winning(size) | Self::Window(size) => size,
        }
    }

    /// The registered number.
    pub const fn number(self) -> i64 {
        match self {
            Self::Winning(size) => size.index(),
            Self::Window(size) => Self::WINDOW_V1_1 + size.index(),
        }
    }
}

impl TryFrom<i64> for PoStProofType {
    type Error = UnknownProofType;

    fn try_from(number: i64) -> Result<Self, UnknownProofType> {
        let winning = SectorSize::from_index(number).map(Self::Winning);
        let window = || number.checked_sub(Self::WINDOW_V1_1).and_then(SectorSize::from_index).map(Self::Window);
        winning.or_else(window).ok_or(UnknownProofType { what: "PoSt", number })
    }
}

impl fmt::Display for PoStProofType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Winning(size) => write!(f, "StackedDrgWinning{size}V1"),
            Self::Window(size) => write!(f, "StackedDrgWindow{size}V1_1"),
        }
    }
}

macro_rules! serde_by_number {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_i64(self.number())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(i64::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}
serde_by_number!(SealProofType);
serde_by_number!(PoStProofType);
serde_by_number!(AggregationType);

/// A registered way to aggregate proofs. On the wire it is its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AggregationType {
    /// SnarkPack as of FIP-0013, number 0.
    SnarkPackV1,
    /// SnarkPack as of nv16, number 1; the only one that the network takes.
    SnarkPackV2,
}

impl AggregationType {
    /// The registered number.
    pub const fn number(self) -> i64 {
        match self {
            Self::SnarkPackV1 => 0,
            Self::SnarkPackV2 => 1,
        }
    }
}

impl TryFrom<i64> for AggregationType {
    type Error = UnknownProofType;

    fn try_from(number: i64) -> Result<Self, UnknownProofType> {
        match number {
            0 => Ok(Self::SnarkPackV1),
            1 => Ok(Self::SnarkPackV2),
            _ => Err(UnknownProofType { what: "aggregate", number }),
        }
    }
}

/// A size that no sector has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSectorSize(String);

impl fmt::Display for UnknownSectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a sector size (2KiB, 8MiB, 512MiB, 32GiB, 64GiB)", self.0)
    }
}

impl std::error::Error for UnknownSectorSize {}

/// A proof number that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProofType {
    what: &'static str,
    number: i64,
}

impl fmt::Display for UnknownProofType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a registered {} proof that this version supports", self.number, self.what)
    }
}

impl std::error::Error for UnknownProofType {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_registered_ones() {
        assert_eq!(SealProofType::of(SectorSize::KiB2).number(), 5);
        assert_eq!(SealProofType::of(SectorSize::GiB32).number(), 8);
        assert_eq!(SealProofType::synthetic(SectorSize::KiB2).number(), 10);
        assert_eq!(SealProofType::non_interactive(SectorSize::GiB64).number(), 19);
        assert_eq!(PoStProofType::window(SectorSize::KiB2).number(), 10);
        assert_eq!(PoStProofType::Winning(SectorSize::GiB64).number(), 4);
        for n in -3..30 {
            if let Ok(proof) = SealProofType::try_from(n) {
                assert_eq!(proof.number(), n);
            }
            if let Ok(proof) = PoStProofType::try_from(n) {
                assert_eq!(proof.number(), n);
            }
        }
        for n in 5..20 {
            assert_eq!(SealProofType::try_from(n).map(SealProofType::number), Ok(n));
        }
        for n in [i64::MIN, 4, 20, i64::MAX] {
            assert!(SealProofType::try_from(n).is_err(), "{n}");
        }
        for n in 0..2 {
            assert_eq!(AggregationType::try_from(n).map(AggregationType::number), Ok(n));
        }
        assert!(AggregationType::try_from(2).is_err());
        assert!(PoStProofType::try_from(7).is_err());
    }

    #[test]
    fn sizes_parse() {
        for size in SectorSize::ALL {
            assert_eq!(size.to_string().parse(), Ok(size));
            assert_eq!(SectorSize::try_from(size.bytes()), Ok(size));
        }
        assert!("1KiB".parse::<SectorSize>().is_err());
    }
}
