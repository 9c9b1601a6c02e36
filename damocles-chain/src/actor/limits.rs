//! What the actors always refuse, whatever the state of the chain.

use damocles_core::{DeadlineIndex, PartitionIndex, SectorNumber, TokenAmount};
use fil_actors_shared::v18::runtime::policy::policy_constants as policy;
use std::{collections::BTreeSet, ops::RangeInclusive};

/// A call that the actor refuses by its own bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many or too few of something.
    #[error("{got} {what}, and the actor takes {least} to {most}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        got: u64,
        /// The fewest that are taken.
        least: u64,
        /// The most that are taken.
        most: u64,
    },
    /// A number that is too large.
    #[error("{what} {got} is beyond {most}")]
    Beyond {
        /// What it numbers.
        what: &'static str,
        /// The number.
        got: u64,
        /// The largest that is taken.
        most: u64,
    },
    /// Something that may be named once is named again.
    #[error("{what} {number} is named twice")]
    Twice {
        /// What is named.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// A range that ends before it begins.
    #[error("the range of sector numbers from {first} to {last} is empty")]
    EmptyRange {
        /// Where it begins.
        first: u64,
        /// Where it ends.
        last: u64,
    },
    /// An amount below zero.
    #[error("the {what} of {amount} is negative")]
    Negative {
        /// What the amount is.
        what: &'static str,
        /// The amount.
        amount: TokenAmount,
    },
    /// A beneficiary's term that is neither a term nor the end of one.
    #[error("a beneficiary without a quota has a term that ends at {expiration}, and the actor takes 0 only")]
    TermWithoutQuota {
        /// When the term ends.
        expiration: i64,
    },
    /// An owner that is not named by its ID.
    #[error("the new owner {owner} is not named by its ID address")]
    OwnerById {
        /// The new owner.
        owner: String,
    },
}

/// Sectors of one aggregated proof.
pub(super) const AGGREGATED: RangeInclusive<u64> = policy::MIN_AGGREGATED_SECTORS..=policy::MAX_AGGREGATED_SECTORS;
/// Sectors of one aggregated non-interactive proof.
pub(super) const AGGREGATED_NI: RangeInclusive<u64> =
    policy::MIN_AGGREGATED_SECTORS_NI..=policy::MAX_AGGREGATED_SECTORS_NI;
/// Bytes of an aggregated proof.
pub(super) const AGGREGATE_BYTES: RangeInclusive<u64> = 1..=policy::MAX_AGGREGATED_PROOF_SIZE as u64;
/// Bytes of the PoRep of one sector: that of 32 GiB and 64 GiB sectors.
pub(super) const PROOF_BYTES: RangeInclusive<u64> = 1..=1920;
/// Bytes of the proof of one update.
pub(super) const UPDATE_BYTES: RangeInclusive<u64> = 1..=policy::MAX_REPLICA_UPDATE_PROOF_SIZE as u64;
/// Partitions of one WindowPoSt.
pub(super) const POSTED_PARTITIONS: RangeInclusive<u64> = 1..=policy::POSTED_PARTITIONS_MAX;
/// Partitions that one message may name.
pub(super) const PARTITIONS: u64 = policy::ADDRESSED_PARTITIONS_MAX;
/// Sectors that one message may name.
pub(super) const SECTORS: u64 = policy::ADDRESSED_SECTORS_MAX;
/// Control addresses.
pub(super) const CONTROL: RangeInclusive<u64> = 0..=policy::MAX_CONTROL_ADDRESSES as u64;
/// Bytes of a peer ID.
pub(super) const PEER_ID_BYTES: RangeInclusive<u64> = 0..=policy::MAX_PEER_ID_LENGTH as u64;
/// Bytes of all multiaddresses together.
pub(super) const MULTIADDR_BYTES: RangeInclusive<u64> = 0..=policy::MAX_MULTIADDR_DATA as u64;
/// The largest sector number.
pub(super) const SECTOR_NUMBER: u64 = policy::MAX_SECTOR_NUMBER;

/// Checks how many there are of something.
pub(super) fn count(what: &'static str, got: usize, takes: &RangeInclusive<u64>) -> Result<(), LimitError> {
    let got = u64::try_from(got).unwrap_or(u64::MAX);
    if takes.contains(&got) {
        return Ok(());
    }
    Err(LimitError::Count { what, got, least: *takes.start(), most: *takes.end() })
}

/// Checks that a deadline is one of a proving period.
pub(super) fn deadline(index: DeadlineIndex) -> Result<(), LimitError> {
    let most = policy::WPOST_PERIOD_DEADLINES - 1;
    if index.0 > most {
        return Err(LimitError::Beyond { what: "deadline", got: index.0, most });
    }
    Ok(())
}

/// Checks a sector number.
pub(super) fn number(number: SectorNumber) -> Result<(), LimitError> {
    if number.0 > SECTOR_NUMBER {
        return Err(LimitError::Beyond { what: "sector number", got: number.0, most: SECTOR_NUMBER });
    }
    Ok(())
}

/// Checks the sector numbers of a batch: at least one, each once.
pub(super) fn batch(numbers: impl Iterator<Item = SectorNumber>) -> Result<(), LimitError> {
    let mut seen = BTreeSet::new();
    for each in numbers {
        number(each)?;
        if !seen.insert(each) {
            return Err(LimitError::Twice { what: "sector", number: each.0 });
        }
    }
    count("sectors", seen.len(), &(1..=u64::MAX))
}

/// Checks partitions that may be named once each.
pub(super) fn distinct(partitions: impl Iterator<Item = PartitionIndex>) -> Result<(), LimitError> {
    let mut seen = BTreeSet::new();
    for each in partitions {
        if !seen.insert(each) {
            return Err(LimitError::Twice { what: "partition", number: each.0 });
        }
    }
    Ok(())
}

/// Checks how much of the miner's state a message makes the actor load.
pub(super) fn addressed(partitions: usize, sectors: usize) -> Result<(), LimitError> {
    count("partitions", partitions, &(0..=PARTITIONS))?;
    count("sectors", sectors, &(0..=SECTORS))
}

/// Checks that an amount is not negative.
pub(super) fn amount(what: &'static str, amount: TokenAmount) -> Result<(), LimitError> {
    if amount < TokenAmount::ZERO { Err(LimitError::Negative { what, amount }) } else { Ok(()) }
}
