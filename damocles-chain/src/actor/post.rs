//! Calls that keep sectors proven, and back.

use super::{
    encode::{EncodeError, cbor},
    limits,
    read::read,
};
use crate::lotus_json::{bit_field_of, sector_set_of};
use damocles_core::{
    ActorId, DeadlineIndex, Epoch, PartitionIndex, PoStProofType, SectorSet,
    chain::{Call, DeclareFaults, DeclareFaultsRecovered, PartitionSectors, PoStPartition, SubmitWindowedPoSt},
    verify::Randomness,
};
use fil_actor_miner_state::v18 as miner;
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    randomness::Randomness as ChainRandomness,
    sector::{PoStProof, RegisteredPoStProof},
};
use std::collections::BTreeMap;

/// Bytes of a WindowPoSt of one partition, for every sector size.
const PARTITION_PROOF: u64 = 192;

pub(super) fn submit(call: &SubmitWindowedPoSt) -> Result<RawBytes, EncodeError> {
    limits::deadline(call.deadline)?;
    limits::count("partitions in a WindowPoSt", call.partitions.len(), &limits::POSTED_PARTITIONS)?;
    limits::distinct(call.partitions.iter().map(|p| p.index))?;
    let most = u64::try_from(call.partitions.len()).unwrap_or(u64::MAX).saturating_mul(PARTITION_PROOF);
    limits::count("bytes of proof", call.proof.len(), &(1..=most))?;
    let mut partitions = Vec::with_capacity(call.partitions.len());
    for partition in &call.partitions {
        partitions.push(miner::PoStPartition { index: partition.index.0, skipped: bit_field_of(&partition.skipped)? });
    }
    let post_proof = RegisteredPoStProof::from(call.proof_type.number());
    cbor(&miner::SubmitWindowedPoStParams {
        deadline: call.deadline.0,
        partitions,
        proofs: vec![PoStProof { post_proof, proof_bytes: call.proof.clone() }],
        chain_commit_epoch: call.commit_epoch.0,
        chain_commit_rand: ChainRandomness(call.commit_randomness.0.to_vec()),
    })
}

pub(super) fn read_submit(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::SubmitWindowedPoStParams = read(params)?;
    let partitions = params.partitions.iter().map(|partition| {
        let skipped = sector_set_of(&partition.skipped).ok()?;
        Some(PoStPartition { index: PartitionIndex(partition.index), skipped })
    });
    let [proof] = <[PoStProof; 1]>::try_from(params.proofs).ok()?;
    Some(Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
        miner,
        deadline: DeadlineIndex(params.deadline),
        partitions: partitions.collect::<Option<_>>()?,
        proof_type: PoStProofType::try_from(i64::from(proof.post_proof)).ok()?,
        proof: proof.proof_bytes,
        commit_epoch: Epoch(params.chain_commit_epoch),
        commit_randomness: Randomness(params.chain_commit_rand.0.try_into().ok()?),
    }))
}

pub(super) fn faults(call: &DeclareFaults) -> Result<RawBytes, EncodeError> {
    let faults = declarations(&call.faults, |deadline, partition, sectors| miner::FaultDeclaration {
        deadline,
        partition,
        sectors,
    })?;
    cbor(&miner::DeclareFaultsParams { faults })
}

pub(super) fn read_faults(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::DeclareFaultsParams = read(params)?;
    let faults = params.faults.iter().map(|d| read_part(d.deadline, d.partition, &d.sectors));
    Some(Call::DeclareFaults(DeclareFaults { miner, faults: faults.collect::<Option<_>>()? }))
}

pub(super) fn recoveries(call: &DeclareFaultsRecovered) -> Result<RawBytes, EncodeError> {
    let recoveries = declarations(&call.recoveries, |deadline, partition, sectors| miner::RecoveryDeclaration {
        deadline,
        partition,
        sectors,
    })?;
    cbor(&miner::DeclareFaultsRecoveredParams { recoveries })
}

pub(super) fn read_recoveries(miner: ActorId, params: &[u8]) -> Option<Call> {
    let params: miner::DeclareFaultsRecoveredParams = read(params)?;
    let recoveries = params.recoveries.iter().map(|d| read_part(d.deadline, d.partition, &d.sectors));
    let recoveries = recoveries.collect::<Option<_>>()?;
    Some(Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries }))
}

/// Declarations of the same partition are joined, as the actor joins them.
pub(super) fn declarations<D>(
    parts: &[PartitionSectors],
    declaration: impl Fn(u64, u64, BitField) -> D,
) -> Result<Vec<D>, EncodeError> {
    let mut joined: BTreeMap<(DeadlineIndex, PartitionIndex), SectorSet> = BTreeMap::new();
    for part in parts {
        limits::deadline(part.deadline)?;
        let all = joined.entry((part.deadline, part.partition)).or_default();
        *all = all.union(&part.sectors);
    }
    limits::addressed(joined.len(), joined.values().map(SectorSet::len).sum())?;
    joined
        .into_iter()
        .map(|((deadline, partition), sectors)| Ok(declaration(deadline.0, partition.0, bit_field_of(&sectors)?)))
        .collect()
}

pub(super) fn read_part(deadline: u64, partition: u64, sectors: &BitField) -> Option<PartitionSectors> {
    Some(PartitionSectors {
        deadline: DeadlineIndex(deadline),
        partition: PartitionIndex(partition),
        sectors: sector_set_of(sectors).ok()?,
    })
}
