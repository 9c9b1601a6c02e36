//! The embedded devnet: a Filecoin network in one process, for development and tests.
//!
//! Miner state is the real actors' (`fil_actor_miner_state` v18), so deadlines, partitions, expirations, pledge and faults
//! are what a public network has; the methods' bodies follow builtin-actors. Every seal proof and every PoSt is verified
//! when its message lands. Accounts, nonces, balances, receipts, tipsets, null rounds and randomness behave as on a
//! public network, and so do the base fee (FIP-0115), what gas costs, the message pool and the choice of a block's
//! messages. The gas that a method uses is a table. The power actor's estimates and the reward actor stand still and no
//! block is rewarded, unless the configuration says so. Forks, base-fee spikes and faults of the RPC come on command. The protocol's policy is kept except
//! for the pre-commit challenge delay (10), the proof types (2 KiB, 8 MiB and 512 MiB are added) and the minimum power
//! (2 KiB), unless the configuration says more.

mod actors;
mod admission;
mod block;
mod chain;
mod challenge;
mod check;
mod clock;
mod config;
mod error;
mod fees;
mod fork;
mod gas;
mod genesis;
mod grow;
mod mempool;
mod miner;
mod node;
mod policy;
mod power;
mod preseal;
mod randomness;
mod reward;
mod rpc;
mod select;
mod signed;
mod store;
mod vm;

pub use check::Checker;
pub use config::{DevnetConfig, FIRST_HEIGHT, NETWORK_VERSION, PoolLimits, PreSealed};
pub use error::{DevnetError, DevnetErrorKind};
pub use fork::{ForkPlan, Forked, MessageFate};
pub use node::{Devnet, LandedMessage, PushError};
pub use policy::PolicyParameters;
pub use rpc::{DevnetRpc, RpcFault};
pub use signed::{SignedMessage, message_cid};
