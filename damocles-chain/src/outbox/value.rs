//! What has to be sent along with a call.

use super::{Limits, limits};
use crate::{
    lotus_json::{Lotus, SectorPreCommitInfo, SectorPreCommitOnChainInfo, form::LotusJson},
    rpc::RpcClient,
};
use damocles_core::{
    ActorId, Address, SealProofType, SectorNumber,
    chain::{Call, ChainError, PreCommitBatch, ProveCommit, TipsetRef},
};
use fvm_shared::econ::TokenAmount;
use num_traits::Zero as _;
use serde_json::{Value, json};

/// A tipset key as a parameter.
pub(crate) fn key_param(at: &TipsetRef) -> Value {
    serde_json::to_value(Lotus(at.key.0.clone())).expect("a list of CIDs can be written")
}

/// The deposit or pledge of a call, as the node estimates it with its own margin.
pub(super) async fn value_of(
    rpc: &RpcClient,
    limits: &Limits,
    head: &TipsetRef,
    call: &Call,
) -> Result<TokenAmount, ChainError> {
    match call {
        Call::CreateMiner(_) => {
            let params = json!([key_param(head)]);
            amount(rpc, "StateMinerCreationDeposit", params, limits.create_miner_deposit).await
        }
        Call::PreCommit(batch) => deposits(rpc, limits, head, batch).await,
        Call::ProveCommit(batch) => pledges(rpc, limits, head, batch).await,
        _ => Ok(TokenAmount::zero()),
    }
}

/// An amount that is sent away, which is the node's word alone.
async fn amount(
    rpc: &RpcClient,
    method: &'static str,
    params: Value,
    most: damocles_core::TokenAmount,
) -> Result<TokenAmount, ChainError> {
    let amount: TokenAmount = rpc.call_form(method, params).await?;
    limits::check(method, &amount, most)?;
    Ok(amount)
}

async fn deposits(
    rpc: &RpcClient,
    limits: &Limits,
    head: &TipsetRef,
    batch: &PreCommitBatch,
) -> Result<TokenAmount, ChainError> {
    let miner = Address::from_actor(batch.miner);
    let mut sum = TokenAmount::zero();
    for sector in &batch.sectors {
        let info = SectorPreCommitInfo {
            seal_proof: sector.proof_type.number(),
            sector_number: sector.number.0,
            sealed_cid: sector.comm_r.cid(),
            seal_rand_epoch: sector.ticket_epoch.0,
            deal_ids: Vec::new(),
            expiration: sector.expiration.0,
            unsealed_cid: sector.comm_d.map(|d| d.cid()),
        };
        let params = json!([miner, info, key_param(head)]);
        let most = Limits::of_size(limits.sector_deposit, sector.proof_type.sector_size());
        sum += amount(rpc, "StateMinerPreCommitDepositForPower", params, most).await?;
    }
    Ok(sum)
}

/// The pledge, less the deposit that the actor holds already.
async fn pledges(
    rpc: &RpcClient,
    limits: &Limits,
    head: &TipsetRef,
    batch: &ProveCommit,
) -> Result<TokenAmount, ChainError> {
    let mut sum = TokenAmount::zero();
    for sector in &batch.sectors {
        // A sector that is not pre-committed is refused by the actor, and needs no pledge for that.
        let Some(on_chain) = pre_commit(rpc, head, batch.miner, sector.number).await? else { continue };
        let duration = on_chain.info.expiration.saturating_sub(head.epoch.0);
        let Ok(proof) = SealProofType::try_from(on_chain.info.seal_proof) else { continue };
        if duration <= 0 {
            continue;
        }
        let params = json!([duration, proof.sector_size().bytes(), 0, key_param(head)]);
        let most = Limits::of_size(limits.sector_pledge, proof.sector_size());
        let pledge = amount(rpc, "StateMinerInitialPledgeForSector", params, most).await?;
        let rest = pledge - on_chain.pre_commit_deposit;
        if rest.is_positive() {
            sum += rest;
        }
    }
    Ok(sum)
}

/// A pre-commit that waits for its proof.
pub(crate) async fn pre_commit(
    rpc: &RpcClient,
    at: &TipsetRef,
    miner: ActorId,
    number: SectorNumber,
) -> Result<Option<SectorPreCommitOnChainInfo>, ChainError> {
    rpc.call("StateSectorPreCommitInfo", json!([Address::from_actor(miner), number, key_param(at)])).await
}

/// A value in its form as a parameter.
pub(crate) fn param<T: LotusJson>(value: T) -> Value {
    serde_json::to_value(Lotus(value)).expect("chain types can be written")
}
