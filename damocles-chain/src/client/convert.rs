//! From Lotus' types to the workspace's.

use crate::lotus_json as lotus;
use damocles_core::{
    ActorId, BoxError, CommR, DeadlineIndex, Epoch, PoStProofType, SealProofType, SectorNumber, SectorSet, SectorSize,
    TokenAmount,
    chain::{ChainError, ChainErrorKind, DeadlineInfo, MinerInfo, OnChain, PartitionState, SectorInfo},
};
use fvm_ipld_bitfield::BitField;
use fvm_shared::econ;

fn malformed(what: &'static str, source: impl Into<BoxError>) -> ChainError {
    ChainError::new(ChainErrorKind::Malformed, "read answer").with("what", what).because(source)
}

/// An amount, which is far smaller than 2^127.
pub(super) fn amount(amount: &econ::TokenAmount) -> Result<TokenAmount, ChainError> {
    i128::try_from(amount.atto()).map(TokenAmount::from_atto).map_err(|e| malformed("an amount", e))
}

pub(super) fn set(field: &BitField) -> Result<SectorSet, ChainError> {
    lotus::sector_set_of(field).map_err(|e| malformed("a set of sectors", e))
}

fn comm_r(cid: &cid::Cid) -> Result<CommR, ChainError> {
    CommR::from_cid(cid).map_err(|e| malformed("a replica's commitment", e))
}

pub(super) fn miner(id: ActorId, info: &lotus::MinerInfo) -> Result<MinerInfo, ChainError> {
    let sector_size = SectorSize::try_from(info.sector_size).map_err(|e| malformed("a sector size", e))?;
    let window_post_proof =
        PoStProofType::try_from(info.window_post_proof_type).map_err(|e| malformed("a proof type", e))?;
    Ok(MinerInfo {
        miner: id,
        owner: lotus::to_core(&info.owner),
        worker: lotus::to_core(&info.worker),
        control: info.control_addresses.iter().map(lotus::to_core).collect(),
        sector_size,
        seal_proof: SealProofType::of(sector_size),
        window_post_proof,
    })
}

pub(super) fn sector(info: &lotus::SectorOnChainInfo) -> Result<SectorInfo, ChainError> {
    Ok(SectorInfo {
        number: SectorNumber(info.sector_number),
        seal_proof: SealProofType::try_from(info.seal_proof).map_err(|e| malformed("a proof type", e))?,
        comm_r: comm_r(&info.sealed_cid)?,
        activation: Epoch(info.activation),
        expiration: Epoch(info.expiration),
        initial_pledge: amount(&info.initial_pledge)?,
    })
}

pub(super) fn pre_commit(on_chain: &lotus::SectorPreCommitOnChainInfo) -> Result<OnChain, ChainError> {
    Ok(OnChain::PreCommitted {
        comm_r: comm_r(&on_chain.info.sealed_cid)?,
        ticket_epoch: Epoch(on_chain.info.seal_rand_epoch),
        epoch: Epoch(on_chain.pre_commit_epoch),
        expiration: Epoch(on_chain.info.expiration),
    })
}

pub(super) fn deadline(info: &lotus::DeadlineInfo) -> Result<DeadlineInfo, ChainError> {
    // Everything downstream divides by these or steps in them.
    let sane = info.w_post_period_deadlines > 0
        && info.index < info.w_post_period_deadlines
        && info.w_post_proving_period > 0
        && info.w_post_challenge_window > 0
        && info.open < info.close;
    if !sane {
        return Err(malformed("a deadline", format!("{info:?}")));
    }
    Ok(DeadlineInfo {
        current: Epoch(info.current_epoch),
        period_start: Epoch(info.period_start),
        index: DeadlineIndex(info.index),
        open: Epoch(info.open),
        close: Epoch(info.close),
        challenge: Epoch(info.challenge),
        fault_cutoff: Epoch(info.fault_cutoff),
        deadlines: info.w_post_period_deadlines,
        proving_period: info.w_post_proving_period,
        challenge_window: info.w_post_challenge_window,
        challenge_lookback: info.w_post_challenge_lookback,
        fault_declaration_cutoff: info.fault_declaration_cutoff,
    })
}

pub(super) fn partition(partition: &lotus::Partition) -> Result<PartitionState, ChainError> {
    Ok(PartitionState {
        all: set(&partition.all_sectors)?,
        live: set(&partition.live_sectors)?,
        faulty: set(&partition.faulty_sectors)?,
        recovering: set(&partition.recovering_sectors)?,
        active: set(&partition.active_sectors)?,
    })
}
