//! The outbox: calls that were asked for, and how they become messages on chain.
//!
//! A call is recorded under its key before anything else happens. A nonce is assigned, the message signed and both
//! are recorded in one statement; only then it is pushed, and it is pushed again until it is on chain. So there is no
//! instant at which a crash could make two messages of one key, or leave a nonce that is never filled.

mod lookup;
mod lotus;
mod node;
mod run;
mod senders;
mod store;
mod value;

pub use senders::Senders;
pub use store::{OutboxEntry, OutboxState};

pub(crate) use lookup::{receipt_of, same_call};
pub(crate) use lotus::LotusNode;
pub(crate) use node::{FINALITY, Found, Node, Push, Search};
pub(crate) use run::Outbox;
pub(crate) use senders::CheckedSenders;
pub(crate) use store::{Row, Store};
pub(crate) use value::pre_commit;

#[cfg(test)]
mod tests;
