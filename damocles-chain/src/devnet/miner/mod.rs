//! The storage miner actor's methods, after builtin-actors v18: the state machine is the registry's, the method bodies
//! are here.

mod create;
mod cron;
mod faults;
mod invocation;
mod monies;
mod pieces;
mod post;
mod pre_commit;
mod prove_commit;

pub(super) use create::create;
pub(super) use cron::on_deferred_cron;
pub(super) use invocation::Invocation;

use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::{RawBytes, de::DeserializeOwned, ser::Serialize};

/// The methods that the devnet implements.
pub(super) mod method {
    pub(in crate::devnet) const SUBMIT_WINDOWED_POST: u64 = 5;
    pub(in crate::devnet) const DECLARE_FAULTS: u64 = 10;
    pub(in crate::devnet) const DECLARE_FAULTS_RECOVERED: u64 = 11;
    pub(in crate::devnet) const PRE_COMMIT_SECTOR_BATCH2: u64 = 28;
    pub(in crate::devnet) const PROVE_COMMIT_SECTORS3: u64 = 34;
}

/// Runs a method of a miner.
pub(super) fn invoke(call: &mut Invocation<'_, '_>, method: u64, params: &RawBytes) -> Result<RawBytes, ActorError> {
    match method {
        method::SUBMIT_WINDOWED_POST => post::submit(call, decode(params)?),
        method::DECLARE_FAULTS => faults::declare(call, decode(params)?),
        method::DECLARE_FAULTS_RECOVERED => faults::declare_recovered(call, decode(params)?),
        method::PRE_COMMIT_SECTOR_BATCH2 => pre_commit::batch(call, decode(params)?),
        method::PROVE_COMMIT_SECTORS3 => prove_commit::sectors(call, decode(params)?),
        _ => Err(actor_error_v18!(unhandled_message, "invalid method: {}", method)),
    }
}

pub(super) fn decode<T: DeserializeOwned>(params: &RawBytes) -> Result<T, ActorError> {
    params.deserialize().map_err(|e| actor_error_v18!(serialization, "failed to decode params: {}", e))
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<RawBytes, ActorError> {
    RawBytes::serialize(value).map_err(|e| actor_error_v18!(serialization, "failed to encode return value: {}", e))
}
