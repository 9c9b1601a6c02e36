//! What the outbox asks of a node.

use super::pricing::Estimate;
use crate::lotus_json::SignedMessage;
use async_trait::async_trait;
use cid::Cid;
use damocles_core::chain::{Call, ChainError, TipsetKey, TipsetRef};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Epochs after which no message comes back and none goes away.
pub(crate) const FINALITY: i64 = 900;

/// What the outbox asks of a node: one method for each thing that can go wrong by itself.
#[async_trait]
pub(crate) trait Node: fmt::Debug + Send + Sync + 'static {
    /// The network's name.
    async fn network_name(&self) -> Result<String, ChainError>;

    /// The network's version at `head`.
    async fn network_version(&self, head: &TipsetRef) -> Result<u32, ChainError>;

    /// The base fee of `head`, for one unit of gas.
    async fn base_fee(&self, head: &TipsetRef) -> Result<TokenAmount, ChainError>;

    /// The tipset at a height on the chain of `head`, or the one before it.
    async fn tipset_at(&self, head: &TipsetRef, height: i64) -> Result<TipsetRef, ChainError>;

    /// The nonce of the sender's next message, those in the pool counted.
    async fn next_nonce(&self, sender: &Address) -> Result<u64, ChainError>;

    /// The nonce of the sender's next message so many epochs before `head`; none where the chain is too short or had
    /// no such account. A node without that part of the chain is an error.
    async fn nonce_before(&self, head: &TipsetRef, epochs: i64, sender: &Address) -> Result<Option<u64>, ChainError>;

    /// The sender's account in the state of `head`; an empty one where there is none.
    async fn account(&self, head: &TipsetRef, sender: &Address) -> Result<Account, ChainError>;

    /// The sender's messages in the pool by nonce, with their CIDs where the node tells them.
    async fn pooled(&self, sender: &Address) -> Result<BTreeMap<u64, Option<Cid>>, ChainError>;

    /// What has to be sent along.
    async fn value(&self, head: &TipsetRef, call: &Call) -> Result<TokenAmount, ChainError>;

    /// What gas a message needs, unless its limit is set, and which premium lands.
    async fn estimate(&self, call: Option<&Call>, message: Message) -> Result<Estimate, ChainError>;

    /// Tries a message out on the state of `head`; none where the node cannot.
    async fn simulate(&self, head: &TipsetRef, message: &Message) -> Result<Option<Simulated>, ChainError>;

    /// Hands messages in. One answer for each, in their order.
    async fn push(&self, messages: &[&SignedMessage]) -> Vec<Result<Push, ChainError>>;

    /// Where a message is on the chain of `head`.
    async fn search(&self, head: &TipsetRef, signed: &SignedMessage, cid: &Cid) -> Result<Search, ChainError>;

    /// The sender's messages with these nonces, as far as they are in the tipsets below `head` down to a height. What is
    /// missing may be on chain all the same.
    async fn locate(
        &self,
        head: &TipsetRef,
        since: i64,
        sender: &Address,
        nonces: &BTreeSet<u64>,
    ) -> Result<BTreeMap<u64, OnChain>, ChainError>;

    /// What the actor said about a message that failed, if the node tells.
    async fn said(&self, cid: &Cid) -> Option<String>;
}

/// A sender's account: nonce and balance of one state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// The nonce of its next message on chain.
    pub(crate) nonce: u64,
    /// What it owns.
    pub(crate) balance: TokenAmount,
}

/// How a node took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is in the pool since now.
    Accepted,
    /// The pool had it.
    Known,
    /// Its nonce is used up on chain: by it, or by another message.
    NonceUsed,
}

/// What a node says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// It is on chain, or one that does the same at another price.
    Landed(Found),
    /// The node knows it, and it is not on chain.
    Absent,
    /// The node has never seen it, or has forgotten it.
    Unknown,
    /// Its nonce is on chain with a message that does something else.
    Taken,
}

/// A message on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The message: another CID if it was replaced by one that does the same at another price.
    pub(crate) message: Cid,
    /// The actor's exit code.
    pub(crate) exit_code: i64,
    /// What the actor returned.
    pub(crate) returned: Vec<u8>,
    /// The height of the tipset that holds it.
    pub(crate) epoch: i64,
    /// That tipset.
    pub(crate) tipset: TipsetKey,
}

/// A message on chain, with what it does.
#[derive(Clone, Debug)]
pub(crate) struct OnChain {
    pub(crate) found: Found,
    pub(crate) message: Message,
}

/// What a message would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Simulated {
    /// The actor's exit code.
    pub(crate) exit_code: i64,
    /// What it would return.
    pub(crate) returned: Vec<u8>,
    /// The gas that it would use.
    pub(crate) gas_used: i64,
    /// What the actor says if it refuses.
    pub(crate) error: String,
}
