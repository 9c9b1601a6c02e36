//! Configuration files: strict TOML, every error with file, line, column and what to write instead.
//!
//! [`worker`] and [`manager`] are the two files as plain data; [`strict`] reads them.

pub mod check;
pub mod differ;
pub mod endpoint;
mod findings;
pub mod import;
pub mod manager;
mod nearest;
pub mod processors;
pub mod reference;
mod retired;
pub mod secret;
mod store_file;
pub mod strict;
pub mod time;
pub mod worker;

pub use endpoint::Endpoint;
pub use findings::Findings;
pub use manager::ManagerConfig;
pub use processors::{ChildProtocol, ProcessorKind, Processors, SlotConfig, SlotSpec};
pub use secret::Secret;
pub use store_file::StoreFile;
pub use strict::{ConfigError, Retired, Source};
pub use time::HumanDuration;
pub use worker::WorkerConfig;
