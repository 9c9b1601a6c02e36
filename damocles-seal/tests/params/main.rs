//! Proof parameters of ours, used by the real library.
//!
//! The tests share the standard parameter cache with every other process of the machine; the first of them to come makes
//! what is missing (see [`damocles_seal::params`]). Where the cache holds files that somebody else made, the recorded
//! proofs cannot verify, and their tests say that they skip.
#![cfg(feature = "proofs")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stderr, reason = "a test that skips or waits says so")]

mod keys;
mod proofs;
mod record;
mod recorded;
mod sector;
mod srs;
mod statements;
mod states;
mod verify;
