//! Sectors.

use super::{
    args::{Args, RpcFault, lotus, plain},
    miner::{economy, union, with_margin},
    view::View,
};
use crate::{
    devnet::{actors::load, node::Devnet},
    lotus_json::{self, SectorExpiration, SectorLocation, SectorOnChainInfo},
};
use fil_actor_miner_state::v18 as miner;
use fvm_ipld_bitfield::BitField;
use fvm_shared::{bigint::BigInt, sector::RegisteredSealProof};
use serde_json::Value;

fn sector_json(sector: miner::SectorOnChainInfo) -> SectorOnChainInfo {
    SectorOnChainInfo {
        sector_number: sector.sector_number,
        seal_proof: i64::from(sector.seal_proof),
        sealed_cid: sector.sealed_cid,
        deprecated_deal_ids: sector.deprecated_deal_ids,
        activation: sector.activation,
        expiration: sector.expiration,
        deal_weight: sector.deal_weight,
        verified_deal_weight: sector.verified_deal_weight,
        initial_pledge: sector.initial_pledge,
        expected_day_reward: sector.expected_day_reward,
        expected_storage_pledge: sector.expected_storage_pledge,
        power_base_epoch: sector.power_base_epoch,
        replaced_day_reward: sector.replaced_day_reward,
        sector_key_cid: sector.sector_key_cid,
        flags: u64::from(sector.flags.bits()),
        daily_fee: sector.daily_fee,
    }
}

fn list(view: &View<'_>, state: &miner::State, wanted: Option<&BitField>) -> Result<Value, RpcFault> {
    let mut out = Vec::new();
    state.for_each_sector(&view.devnet.store, |sector| {
        if wanted.is_none_or(|set| set.get(sector.sector_number)) {
            out.push(sector_json(sector.clone()));
        }
        Ok(())
    })?;
    plain(&out)
}

pub(super) fn sectors(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let wanted: Option<BitField> = args.lotus(1)?;
    list(&view, &state, wanted.as_ref())
}

pub(super) fn active(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let active = union(&view, &state, miner::Partition::active_sectors)?;
    list(&view, &state, Some(&active))
}

pub(super) fn info(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    plain(&state.get_sector(&devnet.store, args.get(1)?)?.map(sector_json))
}

pub(super) fn pre_commit_info(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let found = state.get_precommitted_sector(&devnet.store, args.get(1)?)?;
    plain(&found.map(|pre_commit| lotus_json::SectorPreCommitOnChainInfo {
        info: lotus_json::SectorPreCommitInfo {
            seal_proof: i64::from(pre_commit.info.seal_proof),
            sector_number: pre_commit.info.sector_number,
            sealed_cid: pre_commit.info.sealed_cid,
            seal_rand_epoch: pre_commit.info.seal_rand_epoch,
            deal_ids: pre_commit.info.deal_ids,
            expiration: pre_commit.info.expiration,
            unsealed_cid: pre_commit.info.unsealed_cid.0,
        },
        pre_commit_deposit: pre_commit.pre_commit_deposit,
        pre_commit_epoch: pre_commit.pre_commit_epoch,
    }))
}

pub(super) fn partition(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let (deadline, partition) = state.find_sector(&devnet.store, args.get(1)?)?;
    plain(&SectorLocation { deadline, partition })
}

pub(super) fn expiration(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let number: u64 = args.get(1)?;
    let sector = state.get_sector(&devnet.store, number)?;
    let sector = sector.ok_or_else(|| RpcFault::new(format!("failed to find sector {number}")))?;
    let (deadline, partition) = state.find_sector(&devnet.store, number)?;
    let deadline_state = state.load_deadlines(&devnet.store)?.load_deadline(&devnet.store, deadline)?;
    let faulty = deadline_state.load_partition(&devnet.store, partition)?.faults.get(number);
    let quant = state.quant_spec_for_deadline(&devnet.policy, deadline);
    let on_time = quant.quantize_up(sector.expiration);
    let early = if faulty { quant.quantize_up(view.epoch() + devnet.policy.fault_max_age) } else { 0 };
    plain(&SectorExpiration { on_time, early })
}

fn allocation(devnet: &Devnet, args: &Args, key: usize) -> Result<BitField, RpcFault> {
    let view = View::of(devnet, args, key)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    Ok(load(&devnet.store, &state.allocated_sectors)?)
}

pub(super) fn is_allocated(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    plain(&allocation(devnet, args, 2)?.get(args.get(1)?))
}

pub(super) fn allocated(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    lotus(allocation(devnet, args, 1)?)
}

/// The pledge for a sector: duration, size and verified bytes are given.
pub(super) fn initial_pledge(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let (duration, size, verified): (i64, u64, u64) = (args.get(0)?, args.get(1)?, args.get(2)?);
    if duration <= 0 {
        return Err(RpcFault::new("sector duration must greater than 0"));
    }
    if size == 0 || verified > size {
        return Err(RpcFault::new("verified deal size must be less than or equal to sector size"));
    }
    let view = View::of(devnet, args, 3)?;
    // Verified bytes count tenfold.
    let power = BigInt::from(size) + BigInt::from(verified) * BigInt::from(9);
    lotus(with_margin(economy(&view)?.initial_pledge(&power)))
}

/// The deposit for a pre-commit: a projection at the highest quality.
pub(super) fn pre_commit_deposit(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let pre_commit: lotus_json::SectorPreCommitInfo = args.get(1)?;
    let size = RegisteredSealProof::from(pre_commit.seal_proof).sector_size().map_err(RpcFault::new)?;
    let view = View::of(devnet, args, 2)?;
    lotus(with_margin(economy(&view)?.pre_commit_deposit(&miner::qa_power_max(size))))
}
