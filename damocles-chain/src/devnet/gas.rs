//! How much gas a message uses.
//!
//! The FVM meters every instruction; here a message costs a price per method. The prices of `CreateMiner`,
//! `PreCommitSectorBatch2`, `ProveCommitSectors3`, `SubmitWindowedPoSt` (taken on trust, and verified) and
//! `TerminateSectors` are those that the v18 actors were measured with, for one sector or one partition. How such a total
//! divides into a fixed part and a part per sector, and the prices of the other methods, are estimates of the same
//! magnitude. A message that fails costs what it would have cost, one whose limit is too low costs its limit.

use super::{
    actors::{World, code},
    miner::method,
};
use fil_actor_miner_state::v18::{
    CompactPartitionsParams, ExpirationExtension2, ExtendSectorExpiration2Params, PreCommitSectorBatchParams2,
    ProveCommitSectors3Params, ProveCommitSectorsNIParams, ProveReplicaUpdates3Params, State, SubmitWindowedPoStParams,
    TerminateSectorsParams,
};
use fil_actors_shared::v18::STORAGE_POWER_ACTOR_ID;
use fvm_ipld_encoding::to_vec;
use fvm_shared::{ActorID, METHOD_SEND, message::Message};

/// What it costs to put a message on chain, as in the FVM's price list: computation, and storage of the message and of
/// 36 bytes.
pub(super) const fn inclusion(bytes: u64) -> u64 {
    38_863 + 1_300 * (36 + bytes)
}

/// What it costs to store a message of this form.
pub(super) fn inclusion_of(message: &Message) -> u64 {
    inclusion(to_vec(message).map(|b| b.len() as u64).unwrap_or_default())
}

/// The whole price of a message, before it runs.
pub(super) fn price(world: &World<'_>, message: &Message) -> u64 {
    inclusion_of(message).saturating_add(execution(world, message))
}

const SEND: u64 = 350_000;
/// A receiver that is not there yet is made.
const SEND_TO_NEW: u64 = 1_400_000;
const CREATE_MINER: (u64, u64) = (2, 40_100_000);
/// What an actor spends before it finds that it has no such method.
const NO_METHOD: u64 = 400_000;

fn execution(world: &World<'_>, message: &Message) -> u64 {
    let to = world.resolve(&message.to).ok().flatten().filter(|id| world.actors.contains_key(id));
    match to {
        None => SEND_TO_NEW,
        Some(_) if message.method_num == METHOD_SEND => SEND,
        Some(STORAGE_POWER_ACTOR_ID) if message.method_num == CREATE_MINER.0 => CREATE_MINER.1,
        Some(id) if world.actors.get(&id).is_some_and(|a| a.code == code::of(code::MINER)) => {
            of_miner(world, id, message)
        }
        Some(_) => NO_METHOD,
    }
}

fn of_miner(world: &World<'_>, miner: ActorID, message: &Message) -> u64 {
    let per = |fixed: u64, each: u64, count: usize| {
        fixed.saturating_add(each.saturating_mul(u64::try_from(count.max(1)).unwrap_or(u64::MAX)))
    };
    let params = &message.params;
    match message.method_num {
        method::SUBMIT_WINDOWED_POST => {
            let Ok(params) = params.deserialize::<SubmitWindowedPoStParams>() else { return NO_METHOD };
            let verified = if recovers(world, miner, &params) { 105_000_000 } else { 0 };
            per(18_000_000, 4_600_000, params.partitions.len()) + verified
        }
        method::TERMINATE_SECTORS => {
            let Ok(params) = params.deserialize::<TerminateSectorsParams>() else { return NO_METHOD };
            let count = params.terminations.iter().map(|t| usize::try_from(t.sectors.len()).unwrap_or(usize::MAX));
            per(40_000_000, 6_200_000, count.fold(0, usize::saturating_add))
        }
        method::PRE_COMMIT_SECTOR_BATCH2 => {
            let Ok(params) = params.deserialize::<PreCommitSectorBatchParams2>() else { return NO_METHOD };
            per(12_000_000, 3_200_000, params.sectors.len())
        }
        method::PROVE_COMMIT_SECTORS3 => {
            let Ok(params) = params.deserialize::<ProveCommitSectors3Params>() else { return NO_METHOD };
            if params.aggregate_proof.is_empty() {
                per(30_000_000, 57_500_000, params.sector_activations.len())
            } else {
                per(130_000_000, 8_000_000, params.sector_activations.len())
            }
        }
        method::PROVE_REPLICA_UPDATES3 => {
            let Ok(params) = params.deserialize::<ProveReplicaUpdates3Params>() else { return NO_METHOD };
            per(30_000_000, 60_000_000, params.sector_updates.len())
        }
        method::PROVE_COMMIT_SECTORS_NI => {
            let Ok(params) = params.deserialize::<ProveCommitSectorsNIParams>() else { return NO_METHOD };
            per(150_000_000, 9_000_000, params.sectors.len())
        }
        method::EXTEND_SECTOR_EXPIRATION2 => {
            let Ok(params) = params.deserialize::<ExtendSectorExpiration2Params>() else { return NO_METHOD };
            let of = |e: &ExpirationExtension2| usize::try_from(e.sectors.len()).unwrap_or(usize::MAX);
            per(20_000_000, 2_000_000, params.extensions.iter().map(of).fold(0, usize::saturating_add))
        }
        method::COMPACT_PARTITIONS => {
            let Ok(params) = params.deserialize::<CompactPartitionsParams>() else { return NO_METHOD };
            per(20_000_000, 20_000_000, usize::try_from(params.partitions.len()).unwrap_or(usize::MAX))
        }
        method::DISPUTE_WINDOWED_POST => 150_000_000,
        method::DECLARE_FAULTS | method::DECLARE_FAULTS_RECOVERED => 20_000_000,
        method::WITHDRAW_BALANCE | method::COMPACT_SECTOR_NUMBERS | method::REPAY_DEBT => 8_000_000,
        method::CONTROL_ADDRESSES
        | method::CHANGE_WORKER_ADDRESS
        | method::CHANGE_PEER_ID
        | method::CHANGE_MULTIADDRS
        | method::CONFIRM_CHANGE_WORKER_ADDRESS
        | method::CHANGE_OWNER_ADDRESS
        | method::CHANGE_BENEFICIARY
        | method::GET_BENEFICIARY => 4_000_000,
        _ => NO_METHOD,
    }
}

/// Whether a proof recovers power: only then do the actors verify it, and charge for it.
fn recovers(world: &World<'_>, miner: ActorID, params: &SubmitWindowedPoStParams) -> bool {
    let look = || -> Option<bool> {
        let state: State = world.state(miner).ok()?;
        let deadline = state.load_deadlines(world.store).ok()?.load_deadline(world.store, params.deadline).ok()?;
        let mut any = false;
        let most = usize::try_from(world.policy.posted_partitions_max).ok()?;
        for partition in params.partitions.iter().take(most) {
            any |= !deadline.load_partition(world.store, partition.index).ok()?.recoveries.is_empty();
        }
        Some(any)
    };
    params.deadline < world.policy.wpost_period_deadlines && look().unwrap_or(false)
}
