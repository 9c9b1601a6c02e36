//! A node that is only read.

use super::reads::Reads;
use crate::{
    heads::{Heads, Pace},
    rpc::RpcClient,
};
use damocles_core::{
    ActorId, DeadlineIndex, Epoch, SectorId, SectorSet,
    chain::{
        BoxStream, ChainError, DeadlineInfo, DeadlineState, HeadChange, MinerInfo, NetworkInfo, OnChain,
        RandomnessKind, SectorInfo, TipsetRef,
    },
    verify::Randomness,
};
use std::{sync::Arc, time::Duration};

/// The reads of a chain client, for one that sends its messages by another way.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    reads: Reads,
    heads: Heads,
}

impl ReadOnly {
    pub(crate) fn new(rpc: Arc<RpcClient>, poll_every: Duration, silence: Duration) -> Self {
        Self {
            heads: Heads::new(Arc::<RpcClient>::clone(&rpc), Pace::new(poll_every, silence)),
            reads: Reads::new(rpc),
        }
    }

    pub(crate) async fn head(&self) -> Result<TipsetRef, ChainError> {
        self.reads.head().await
    }

    pub(crate) fn head_changes(&self) -> BoxStream<HeadChange> {
        self.heads.changes()
    }

    pub(crate) async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        self.reads.network(at).await
    }

    pub(crate) async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError> {
        self.reads.miner(at, miner).await
    }

    pub(crate) async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        self.reads.randomness(at, kind, epoch, miner).await
    }

    pub(crate) async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
        self.reads.sector(at, id).await
    }

    pub(crate) async fn sectors(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        numbers: &SectorSet,
    ) -> Result<Vec<SectorInfo>, ChainError> {
        self.reads.sectors(at, miner, numbers).await
    }

    pub(crate) async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        self.reads.deadline(at, miner).await
    }

    pub(crate) async fn partitions(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError> {
        self.reads.partitions(at, miner, deadline).await
    }
}
