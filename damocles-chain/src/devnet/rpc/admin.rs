//! What a devnet can that a network cannot.

use super::{
    args::{Args, RpcFault, plain},
    faults::Plan,
};
use crate::{
    devnet::{
        fork::{ForkPlan, MessageFate},
        node::Devnet,
        rpc::chain::stored_message,
    },
    lotus_json::Lotus,
};
use cid::Cid;
use damocles_core::{SealProofType, SectorSize, chain::TipsetRef};
use fvm_shared::{address::Address, econ::TokenAmount};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

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
        "EpochMillis": millis(devnet.epoch_duration()),
        "BaseFee": super::gas::report(devnet),
        "Pending": devnet.chain.read().pool.all().count(),
        "Branches": devnet.chain.read().branches,
    }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A fork as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ForkParams {
    depth: u64,
    #[serde(default)]
    extend: u64,
    #[serde(default)]
    nulls: u64,
    #[serde(default)]
    messages: FateParam,
    #[serde(default)]
    only: Vec<OnlyParam>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct OnlyParam {
    cid: Lotus<Cid>,
    fate: FateParam,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
enum FateParam {
    #[default]
    Again,
    Pool,
    Delay(u64),
    Drop,
    Mixed(u64),
}

impl From<FateParam> for MessageFate {
    fn from(fate: FateParam) -> Self {
        match fate {
            FateParam::Again => Self::Again,
            FateParam::Pool => Self::Pool,
            FateParam::Delay(epochs) => Self::Delay(epochs),
            FateParam::Drop => Self::Drop,
            FateParam::Mixed(seed) => Self::Mixed(seed),
        }
    }
}

/// Forks the chain; answers with what was reverted and applied, and what became of the messages.
pub(super) fn fork(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let params: ForkParams = args.get(0)?;
    let overrides = params.only.into_iter().map(|o| (o.cid.0, o.fate.into())).collect();
    let plan = ForkPlan {
        depth: params.depth,
        extend: params.extend,
        nulls: params.nulls,
        fate: params.messages.into(),
        overrides,
    };
    let forked = devnet.fork(&plan)?;
    let tipset = |t: &TipsetRef| -> Result<Value, RpcFault> {
        Ok(json!({"Height": t.epoch.0, "Cids": plain(&Lotus(t.key.0.clone()))?}))
    };
    let tipsets = |all: &[TipsetRef]| all.iter().map(tipset).collect::<Result<Vec<_>, _>>();
    let cids = |cids: Vec<Cid>| plain(&cids.into_iter().map(Lotus).collect::<Vec<_>>());
    Ok(json!({
        "Base": tipset(&forked.base)?,
        "Reverted": tipsets(&forked.reverted)?,
        "Applied": tipsets(&forked.applied)?,
        "Landed": cids(forked.landed)?,
        "Returned": cids(forked.returned)?,
        "Lost": cids(forked.lost)?,
    }))
}

/// Puts faults in force; without a parameter it changes nothing. Answers with the rules and how often each struck.
pub(super) fn faults(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    if let Some(plan) = args.get::<Option<Plan>>(0)? {
        devnet.faults.set(plan)?;
    }
    devnet.faults.report()
}

/// A base fee as it is asked for: a multiple of the next one, or an amount.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct BaseFeeParams {
    #[serde(default)]
    multiply: Option<u64>,
    #[serde(default)]
    set: Option<Lotus<TokenAmount>>,
    #[serde(default)]
    tipsets: Option<u64>,
}

/// Sets the base fee of the next tipset, or of more; answers with it.
pub(super) fn base_fee(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let params: BaseFeeParams = args.get(0)?;
    let fee = match (params.multiply, params.set) {
        (Some(by), None) => devnet.base_fee() * by,
        (None, Some(fee)) => fee.0,
        _ => return Err(RpcFault::params("either Multiply or Set")),
    };
    devnet.spike_base_fee(fee, params.tipsets.unwrap_or(1))?;
    super::args::lotus(devnet.base_fee())
}

/// A network version as it is asked for: from an epoch on, or from the next one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct VersionParams {
    version: u32,
    #[serde(default)]
    height: Option<i64>,
}

/// Has the network say that it is another version from an epoch on; answers with the epoch.
pub(super) fn network_version(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let params: VersionParams = args.get(0)?;
    let height = params.height.unwrap_or_else(|| devnet.head().epoch.0 + 1);
    devnet.upgrade(params.version, height)?;
    Ok(json!(height))
}

/// The longest epoch that can be asked for.
const MAX_EPOCH_MILLIS: u64 = 3_600_000;

/// Changes how long an epoch takes, in milliseconds; answers with how long it takes now.
pub(super) fn pace(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let wanted: u64 = args.get(0)?;
    if !(1..=MAX_EPOCH_MILLIS).contains(&wanted) {
        return Err(RpcFault::params(format!("an epoch takes 1 to {MAX_EPOCH_MILLIS} milliseconds")));
    }
    devnet.set_epoch_duration(Duration::from_millis(wanted));
    Ok(json!(millis(devnet.epoch_duration())))
}

/// Writes a snapshot into a new file on the devnet's machine; answers with the epoch of the head in it.
pub(super) fn snapshot(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let path: PathBuf = args.get(0)?;
    if !path.is_absolute() {
        return Err(RpcFault::params("the path of a snapshot is absolute"));
    }
    Ok(json!(devnet.snapshot(&path)?.epoch.0))
}

/// Skips idle time; answers with the epoch of the head that was reached.
pub(super) fn advance_to(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    Ok(json!(devnet.advance_to(args.get(0)?)?.epoch.0))
}

/// Checks the state after the head; answers with what is wrong with it, which is nothing unless the devnet has a defect.
pub(super) fn check(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    Ok(json!(devnet.check()?))
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
