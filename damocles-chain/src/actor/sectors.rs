//! Calls that change what was committed, and back.

use super::{
    encode::{EncodeError, cbor},
    limits::{self, LimitError},
    post::{declarations, read_part},
    read::read,
};
use crate::lotus_json::{bit_field_of, sector_set_of};
use damocles_core::{
    ActorId, DeadlineIndex, Epoch, PartitionIndex, SectorNumber,
    chain::{
        AllocationId, Call, CompactPartitions, CompactSectorNumbers, ExtendSectors, SectorClaims, SectorExtension,
        SectorRange, TerminateSectors,
    },
};
use fil_actor_miner_state::v18 as miner;
use fvm_ipld_bitfield::{BitField, iter::Ranges};
use fvm_ipld_encoding::RawBytes;
use std::ops::Range;

pub(super) fn extend(call: &ExtendSectors) -> Result<RawBytes, EncodeError> {
    let sectors = call.extensions.iter().map(|e| e.sectors.len().saturating_add(e.claimed.len()));
    limits::addressed(call.extensions.len(), sectors.sum())?;
    let claims = |claims: &SectorClaims| miner::SectorClaim {
        sector_number: claims.number.0,
        maintain_claims: claims.maintain.iter().map(|id| id.0).collect(),
        drop_claims: claims.drop.iter().map(|id| id.0).collect(),
    };
    let extension = |extension: &SectorExtension| {
        limits::deadline(extension.deadline)?;
        for claimed in &extension.claimed {
            limits::number(claimed.number)?;
        }
        Ok(miner::ExpirationExtension2 {
            deadline: extension.deadline.0,
            partition: extension.partition.0,
            sectors: bit_field_of(&extension.sectors)?,
            sectors_with_claims: extension.claimed.iter().map(claims).collect(),
            new_expiration: extension.expiration.0,
        })
    };
    let extensions = call.extensions.iter().map(extension).collect::<Result<_, EncodeError>>()?;
    cbor(&miner::ExtendSectorExpiration2Params { extensions })
}

pub(super) fn read_extend(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::ExtendSectorExpiration2Params = read(params)?;
    let ids = |ids: Vec<u64>| ids.into_iter().map(AllocationId).collect();
    let claims = |claims: miner::SectorClaim| SectorClaims {
        number: SectorNumber(claims.sector_number),
        maintain: ids(claims.maintain_claims),
        drop: ids(claims.drop_claims),
    };
    let extension = |extension: miner::ExpirationExtension2| {
        Some(SectorExtension {
            deadline: DeadlineIndex(extension.deadline),
            partition: PartitionIndex(extension.partition),
            sectors: sector_set_of(&extension.sectors).ok()?,
            claimed: extension.sectors_with_claims.into_iter().map(claims).collect(),
            expiration: Epoch(extension.new_expiration),
        })
    };
    let extensions = params.extensions.into_iter().map(extension).collect::<Option<_>>()?;
    Some(Call::ExtendSectors(ExtendSectors { miner, extensions }))
}

pub(super) fn terminate(call: &TerminateSectors) -> Result<RawBytes, EncodeError> {
    let terminations = declarations(&call.terminations, |deadline, partition, sectors| {
        miner::TerminationDeclaration { deadline, partition, sectors }
    })?;
    cbor(&miner::TerminateSectorsParams { terminations })
}

pub(super) fn read_terminate(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::TerminateSectorsParams = read(params)?;
    let terminations = params.terminations.iter().map(|d| read_part(d.deadline, d.partition, &d.sectors));
    let terminations = terminations.collect::<Option<_>>()?;
    Some(Call::TerminateSectors(TerminateSectors { miner, terminations }))
}

pub(super) fn compact(call: &CompactPartitions) -> Result<RawBytes, EncodeError> {
    limits::deadline(call.deadline)?;
    limits::addressed(call.partitions.len(), 0)?;
    let partitions = call.partitions.iter().map(|p| SectorNumber(p.0)).collect();
    cbor(&miner::CompactPartitionsParams { deadline: call.deadline.0, partitions: bit_field_of(&partitions)? })
}

pub(super) fn read_compact(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::CompactPartitionsParams = read(params)?;
    let partitions = sector_set_of(&params.partitions).ok()?;
    Some(Call::CompactPartitions(CompactPartitions {
        miner,
        deadline: DeadlineIndex(params.deadline),
        partitions: partitions.iter().map(|n| PartitionIndex(n.0)).collect(),
    }))
}

pub(super) fn compact_numbers(call: &CompactSectorNumbers) -> Result<RawBytes, EncodeError> {
    limits::count("ranges of sector numbers", call.mask.len(), &(1..=u64::MAX))?;
    let mut ranges = call.mask.clone();
    ranges.sort_unstable();
    // A bit field's ranges neither overlap nor touch.
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for SectorRange { first, last } in ranges {
        limits::number(last)?;
        if first > last {
            return Err(LimitError::EmptyRange { first: first.0, last: last.0 }.into());
        }
        let end = last.0.saturating_add(1);
        match joined.last_mut() {
            Some(before) if first.0 <= before.end => before.end = before.end.max(end),
            _ => joined.push(first.0..end),
        }
    }
    let mask_sector_numbers = BitField::from_ranges(Ranges::new(joined));
    cbor(&miner::CompactSectorNumbersParams { mask_sector_numbers })
}

pub(super) fn read_compact_numbers(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::CompactSectorNumbersParams = read(params)?;
    let range = |range: Range<u64>| {
        let last = range.end.checked_sub(1)?;
        Some(SectorRange { first: SectorNumber(range.start), last: SectorNumber(last) })
    };
    let mask = params.mask_sector_numbers.ranges().map(range).collect::<Option<_>>()?;
    Some(Call::CompactSectorNumbers(CompactSectorNumbers { miner, mask }))
}
