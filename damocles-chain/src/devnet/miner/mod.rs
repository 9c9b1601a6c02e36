//! The storage miner actor's methods, after builtin-actors v18: the state machine is the registry's, the method bodies
//! are here.

mod addresses;
mod beneficiary;
mod compact;
mod create;
mod cron;
mod dispute;
mod extend;
mod faults;
mod funds;
mod invocation;
mod monies;
mod ni;
mod pieces;
mod post;
mod pre_commit;
mod prove_commit;
mod seal;
mod terminate;
mod update;

pub(super) use addresses::resolve_worker;
pub(super) use create::{create, first_period};
pub(super) use cron::on_deferred_cron;
pub(super) use funds::reward;
pub(super) use invocation::Invocation;

use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::{RawBytes, de::DeserializeOwned, ser::Serialize};

/// The methods that the devnet implements: all that somebody who runs a miner sends, except for reports of consensus faults.
pub(super) mod method {
    pub(in crate::devnet) const CONTROL_ADDRESSES: u64 = 2;
    pub(in crate::devnet) const CHANGE_WORKER_ADDRESS: u64 = 3;
    pub(in crate::devnet) const CHANGE_PEER_ID: u64 = 4;
    pub(in crate::devnet) const SUBMIT_WINDOWED_POST: u64 = 5;
    pub(in crate::devnet) const TERMINATE_SECTORS: u64 = 9;
    pub(in crate::devnet) const DECLARE_FAULTS: u64 = 10;
    pub(in crate::devnet) const DECLARE_FAULTS_RECOVERED: u64 = 11;
    pub(in crate::devnet) const WITHDRAW_BALANCE: u64 = 16;
    pub(in crate::devnet) const CHANGE_MULTIADDRS: u64 = 18;
    pub(in crate::devnet) const COMPACT_PARTITIONS: u64 = 19;
    pub(in crate::devnet) const COMPACT_SECTOR_NUMBERS: u64 = 20;
    pub(in crate::devnet) const CONFIRM_CHANGE_WORKER_ADDRESS: u64 = 21;
    pub(in crate::devnet) const REPAY_DEBT: u64 = 22;
    pub(in crate::devnet) const CHANGE_OWNER_ADDRESS: u64 = 23;
    pub(in crate::devnet) const DISPUTE_WINDOWED_POST: u64 = 24;
    pub(in crate::devnet) const PRE_COMMIT_SECTOR_BATCH2: u64 = 28;
    pub(in crate::devnet) const CHANGE_BENEFICIARY: u64 = 30;
    pub(in crate::devnet) const GET_BENEFICIARY: u64 = 31;
    pub(in crate::devnet) const EXTEND_SECTOR_EXPIRATION2: u64 = 32;
    pub(in crate::devnet) const PROVE_COMMIT_SECTORS3: u64 = 34;
    pub(in crate::devnet) const PROVE_REPLICA_UPDATES3: u64 = 35;
    pub(in crate::devnet) const PROVE_COMMIT_SECTORS_NI: u64 = 36;
}

/// Runs a method of a miner.
pub(super) fn invoke(call: &mut Invocation<'_, '_>, method: u64, params: &RawBytes) -> Result<RawBytes, ActorError> {
    match method {
        method::CONTROL_ADDRESSES => addresses::controllers(call),
        method::CHANGE_WORKER_ADDRESS => addresses::change_worker(call, decode(params)?),
        method::CHANGE_PEER_ID => addresses::change_peer(call, decode(params)?),
        method::SUBMIT_WINDOWED_POST => post::submit(call, decode(params)?),
        method::TERMINATE_SECTORS => terminate::sectors(call, decode(params)?),
        method::DECLARE_FAULTS => faults::declare(call, decode(params)?),
        method::DECLARE_FAULTS_RECOVERED => faults::declare_recovered(call, decode(params)?),
        method::WITHDRAW_BALANCE => funds::withdraw(call, decode(params)?),
        method::CHANGE_MULTIADDRS => addresses::change_multiaddrs(call, decode(params)?),
        method::COMPACT_PARTITIONS => compact::partitions(call, decode(params)?),
        method::COMPACT_SECTOR_NUMBERS => compact::numbers(call, decode(params)?),
        method::CONFIRM_CHANGE_WORKER_ADDRESS => addresses::confirm_worker(call),
        method::REPAY_DEBT => funds::repay(call),
        method::CHANGE_OWNER_ADDRESS => addresses::change_owner(call, decode(params)?),
        method::DISPUTE_WINDOWED_POST => dispute::post(call, decode(params)?),
        method::PRE_COMMIT_SECTOR_BATCH2 => pre_commit::batch(call, decode(params)?),
        method::CHANGE_BENEFICIARY => beneficiary::change(call, decode(params)?),
        method::GET_BENEFICIARY => beneficiary::get(call),
        method::EXTEND_SECTOR_EXPIRATION2 => extend::sectors(call, decode(params)?),
        method::PROVE_COMMIT_SECTORS3 => prove_commit::sectors(call, decode(params)?),
        method::PROVE_REPLICA_UPDATES3 => update::sectors(call, decode(params)?),
        method::PROVE_COMMIT_SECTORS_NI => ni::sectors(call, decode(params)?),
        _ => Err(actor_error_v18!(unhandled_message, "invalid method: {}", method)),
    }
}

pub(super) fn decode<T: DeserializeOwned>(params: &RawBytes) -> Result<T, ActorError> {
    params.deserialize().map_err(|e| actor_error_v18!(serialization, "failed to decode params: {}", e))
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<RawBytes, ActorError> {
    RawBytes::serialize(value).map_err(|e| actor_error_v18!(serialization, "failed to encode return value: {}", e))
}
