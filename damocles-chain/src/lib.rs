#![doc = include_str!("../README.md")]

mod actor;
mod client;
#[cfg(feature = "devnet")]
pub mod devnet;
mod heads;
pub mod lotus_json;
mod outbox;
pub mod rpc;
pub mod signer;
pub mod venus;
pub mod wallet;

pub use client::{
    BlockDetail, DeadlineDetail, Estimate, LotusClient, LotusConfig, MinerDetail, MinerFunds, Operator,
    PendingBeneficiary, Simulation, Spending, Term, TipsetDetail,
};
pub use outbox::{
    BaseFee, FeePolicy, Fees, Lanes, Limits, MessageVersion, OutboxEntry, OutboxFilter, OutboxState, Ratio,
    Replacement, SenderFunds, Senders, Simulate, VersionPurpose, outbox_entries, read_addresses,
};
pub use venus::{VenusClient, VenusConfig};

pub use actor::{
    ActorCall, ActorsVersion, EncodeError, LimitError, ReturnError, UnknownNetworkVersion, decode_call, decode_message,
    decode_return, encode,
};
