//! The state of actors as Lotus' JSON: the fields of the Go structs.

use super::args::{RpcFault, plain};
use crate::{
    devnet::{
        actors::{Actor, code, load},
        store::DevnetStore,
    },
    lotus_json::Lotus,
};
use cid::Cid;
use fil_actor_account_state::v18 as account;
use fil_actor_init_state::v18 as init;
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fil_actor_reward_state::v18 as reward;
use fil_actors_shared::v18::reward::FilterEstimate;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use serde_json::{Value, json};

/// Reads an actor's state. Null for an actor whose state is empty here.
pub(super) fn state_json(store: &DevnetStore, actor: &Actor) -> Result<Value, RpcFault> {
    match code::name(&actor.code).as_str() {
        code::MINER => of_miner(&load(store, &actor.state)?),
        "storagepower" => of_power(&load(store, &actor.state)?),
        "reward" => of_reward(&load(store, &actor.state)?),
        "init" => {
            let state: init::State = load(store, &actor.state)?;
            Ok(json!({
                "AddressMap": cid(state.address_map)?, "NextID": state.next_id, "NetworkName": state.network_name
            }))
        }
        code::ACCOUNT => Ok(match load::<_, account::State>(store, &actor.state) {
            Ok(state) => json!({"Address": plain(&Lotus(state.address))?}),
            // The actor that burns funds was made without one.
            Err(_) => Value::Null,
        }),
        _ => Ok(Value::Null),
    }
}

fn cid(cid: Cid) -> Result<Value, RpcFault> {
    plain(&Lotus(cid))
}

fn amount(amount: &TokenAmount) -> Value {
    number(amount.atto())
}

fn number(number: &BigInt) -> Value {
    Value::String(number.to_string())
}

fn smoothed(estimate: &FilterEstimate) -> Value {
    json!({"PositionEstimate": number(&estimate.position), "VelocityEstimate": number(&estimate.velocity)})
}

fn of_miner(state: &miner::State) -> Result<Value, RpcFault> {
    let vesting = match &state.vesting_funds.0 {
        Some(funds) => json!({
            "Head": {"Epoch": funds.head.epoch, "Amount": amount(&funds.head.amount)}, "Tail": cid(funds.tail)?
        }),
        None => Value::Null,
    };
    Ok(json!({
        "Info": cid(state.info)?,
        "PreCommitDeposits": amount(&state.pre_commit_deposits),
        "LockedFunds": amount(&state.locked_funds),
        "VestingFunds": vesting,
        "FeeDebt": amount(&state.fee_debt),
        "InitialPledge": amount(&state.initial_pledge),
        "PreCommittedSectors": cid(state.pre_committed_sectors)?,
        "PreCommittedSectorsCleanUp": cid(state.pre_committed_sectors_cleanup)?,
        "AllocatedSectors": cid(state.allocated_sectors)?,
        "Sectors": cid(state.sectors)?,
        "ProvingPeriodStart": state.proving_period_start,
        "CurrentDeadline": state.current_deadline,
        "Deadlines": cid(state.deadlines)?,
        "EarlyTerminations": plain(&Lotus(state.early_terminations.clone()))?,
        "DeadlineCronActive": state.deadline_cron_active,
    }))
}

fn of_power(state: &power::State) -> Result<Value, RpcFault> {
    Ok(json!({
        "TotalRawBytePower": number(&state.total_raw_byte_power),
        "TotalBytesCommitted": number(&state.total_bytes_committed),
        "TotalQualityAdjPower": number(&state.total_quality_adj_power),
        "TotalQABytesCommitted": number(&state.total_qa_bytes_committed),
        "TotalPledgeCollateral": amount(&state.total_pledge_collateral),
        "ThisEpochRawBytePower": number(&state.this_epoch_raw_byte_power),
        "ThisEpochQualityAdjPower": number(&state.this_epoch_quality_adj_power),
        "ThisEpochPledgeCollateral": amount(&state.this_epoch_pledge_collateral),
        "ThisEpochQAPowerSmoothed": smoothed(&state.this_epoch_qa_power_smoothed),
        "MinerCount": state.miner_count,
        "MinerAboveMinPowerCount": state.miner_above_min_power_count,
        "RampStartEpoch": state.ramp_start_epoch,
        "RampDurationEpochs": state.ramp_duration_epochs,
        "CronEventQueue": cid(state.cron_event_queue)?,
        "FirstCronEpoch": state.first_cron_epoch,
        "Claims": cid(state.claims)?,
        "ProofValidationBatch": plain(&Lotus(state.proof_validation_batch))?,
    }))
}

fn of_reward(state: &reward::State) -> Result<Value, RpcFault> {
    Ok(json!({
        "CumsumBaseline": number(&state.cumsum_baseline),
        "CumsumRealized": number(&state.cumsum_realized),
        "EffectiveNetworkTime": state.effective_network_time,
        "EffectiveBaselinePower": number(&state.effective_baseline_power),
        "ThisEpochReward": amount(&state.this_epoch_reward),
        "ThisEpochRewardSmoothed": smoothed(&state.this_epoch_reward_smoothed),
        "ThisEpochBaselinePower": number(&state.this_epoch_baseline_power),
        "Epoch": state.epoch,
        "TotalStoragePowerReward": amount(&state.total_storage_power_reward),
        "SimpleTotal": amount(&state.simple_total),
        "BaselineTotal": amount(&state.baseline_total),
    }))
}
