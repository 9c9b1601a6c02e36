//! Questions to the node, each at a named tipset.

use super::convert;
use crate::{
    lotus_json::{
        Deadline, DeadlineInfo as LotusDeadline, Lotus, MinerInfo as LotusMiner, NetworkParams, Partition,
        SectorLocation, SectorOnChainInfo, SectorPreCommitOnChainInfo, TipSet, bit_field_of,
    },
    rpc::{RpcClient, RpcError, is_missing_block, is_unknown_method},
};
use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, Recovery, SectorId, SectorNumber, SectorSet,
    chain::{
        ChainError, ChainErrorKind, DeadlineInfo, DeadlineState, MinerInfo, NetworkInfo, OnChain, RandomnessKind,
        SectorInfo, TipsetKey, TipsetRef,
    },
    verify::Randomness,
};
use fvm_shared::address::Address as ChainAddress;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

/// The chain's finality: how far before the head tickets are drawn.
const TICKET_LOOKBACK: i64 = 900;
/// No deadline has more partitions than a proving period can prove.
const MAX_PARTITION: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Reads {
    rpc: Arc<RpcClient>,
}

fn address(miner: ActorId) -> Value {
    json!(Address::from_actor(miner))
}

fn key(at: &TipsetRef) -> Value {
    json!(Lotus(at.key.0.clone()))
}

/// Whether the node's error has these words.
fn says(error: &ChainError, words: &str) -> bool {
    RpcError::of(error).is_some_and(|e| e.message.contains(words))
}

fn malformed(what: &'static str) -> ChainError {
    ChainError::new(ChainErrorKind::Malformed, "read answer").with("what", what)
}

impl Reads {
    pub(super) fn new(rpc: Arc<RpcClient>) -> Self {
        Self { rpc }
    }

    pub(super) fn rpc(&self) -> &RpcClient {
        &self.rpc
    }

    /// Calls a method whose last parameter is the tipset.
    pub(super) async fn at<T: DeserializeOwned>(
        &self,
        method: &'static str,
        at: &TipsetRef,
        mut params: Vec<Value>,
    ) -> Result<T, ChainError> {
        params.push(key(at));
        self.rpc.call(method, Value::Array(params)).await
    }

    pub(super) async fn head(&self) -> Result<TipsetRef, ChainError> {
        Ok(self.rpc.call::<TipSet>("ChainHead", json!([])).await?.to_ref())
    }

    pub(super) async fn tipset(&self, key: &TipsetKey) -> Result<TipsetRef, ChainError> {
        let tipset: TipSet = self.rpc.call("ChainGetTipSet", json!([Lotus(key.0.clone())])).await?;
        tipset.must_be(key)?;
        Ok(tipset.to_ref())
    }

    pub(super) async fn tipset_at(&self, at: &TipsetRef, epoch: Epoch) -> Result<TipsetRef, ChainError> {
        let tipset: TipSet = self.at("ChainGetTipSetByHeight", at, vec![json!(epoch)]).await?;
        tipset.must_be_at_most(epoch)?;
        Ok(tipset.to_ref())
    }

    pub(super) async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        let name: String = self.rpc.call("StateNetworkName", json!([])).await?;
        let version = self.at("StateNetworkVersion", at, Vec::new()).await?;
        let params: NetworkParams = self.rpc.call("StateGetNetworkParams", json!([])).await?;
        if name.is_empty() || params.pre_commit_challenge_delay < 0 {
            return Err(malformed("a network"));
        }
        Ok(NetworkInfo {
            name,
            version,
            block_delay_secs: params.block_delay_secs.max(1),
            pre_commit_challenge_delay: params.pre_commit_challenge_delay,
            ticket_lookback: TICKET_LOOKBACK,
        })
    }

    pub(super) async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError> {
        let info: LotusMiner = self.at("StateMinerInfo", at, vec![address(miner)]).await?;
        convert::miner(miner, &info)
    }

    pub(super) async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        if epoch > at.epoch {
            // It is drawn later: whoever asks has to wait for a later head.
            return Err(ChainError::new(ChainErrorKind::NotFound, "draw randomness")
                .with("epoch", epoch)
                .with("tipset", at.epoch));
        }
        const TICKETS: &str = "StateGetRandomnessFromTickets";
        const BEACON: &str = "StateGetRandomnessFromBeacon";
        let (method, tag, entropy) = match kind {
            RandomnessKind::SealTicket => (TICKETS, 5, true),
            RandomnessKind::InteractiveSeed => (BEACON, 6, true),
            RandomnessKind::WindowPoStChallenge => (BEACON, 4, true),
            RandomnessKind::WinningPoStChallenge => (BEACON, 3, true),
            RandomnessKind::PoStChainCommit => (TICKETS, 9, false),
            _ => return Err(ChainError::new(ChainErrorKind::Rejected, "draw randomness")),
        };
        let entropy = if entropy {
            fvm_ipld_encoding::to_vec(&ChainAddress::new_id(miner.0)).expect("an address can be written to memory")
        } else {
            Vec::new()
        };
        let params = vec![json!(tag), json!(epoch), json!(Lotus(entropy))];
        let Lotus(drawn): Lotus<Vec<u8>> = self.at(method, at, params).await?;
        drawn.try_into().map(Randomness).map_err(|_| malformed("randomness that has not 32 bytes"))
    }

    pub(super) async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
        if let Some(info) = self.sector_info(at, id.miner, id.number).await? {
            // Terminated sectors stay in the table until their partition is compacted.
            let live = self.is_live(at, id).await?;
            return if live { Ok(OnChain::Active(convert::sector(&info)?)) } else { Ok(OnChain::Gone) };
        }
        if let Some(info) = self.pre_commit(at, id).await? {
            return convert::pre_commit(&info);
        }
        let params = vec![address(id.miner), json!(id.number)];
        let used: bool = self.at("StateMinerSectorAllocated", at, params).await?;
        Ok(if used { OnChain::Gone } else { OnChain::Absent })
    }

    async fn sector_info(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        number: SectorNumber,
    ) -> Result<Option<SectorOnChainInfo>, ChainError> {
        let found: Option<SectorOnChainInfo> =
            self.at("StateSectorGetInfo", at, vec![address(miner), json!(number)]).await?;
        match found {
            Some(info) if info.sector_number != number.0 => Err(malformed("another sector than asked for")),
            found => Ok(found),
        }
    }

    async fn pre_commit(&self, at: &TipsetRef, id: SectorId) -> Result<Option<SectorPreCommitOnChainInfo>, ChainError> {
        match crate::outbox::pre_commit(&self.rpc, at, id.miner, id.number).await {
            // Older nodes answer an error for what is not there.
            Err(e) if !is_missing_block(&e) && says(&e, "precommit info") => Ok(None),
            found => found,
        }
    }

    async fn is_live(&self, at: &TipsetRef, id: SectorId) -> Result<bool, ChainError> {
        let params = vec![address(id.miner), json!(id.number)];
        let place: SectorLocation = match self.at("StateSectorPartition", at, params).await {
            Ok(place) => place,
            Err(e) if is_unknown_method(&e) => return Ok(true),
            // In the table and in no partition: what a partition without it leaves behind.
            Err(e) if !is_missing_block(&e) && says(&e, "not due at any deadline") => return Ok(false),
            Err(e) => return Err(e),
        };
        let partitions = self.partitions_of(at, id.miner, DeadlineIndex(place.deadline)).await?;
        let index = usize::try_from(place.partition).map_err(|_| malformed("a partition"))?;
        let partition = partitions.get(index).ok_or_else(|| malformed("a partition that is not there"))?;
        Ok(partition.live_sectors.get(id.number.0))
    }

    pub(super) async fn sectors(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        numbers: &SectorSet,
    ) -> Result<Vec<SectorInfo>, ChainError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "read sectors").because(e);
        let field = bit_field_of(numbers).map_err(rejected)?;
        let asked: Result<Option<Vec<SectorOnChainInfo>>, _> =
            self.at("StateMinerSectors", at, vec![address(miner), json!(Lotus(field))]).await;
        let found = match asked {
            Ok(found) => found.unwrap_or_default(),
            // Some nodes refuse the whole question for one number that is not there.
            Err(e) if RpcError::of(&e).is_some() && e.recovery() != Recovery::Park => {
                self.sectors_one_by_one(at, miner, numbers).await?
            }
            Err(e) => return Err(e),
        };
        let mut sectors = Vec::with_capacity(found.len().min(numbers.len()));
        for info in found.iter().filter(|info| numbers.contains(SectorNumber(info.sector_number))) {
            sectors.push(convert::sector(info)?);
        }
        sectors.sort_by_key(|s| s.number);
        sectors.dedup_by_key(|s| s.number);
        Ok(sectors)
    }

    async fn sectors_one_by_one(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        numbers: &SectorSet,
    ) -> Result<Vec<SectorOnChainInfo>, ChainError> {
        let mut found = Vec::new();
        for number in numbers.iter() {
            found.extend(self.sector_info(at, miner, number).await?);
        }
        Ok(found)
    }

    pub(super) async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        let info: LotusDeadline = self.at("StateMinerProvingDeadline", at, vec![address(miner)]).await?;
        convert::deadline(&info)
    }

    async fn partitions_of(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<Vec<Partition>, ChainError> {
        let params = vec![address(miner), json!(deadline)];
        Ok(self.at::<Option<Vec<Partition>>>("StateMinerPartitions", at, params).await?.unwrap_or_default())
    }

    pub(super) async fn partitions(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError> {
        let partitions = self.partitions_of(at, miner, deadline).await?;
        let deadlines: Vec<Deadline> = self.at("StateMinerDeadlines", at, vec![address(miner)]).await?;
        let index = usize::try_from(deadline.0).map_err(|_| malformed("a deadline"))?;
        let state = deadlines.get(index).ok_or_else(|| malformed("a deadline that is not there"))?;
        let proven =
            convert::set(&state.post_submissions)?.iter().map(|n| n.0).filter(|n| *n < MAX_PARTITION).collect();
        let partitions = partitions.iter().map(convert::partition).collect::<Result<_, _>>()?;
        Ok(DeadlineState { proven, partitions })
    }
}
