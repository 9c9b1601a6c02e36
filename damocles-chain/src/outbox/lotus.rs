//! The outbox's node, over Lotus' RPC.

use super::{
    Account, Found, Limits, Node, Push, Search, limits, same_call,
    value::{key_param, param, value_of},
};
use crate::{
    lotus_json::{ActorState, InvocResult, Lotus, MsgLookup, SignedMessage, TipSet, message_cid},
    rpc::{RpcClient, RpcError, is_missing_block},
};
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    Recovery,
    chain::{Call, ChainError, ChainErrorKind, TipsetRef},
};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount, message::Message};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// The most gas that a block holds.
const BLOCK_GAS: u64 = 10_000_000_000;
/// For a message that the actor will refuse, attoFIL a unit of gas.
const LEAST_PREMIUM: u64 = 100_000;

/// What is read of a message in the pool.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pooled {
    message: PooledMessage,
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
}

impl LotusNode {
    pub(crate) fn new(rpc: Arc<RpcClient>, limits: Limits) -> Self {
        Self { rpc, limits }
    }

    async fn tipset(&self, key: &[Cid]) -> Result<TipSet, ChainError> {
        self.rpc.call("ChainGetTipSet", json!([Lotus(key.to_vec())])).await
    }

    fn within_limits(&self, call: &Call, message: Message) -> Result<Message, ChainError> {
        let fee = message.gas_fee_cap.clone() * message.gas_limit;
        limits::check("fee", &fee, self.limits.fee(call.kind()))?;
        Ok(message)
    }

    /// An actor in the state of a tipset, if it is there.
    async fn actor(&self, address: &Address, key: Value) -> Result<Option<ActorState>, ChainError> {
        match self.rpc.call("StateGetActor", json!([param(*address), key])).await {
            Ok(actor) => Ok(Some(actor)),
            Err(e) if e.kind() == ChainErrorKind::NotFound && !is_missing_block(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Limit and fees for a message that the node's trial run refuses. It is sent all the same: the receipt, not our
    /// guess, tells the caller what the actor made of it, and what fails now may pass when it lands.
    async fn price_unrun(&self, call: &Call, mut message: Message) -> Result<Message, ChainError> {
        let head: TipSet = self.rpc.call("ChainHead", json!([])).await?;
        let base_fee = head.blocks.first().map(|b| b.parent_base_fee.clone()).unwrap_or_default();
        message.gas_limit = match call {
            Call::PreCommit(batch) => gas(50_000_000, 30_000_000, batch.sectors.len()),
            Call::ProveCommit(batch) => gas(100_000_000, 100_000_000, batch.sectors.len()),
            Call::SubmitWindowedPoSt(post) => gas(100_000_000, 150_000_000, post.partitions.len()),
            Call::CreateMiner(_) => gas(100_000_000, 0, 0),
            _ => gas(200_000_000, 0, 0),
        };
        message.gas_premium = TokenAmount::from_atto(LEAST_PREMIUM);
        message.gas_fee_cap = base_fee * BigInt::from(2) + &message.gas_premium;
        Ok(message)
    }
}

fn gas(fixed: u64, each: u64, count: usize) -> u64 {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    fixed.saturating_add(each.saturating_mul(count)).min(BLOCK_GAS / 2)
}

/// Whether a failed estimate says that the actor would refuse the message as things are, rather than that the sender
/// cannot pay or the node cannot tell.
fn would_be_refused(error: &ChainError) -> bool {
    let Some(answer) = RpcError::of(error) else { return false };
    let text = answer.message.to_lowercase();
    // Money may come and nonces move: exit codes 1, 2 and 6 of the VM, in the spellings of the nodes.
    let passing = [
        "insufficient",
        "not enough funds",
        "exit=[1]",
        "exit=[2]",
        "exit=[6]",
        "syserrsenderinvalid",
        "syserrsenderstate",
    ];
    text.contains("execution failed") && !passing.iter().any(|p| text.contains(p))
}

/// What a search that ended in an error says all the same. Lotus loads a message before it looks for it, so that one
/// that never reached it is an error, and so is one whose nonce another message has. Any other text is no answer: a
/// node that was restored from a snapshot finds a message that landed and then misses its receipt.
fn said_by_error(error: &ChainError) -> Option<Search> {
    let text = RpcError::of(error)?.message.to_lowercase();
    if text.contains("not a valid replacement message") {
        Some(Search::Taken)
    } else if text.contains("failed to load message") {
        Some(Search::Unknown)
    } else {
        None
    }
}

/// How a node took a message, by the text of its refusal; none if it did not. Both Lotus and Forest are read.
fn taken(text: &str) -> Option<Push> {
    let text = text.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // The pool has another message with this nonce: Lotus begins that like what it says of a known one.
    if has(&["replace by fee", "increase gaspremium"]) {
        None
    } else if has(&["already in mpool", "already in mempool", "already exists", "existing nonce"]) {
        Some(Push::Accepted)
    } else if has(&["minimum expected nonce", "nonce too low", "sequence too low"]) {
        Some(Push::NonceUsed)
    } else {
        None
    }
}

#[async_trait]
impl Node for LotusNode {
    async fn network_name(&self) -> Result<String, ChainError> {
        self.rpc.call("StateNetworkName", json!([])).await
    }

    async fn next_nonce(&self, sender: &Address) -> Result<u64, ChainError> {
        self.rpc.call("MpoolGetNonce", json!([param(*sender)])).await
    }

    async fn nonce_before(&self, head: &TipsetRef, epochs: i64, sender: &Address) -> Result<Option<u64>, ChainError> {
        let epoch = head.epoch.0.saturating_sub(epochs);
        if epoch < 1 {
            return Ok(None);
        }
        let old: TipSet = self.rpc.call("ChainGetTipSetByHeight", json!([epoch, key_param(head)])).await?;
        let key = serde_json::to_value(Lotus(old.cids)).expect("a list of CIDs can be written");
        Ok(self.actor(sender, key).await?.map(|actor| actor.nonce))
    }

    async fn account(&self, head: &TipsetRef, sender: &Address) -> Result<Account, ChainError> {
        match self.actor(sender, key_param(head)).await? {
            Some(actor) => Ok(Account { nonce: actor.nonce, balance: actor.balance }),
            None => Ok(Account::default()),
        }
    }

    async fn pooled(&self, sender: &Address) -> Result<BTreeSet<u64>, ChainError> {
        let all: Option<Vec<Pooled>> = self.rpc.call("MpoolPending", json!([[]])).await?;
        let of_sender = |entry: Pooled| (entry.message.from.0 == *sender).then_some(entry.message.nonce);
        Ok(all.unwrap_or_default().into_iter().filter_map(of_sender).collect())
    }

    async fn value(&self, head: &TipsetRef, call: &Call) -> Result<TokenAmount, ChainError> {
        value_of(&self.rpc, &self.limits, head, call).await
    }

    async fn price(&self, _: &TipsetRef, call: &Call, message: Message) -> Result<Message, ChainError> {
        let params = json!([param(message.clone()), Value::Null, []]);
        let priced: Message = match self.rpc.call_form("GasEstimateMessageGas", params).await {
            Ok(priced) => priced,
            Err(e) if would_be_refused(&e) => {
                let priced = self.price_unrun(call, message).await?;
                return self.within_limits(call, priced);
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
        let Message { gas_limit, gas_fee_cap, gas_premium, .. } = priced;
        self.within_limits(call, Message { gas_limit, gas_fee_cap, gas_premium, ..message })
    }

    async fn push(&self, message: &SignedMessage) -> Result<Push, ChainError> {
        let error = match self.rpc.call::<Value>("MpoolPush", json!([message])).await {
            Ok(_) => return Ok(Push::Accepted),
            Err(error) => error,
        };
        // Funds come and fees fall: a push is never given up, its nonce has to be filled.
        let taken = RpcError::of(&error).and_then(|e| taken(&e.message));
        taken.ok_or_else(|| error.recover_by(Recovery::RETRY))
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
            if !same_call(&signed.message, &other) {
                return Ok(Search::Taken);
            }
        }
        // The lookup names the tipset with the receipt; the message is in the one before it.
        let with_receipt = self.tipset(&lookup.tip_set).await?;
        let parents = with_receipt.parents().ok_or_else(|| {
            ChainError::new(ChainErrorKind::Malformed, "read tipset").with("endpoint", self.rpc.endpoint())
        })?;
        let epoch = self.tipset(&parents.0).await?.height;
        Ok(Search::Landed(Found {
            message: lookup.message,
            exit_code: lookup.receipt.exit_code,
            returned: lookup.receipt.r#return,
            epoch,
        }))
    }

    async fn said(&self, cid: &Cid) -> Option<String> {
        let replay = self.rpc.call::<InvocResult>("StateReplay", json!([[], param(*cid)])).await.ok()?;
        (!replay.error.is_empty()).then_some(replay.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_search_that_are_answers() {
        let said = |message: &str| {
            let source = RpcError { code: 1, message: message.to_owned() };
            said_by_error(&ChainError::new(ChainErrorKind::Rejected, "x").because(source))
        };
        assert_eq!(said("failed to load message: ipld: could not find bafy2bza"), Some(Search::Unknown));
        // A snapshot has the messages and not their receipts.
        assert_eq!(said("failed to get receipt: amt load: ipld: could not find bafy2bza"), None);
        assert_eq!(
            said(
                "searching: found message with equal nonce as the one we are looking for that is NOT a valid \
                  replacement message (F:bafya n 3, TS: bafyb n3)"
            ),
            Some(Search::Taken)
        );
        assert_eq!(said("node is syncing"), None);
        assert_eq!(said_by_error(&ChainError::new(ChainErrorKind::Unavailable, "x")), None);
    }

    #[test]
    fn refusals_of_a_push_that_say_where_the_message_is() {
        for (text, push) in [
            (
                "message from t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i with nonce 3 already in mpool: validation \
                 failure",
                Some(Push::Accepted),
            ),
            ("Message with sequence already in mempool", Some(Push::Accepted)),
            ("minimum expected nonce is 7: message nonce too low", Some(Push::NonceUsed)),
            ("Message sequence too low", Some(Push::NonceUsed)),
            (
                "message from t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i with nonce 3 already in mpool, increase \
                 GasPremium to 125001 from 100000 to trigger replace by fee: replace by fee has too low GasPremium",
                None,
            ),
            ("mpool push: not enough funds: not enough funds to execute transaction", None),
        ] {
            assert_eq!(taken(text), push, "{text}");
        }
    }

    #[test]
    fn only_a_refusing_actor_is_a_reason_to_send_all_the_same() {
        let refused = |message: &str| {
            let source = RpcError { code: 3, message: message.to_owned() };
            would_be_refused(&ChainError::new(ChainErrorKind::Rejected, "x").because(source))
        };
        assert!(refused("message execution failed (exit=[16], vm error=[invalid proof (1)])"));
        assert!(refused("estimating gas used: message execution failed: exit ErrIllegalArgument(16), reason: no"));
        assert!(!refused("message execution failed: exit SysErrInsufficientFunds(6), reason: none"));
        assert!(!refused("message execution failed (exit=[6], vm error=[])"));
        assert!(!refused("message execution failed: exit SysErrSenderInvalid(1), reason: none"));
        assert!(!refused("boom"));
        assert!(!would_be_refused(&ChainError::new(ChainErrorKind::Unavailable, "x")));
    }
}
