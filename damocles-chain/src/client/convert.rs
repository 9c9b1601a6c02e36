//! From Lotus' types to the workspace's.

use crate::lotus_json as lotus;
use damocles_core::{
    ActorId, BoxError, CommR, DeadlineIndex, Epoch, PoStProofType, SealProofType, SectorNumber, SectorSet, SectorSize,
    TokenAmount,
    chain::{ChainError, ChainErrorKind, DeadlineInfo, MinerInfo, OnChain, PartitionState, SectorInfo},
};
use fvm_ipld_bitfield::BitField;
use fvm_shared::econ;

/// No epoch of a chain is farther from its genesis, and no period longer: with the most deadlines, sums and products
/// stay far from overflow.
const FARTHEST_EPOCH: u64 = 1 << 40;
const LONGEST_SPAN: u64 = 1 << 30;
const MOST_DEADLINES: u64 = 1 << 20;

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
    // Everything downstream divides by these or steps in them, and multiplies windows by deadlines.
    let epochs = [info.current_epoch, info.period_start, info.open, info.close, info.challenge, info.fault_cutoff];
    let spans = [
        info.w_post_proving_period,
        info.w_post_challenge_window,
        info.w_post_challenge_lookback,
        info.fault_declaration_cutoff,
    ];
    let sane = (1..=MOST_DEADLINES).contains(&info.w_post_period_deadlines)
        && info.index < info.w_post_period_deadlines
        && info.w_post_proving_period > 0
        && info.w_post_challenge_window > 0
        && info.open < info.close
        && epochs.iter().all(|epoch| epoch.unsigned_abs() <= FARTHEST_EPOCH)
        && spans.iter().all(|span| span.unsigned_abs() <= LONGEST_SPAN);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> lotus::DeadlineInfo {
        lotus::DeadlineInfo {
            current_epoch: 100,
            period_start: 0,
            index: 1,
            open: 60,
            close: 120,
            challenge: 40,
            fault_cutoff: -10,
            w_post_period_deadlines: 48,
            w_post_proving_period: 2880,
            w_post_challenge_window: 60,
            w_post_challenge_lookback: 20,
            fault_declaration_cutoff: 70,
        }
    }

    #[test]
    fn a_deadline_that_could_overflow_is_none() {
        deadline(&info()).unwrap();
        type Change = fn(&mut lotus::DeadlineInfo);
        let changes: [Change; 7] = [
            |info| info.period_start = i64::MAX,
            |info| info.period_start = i64::MIN,
            |info| info.close = i64::MAX,
            |info| info.w_post_challenge_window = i64::MAX,
            |info| info.w_post_proving_period = 1 << 31,
            |info| info.fault_declaration_cutoff = i64::MIN,
            |info| info.w_post_period_deadlines = u64::MAX,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut info = info();
            change(&mut info);
            assert_eq!(deadline(&info).unwrap_err().kind(), ChainErrorKind::Malformed, "{i}");
        }
    }
}
