//! The processors with the real proofs library, on 2 KiB sectors; what crashes leave behind is planted.
#![cfg(feature = "proofs")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod footprint;
mod pieces;
mod post;
mod seal;
mod sector;
mod transfer;
mod verifier;
