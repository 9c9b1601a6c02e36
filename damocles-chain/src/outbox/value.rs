//! What has to be sent along with a call.

use super::{Limits, limits};
use crate::{
    lotus_json::{Lotus, SectorOnChainInfo, SectorPreCommitInfo, SectorPreCommitOnChainInfo, form::LotusJson},
    rpc::RpcClient,
};
use damocles_core::{
    ActorId, Address, SealProofType, SectorNumber, SectorSize,
    chain::{Call, ChainError, PieceActivation, PreCommitBatch, ProveCommitNi, ProveReplicaUpdates, TipsetRef},
};
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use num_traits::Zero as _;
use serde_json::{Value, json};

/// A tipset key as a parameter.
pub(crate) fn key_param(at: &TipsetRef) -> Value {
    serde_json::to_value(Lotus(at.key.0.clone())).expect("a list of CIDs can be written")
}

/// An amount that the call itself names.
fn given(amount: damocles_core::TokenAmount) -> TokenAmount {
    TokenAmount::from_atto(BigInt::from(amount.atto()))
}

/// The deposit or pledge of a call, as the node estimates it with its own margin, or the amount that it names.
pub(super) async fn value_of(
    rpc: &RpcClient,
    limits: &Limits,
    head: &TipsetRef,
    call: &Call,
) -> Result<TokenAmount, ChainError> {
    let pledges = Pledges { rpc, most: limits.sector_pledge, head };
    match call {
        Call::CreateMiner(_) => {
            let params = json!([key_param(head)]);
            amount(rpc, "StateMinerCreationDeposit", params, limits.create_miner_deposit).await
        }
        Call::PreCommit(batch) => deposits(rpc, limits, head, batch).await,
        Call::ProveCommit(batch) => {
            let sectors = batch.sectors.iter().map(|s| (s.number, verified(&s.pieces)));
            pledges.of_pre_committed(batch.miner, sectors).await
        }
        Call::ProveCommitAggregate(batch) => {
            let sectors = batch.sectors.iter().map(|s| (s.number, verified(&s.pieces)));
            pledges.of_pre_committed(batch.miner, sectors).await
        }
        Call::ProveReplicaUpdates(batch) => pledges.added(batch).await,
        Call::ProveCommitNi(batch) => pledges.of_new(batch).await,
        Call::RepayDebt(call) => Ok(given(call.amount)),
        Call::Send(call) => Ok(given(call.amount)),
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

/// The bytes of pieces that claim a verified allocation.
fn verified(pieces: &[PieceActivation]) -> u64 {
    let claimed = pieces.iter().filter(|p| p.allocation.is_some());
    claimed.fold(0, |sum, piece| sum.saturating_add(piece.piece.size.bytes()))
}

/// What is left of a pledge when the miner has locked some of it already.
fn rest(pledge: TokenAmount, locked: &TokenAmount) -> TokenAmount {
    let rest = pledge - locked;
    if rest.is_positive() { rest } else { TokenAmount::zero() }
}

/// What the node asks of sectors that are proven now.
struct Pledges<'a> {
    rpc: &'a RpcClient,
    /// For a sector of up to 32 GiB.
    most: damocles_core::TokenAmount,
    head: &'a TipsetRef,
}

impl Pledges<'_> {
    /// The pledge of one sector, as the node estimates it.
    async fn of_one(&self, size: SectorSize, expiration: i64, verified: u64) -> Result<TokenAmount, ChainError> {
        let duration = expiration.saturating_sub(self.head.epoch.0);
        // The actor refuses what has expired, and needs no pledge for that.
        if duration <= 0 {
            return Ok(TokenAmount::zero());
        }
        let params = json!([duration, size.bytes(), verified, key_param(self.head)]);
        // Verified bytes count tenfold.
        let most = Limits::of_size(self.most, size).atto();
        let most = if verified > 0 { most.saturating_mul(10) } else { most };
        let most = damocles_core::TokenAmount::from_atto(most);
        amount(self.rpc, "StateMinerInitialPledgeForSector", params, most).await
    }

    /// The pledges of pre-committed sectors with so many verified bytes, less the deposits that the actor holds.
    async fn of_pre_committed(
        &self,
        miner: ActorId,
        sectors: impl IntoIterator<Item = (SectorNumber, u64)> + Send,
    ) -> Result<TokenAmount, ChainError> {
        let sectors: Vec<_> = sectors.into_iter().collect();
        let mut sum = TokenAmount::zero();
        for (number, verified) in sectors {
            // A sector that is not pre-committed is refused by the actor, and needs no pledge for that.
            let Some(on_chain) = pre_commit(self.rpc, self.head, miner, number).await? else { continue };
            let Ok(proof) = SealProofType::try_from(on_chain.info.seal_proof) else { continue };
            let pledge = self.of_one(proof.sector_size(), on_chain.info.expiration, verified).await?;
            sum += rest(pledge, &on_chain.pre_commit_deposit);
        }
        Ok(sum)
    }

    /// What updates add to the pledges of their sectors.
    async fn added(&self, batch: &ProveReplicaUpdates) -> Result<TokenAmount, ChainError> {
        let mut sum = TokenAmount::zero();
        for sector in &batch.sectors {
            let params = json!([Address::from_actor(batch.miner), sector.number, key_param(self.head)]);
            let found: Option<SectorOnChainInfo> = self.rpc.call("StateSectorGetInfo", params).await?;
            // A sector that is not there is refused by the actor.
            let Some(found) = found else { continue };
            let pledge = self.of_one(batch.sector_size, found.expiration, verified(&sector.pieces)).await?;
            sum += rest(pledge, &found.initial_pledge);
        }
        Ok(sum)
    }

    async fn of_new(&self, batch: &ProveCommitNi) -> Result<TokenAmount, ChainError> {
        let mut sum = TokenAmount::zero();
        for sector in &batch.sectors {
            sum += self.of_one(batch.sector_size, sector.expiration.0, 0).await?;
        }
        Ok(sum)
    }
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
