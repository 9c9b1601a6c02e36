//! What a devnet can that a network cannot.

use super::args::{Args, RpcFault, plain};
use crate::{
    devnet::{node::Devnet, rpc::chain::stored_message},
    lotus_json::Lotus,
};
use damocles_core::{SealProofType, SectorSize};
use fvm_shared::address::Address;
use serde_json::{Value, json};

/// The most tipsets that one call mines.
const MAX_MINED: u64 = 10_000;

/// The network, its clock and the digests of the verifying keys.
pub(super) fn info(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    let mut keys = serde_json::Map::new();
    for size in [SectorSize::KiB2, SectorSize::MiB8, SectorSize::MiB512] {
        // A size whose keys are not there cannot be proven, which is no reason to know nothing of the others.
        if let Ok(found) = devnet.verifier.keys(SealProofType::of(size)) {
            keys.insert(size.to_string(), plain(&found)?);
        }
    }
    let fake = keys.get(&SectorSize::KiB2.to_string()).and_then(|k| k.get("porep")) == Some(&json!("fake"));
    let head = devnet.head();
    Ok(json!({
        "Network": devnet.network_name(),
        "Proofs": if fake { "fake" } else { "real" },
        "VerifyingKeys": keys,
        "Paused": devnet.is_paused(),
        "Epoch": head.epoch.0,
        "EpochMillis": u64::try_from(devnet.config.epoch_duration.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// Skips idle time; answers with the epoch of the head that was reached.
pub(super) fn advance_to(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    Ok(json!(devnet.advance_to(args.get(0)?)?.epoch.0))
}

pub(super) fn pause(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    devnet.pause();
    Ok(json!(devnet.head().epoch.0))
}

pub(super) fn resume(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    devnet.resume();
    Ok(json!(devnet.head().epoch.0))
}

/// Mines some tipsets, one per epoch; answers with the epoch of the head.
pub(super) fn mine(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let n: Option<u64> = args.get(0)?;
    if n.is_some_and(|n| n > MAX_MINED) {
        return Err(RpcFault::new(format!("at most {MAX_MINED} tipsets at a time")));
    }
    Ok(json!(devnet.mine(n.unwrap_or(1))?.epoch.0))
}

/// All messages to an actor that are on chain, oldest first; to all actors if none is given.
pub(super) fn messages(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let to: Option<Address> = args.lotus(0)?;
    let tipsets: Vec<_> = devnet.chain.read().tipsets().filter(|t| !t.messages.is_empty()).cloned().collect();
    let mut out = Vec::new();
    for tipset in tipsets {
        for executed in &tipset.messages {
            let message = stored_message(devnet, &executed.cid)?;
            if to.is_some_and(|to| to != message.to) {
                continue;
            }
            out.push(json!({
                "Cid": plain(&Lotus(executed.cid))?,
                "Epoch": tipset.height,
                "From": plain(&Lotus(message.from))?,
                "To": plain(&Lotus(message.to))?,
                "Nonce": executed.nonce,
                "Method": message.method_num,
                "Sectors": sectors_of(&message),
                "ExitCode": executed.receipt.exit_code.value(),
                "Error": executed.error,
            }));
        }
    }
    Ok(Value::Array(out))
}

/// The sectors that a pre-commit or prove-commit names.
fn sectors_of(message: &fvm_shared::message::Message) -> Vec<u64> {
    use crate::devnet::miner::method;
    use fil_actor_miner_state::v18::{PreCommitSectorBatchParams2, ProveCommitSectors3Params};
    match message.method_num {
        method::PRE_COMMIT_SECTOR_BATCH2 => message
            .params
            .deserialize::<PreCommitSectorBatchParams2>()
            .map(|p| p.sectors.iter().map(|s| s.sector_number).collect())
            .unwrap_or_default(),
        method::PROVE_COMMIT_SECTORS3 => message
            .params
            .deserialize::<ProveCommitSectors3Params>()
            .map(|p| p.sector_activations.iter().map(|s| s.sector_number).collect())
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}
