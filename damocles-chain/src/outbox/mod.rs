//! The outbox: calls that were asked for, and how they become messages on chain.
//!
//! A call is recorded under its key before anything else happens. A nonce is assigned, the message signed and both
//! are recorded in one statement; only then it is pushed, and it is pushed again until it is on chain. So there is no
//! instant at which a crash could make two messages of one key, or leave a nonce that is never filled.
//!
//! A message that does not land is replaced by a dearer one that does the same, up to the ceiling of its class. Every
//! message that was ever signed for a call is recorded before it is pushed, because any of them may land.
//!
//! Each sender has a lane that works by itself. In it, proofs of spacetime come first.

mod answers;
mod ask;
mod chain_view;
mod deliver;
mod entry;
mod fees;
mod funds;
mod gap;
mod landed;
mod lane;
mod lanes;
mod limits;
mod lookup;
mod lotus;
mod node;
mod pool;
mod pricing;
mod recent;
mod replace;
mod run;
mod senders;
mod sign;
mod store;
mod value;

pub use ask::outbox_entries;
pub use chain_view::BaseFee;
pub use entry::{MessageVersion, OutboxEntry, OutboxFilter, OutboxState, Replacement, VersionPurpose};
pub use fees::{FeePolicy, Fees, Ratio, Simulate};
pub use funds::SenderFunds;
pub use lanes::{Lanes, read_addresses};
pub use limits::Limits;
pub use senders::Senders;

pub(crate) use limits::in_chain;
pub(crate) use lookup::{receipt_of, same_call};
pub(crate) use lotus::LotusNode;
pub(crate) use node::{Account, FINALITY, Found, Located, Node, OnChain, Push, Search, Simulated};
pub(crate) use run::Outbox;
pub(crate) use senders::CheckedSenders;
pub(crate) use store::{InFlight, Recorded, Row, Store};
pub(crate) use value::pre_commit;

#[cfg(test)]
mod tests;
