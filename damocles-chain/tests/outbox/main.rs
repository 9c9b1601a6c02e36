//! The outbox in SQLite over HTTP and WebSocket against a devnet that misbehaves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a run tells its seed and its speed, and a helper that fails ends its test, which is what a test is for"
)]

#[cfg(feature = "devnet")]
mod boundary;
#[cfg(feature = "devnet")]
mod checks;
#[cfg(feature = "devnet")]
mod home;
#[cfg(feature = "devnet")]
mod hostile;
#[cfg(feature = "devnet")]
mod lanes;
#[cfg(feature = "devnet")]
mod server;
