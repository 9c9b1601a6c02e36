//! From a call to what the messager is handed.

use super::{FeesByClass, messager::SendSpec};
use crate::{
    actor::{ActorsVersion, encode},
    lotus_json::{Lotus, from_core},
    outbox::{LotusNode, Node as _, Senders, in_chain},
    rpc::{RpcClient, RpcError},
};
use damocles_core::{
    Address, Recovery,
    chain::{Call, CallKind, ChainError, ChainErrorKind, SubmitKey, TipsetRef},
};
use fvm_shared::{
    address::{Address as ChainAddress, Protocol},
    econ::TokenAmount,
    message::Message,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

/// Epochs from the challenge of a deadline to its end, on every network: a proof names an epoch in them.
const CHALLENGE_TO_CLOSE: i64 = 80;
/// Sets our names apart from those of others at the same messager, and this way of making them from later ones.
const ID_DOMAIN: &[u8] = b"damocles/messager-id/1\0";
const ID_PREFIX: &str = "damocles-1-";

/// The name of a key's message at the messager.
///
/// It is a hash of the key and of nothing else. So a key can never be two messages there, because a messager keeps one
/// message for a name, even if everything that is known here was lost; and two equal calls with different keys are two
/// messages, which they would not be if the name came from what the message says.
pub fn message_uid(key: &SubmitKey) -> String {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    state.update(ID_DOMAIN).update(key.0.as_bytes());
    format!("{ID_PREFIX}{}", state.finalize().to_hex())
}

/// The epoch from which on a call can do nothing any more; none where that never comes.
pub(super) const fn closes(call: &Call) -> Option<i64> {
    match call {
        Call::SubmitWindowedPoSt(post) => Some(post.commit_epoch.0.saturating_add(CHALLENGE_TO_CLOSE)),
        _ => None,
    }
}

/// Writes messages for a messager.
#[derive(Debug)]
pub(super) struct Writer {
    rpc: Arc<RpcClient>,
    node: Arc<LotusNode>,
    senders: Senders,
    fees: FeesByClass,
}

fn no_sender(address: &Address) -> ChainError {
    ChainError::new(ChainErrorKind::NoSender, "find sender")
        .with("sender", address)
        .hint_with("name a sender whose key lies in a wallet that is connected to the gateway")
}

impl Writer {
    pub(super) fn new(
        rpc: Arc<RpcClient>,
        node: Arc<LotusNode>,
        senders: Senders,
        fees: FeesByClass,
    ) -> Result<Self, ChainError> {
        for kind in CallKind::ALL {
            if !fees.of(kind).are_sane() {
                return Err(ChainError::new(ChainErrorKind::Rejected, "set up fees")
                    .with("class", kind)
                    .hint_with("factors lie between 0 and 100, and no fee is negative"));
            }
        }
        for address in senders.named() {
            from_core(address).map_err(|e| no_sender(address).because(e))?;
        }
        Ok(Self { rpc, node, senders, fees })
    }

    /// The senders that are named.
    pub(super) fn senders(&self) -> BTreeSet<Address> {
        self.senders.named().cloned().collect()
    }

    /// Who sends the call of a new key.
    pub(super) fn sender_of(&self, key: &SubmitKey, call: &Call) -> Result<ChainAddress, ChainError> {
        self.senders.pick(key, call, |_| true).map_err(|e| {
            let hint = "name a sender whose key lies in a wallet that is connected to the gateway";
            e.hint_with(hint)
        })
    }

    /// How a call is priced.
    pub(super) fn spec(&self, call: &Call) -> SendSpec {
        let fees = self.fees.of(call.kind());
        SendSpec {
            expire_epoch: closes(call).unwrap_or_default(),
            gas_over_estimation: fees.gas_over_estimation,
            max_fee: in_chain(fees.max_fee),
            gas_over_premium: fees.gas_over_premium,
        }
    }

    /// The most that the gas of a message of this class may cost.
    pub(super) fn max_fee(&self, kind: CallKind) -> TokenAmount {
        in_chain(self.fees.of(kind).max_fee)
    }

    /// Writes the message of a call: without nonce and price, which are the messager's.
    pub(super) async fn write(
        &self,
        head: &TipsetRef,
        sender: ChainAddress,
        call: &Call,
    ) -> Result<Message, ChainError> {
        self.check_network(head).await?;
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "write message").because(e);
        let encoded = encode(call).map_err(rejected)?;
        let mut from = sender;
        if from.protocol() == Protocol::ID {
            from = self.rpc.call_form("StateAccountKey", json!([Lotus(from), []])).await?;
        }
        let message = Message {
            version: 0,
            from,
            to: encoded.to,
            sequence: 0,
            value: self.node.value(head, call).await?,
            method_num: encoded.method,
            params: encoded.params,
            gas_limit: 0,
            gas_fee_cap: TokenAmount::default(),
            gas_premium: TokenAmount::default(),
        };
        let gas_limit = self.limit_if_refused(call, &message).await?;
        Ok(Message { gas_limit, ..message })
    }

    /// The gas limit for a message that the actor would refuse as things are; zero for any other. A messager never
    /// signs what it cannot estimate, and the caller is to have the actor's receipt, not our guess.
    async fn limit_if_refused(&self, call: &Call, message: &Message) -> Result<u64, ChainError> {
        let sequence = self.node.next_nonce(&message.from).await?;
        let tried = Message { sequence, ..message.clone() };
        let params = json!([Lotus(tried.clone()), null, []]);
        match self.rpc.call_form::<Message>("GasEstimateMessageGas", params).await {
            Ok(_) => Ok(0),
            Err(e) if RpcError::of(&e).is_some() => Ok(self.node.estimate(Some(call), tried).await?.limit),
            Err(e) => Err(e),
        }
    }

    async fn check_network(&self, head: &TipsetRef) -> Result<(), ChainError> {
        let version = self.rpc.call("StateNetworkVersion", json!([Lotus(head.key.0.clone())])).await?;
        ActorsVersion::of(version).map(drop).map_err(|e| {
            // An upgrade of this program ends it, and the calls are still wanted then.
            ChainError::new(ChainErrorKind::Rejected, "write message")
                .recover_by(Recovery::RETRY)
                .with("endpoint", self.rpc.endpoint())
                .hint_with("install a version of this program that knows the network's actors")
                .because(e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_keys_alone() {
        let name = |key: &str| message_uid(&SubmitKey(key.into()));
        assert_eq!(
            name("precommit/1000/7/2345/1"),
            "damocles-1-407d8619f6f3abfc7851c554e1792973561b9686cdabc41c2a75b2aa1013dcb8"
        );
        let keys = ["", "a", "b", "a/b", "a/b/1", "a/b/11", &"x".repeat(10_000)];
        let names: BTreeSet<String> = keys.iter().map(|key| name(key)).collect();
        assert_eq!(names.len(), keys.len());
        assert!(names.iter().all(|name| name.len() == ID_PREFIX.len() + 64), "a messager's column has 256 characters");
    }
}
