//! Miners that a devnet begins with, their sectors sealed already.

use super::{
    actors::{Actor, World, code},
    config::PreSealed,
    miner::{first_period, resolve_worker},
    power::{self, Economy},
    randomness::blake2b,
};
use damocles_core::CommR;
use fil_actor_miner_state::v18::{
    CRON_EVENT_PROVING_DEADLINE, CollisionPolicy, MinerInfo, SectorOnChainInfo, SectorOnChainInfoFlags, State,
    daily_proof_fee, raw_power_for_sector,
};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_bitfield::BitField;
use fvm_shared::{
    ActorID,
    address::Address,
    econ::TokenAmount,
    sector::{RegisteredSealProof, SectorNumber},
};

/// The most sectors that one miner begins with.
pub(super) const MAX_SECTORS: u64 = 100_000;

/// Makes a miner whose sectors are active and wait for their first PoSt.
pub(super) fn make(world: &mut World<'_>, index: usize, miner: &PreSealed) -> Result<ActorID, ActorError> {
    let (policy, epoch, store) = (world.policy, world.epoch, world.store);
    let failed = |what: &'static str| move |e: anyhow::Error| actor_error_v18!(illegal_state, "{}: {}", what, e);
    let owner = world
        .resolve(&miner.owner)?
        .ok_or_else(|| actor_error_v18!(illegal_argument, "unable to resolve owner address {}", miner.owner))?;
    let worker = resolve_worker(world, &miner.worker)?;
    let seal_proof = RegisteredSealProof::from(miner.proof_type.number());
    let window_proof = seal_proof
        .registered_window_post_proof()
        .map_err(|e| actor_error_v18!(illegal_argument, "no window PoSt for {:?}: {}", seal_proof, e))?;
    let robust = Address::new_actor(format!("pre-sealed {index}").as_bytes());
    let vacant = Actor {
        code: code::of(code::MINER),
        state: world.put(&Vec::<u8>::new())?,
        sequence: 0,
        balance: miner.balance.clone(),
        delegated_address: None,
    };
    let id = world.create(&robust, vacant)?;
    let (period, deadline) = first_period(policy, id, epoch)?;
    let info = MinerInfo::new(owner, worker, Vec::new(), Vec::new(), Vec::new(), window_proof)?;
    let (size, partition) = (info.sector_size, info.window_post_partition_sectors);
    let info = world.put(&info)?;
    let mut state = State::new(policy, store, info, period, deadline)?;
    let economy = Economy::of(world)?;
    let power = raw_power_for_sector(size);
    let initial_pledge = economy.initial_pledge(&power);
    let sectors: Vec<SectorOnChainInfo> = (0..miner.sectors)
        .map(|number| SectorOnChainInfo {
            sector_number: number,
            seal_proof,
            sealed_cid: comm_r(id, number).cid(),
            activation: epoch,
            expiration: epoch + miner.lifetime,
            initial_pledge: initial_pledge.clone(),
            power_base_epoch: epoch,
            flags: SectorOnChainInfoFlags::SIMPLE_QA_POWER,
            daily_fee: daily_proof_fee(policy, &economy.circulating, &power),
            ..SectorOnChainInfo::default()
        })
        .collect();
    let numbers = BitField::try_from_bits(0..miner.sectors)
        .map_err(|e| actor_error_v18!(illegal_argument, "sector numbers: {}", e))?;
    state.allocate_sector_numbers(store, &numbers, CollisionPolicy::DenyCollisions)?;
    state.put_sectors(store, sectors.clone()).map_err(failed("failed to put sectors"))?;
    state
        .assign_sectors_to_deadlines(policy, store, epoch, sectors, partition, size)
        .map_err(failed("failed to assign sectors"))?;
    let pledge: TokenAmount = initial_pledge * miner.sectors;
    state.add_initial_pledge(&pledge).map_err(failed("failed to add pledge"))?;
    state.check_balance_invariants(&miner.balance).map_err(failed("a pre-sealed miner has not enough balance"))?;
    state.deadline_cron_active = true;
    world.save(id, &state)?;
    power::register(world, id, window_proof)?;
    power::update_pledge(world, id, &pledge)?;
    power::enroll(world, id, state.deadline_info(policy, epoch + 1).last(), CRON_EVENT_PROVING_DEADLINE)?;
    Ok(id)
}

/// A replica that nobody has: only fake proofs can be made for it.
fn comm_r(miner: ActorID, number: SectorNumber) -> CommR {
    let mut digest = blake2b(format!("pre-sealed sector {number} of miner {miner}").as_bytes());
    if let Some(last) = digest.last_mut() {
        *last &= 0x3f;
    }
    CommR(digest)
}
