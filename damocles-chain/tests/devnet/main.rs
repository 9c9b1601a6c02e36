//! The devnet, driven through messages.
#![cfg(feature = "devnet")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "the harness of tests fails by panicking")]

mod books;
mod charges;
mod faults;
mod fees;
mod fork;
mod harness;
mod life;
mod methods;
mod money;
mod pool;
mod restart;
mod rpc;
mod scale;
mod sealing;
mod sim;
mod state;
