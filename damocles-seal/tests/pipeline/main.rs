//! Pipeline, journal and sealing thread, over fake processors and a service in memory, with real files.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

mod conformance;
mod control;
mod crash;
mod damage;
mod fake_work;
mod journal;
mod pieces;
mod settings;
mod stores;
mod thread;
mod world;
