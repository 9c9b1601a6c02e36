//! The chain, over a Lotus-compatible node.

mod config;
mod convert;
mod messages;
mod operator;
mod read_only;
mod reads;

pub use config::LotusConfig;
pub use messages::Simulation;
pub use operator::{
    BlockDetail, DeadlineDetail, Estimate, MinerDetail, MinerFunds, Operator, PendingBeneficiary, Spending, Term,
    TipsetDetail,
};
pub(crate) use read_only::ReadOnly;

use crate::{
    heads::{Heads, Pace},
    lotus_json::{MinerPower, Version, from_core},
    outbox::{CheckedSenders, LotusNode, Outbox, OutboxEntry, Store},
    rpc::{EndpointHealth, RpcClient, RpcMetrics},
    signer::Signer,
};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Address, CancellationToken, DeadlineIndex, Epoch, SectorId, SectorSet, TokenAmount,
    chain::{
        BoxStream, Call, ChainClient, ChainError, ChainErrorKind, DeadlineInfo, DeadlineState, HeadChange, MessageId,
        MessageState, MinerInfo, NetworkInfo, OnChain, RandomnessKind, SectorInfo, SubmitKey, TipsetKey, TipsetRef,
    },
    verify::Randomness,
};
use reads::Reads;
use serde_json::{Value, json};
use sqlx::AnyPool;
use std::sync::Arc;

/// A [`ChainClient`] over Lotus, Venus, Forest or the devnet.
///
/// Reads go to the node. Messages go through the outbox in the database that it was given: [`LotusClient::run`] must
/// run for them to be sent.
#[derive(Debug)]
pub struct LotusClient {
    reads: Reads,
    heads: Heads,
    outbox: Outbox,
}

impl LotusClient {
    /// A client of the nodes that `config` names. The tables are made in `database`; the node is asked only for
    /// senders that are named by ID address.
    ///
    /// # Errors
    ///
    /// A sender without a key, or a database that cannot be used.
    pub async fn connect(
        config: LotusConfig,
        signer: Arc<dyn Signer>,
        database: AnyPool,
    ) -> Result<Arc<Self>, ChainError> {
        let rpc = Arc::new(RpcClient::with_endpoints(config.endpoints, config.rpc)?);
        let senders = CheckedSenders::check(&config.senders, signer.as_ref(), &rpc).await?;
        let store = Store::open(database).await?;
        let node = Arc::new(LotusNode::new(Arc::clone(&rpc), config.limits.clone(), senders.keys()));
        let pace = Pace::new(config.poll_every, config.silence);
        Ok(Arc::new(Self {
            heads: Heads::new(Arc::<RpcClient>::clone(&rpc), pace),
            reads: Reads::new(rpc),
            outbox: Outbox::new(store, node, signer, senders, &config.limits, config.events),
        }))
    }

    /// Sends what is in the outbox until cancelled, beginning with what an earlier process left there.
    pub async fn run(&self, cancel: CancellationToken) {
        self.outbox.run(self.heads.changes(), cancel).await;
    }

    /// All calls in the outbox, in the order of their submission.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn outbox(&self) -> Result<Vec<OutboxEntry>, ChainError> {
        self.outbox.entries().await
    }

    /// How each endpoint is, in the order in which they were given.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        self.reads.rpc().endpoints()
    }

    /// Compares the endpoints now, rather than when it is due.
    pub async fn check_endpoints(&self) {
        self.reads.rpc().check_endpoints().await;
    }

    /// What the endpoints were asked so far, how long it took and what went wrong.
    pub fn metrics(&self) -> RpcMetrics {
        self.reads.rpc().metrics()
    }

    /// What an account owns at the current head.
    ///
    /// # Errors
    ///
    /// The node does not answer, or not an amount.
    pub async fn balance(&self, address: &Address) -> Result<TokenAmount, ChainError> {
        let amount = self.reads.rpc().call_form("WalletBalance", json!([address])).await?;
        convert::amount(&amount)
    }

    /// What a miner can withdraw or pledge.
    ///
    /// # Errors
    ///
    /// The node does not answer, or not an amount.
    pub async fn available_balance(&self, at: &TipsetRef, miner: ActorId) -> Result<TokenAmount, ChainError> {
        let amount = self.reads.at("StateMinerAvailableBalance", at, vec![json!(Address::from_actor(miner))]).await?;
        let crate::lotus_json::Lotus(amount) = amount;
        convert::amount(&amount)
    }

    /// The power of a miner and of the network.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn miner_power(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerPower, ChainError> {
        self.reads.at("StateMinerPower", at, vec![json!(Address::from_actor(miner))]).await
    }

    /// The ID of the actor behind an address.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such actor.
    pub async fn lookup_id(&self, at: &TipsetRef, address: &Address) -> Result<ActorId, ChainError> {
        let malformed =
            |e| ChainError::new(ChainErrorKind::Malformed, "look up ID").with("address", address).because(e);
        from_core(address).map_err(malformed)?;
        let id: Address = self.reads.at("StateLookupID", at, vec![json!(address)]).await?;
        id.actor_id().ok_or_else(|| ChainError::new(ChainErrorKind::Malformed, "look up ID").with("answer", id))
    }

    /// A tipset by its key.
    ///
    /// # Errors
    ///
    /// The node does not answer or does not know it.
    pub async fn tipset(&self, key: &TipsetKey) -> Result<TipsetRef, ChainError> {
        self.reads.tipset(key).await
    }

    /// The tipset at an epoch on the chain of `at`; for a null round, the one before it.
    ///
    /// # Errors
    ///
    /// The node does not answer or does not know it.
    pub async fn tipset_at(&self, at: &TipsetRef, epoch: Epoch) -> Result<TipsetRef, ChainError> {
        self.reads.tipset_at(at, epoch).await
    }

    /// What the node is.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn version(&self) -> Result<Version, ChainError> {
        self.reads.rpc().call("Version", json!([])).await
    }

    /// The network's name.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn network_name(&self) -> Result<String, ChainError> {
        self.reads.rpc().call("StateNetworkName", json!([])).await
    }

    /// Calls a method by its full name, e.g. `Filecoin.Version` or `Devnet.Info`.
    ///
    /// # Errors
    ///
    /// The node does not answer, or answers an error.
    pub async fn raw(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        self.reads.rpc().raw(method, params).await.map_err(|e| e.with("method", method))
    }
}

#[async_trait]
impl ChainClient for LotusClient {
    async fn head(&self) -> Result<TipsetRef, ChainError> {
        self.reads.head().await
    }

    fn head_changes(&self) -> BoxStream<HeadChange> {
        self.heads.changes()
    }

    async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        self.reads.network(at).await
    }

    async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError> {
        self.reads.miner(at, miner).await
    }

    async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        self.reads.randomness(at, kind, epoch, miner).await
    }

    async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
        self.reads.sector(at, id).await
    }

    async fn sectors(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        numbers: &SectorSet,
    ) -> Result<Vec<SectorInfo>, ChainError> {
        self.reads.sectors(at, miner, numbers).await
    }

    async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        self.reads.deadline(at, miner).await
    }

    async fn partitions(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError> {
        self.reads.partitions(at, miner, deadline).await
    }

    async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        self.outbox.submit(key, call).await
    }

    async fn message(&self, id: &MessageId, confidence: i64) -> Result<MessageState, ChainError> {
        let head = self.reads.head().await?;
        self.outbox.state(id, confidence, &head).await
    }
}
