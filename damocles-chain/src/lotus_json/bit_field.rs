//! Bit fields as run lengths.

use super::LotusJson;
use damocles_core::{SectorNumber, SectorSet};
use fvm_ipld_bitfield::{BitField, iter::Ranges};
use serde::{Deserialize, Deserializer, Serializer, de};
use std::ops::Range;

/// The most numbers that are taken out of one bit field. The largest that a node sends us is one partition's (2,349
/// sectors at most); a few bytes of run lengths could otherwise name 2^64.
pub const MAX_SECTORS: u64 = 1 << 20;

/// A bit field that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitFieldError {
    /// The runs are longer than any bit field.
    #[error("the runs reach beyond 2^64")]
    Overflow,
    /// A run other than the first has no length.
    #[error("run {0} is empty")]
    EmptyRun(usize),
    /// There are more numbers in it than a set of sectors may have.
    #[error("{0} numbers, more than any partition has")]
    TooMany(u64),
    /// A sector number is beyond what a bit field holds.
    #[error("a sector number is beyond what a bit field holds")]
    OutOfRange,
}

fn from_runs(runs: &[u64]) -> Result<BitField, BitFieldError> {
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(runs.len() / 2);
    let mut at = 0u64;
    for (i, run) in runs.iter().enumerate() {
        if *run == 0 && i > 0 {
            return Err(BitFieldError::EmptyRun(i));
        }
        let end = at.checked_add(*run).ok_or(BitFieldError::Overflow)?;
        if i % 2 == 1 {
            ranges.push(at..end);
        }
        at = end;
    }
    Ok(BitField::from_ranges(Ranges::new(ranges)))
}

fn to_runs(field: &BitField) -> Vec<u64> {
    let mut runs = Vec::new();
    let mut at = 0u64;
    for range in field.ranges() {
        runs.push(range.start.saturating_sub(at));
        runs.push(range.end.saturating_sub(range.start));
        at = range.end;
    }
    if runs.is_empty() {
        runs.push(0);
    }
    runs
}

impl LotusJson for BitField {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(to_runs(self))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let runs = Option::<Vec<u64>>::deserialize(deserializer)?.unwrap_or_default();
        from_runs(&runs).map_err(de::Error::custom)
    }
}

/// The sectors of a bit field.
///
/// # Errors
///
/// There are more than [`MAX_SECTORS`].
pub fn sector_set_of(field: &BitField) -> Result<SectorSet, BitFieldError> {
    let mut len = 0u64;
    for range in field.ranges() {
        len = len.saturating_add(range.end.saturating_sub(range.start));
    }
    if len > MAX_SECTORS {
        return Err(BitFieldError::TooMany(len));
    }
    Ok(field.iter().map(SectorNumber).collect())
}

/// The bit field of some sectors.
///
/// # Errors
///
/// A number is beyond what a bit field holds.
pub fn bit_field_of(sectors: &SectorSet) -> Result<BitField, BitFieldError> {
    BitField::try_from_bits(sectors.iter().map(|n| n.0)).map_err(|_| BitFieldError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lotus_json::Lotus;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn runs_start_with_zeros() {
        for (bits, json) in [
            (vec![5], json!([5, 1])),
            (vec![0, 1], json!([0, 2])),
            (vec![], json!([0])),
            (vec![1, 2, 7], json!([1, 2, 4, 1])),
        ] {
            let field = BitField::try_from_bits(bits).unwrap();
            assert_eq!(to_value(Lotus(field.clone())).unwrap(), json);
            assert_eq!(from_value::<Lotus<BitField>>(json).unwrap().0, field);
        }
        for empty in [json!([]), json!(null), json!([7])] {
            assert!(from_value::<Lotus<BitField>>(empty).unwrap().0.is_empty());
        }
    }

    #[test]
    fn hostile_runs_are_errors() {
        for bad in [json!([1, u64::MAX]), json!([u64::MAX, 1]), json!([1, 0, 1]), json!([-1]), json!([1.5]), json!("x")]
        {
            assert!(from_value::<Lotus<BitField>>(bad.clone()).is_err(), "{bad}");
        }
        let wide = from_value::<Lotus<BitField>>(json!([0, 1u64 << 62])).unwrap().0;
        assert_eq!(sector_set_of(&wide), Err(BitFieldError::TooMany(1 << 62)));
        let far = SectorSet::from_iter([SectorNumber(u64::MAX)]);
        assert_eq!(bit_field_of(&far), Err(BitFieldError::OutOfRange));
    }
}
