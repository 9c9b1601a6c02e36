//! What only operators ask of a node.

mod spending;
mod try_out;
mod types;

pub use spending::Spending;
pub use types::{
    BlockDetail, DeadlineDetail, Estimate, MinerDetail, MinerFunds, PendingBeneficiary, Term, TipsetDetail,
};

use super::{convert, reads::Reads};
use crate::{
    lotus_json::{
        ActorState, Deadline, InvocResult, Lotus, MinerInfo as LotusMiner, MinerPower, NetworkParams, Partition,
        SectorOnChainInfo, TipSet, Version, from_core, to_core,
    },
    rpc::{Endpoint, EndpointHealth, RpcClient, RpcError, RpcOptions},
};
use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, EpochTimes, SectorSet, SectorSize, Timestamp, TokenAmount,
    chain::{ChainError, ChainErrorKind, DeadlineInfo, NetworkInfo, RandomnessKind, SectorInfo, TipsetKey, TipsetRef},
    verify::Randomness,
};
use fvm_shared::{address::Address as ChainAddress, econ};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// What operators ask of a node, each question at a named tipset. It needs neither keys nor a database.
#[derive(Debug)]
pub struct Operator {
    rpc: Arc<RpcClient>,
    reads: Reads,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReadState {
    state: Option<MinerState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MinerState {
    pre_commit_deposits: Lotus<econ::TokenAmount>,
    locked_funds: Lotus<econ::TokenAmount>,
    initial_pledge: Lotus<econ::TokenAmount>,
    fee_debt: Lotus<econ::TokenAmount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PendingTerm {
    new_beneficiary: Lotus<ChainAddress>,
    new_quota: Lotus<econ::TokenAmount>,
    new_expiration: i64,
    #[serde(default)]
    approved_by_beneficiary: bool,
    #[serde(default)]
    approved_by_nominee: bool,
}

fn malformed(what: &'static str) -> ChainError {
    ChainError::new(ChainErrorKind::Malformed, "read answer").with("what", what)
}

fn id(miner: ActorId) -> Value {
    json!(Address::from_actor(miner))
}

impl Operator {
    /// Asks the node at an endpoint. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The token cannot be sent, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ChainError> {
        Self::with_endpoints(vec![endpoint])
    }

    /// Asks nodes that stand in for each other, the first of the list preferred. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// There is no endpoint, a token cannot be sent, or TLS cannot be set up.
    pub fn with_endpoints(endpoints: Vec<Endpoint>) -> Result<Self, ChainError> {
        let rpc = Arc::new(RpcClient::with_endpoints(endpoints, RpcOptions::default())?);
        Ok(Self { reads: Reads::new(Arc::clone(&rpc)), rpc })
    }

    /// How each endpoint is now, in the order in which they were given.
    pub async fn endpoints(&self) -> Vec<EndpointHealth> {
        self.rpc.check_endpoints().await;
        self.rpc.endpoints()
    }

    /// The node that is asked first.
    pub fn endpoint(&self) -> String {
        self.rpc.endpoint().to_string()
    }

    /// The head.
    ///
    /// # Errors
    ///
    /// The node does not answer; so all methods here.
    pub async fn head(&self) -> Result<TipsetRef, ChainError> {
        self.reads.head().await
    }

    /// What the network is.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        self.reads.network(at).await
    }

    /// What the node is.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn version(&self) -> Result<Version, ChainError> {
        self.rpc.call("Version", json!([])).await
    }

    /// When epochs are, by the clock of the network's blocks.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn times(&self) -> Result<EpochTimes, ChainError> {
        let params: NetworkParams = self.rpc.call("StateGetNetworkParams", json!([])).await?;
        let head: TipSet = self.rpc.call("ChainHead", json!([])).await?;
        let epoch = Duration::from_secs(params.block_delay_secs.max(1));
        let seconds = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        // The head's own time says it best: a network may have stood still, and some nodes do not tell the genesis.
        let genesis = match head.blocks.first() {
            Some(block) => {
                let since = head.height.saturating_mul(i64::try_from(epoch.as_millis()).unwrap_or(i64::MAX));
                seconds(block.timestamp).saturating_sub(since)
            }
            None => seconds(params.genesis_timestamp),
        };
        Ok(EpochTimes { genesis: Timestamp(genesis), epoch })
    }

    /// A tipset with its blocks; the head if no key is given.
    ///
    /// # Errors
    ///
    /// The node does not answer or does not know it.
    pub async fn tipset(&self, key: Option<&TipsetKey>) -> Result<TipsetDetail, ChainError> {
        let tipset: TipSet = match key {
            Some(key) => self.rpc.call("ChainGetTipSet", json!([Lotus(key.0.clone())])).await?,
            None => self.rpc.call("ChainHead", json!([])).await?,
        };
        let first = tipset.blocks.first().ok_or_else(|| malformed("a tipset without blocks"))?;
        let millis = first.timestamp.saturating_mul(1000);
        let blocks = tipset.cids.iter().zip(&tipset.blocks);
        Ok(TipsetDetail {
            epoch: Epoch(tipset.height),
            time: Timestamp(i64::try_from(millis).map_err(|_| malformed("a time of a block"))?),
            base_fee: convert::amount(&first.parent_base_fee)?,
            parents: TipsetKey(first.parents.clone()),
            blocks: blocks.map(|(cid, b)| BlockDetail { cid: cid.to_string(), miner: to_core(&b.miner) }).collect(),
        })
    }

    /// The tipset at an epoch on the chain of `at`; for a null round, the one before it.
    ///
    /// # Errors
    ///
    /// The node does not answer or does not know it.
    pub async fn tipset_at(&self, at: &TipsetRef, epoch: Epoch) -> Result<TipsetRef, ChainError> {
        self.reads.tipset_at(at, epoch).await
    }

    /// Randomness as the protocol draws it.
    ///
    /// # Errors
    ///
    /// The node does not answer, or the epoch comes after `at`.
    pub async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        self.reads.randomness(at, kind, epoch, miner).await
    }

    /// What an account owns.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn balance(&self, address: &Address) -> Result<TokenAmount, ChainError> {
        convert::amount(&self.rpc.call_form("WalletBalance", json!([address])).await?)
    }

    /// The ID of the actor behind an address, if it is on chain.
    ///
    /// # Errors
    ///
    /// The node does not answer, or the address is none.
    pub async fn lookup_id(&self, at: &TipsetRef, address: &Address) -> Result<Option<ActorId>, ChainError> {
        if let Some(id) = address.actor_id() {
            return Ok(Some(id));
        }
        let none = |e| ChainError::new(ChainErrorKind::Rejected, "look up ID").with("address", address).because(e);
        from_core(address).map_err(none)?;
        match self.reads.at::<Address>("StateLookupID", at, vec![json!(address)]).await {
            Ok(id) => Ok(id.actor_id()),
            Err(e) if RpcError::of(&e).is_some() && e.kind() == ChainErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The key address of an account.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such account.
    pub async fn account_key(&self, at: &TipsetRef, address: &Address) -> Result<Address, ChainError> {
        let key: Lotus<ChainAddress> = self.reads.at("StateAccountKey", at, vec![json!(address)]).await?;
        Ok(to_core(&key.0))
    }

    /// All that a miner says of itself.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerDetail, ChainError> {
        let info: LotusMiner = self.reads.at("StateMinerInfo", at, vec![id(miner)]).await?;
        let owner = to_core(&info.owner);
        let beneficiary = info.beneficiary.as_ref().map_or_else(|| owner.clone(), to_core);
        let term = match info.beneficiary_term {
            Some(term) if beneficiary != owner => Some(Term {
                quota: convert::amount(&term.quota)?,
                used: convert::amount(&term.used_quota)?,
                expiration: Epoch(term.expiration),
            }),
            _ => None,
        };
        let multiaddr = |bytes: &Vec<u8>| match multiaddr::Multiaddr::try_from(bytes.clone()) {
            Ok(address) => address.to_string(),
            // Anybody may write what they like there.
            Err(_) => format!("0x{}", hex::encode(bytes)),
        };
        Ok(MinerDetail {
            miner,
            pending_owner: info.pending_owner_address.as_ref().map(to_core),
            worker: to_core(&info.worker),
            new_worker: info.new_worker.as_ref().map(|new| (to_core(new), Epoch(info.worker_change_epoch))),
            control: info.control_addresses.iter().map(to_core).collect(),
            term,
            pending_beneficiary: pending(info.pending_beneficiary_term)?,
            peer_id: info.peer_id.filter(|id| !id.is_empty()),
            multiaddrs: info.multiaddrs.iter().map(multiaddr).collect(),
            sector_size: SectorSize::try_from(info.sector_size).map_err(|e| malformed("a sector size").because(e))?,
            partition_sectors: info.window_post_partition_sectors,
            consensus_fault_until: (info.consensus_fault_elapsed > at.epoch.0)
                .then_some(Epoch(info.consensus_fault_elapsed)),
            owner,
            beneficiary,
        })
    }

    /// Where a miner's money is.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn funds(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerFunds, ChainError> {
        let actor: ActorState = self.reads.at("StateGetActor", at, vec![id(miner)]).await?;
        let Lotus(available): Lotus<econ::TokenAmount> =
            self.reads.at("StateMinerAvailableBalance", at, vec![id(miner)]).await?;
        let read: ReadState = self.reads.at("StateReadState", at, vec![id(miner)]).await?;
        let state = read.state.ok_or_else(|| malformed("the state of a miner"))?;
        Ok(MinerFunds {
            balance: convert::amount(&actor.balance)?,
            available: convert::amount(&available)?,
            vesting: convert::amount(&state.locked_funds.0)?,
            initial_pledge: convert::amount(&state.initial_pledge.0)?,
            pre_commit_deposits: convert::amount(&state.pre_commit_deposits.0)?,
            fee_debt: convert::amount(&state.fee_debt.0)?,
        })
    }

    /// The power of a miner and of the network.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn power(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerPower, ChainError> {
        self.reads.at("StateMinerPower", at, vec![id(miner)]).await
    }

    /// The current deadline.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        self.reads.deadline(at, miner).await
    }

    /// All deadlines, or one of them, with their partitions.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn deadlines(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        only: Option<DeadlineIndex>,
    ) -> Result<Vec<DeadlineDetail>, ChainError> {
        let now = self.reads.deadline(at, miner).await?;
        let states: Vec<Deadline> = self.reads.at("StateMinerDeadlines", at, vec![id(miner)]).await?;
        let mut details = Vec::new();
        for (index, state) in (0..).map(DeadlineIndex).zip(&states) {
            if only.is_some_and(|only| only != index) {
                continue;
            }
            let params = vec![id(miner), json!(index)];
            let partitions: Option<Vec<Partition>> = self.reads.at("StateMinerPartitions", at, params).await?;
            let partitions = partitions.unwrap_or_default();
            // Those before the current one open again in the next period.
            let turns = i64::from(index < now.index);
            let at_index = i64::try_from(index.0).map_err(|_| malformed("a deadline"))?;
            let open = now.period_start.0 + at_index * now.challenge_window + turns * now.proving_period;
            details.push(DeadlineDetail {
                index,
                open: Epoch(open),
                close: Epoch(open + now.challenge_window),
                current: index == now.index,
                proven: convert::set(&state.post_submissions)?.iter().map(|n| n.0).collect(),
                partitions: partitions.iter().map(convert::partition).collect::<Result<_, _>>()?,
                daily_fee: convert::amount(&state.daily_fee)?,
            });
        }
        Ok(details)
    }

    /// All sectors that are proven, or those of a set.
    ///
    /// # Errors
    ///
    /// The node does not answer, or there is no such miner.
    pub async fn sectors(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        only: Option<&SectorSet>,
    ) -> Result<Vec<SectorInfo>, ChainError> {
        if let Some(only) = only {
            return self.reads.sectors(at, miner, only).await;
        }
        let all: Option<Vec<SectorOnChainInfo>> =
            self.reads.at("StateMinerSectors", at, vec![id(miner), Value::Null]).await?;
        all.unwrap_or_default().iter().map(convert::sector).collect()
    }

    /// The deposit of a new miner (FIP-0077).
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub async fn creation_deposit(&self, at: &TipsetRef) -> Result<TokenAmount, ChainError> {
        let Lotus(amount): Lotus<econ::TokenAmount> = self.reads.at("StateMinerCreationDeposit", at, vec![]).await?;
        convert::amount(&amount)
    }

    /// What a message on chain did, executed again.
    ///
    /// # Errors
    ///
    /// The node does not answer, or does not know the message.
    pub async fn replay(&self, message: &cid::Cid) -> Result<InvocResult, ChainError> {
        self.rpc.call("StateReplay", json!([[], Lotus(*message)])).await
    }
}

fn pending(term: Value) -> Result<Option<PendingBeneficiary>, ChainError> {
    let term: Option<PendingTerm> =
        serde_json::from_value(term).map_err(|e| malformed("a proposed beneficiary").because(e))?;
    let Some(term) = term else { return Ok(None) };
    Ok(Some(PendingBeneficiary {
        beneficiary: to_core(&term.new_beneficiary.0),
        quota: convert::amount(&term.new_quota.0)?,
        expiration: Epoch(term.new_expiration),
        approved_by_present: term.approved_by_beneficiary,
        approved_by_proposed: term.approved_by_nominee,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_beneficiary_is_read_as_nodes_write_it() {
        let term = json!({
            "NewBeneficiary": "f0101", "NewQuota": "5", "NewExpiration": 9,
            "ApprovedByBeneficiary": true, "ApprovedByNominee": false
        });
        let read = pending(term).unwrap().unwrap();
        assert_eq!(
            (read.beneficiary.as_str(), read.quota, read.expiration),
            ("t0101", TokenAmount::from_atto(5), Epoch(9))
        );
        assert!(read.approved_by_present && !read.approved_by_proposed);
        assert_eq!(pending(Value::Null).unwrap(), None);
        assert!(pending(json!({"NewQuota": "5"})).is_err());
    }
}
