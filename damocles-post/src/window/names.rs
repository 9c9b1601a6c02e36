//! Names of duties: keys are these with the number of the attempt behind.

use crate::fingerprint::fingerprint;
use damocles_core::{
    PartitionIndex, SectorSet,
    post::{Duty, DutyKind},
};

/// Names a duty for ever: the same at every head and after every restart.
///
/// - `post/<miner>/<challenge>/<deadline>/<partitions>`: whatever has to be left out, one proof for these partitions.
/// - `recover/<miner>/<period start>/<deadline>/<partitions>/<sectors>`: a sector that turns faulty later is a duty of
///   its own.
pub(super) fn of(duty: &Duty) -> String {
    let Duty { miner, deadline, .. } = duty;
    match &duty.what {
        DutyKind::Prove { partitions } => {
            format!("post/{miner}/{}/{}/{}", deadline.challenge, deadline.index, joined(partitions))
        }
        DutyKind::Recover { partitions } => {
            let numbers = |(index, sectors): &(PartitionIndex, SectorSet)| {
                let head = index.0.to_be_bytes();
                head.into_iter().chain(sectors.iter().flat_map(|n| n.0.to_be_bytes())).collect::<Vec<u8>>()
            };
            let parts: Vec<Vec<u8>> = partitions.iter().map(numbers).collect();
            let sectors = fingerprint(parts.iter().map(Vec::as_slice));
            format!(
                "recover/{miner}/{}/{}/{}/{sectors:032x}",
                deadline.period_start,
                deadline.index,
                joined(partitions)
            )
        }
        _ => format!("duty/{miner}/{}/{}", deadline.open, deadline.index),
    }
}

fn joined(partitions: &[(PartitionIndex, SectorSet)]) -> String {
    let indices: Vec<String> = partitions.iter().map(|(index, _)| index.to_string()).collect();
    indices.join(".")
}
