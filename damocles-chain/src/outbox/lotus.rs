//! The outbox's node, over Lotus' RPC.

use super::{
    Account, Found, Limits, Located, Node, Push, Search, Simulated,
    answers::{said_by_error, taken, would_be_refused},
    lookup::has_replaced,
    pricing::{BLOCK_GAS, Estimate},
    recent::Recent,
    value::{key_param, param, value_of},
};
use crate::{
    lotus_json::{ActorState, InvocResult, Lotus, MsgLookup, SignedMessage, TipSet, message_cid, signed_message_cid},
    rpc::{RpcClient, RpcCode, RpcError, is_unknown_method},
};
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    Epoch, Recovery,
    chain::{Call, ChainError, ChainErrorKind, TipsetKey, TipsetRef},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The actor that is there from the genesis on.
const INIT_ACTOR_ID: u64 = 1;
/// For a message that the actor will refuse, attoFIL a unit of gas.
const LEAST_PREMIUM: u64 = 100_000;
/// Messages that are handed in with one question.
const PUSHED_TOGETHER: usize = 100;

/// What is read of a message in the pool.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pooled {
    message: PooledMessage,
    #[serde(rename = "CID", default)]
    cid: Option<Lotus<Cid>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PooledMessage {
    from: Lotus<Address>,
    nonce: u64,
}

#[derive(Debug)]
pub(crate) struct LotusNode {
    rpc: Arc<RpcClient>,
    limits: Limits,
    recent: Recent,
    /// The network's version at the tipset that was asked for last.
    version: Mutex<Option<(TipsetKey, u32)>>,
}

impl LotusNode {
    /// `senders` are the keys that are held here.
    pub(crate) fn new(rpc: Arc<RpcClient>, limits: Limits, senders: impl Iterator<Item = Address>) -> Self {
        Self { rpc, limits, recent: Recent::new(senders.collect()), version: Mutex::default() }
    }

    /// An actor in the state of a tipset, if it is there.
    async fn actor(&self, address: &Address, key: Value) -> Result<Option<ActorState>, ChainError> {
        match self.rpc.call("StateGetActor", json!([param(*address), key])).await {
            Ok(actor) => Ok(Some(actor)),
            Err(e) if is_no_actor(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// An actor in the state of a tipset, if it is there: that it is not, only a state tells that shows what is in every
    /// one.
    async fn actor_for_sure(&self, address: &Address, key: Value) -> Result<Option<ActorState>, ChainError> {
        if let Some(actor) = self.actor(address, key.clone()).await? {
            return Ok(Some(actor));
        }
        let shown: Option<ActorState> = self.actor(&Address::new_id(INIT_ACTOR_ID), key).await?;
        match shown {
            Some(_) => Ok(None),
            None => Err(ChainError::new(ChainErrorKind::Malformed, "read account")
                .with("endpoint", self.rpc.endpoint())
                .with("what", "a state without its first actors")),
        }
    }

    async fn push_one(&self, message: &SignedMessage) -> Result<Push, ChainError> {
        let cid = signed_message_cid(message);
        let error = match self.rpc.call_form::<Cid>("MpoolPush", json!([message])).await {
            Ok(pushed) if pushed == cid => return Ok(Push::Accepted),
            Ok(other) => ChainError::new(ChainErrorKind::Malformed, "push message")
                .with("endpoint", self.rpc.endpoint())
                .with("message", cid)
                .with("answer", other),
            Err(error) => error,
        };
        // Funds come and fees fall: a push is never given up, its nonce has to be filled.
        let taken = RpcError::of(&error).and_then(|e| taken(&e.message));
        taken.ok_or_else(|| error.recover_by(Recovery::RETRY))
    }

    /// Hands messages in together; none if that has to be done one by one.
    async fn push_together(&self, messages: &[&SignedMessage]) -> Option<Vec<Result<Push, ChainError>>> {
        if messages.len() < 2 {
            return None;
        }
        match self.rpc.call::<Vec<Lotus<Cid>>>("MpoolBatchPush", json!([messages])).await {
            Ok(cids) if cids.iter().map(|cid| cid.0).eq(messages.iter().map(|m| signed_message_cid(m))) => {
                Some(messages.iter().map(|_| Ok(Push::Accepted)).collect())
            }
            // One of them was refused, or not taken, and it is not said which; those before it are in the pool.
            Ok(_) => None,
            Err(e) if RpcError::of(&e).is_some() || e.kind() == ChainErrorKind::Malformed => None,
            Err(e) => {
                // Whoever has to wait for an answer to each would wait for hours.
                let again =
                    || ChainError::new(e.kind(), "push messages").recover_by(Recovery::RETRY).because(e.chain());
                Some(messages.iter().map(|_| Err(again())).collect())
            }
        }
    }
}

/// Whether an error says that there is no such actor. Of what else is not found nothing follows for an account.
fn is_no_actor(error: &ChainError) -> bool {
    RpcError::of(error).is_some_and(|said| {
        said.meaning() == RpcCode::ActorNotFound || said.message.to_lowercase().contains("actor not found")
    })
}

/// Limit for a message that the node's trial run refuses. It is sent all the same: the receipt, not our guess, tells the
/// caller what the actor made of it, and what fails now may pass when it lands.
fn limit_unrun(call: Option<&Call>) -> u64 {
    match call {
        Some(Call::ProveCommitAggregate(batch)) => gas(200_000_000, 60_000_000, batch.sectors.len()),
        Some(Call::ProveCommitNi(batch)) => gas(200_000_000, 80_000_000, batch.sectors.len()),
        Some(Call::ProveReplicaUpdates(batch)) => gas(100_000_000, 100_000_000, batch.sectors.len()),
        Some(Call::TerminateSectors(batch)) => {
            let sectors: usize = batch.terminations.iter().map(|part| part.sectors.len()).sum();
            // Each partition is read and written besides.
            gas(200_000_000, 20_000_000, sectors.saturating_add(batch.terminations.len().saturating_mul(5)))
        }
        Some(Call::ExtendSectors(batch)) => {
            let sectors: usize = batch.extensions.iter().map(|part| part.sectors.len()).sum();
            gas(200_000_000, 20_000_000, sectors.saturating_add(batch.extensions.len().saturating_mul(5)))
        }
        Some(Call::DeclareFaults(batch)) => gas(100_000_000, 100_000_000, batch.faults.len()),
        Some(Call::DeclareFaultsRecovered(batch)) => gas(100_000_000, 100_000_000, batch.recoveries.len()),
        Some(Call::CompactPartitions(batch)) => gas(200_000_000, 200_000_000, batch.partitions.len()),
        Some(Call::PreCommit(batch)) => gas(50_000_000, 30_000_000, batch.sectors.len()),
        Some(Call::ProveCommit(batch)) => gas(100_000_000, 100_000_000, batch.sectors.len()),
        Some(Call::SubmitWindowedPoSt(post)) => gas(100_000_000, 150_000_000, post.partitions.len()),
        Some(Call::CreateMiner(_)) => gas(100_000_000, 0, 0),
        Some(Call::Send(_)) => gas(10_000_000, 0, 0),
        _ => gas(200_000_000, 0, 0),
    }
}

fn gas(fixed: u64, each: u64, count: usize) -> u64 {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    fixed.saturating_add(each.saturating_mul(count)).min(BLOCK_GAS / 2)
}

#[async_trait]
impl Node for LotusNode {
    async fn network_name(&self) -> Result<String, ChainError> {
        self.rpc.call("StateNetworkName", json!([])).await
    }

    async fn network_version(&self, head: &TipsetRef) -> Result<u32, ChainError> {
        if let Some((_, version)) = self.version.lock().as_ref().filter(|(key, _)| *key == head.key) {
            return Ok(*version);
        }
        let version = self.rpc.call("StateNetworkVersion", json!([key_param(head)])).await?;
        *self.version.lock() = Some((head.key.clone(), version));
        Ok(version)
    }

    async fn base_fee(&self, head: &TipsetRef) -> Result<TokenAmount, ChainError> {
        let told = self.recent.header(&self.rpc, &head.key).await?.base_fee;
        told.filter(|fee| !fee.is_negative()).ok_or_else(|| {
            ChainError::new(ChainErrorKind::Malformed, "read base fee")
                .with("endpoint", self.rpc.endpoint())
                .with("tipset", &head.key)
        })
    }

    async fn tipset_at(&self, head: &TipsetRef, height: i64) -> Result<TipsetRef, ChainError> {
        let tipset: TipSet = self.rpc.call("ChainGetTipSetByHeight", json!([height, key_param(head)])).await?;
        tipset.must_be_at_most(Epoch(height))?;
        Ok(tipset.to_ref())
    }

    async fn next_nonce(&self, sender: &Address) -> Result<u64, ChainError> {
        self.rpc.call("MpoolGetNonce", json!([param(*sender)])).await
    }

    async fn nonce_before(&self, head: &TipsetRef, epochs: i64, sender: &Address) -> Result<Option<u64>, ChainError> {
        let epoch = head.epoch.0.saturating_sub(epochs);
        if epoch < 1 {
            return Ok(None);
        }
        let old = self.tipset_at(head, epoch).await?;
        let key = key_param(&old);
        Ok(self.actor_for_sure(sender, key).await?.map(|actor| actor.nonce))
    }

    async fn account(&self, head: &TipsetRef, sender: &Address) -> Result<Account, ChainError> {
        match self.actor_for_sure(sender, key_param(head)).await? {
            Some(actor) => Ok(Account { nonce: actor.nonce, balance: actor.balance }),
            None => Ok(Account::default()),
        }
    }

    async fn pooled(&self, sender: &Address) -> Result<BTreeMap<u64, Option<Cid>>, ChainError> {
        let all: Option<Vec<Pooled>> = self.rpc.call("MpoolPending", json!([[]])).await?;
        let of_sender = |entry: Pooled| {
            let is_theirs = entry.message.from.0 == *sender;
            is_theirs.then(|| (entry.message.nonce, entry.cid.map(|cid| cid.0)))
        };
        Ok(all.unwrap_or_default().into_iter().filter_map(of_sender).collect())
    }

    async fn value(&self, head: &TipsetRef, call: &Call) -> Result<TokenAmount, ChainError> {
        value_of(&self.rpc, &self.limits, head, call).await
    }

    async fn estimate(&self, call: Option<&Call>, message: Message) -> Result<Estimate, ChainError> {
        let params = json!([param(message), Value::Null, []]);
        let priced: Message = match self.rpc.call_form("GasEstimateMessageGas", params).await {
            Ok(priced) => priced,
            Err(e) if would_be_refused(&e) => {
                return Ok(Estimate {
                    limit: limit_unrun(call),
                    is_guess: true,
                    premium: TokenAmount::from_atto(LEAST_PREMIUM),
                });
            }
            Err(e) => return Err(e),
        };
        let odd = |what| {
            Err(ChainError::new(ChainErrorKind::Malformed, "price message")
                .with("endpoint", self.rpc.endpoint())
                .with("what", what))
        };
        // Only the price is taken from the answer: a node must not be able to change what is signed.
        if priced.gas_limit == 0 || priced.gas_limit > BLOCK_GAS {
            return odd("a gas limit that no block has");
        }
        if priced.gas_premium.is_negative() || priced.gas_premium > priced.gas_fee_cap {
            return odd("a premium that the fee cap does not cover");
        }
        Ok(Estimate { limit: priced.gas_limit, is_guess: false, premium: priced.gas_premium })
    }

    async fn simulate(&self, head: &TipsetRef, message: &Message) -> Result<Option<Simulated>, ChainError> {
        let params = json!([param(message.clone()), key_param(head)]);
        let result: InvocResult = match self.rpc.call("StateCall", params).await {
            Ok(result) => result,
            Err(e) if is_unknown_method(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(receipt) = result.msg_rct else { return Ok(None) };
        Ok(Some(Simulated {
            exit_code: receipt.exit_code,
            returned: receipt.r#return,
            gas_used: receipt.gas_used,
            error: result.error,
        }))
    }

    async fn push(&self, messages: &[&SignedMessage]) -> Vec<Result<Push, ChainError>> {
        let mut out = Vec::with_capacity(messages.len());
        for part in messages.chunks(PUSHED_TOGETHER) {
            if let Some(pushed) = self.push_together(part).await {
                out.extend(pushed);
                continue;
            }
            for message in part {
                out.push(self.push_one(message).await);
            }
        }
        out
    }

    async fn search(&self, head: &TipsetRef, signed: &SignedMessage, cid: &Cid) -> Result<Search, ChainError> {
        let params = json!([key_param(head), param(*cid), -1, true]);
        let lookup = match self.rpc.call::<Option<MsgLookup>>("StateSearchMsg", params).await {
            Ok(Some(lookup)) => lookup,
            Ok(None) => return Ok(Search::Absent),
            Err(e) => return said_by_error(&e).ok_or(e),
        };
        // Not every node looks at what a message does before it takes one for the replacement of another.
        if lookup.message != *cid && lookup.message != message_cid(&signed.message) {
            let params = json!([param(lookup.message)]);
            let other: Message = self.rpc.call_form("ChainGetMessage", params).await?;
            match has_replaced(&signed.message, &other) {
                Some(true) => {}
                Some(false) => return Ok(Search::Taken),
                // A wrong answer must not make a call lose its nonce.
                None => {
                    return Err(ChainError::new(ChainErrorKind::Malformed, "look for message")
                        .with("endpoint", self.rpc.endpoint())
                        .with("message", cid)
                        .with("answer", lookup.message));
                }
            }
        }
        // The lookup names the tipset with the receipt; the message is in the one before it.
        let child = TipsetKey(lookup.tip_set);
        let tipset = self.recent.header(&self.rpc, &child).await?.parents.ok_or_else(|| {
            ChainError::new(ChainErrorKind::Malformed, "read tipset").with("endpoint", self.rpc.endpoint())
        })?;
        let epoch = self.recent.header(&self.rpc, &tipset).await?.height;
        Ok(Search::Landed(Found {
            message: lookup.message,
            exit_code: lookup.receipt.exit_code,
            returned: lookup.receipt.r#return,
            epoch,
            tipset,
        }))
    }

    async fn locate(&self, head: &TipsetRef, since: i64, sender: &Address, nonces: &BTreeSet<u64>) -> Located {
        self.recent.locate(&self.rpc, &head.key, since, sender, nonces).await
    }

    async fn said(&self, cid: &Cid) -> Option<String> {
        let replay = self.rpc.call::<InvocResult>("StateReplay", json!([[], param(*cid)])).await.ok()?;
        (!replay.error.is_empty()).then_some(replay.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{
        ActorId, DeadlineIndex, PartitionIndex, SectorNumber,
        chain::{PartitionSectors, ProveCommitAggregate, SectorPieces, TerminateSectors},
    };

    #[test]
    fn only_a_missing_actor_is_an_empty_account() {
        let said = |code, message: &str| {
            let source = RpcError { code, message: message.to_owned() };
            is_no_actor(&ChainError::new(ChainErrorKind::NotFound, "x").because(source))
        };
        assert!(said(11, "whatever"));
        assert!(said(1, "resolve address: Actor not found: f0100"));
        for other in ["route not found", "no such host", "the endpoint does not exist", "ipld: could not find bafy"] {
            assert!(!said(1, other), "{other}");
        }
        assert!(!is_no_actor(&ChainError::new(ChainErrorKind::NotFound, "x")));
    }

    #[test]
    fn what_was_not_tried_out_gets_the_gas_of_its_size() {
        let miner = ActorId(1000);
        let aggregate = |count| {
            let sectors = (0..count).map(|n| SectorPieces { number: SectorNumber(n), pieces: Vec::new() }).collect();
            Call::ProveCommitAggregate(ProveCommitAggregate { miner, sectors, proof: Vec::new(), all_or_nothing: true })
        };
        let terminate = |count| {
            let part = PartitionSectors {
                deadline: DeadlineIndex(0),
                partition: PartitionIndex(0),
                sectors: (0..count).map(SectorNumber).collect(),
            };
            Call::TerminateSectors(TerminateSectors { miner, terminations: vec![part] })
        };
        for (few, many) in [(aggregate(4), aggregate(60)), (terminate(1), terminate(100))] {
            assert!(limit_unrun(Some(&many)) > 5 * limit_unrun(Some(&few)), "{:?}", many.kind());
        }
        assert_eq!(limit_unrun(Some(&aggregate(800))), BLOCK_GAS / 2, "no more than a block takes");
    }
}
