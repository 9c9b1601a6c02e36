//! The chain, over a Venus node and a messager.

use super::{
    VenusConfig,
    messager::{MessagerClient, Replacement},
    prepare::{Writer, message_uid},
    run::{CANCELLED, Lane},
    store::{Row, Store, VenusState},
};
use crate::{
    actor::encode,
    client::ReadOnly,
    lotus_json::{signed_message_cid, text_of, to_core},
    outbox::{LotusNode, in_chain},
    rpc::RpcClient,
};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, Event, EventSink, MessageEvent, SectorId, SectorSet, TokenAmount,
    chain::{
        BoxStream, Call, CallKind, ChainClient, ChainError, ChainErrorKind, DeadlineInfo, DeadlineState, HeadChange,
        MessageId, MessageState, MinerInfo, NetworkInfo, OnChain, RandomnessKind, SectorInfo, SubmitKey, TipsetRef,
    },
    verify::Randomness,
};
use serde::{Deserialize, Serialize};
use sqlx::AnyPool;
use std::sync::Arc;

/// A [`ChainClient`] over a Venus cluster: reads go to the node; nonces, gas and signatures are the messager's.
///
/// A call is recorded in the database that this was given before anything leaves, and is handed to the messager under a
/// name that follows from its key ([`message_uid`]). [`VenusClient::run`] must run for that.
#[derive(Debug)]
pub struct VenusClient {
    pub(super) reads: ReadOnly,
    pub(super) node: Arc<LotusNode>,
    pub(super) messager: MessagerClient,
    pub(super) store: Store,
    pub(super) writer: Writer,
    pub(super) lanes: [Lane; 2],
    events: Arc<dyn EventSink>,
}

/// A call, as shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenusEntry {
    /// Its key.
    pub key: SubmitKey,
    /// Its name at the messager.
    pub uid: String,
    /// Its class.
    pub kind: CallKind,
    /// How far it is.
    pub state: VenusState,
    /// Who sends it, once handed in.
    pub sender: Option<String>,
    /// Its nonce, once signed.
    pub nonce: Option<u64>,
    /// The CID of its message, once signed.
    pub cid: Option<String>,
    /// Why it does not move, or why it was dropped.
    pub error: Option<String>,
}

/// What a message that is to be replaced shall pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Price {
    /// What the messager estimates, up to the most that its class may pay.
    Estimated,
    /// So much for each unit of gas.
    Given {
        /// What the block's maker gets.
        premium: TokenAmount,
        /// The most, with the base fee.
        fee_cap: TokenAmount,
    },
}

/// What became of a call that was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// Nothing of it had left: it is dropped.
    Dropped,
    /// The messager was told. It is dropped once that is sure to have helped; what was signed before may still land.
    Told,
    /// It is finished already.
    TooLate,
}

impl VenusClient {
    /// A client of the cluster that `config` names. The tables are made in `database`; nobody is asked for anything.
    ///
    /// # Errors
    ///
    /// An endpoint, a sender or a fee that cannot be, or a database that cannot be used.
    pub async fn connect(config: VenusConfig, database: AnyPool) -> Result<Arc<Self>, ChainError> {
        let rpc = Arc::new(RpcClient::new(config.chain)?);
        // No messages are followed by tipset: the messager says which there are.
        let node = Arc::new(LotusNode::new(Arc::clone(&rpc), config.limits, std::iter::empty()));
        let writer = Writer::new(Arc::clone(&rpc), Arc::clone(&node), config.senders, config.fees)?;
        Ok(Arc::new(Self {
            messager: MessagerClient::new(config.messager)?,
            store: Store::open(database).await?,
            reads: ReadOnly::new(rpc, config.poll_every, config.silence),
            node,
            writer,
            lanes: Lane::both(),
            events: config.events,
        }))
    }

    /// The messager.
    pub fn messager(&self) -> &MessagerClient {
        &self.messager
    }

    /// All calls, in the order of their submission.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn entries(&self) -> Result<Vec<VenusEntry>, ChainError> {
        Ok(self.store.all().await?.into_iter().map(entry_of).collect())
    }

    async fn row(&self, id: &MessageId) -> Result<Row, ChainError> {
        let row = self.store.get(id.as_str()).await?;
        row.ok_or_else(|| ChainError::new(ChainErrorKind::NotFound, "find message").with("message", id))
    }

    /// Has the messager send a message again at another price, with the same nonce. The CID of the new one.
    ///
    /// # Errors
    ///
    /// There is no such message, it may not pay that much, or the messager does not answer or refuses.
    pub async fn replace(&self, id: &MessageId, price: Price) -> Result<String, ChainError> {
        let mut row = self.row(id).await?;
        if matches!(row.state, VenusState::Sent | VenusState::Taken) {
            self.refresh(&mut row).await?;
        }
        let most = self.writer.max_fee(row.call.kind());
        let replacement = match price {
            Price::Estimated => Replacement::estimated(&row.uid, most),
            Price::Given { premium, fee_cap } => {
                let (premium, fee_cap) = (in_chain(premium), in_chain(fee_cap));
                let gas = row.signed.last().map_or(0, |signed| signed.message.gas_limit);
                let rejected = |hint: &'static str| {
                    ChainError::new(ChainErrorKind::Rejected, "replace message").with("message", id).hint_with(hint)
                };
                if !premium.is_positive() || premium > fee_cap {
                    return Err(rejected("give a premium above zero and a fee cap that is not below it"));
                }
                if gas == 0 {
                    return Err(rejected("it is not signed yet: there is nothing to replace"));
                }
                if !most.is_zero() && fee_cap.clone() * gas > most {
                    return Err(rejected("its gas may not cost that much: raise the limit of its class first")
                        .with("most", most)
                        .with("asked", fee_cap * gas));
                }
                Replacement::priced(&row.uid, premium, fee_cap)
            }
        };
        Ok(self.messager.replace(&replacement).await?.to_string())
    }

    /// Gives a call up: at once if nothing of it has left, or by telling the messager.
    ///
    /// # Errors
    ///
    /// There is no such message, or the messager does not answer or refuses; it is given up all the same and told when
    /// this is called again.
    pub async fn cancel(&self, id: &MessageId) -> Result<Cancelled, ChainError> {
        let row = self.row(id).await?;
        if matches!(row.state, VenusState::Settled | VenusState::Dropped) {
            return Ok(Cancelled::TooLate);
        }
        if self.store.cancel(&row.key, CANCELLED).await? {
            return Ok(Cancelled::Dropped);
        }
        self.messager.mark_bad(&row.uid).await?;
        Ok(Cancelled::Told)
    }

    /// Who sends the call of a key, or would if it were submitted now: of several senders each key has one, and keeps it.
    ///
    /// # Errors
    ///
    /// A sender that cannot be, or the database cannot be read.
    pub async fn sender_of(&self, key: &SubmitKey, call: &Call) -> Result<Address, ChainError> {
        let recorded = self.store.get(&key.0).await?.and_then(|row| row.sender);
        let sender = recorded.map_or_else(|| self.writer.sender_of(key, call), Ok)?;
        Ok(to_core(&sender))
    }

    pub(super) fn emit(&self, key: &SubmitKey, what: MessageEvent) {
        self.events.emit(Event::Message { key: key.clone(), what });
    }
}

fn entry_of(row: Row) -> VenusEntry {
    let signed = row.signed.last();
    VenusEntry {
        kind: row.call.kind(),
        sender: row.message.as_ref().map(|message| text_of(&message.from)),
        nonce: signed.map(|signed| signed.message.sequence),
        cid: signed.map(|signed| signed_message_cid(signed).to_string()),
        key: row.key,
        uid: row.uid,
        state: row.state,
        error: row.error,
    }
}

#[async_trait]
impl ChainClient for VenusClient {
    async fn head(&self) -> Result<TipsetRef, ChainError> {
        self.reads.head().await
    }

    fn head_changes(&self) -> BoxStream<HeadChange> {
        self.reads.head_changes()
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
        let id = MessageId::new(&key.0);
        if self.store.get(&key.0).await?.is_some() {
            return Ok(id);
        }
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "submit").with("key", key).because(e);
        encode(call).map_err(rejected)?;
        let sender = self.writer.sender_of(key, call)?;
        if self.store.record(key, &message_uid(key), call, &sender).await? {
            self.emit(key, MessageEvent::Recorded);
            self.lanes.iter().for_each(|lane| lane.wake(call.kind()));
        }
        Ok(id)
    }

    async fn message(&self, id: &MessageId, confidence: i64) -> Result<MessageState, ChainError> {
        let row = self.row(id).await?;
        let head = self.reads.head().await?;
        self.state_of(&head, row, confidence).await
    }
}
