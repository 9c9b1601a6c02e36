//! The outbox: calls that were asked for, and how they become messages on chain.
//!
//! A call is recorded under its key before anything else happens. A nonce is assigned, the message signed and both
//! are recorded in one statement; only then it is pushed, and it is pushed again until it is on chain. So there is no
//! instant at which a crash could make two messages of one key, or leave a nonce that is never filled.
//!
//! Each sender has a lane that works by itself. In it, proofs of spacetime come first.

mod deliver;
mod limits;
mod lookup;
mod lotus;
mod node;
mod run;
mod senders;
mod sign;
mod store;
mod value;

pub use limits::Limits;
pub use senders::Senders;
pub use store::{OutboxEntry, OutboxState};

pub(crate) use limits::in_chain;
pub(crate) use lookup::{receipt_of, same_call};
pub(crate) use lotus::LotusNode;
pub(crate) use node::{Account, FINALITY, Found, Node, Push, Search};
pub(crate) use run::Outbox;
pub(crate) use senders::CheckedSenders;
pub(crate) use store::{Row, Stage, Store, Unfinished};
pub(crate) use value::pre_commit;

#[cfg(test)]
mod tests;
