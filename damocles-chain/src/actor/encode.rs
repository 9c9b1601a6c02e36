//! From a call to a method's parameters.

use super::{commit, limits, limits::LimitError, miner, post, sectors};
use crate::lotus_json::{AddressError, BitFieldError, from_core};
use damocles_core::chain::{Call, RepayDebt, Transfer, WithdrawBalance};
use fil_actor_miner_state::v18::{Method as M, WithdrawBalanceParams};
use fil_actor_power_state::v18 as power;
use fil_actors_shared::v18::STORAGE_POWER_ACTOR_ADDR;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{METHOD_SEND, address::Address, bigint::BigInt, econ::TokenAmount};
use serde::Serialize;

/// Why a call cannot be sent to any actor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The actor refuses it by its own bounds.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An address is not one.
    #[error("an address in the call is not one")]
    Address(#[from] AddressError),
    /// A set of sectors is beyond what a bit field holds.
    #[error("the sectors of the call are no bit field")]
    Sectors(#[from] BitFieldError),
    /// A peer ID is not one.
    #[error("`{0}` is not a peer ID")]
    PeerId(String),
    /// A multiaddress is not one.
    #[error("`{0}` is not a multiaddress")]
    Multiaddr(String),
    /// The parameters are beyond what CBOR of the chain holds.
    #[error("the parameters cannot be written")]
    Cbor(#[from] fvm_ipld_encoding::Error),
    /// A call that this version does not know.
    #[error("this kind of call is not known")]
    Unknown,
}

/// A call as an actor takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorCall {
    /// The actor.
    pub to: Address,
    /// The method.
    pub method: u64,
    /// Its parameters.
    pub params: RawBytes,
}

/// Turns a call into a method and its parameters.
///
/// # Errors
///
/// The actor would refuse it whatever the state of the chain, or something in it is malformed.
pub fn encode(call: &Call) -> Result<ActorCall, EncodeError> {
    let to = match call {
        Call::Send(transfer) => from_core(&transfer.to)?,
        _ => call.miner().map_or(STORAGE_POWER_ACTOR_ADDR, |id| Address::new_id(id.0)),
    };
    let (method, params) = match call {
        Call::CreateMiner(call) => (power::Method::CreateMiner as u64, miner::create(call)?),
        Call::PreCommit(call) => (M::PreCommitSectorBatch2 as u64, commit::pre_commit(call)?),
        Call::ProveCommit(call) => (M::ProveCommitSectors3 as u64, commit::prove_commit(call)?),
        Call::ProveCommitAggregate(call) => (M::ProveCommitSectors3 as u64, commit::aggregate(call)?),
        Call::ProveReplicaUpdates(call) => (M::ProveReplicaUpdates3 as u64, commit::updates(call)?),
        Call::ProveCommitNi(call) => (M::ProveCommitSectorsNI as u64, commit::non_interactive(call)?),
        Call::SubmitWindowedPoSt(call) => (M::SubmitWindowedPoSt as u64, post::submit(call)?),
        Call::DeclareFaults(call) => (M::DeclareFaults as u64, post::faults(call)?),
        Call::DeclareFaultsRecovered(call) => (M::DeclareFaultsRecovered as u64, post::recoveries(call)?),
        Call::ExtendSectors(call) => (M::ExtendSectorExpiration2 as u64, sectors::extend(call)?),
        Call::TerminateSectors(call) => (M::TerminateSectors as u64, sectors::terminate(call)?),
        Call::CompactPartitions(call) => (M::CompactPartitions as u64, sectors::compact(call)?),
        Call::CompactSectorNumbers(call) => (M::CompactSectorNumbers as u64, sectors::compact_numbers(call)?),
        Call::WithdrawBalance(call) => (M::WithdrawBalance as u64, withdraw(call)?),
        Call::RepayDebt(call) => (M::RepayDebt as u64, repay(call)?),
        Call::ChangeWorker(call) => (M::ChangeWorkerAddress as u64, miner::worker(call)?),
        Call::ConfirmChangeWorker(_) => (M::ConfirmChangeWorkerAddress as u64, RawBytes::default()),
        Call::ChangeOwner(call) => (M::ChangeOwnerAddress as u64, miner::owner(call)?),
        Call::ChangeBeneficiary(call) => (M::ChangeBeneficiary as u64, miner::beneficiary(call)?),
        Call::ChangePeerId(call) => (M::ChangePeerID as u64, miner::peer_id(call)?),
        Call::ChangeMultiaddrs(call) => (M::ChangeMultiaddrs as u64, miner::multiaddrs(call)?),
        Call::Send(call) => (METHOD_SEND, send(call)?),
        _ => return Err(EncodeError::Unknown),
    };
    Ok(ActorCall { to, method, params })
}

pub(super) fn cbor<T: Serialize>(params: &T) -> Result<RawBytes, EncodeError> {
    Ok(RawBytes::serialize(params)?)
}

/// An amount as the chain writes it.
pub(super) fn amount(amount: damocles_core::TokenAmount) -> TokenAmount {
    TokenAmount::from_atto(BigInt::from(amount.atto()))
}

fn withdraw(call: &WithdrawBalance) -> Result<RawBytes, EncodeError> {
    limits::amount("withdrawal", call.amount)?;
    cbor(&WithdrawBalanceParams { amount_requested: amount(call.amount) })
}

fn repay(call: &RepayDebt) -> Result<RawBytes, EncodeError> {
    limits::amount("repayment", call.amount)?;
    Ok(RawBytes::default())
}

fn send(call: &Transfer) -> Result<RawBytes, EncodeError> {
    limits::amount("transfer", call.amount)?;
    Ok(RawBytes::default())
}
