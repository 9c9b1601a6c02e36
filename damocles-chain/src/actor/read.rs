//! From a message back to a call.

use super::{commit, miner, post, sectors};
use crate::lotus_json::to_core;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_core::{
    ActorId, TokenAmount,
    chain::{Call, ConfirmChangeWorker, RepayDebt, Transfer, WithdrawBalance},
};
use fil_actor_miner_state::v18::{Method as M, WithdrawBalanceParams};
use fil_actor_power_state::v18 as power;
use fil_actors_shared::v18::STORAGE_POWER_ACTOR_ADDR;
use fvm_ipld_encoding::de::DeserializeOwned;
use fvm_shared::{METHOD_SEND, econ, message::Message};

/// Reads a message that was sent to a miner. None for a method that no call of ours stands for, and for parameters
/// that no client of ours would send.
///
/// `params` is base64, as on Lotus' wire. What stands beside the parameters in a message is not known here: a
/// [`RepayDebt`] has the amount zero, and no call names its sender. [`decode_message`] knows both.
pub fn decode_call(miner: ActorId, method: u64, params: &str) -> Option<Call> {
    of_miner(miner, method, &STANDARD.decode(params).ok()?)
}

/// Reads a message to any actor, with its sender and value. None for what no call of ours stands for.
pub fn decode_message(message: &Message) -> Option<Call> {
    let params = message.params.bytes();
    let value = amount_of(&message.value)?;
    let from = to_core(&message.from);
    if message.method_num == METHOD_SEND {
        let transfer = Transfer { from, to: to_core(&message.to), amount: value };
        return params.is_empty().then_some(Call::Send(transfer));
    }
    if message.to == STORAGE_POWER_ACTOR_ADDR {
        let create = message.method_num == power::Method::CreateMiner as u64;
        return if create { miner::read_create(params) } else { None };
    }
    let mut call = of_miner(ActorId(message.to.id().ok()?), message.method_num, params)?;
    match &mut call {
        Call::RepayDebt(call) => call.amount = value,
        Call::WithdrawBalance(call) => call.from = Some(from),
        Call::ChangeOwner(call) => call.from = Some(from),
        Call::ChangeBeneficiary(call) => call.from = Some(from),
        _ => {}
    }
    Some(call)
}

fn of_miner(miner: ActorId, method: u64, params: &[u8]) -> Option<Call> {
    let is = |known: M| method == known as u64;
    match () {
        () if is(M::PreCommitSectorBatch2) => commit::read_pre_commit(miner, params),
        () if is(M::ProveCommitSectors3) => commit::read_prove_commit(miner, params),
        () if is(M::ProveReplicaUpdates3) => commit::read_updates(miner, params),
        () if is(M::ProveCommitSectorsNI) => commit::read_non_interactive(miner, params),
        () if is(M::SubmitWindowedPoSt) => post::read_submit(miner, params),
        () if is(M::DeclareFaults) => post::read_faults(miner, params),
        () if is(M::DeclareFaultsRecovered) => post::read_recoveries(miner, params),
        () if is(M::ExtendSectorExpiration2) => sectors::read_extend(miner, params),
        () if is(M::TerminateSectors) => sectors::read_terminate(miner, params),
        () if is(M::CompactPartitions) => sectors::read_compact(miner, params),
        () if is(M::CompactSectorNumbers) => sectors::read_compact_numbers(miner, params),
        () if is(M::WithdrawBalance) => {
            let amount = amount_of(&read::<WithdrawBalanceParams>(params)?.amount_requested)?;
            Some(Call::WithdrawBalance(WithdrawBalance { miner, amount, from: None }))
        }
        () if is(M::RepayDebt) => {
            params.is_empty().then_some(Call::RepayDebt(RepayDebt { miner, amount: TokenAmount::ZERO }))
        }
        () if is(M::ConfirmChangeWorkerAddress) => {
            params.is_empty().then_some(Call::ConfirmChangeWorker(ConfirmChangeWorker { miner, from: None }))
        }
        () if is(M::ChangeWorkerAddress) => miner::read_worker(miner, params),
        () if is(M::ChangeOwnerAddress) => miner::read_owner(miner, params),
        () if is(M::ChangeBeneficiary) => miner::read_beneficiary(miner, params),
        () if is(M::ChangePeerID) => miner::read_peer_id(miner, params),
        () if is(M::ChangeMultiaddrs) => miner::read_change_multiaddrs(miner, params),
        () => None,
    }
}

/// Parameters of one shape; none for any other bytes.
pub(super) fn read<T: DeserializeOwned>(params: &[u8]) -> Option<T> {
    fvm_ipld_encoding::from_slice(params).ok()
}

/// An amount of the chain; none for one beyond all FIL that there will ever be.
pub(super) fn amount_of(amount: &econ::TokenAmount) -> Option<TokenAmount> {
    i128::try_from(amount.atto()).ok().map(TokenAmount::from_atto)
}
