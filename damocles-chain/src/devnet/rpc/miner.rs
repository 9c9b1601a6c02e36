//! Miners.

use super::{
    args::{Args, RpcFault, lotus, plain},
    view::View,
};
use crate::{
    devnet::{actors::code, actors::load, node::Devnet, power},
    lotus_json::{self, Claim, Lotus, MinerPower, MinerSectors, text_of},
};
use cid::{multibase::Base, multihash::Multihash};
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power_actor;
use fil_actors_shared::v18::STORAGE_POWER_ACTOR_ID;
use fvm_ipld_bitfield::BitField;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde_json::{Value, json};

pub(super) fn info(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let info = state.get_info(&devnet.store)?;
    plain(&lotus_json::MinerInfo {
        owner: info.owner,
        worker: info.worker,
        new_worker: info.pending_worker_key.as_ref().map(|k| k.new_worker),
        control_addresses: info.control_addresses,
        worker_change_epoch: info.pending_worker_key.map_or(-1, |k| k.effective_at),
        peer_id: peer_id(&info.peer_id),
        multiaddrs: info.multi_address.into_iter().map(|a| a.0).collect(),
        window_post_proof_type: i64::from(info.window_post_proof_type),
        sector_size: info.sector_size as u64,
        window_post_partition_sectors: info.window_post_partition_sectors,
        consensus_fault_elapsed: info.consensus_fault_elapsed,
        pending_owner_address: info.pending_owner_address,
        beneficiary: Some(info.beneficiary),
        beneficiary_term: Some(lotus_json::BeneficiaryTerm {
            quota: info.beneficiary_term.quota,
            used_quota: info.beneficiary_term.used_quota,
            expiration: info.beneficiary_term.expiration,
        }),
        pending_beneficiary_term: match info.pending_beneficiary_term {
            Some(pending) => json!({
                "NewBeneficiary": plain(&Lotus(pending.new_beneficiary))?,
                "NewQuota": plain(&Lotus(pending.new_quota))?,
                "NewExpiration": pending.new_expiration,
                "ApprovedByBeneficiary": pending.approved_by_beneficiary,
                "ApprovedByNominee": pending.approved_by_nominee,
            }),
            None => Value::Null,
        },
    })
}

/// A peer ID as libp2p writes it; none for bytes that are no multihash.
fn peer_id(bytes: &[u8]) -> Option<String> {
    Multihash::<64>::from_bytes(bytes).ok()?;
    Some(Base::Base58Btc.encode(bytes))
}

pub(super) fn proving_deadline(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    plain(&state.deadline_info(&devnet.policy, view.epoch()).next_not_elapsed())
}

pub(super) fn deadlines(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let mut out = Vec::new();
    state.load_deadlines(&devnet.store)?.for_each(&devnet.store, |_, deadline| {
        let disputable = deadline.optimistic_proofs_snapshot_amt(&devnet.store)?.count();
        out.push(lotus_json::Deadline {
            post_submissions: deadline.partitions_posted,
            disputable_proof_count: disputable,
            daily_fee: deadline.daily_fee,
        });
        Ok(())
    })?;
    plain(&out)
}

pub(super) fn partitions(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 2)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    let deadline = state.load_deadlines(&devnet.store)?.load_deadline(&devnet.store, args.get(1)?)?;
    let mut out = Vec::new();
    deadline.for_each(&devnet.store, |_, partition| {
        out.push(lotus_json::Partition {
            all_sectors: partition.sectors.clone(),
            faulty_sectors: partition.faults.clone(),
            recovering_sectors: partition.recoveries.clone(),
            live_sectors: partition.live_sectors(),
            active_sectors: partition.active_sectors(),
        });
        Ok(())
    })?;
    plain(&out)
}

/// The union of a set over all partitions.
pub(super) fn union(
    view: &View<'_>,
    state: &miner::State,
    pick: impl Fn(&miner::Partition) -> BitField,
) -> Result<BitField, RpcFault> {
    let store = &view.devnet.store;
    let mut sets = Vec::new();
    state.load_deadlines(store)?.for_each(store, |_, deadline| {
        deadline.for_each(store, |_, partition| {
            sets.push(pick(partition));
            Ok(())
        })
    })?;
    Ok(BitField::union(&sets))
}

pub(super) fn faults(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    lotus(union(&view, &state, |p| p.faults.clone())?)
}

pub(super) fn recoveries(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    lotus(union(&view, &state, |p| p.recoveries.clone())?)
}

pub(super) fn sector_count(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, state) = view.miner(&args.lotus(0)?)?;
    plain(&MinerSectors {
        live: union(&view, &state, miner::Partition::live_sectors)?.len(),
        active: union(&view, &state, miner::Partition::active_sectors)?.len(),
        faulty: union(&view, &state, |p| p.faults.clone())?.len(),
    })
}

pub(super) fn power(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let state = power_state(&view)?;
    let (raw, qa) = state.current_total_power();
    let total_power = Claim { raw_byte_power: raw, quality_adj_power: qa };
    let address: Option<Address> = args.lotus(0)?;
    let mut claim = Claim { raw_byte_power: BigInt::default(), quality_adj_power: BigInt::default() };
    let mut has_min_power = false;
    if let Some(address) = address {
        let (id, _) = view.miner(&address)?;
        let found = state.miner_power(&devnet.store, &Address::new_id(id))?;
        let found = found.ok_or_else(|| RpcFault::new(format!("no claim for {}", text_of(&address))))?;
        claim = Claim { raw_byte_power: found.raw_byte_power, quality_adj_power: found.quality_adj_power };
        (_, has_min_power) = state.miner_nominal_power_meets_consensus_minimum(&devnet.policy, &devnet.store, id)?;
    }
    plain(&MinerPower { miner_power: claim, total_power, has_min_power })
}

fn power_state(view: &View<'_>) -> Result<power_actor::State, RpcFault> {
    let actor = view.actors.get(&STORAGE_POWER_ACTOR_ID).ok_or_else(|| RpcFault::no_actor("power actor"))?;
    Ok(load(&view.devnet.store, &actor.state)?)
}

pub(super) fn available_balance(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let address: Address = args.lotus(0)?;
    let (_, state) = view.miner(&address)?;
    let (_, actor) = view.actor(&address)?;
    let vested = state.check_vested_funds(&devnet.store, view.epoch())?;
    lotus(state.get_available_balance(&actor.balance)? + vested)
}

/// What the node says of money is a tenth above what the actor demands, as in Lotus.
pub(super) fn with_margin(amount: TokenAmount) -> TokenAmount {
    TokenAmount::from_atto(amount.atto() * BigInt::from(110) / BigInt::from(100))
}

pub(super) fn creation_deposit(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 0)?;
    let economy = economy(&view)?;
    lotus(with_margin(economy.creation_deposit(&devnet.policy.minimum_consensus_power)))
}

/// The network's economy at a tipset.
pub(super) fn economy(view: &View<'_>) -> Result<power::Economy, RpcFault> {
    let reward =
        view.actors.get(&fil_actors_shared::v18::REWARD_ACTOR_ID).ok_or_else(|| RpcFault::no_actor("reward actor"))?;
    let reward = load(&view.devnet.store, &reward.state)?;
    Ok(power::Economy::from_states(reward, power_state(view)?, view.epoch()))
}

pub(super) fn list(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 0)?;
    let wanted = code::of(code::MINER);
    let miners: Vec<Lotus<Address>> =
        view.actors.iter().filter(|(_, a)| a.code == wanted).map(|(id, _)| Lotus(Address::new_id(*id))).collect();
    plain(&miners)
}
