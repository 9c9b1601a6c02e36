//! Sets of sector numbers.

use crate::SectorNumber;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A set of sector numbers of one miner, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectorSet(BTreeSet<SectorNumber>);

impl SectorSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a number; false if it was there.
    pub fn insert(&mut self, number: SectorNumber) -> bool {
        self.0.insert(number)
    }

    /// Whether the number is in the set.
    pub fn contains(&self, number: SectorNumber) -> bool {
        self.0.contains(&number)
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = SectorNumber> + '_ {
        self.0.iter().copied()
    }

    /// The numbers that are in this set and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// The numbers that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// The numbers that are in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }
}

impl FromIterator<SectorNumber> for SectorSet {
    fn from_iter<I: IntoIterator<Item = SectorNumber>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}
