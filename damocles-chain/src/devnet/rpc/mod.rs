//! Lotus' JSON-RPC over a devnet. This is dispatch only: whoever owns the server hands request texts and WebSocket texts
//! in.

mod actor_state;
mod admin;
mod args;
mod chain;
mod faults;
mod gas;
mod message;
mod miner;
mod network;
mod sector;
mod server;
mod state;
mod view;
mod ws;

pub use args::RpcFault;
pub(super) use faults::Faults;
pub use server::DevnetRpc;

use super::node::Devnet;
use args::Args;
use serde_json::Value;

type Handler = fn(&Devnet, &Args) -> Result<Value, RpcFault>;

/// Every method that answers at once. `StateWaitMsg` waits and `ChainNotify` goes on: see the server.
const METHODS: &[(&str, Handler)] = &[
    ("Filecoin.ChainHead", chain::head),
    ("Filecoin.ChainGetGenesis", chain::genesis),
    ("Filecoin.ChainGetTipSet", chain::tipset_get),
    ("Filecoin.ChainGetTipSetByHeight", chain::tipset_by_height),
    ("Filecoin.ChainGetTipSetAfterHeight", chain::tipset_after_height),
    ("Filecoin.ChainGetBlock", chain::block),
    ("Filecoin.ChainGetMessage", chain::message),
    ("Filecoin.ChainGetBlockMessages", chain::block_messages),
    ("Filecoin.ChainGetParentMessages", chain::parent_messages),
    ("Filecoin.ChainGetParentReceipts", chain::parent_receipts),
    ("Filecoin.ChainReadObj", chain::read_object),
    ("Filecoin.ChainHasObj", chain::has_object),
    ("Filecoin.ChainTipSetWeight", chain::weight),
    ("Filecoin.StateGetRandomnessFromTickets", chain::ticket_randomness),
    ("Filecoin.StateGetRandomnessFromBeacon", chain::beacon_randomness),
    ("Filecoin.StateGetRandomnessDigestFromTickets", chain::ticket_digest),
    ("Filecoin.StateGetRandomnessDigestFromBeacon", chain::beacon_digest),
    ("Filecoin.StateGetBeaconEntry", chain::beacon_entry),
    ("Filecoin.StateMinerInfo", miner::info),
    ("Filecoin.StateMinerProvingDeadline", miner::proving_deadline),
    ("Filecoin.StateMinerDeadlines", miner::deadlines),
    ("Filecoin.StateMinerPartitions", miner::partitions),
    ("Filecoin.StateMinerFaults", miner::faults),
    ("Filecoin.StateMinerRecoveries", miner::recoveries),
    ("Filecoin.StateMinerPower", miner::power),
    ("Filecoin.StateMinerAvailableBalance", miner::available_balance),
    ("Filecoin.StateMinerSectorCount", miner::sector_count),
    ("Filecoin.StateMinerCreationDeposit", miner::creation_deposit),
    ("Filecoin.StateListMiners", miner::list),
    ("Filecoin.StateMinerSectors", sector::sectors),
    ("Filecoin.StateMinerActiveSectors", sector::active),
    ("Filecoin.StateSectorGetInfo", sector::info),
    ("Filecoin.StateSectorPreCommitInfo", sector::pre_commit_info),
    ("Filecoin.StateSectorPartition", sector::partition),
    ("Filecoin.StateSectorExpiration", sector::expiration),
    ("Filecoin.StateMinerSectorAllocated", sector::is_allocated),
    ("Filecoin.StateMinerAllocated", sector::allocated),
    ("Filecoin.StateMinerInitialPledgeForSector", sector::initial_pledge),
    ("Filecoin.StateMinerPreCommitDepositForPower", sector::pre_commit_deposit),
    ("Filecoin.StateLookupID", state::lookup_id),
    ("Filecoin.StateAccountKey", state::account_key),
    ("Filecoin.StateGetActor", state::actor),
    ("Filecoin.StateReadState", state::read_state),
    ("Filecoin.WalletBalance", state::balance),
    ("Filecoin.StateNetworkVersion", network::version),
    ("Filecoin.StateNetworkName", network::name),
    ("Filecoin.StateGetNetworkParams", network::params),
    ("Filecoin.Version", network::node_version),
    ("Filecoin.SyncState", network::sync_state),
    ("Filecoin.StateSearchMsg", message::search),
    ("Filecoin.StateCall", message::call),
    ("Filecoin.StateReplay", message::replay),
    ("Filecoin.GasEstimateMessageGas", gas::message),
    ("Filecoin.GasEstimateGasLimit", gas::limit),
    ("Filecoin.GasEstimateFeeCap", gas::fee_cap),
    ("Filecoin.GasEstimateGasPremium", gas::premium),
    ("Filecoin.MpoolGetNonce", message::nonce),
    ("Filecoin.MpoolPush", message::push),
    ("Filecoin.MpoolPushUntrusted", message::push_untrusted),
    ("Filecoin.MpoolBatchPush", message::batch_push),
    ("Filecoin.MpoolBatchPushUntrusted", message::batch_push_untrusted),
    ("Filecoin.MpoolPending", message::pending),
    ("Filecoin.MpoolSelect", message::select),
    ("Devnet.Info", admin::info),
    ("Devnet.AdvanceTo", admin::advance_to),
    ("Devnet.Pause", admin::pause),
    ("Devnet.Resume", admin::resume),
    ("Devnet.Mine", admin::mine),
    ("Devnet.Messages", admin::messages),
    ("Devnet.Check", admin::check),
];

/// The methods that make it misbehave: only for those who can be reached from this machine alone.
const ADMIN: &[(&str, Handler)] = &[
    ("Devnet.Fork", admin::fork),
    ("Devnet.Faults", admin::faults),
    ("Devnet.BaseFee", admin::base_fee),
    ("Devnet.Pace", admin::pace),
    ("Devnet.NetworkVersion", admin::network_version),
    ("Devnet.Snapshot", admin::snapshot),
];

impl Devnet {
    /// Answers a method that needs no waiting.
    ///
    /// # Errors
    ///
    /// As Lotus would answer.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcFault> {
        let handler = METHODS
            .iter()
            .chain(ADMIN)
            .find_map(|(name, handler)| (*name == method).then_some(handler))
            .ok_or_else(|| RpcFault::no_method(method))?;
        handler(self, &Args::new(params)?)
    }
}
