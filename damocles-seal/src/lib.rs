#![doc = include_str!("../README.md")]

pub mod allocator;
pub mod claims;
pub mod journal;
pub mod machine;
#[cfg(feature = "proofs")]
pub mod params;
#[cfg(feature = "proofs")]
pub mod parent_cache;
#[cfg(feature = "proofs")]
mod piece;
pub mod placement;
mod plan;
pub mod pool;
pub mod processor;
pub mod rpc;
pub mod sector_state;
pub mod service;
pub mod stage;
mod staged;
pub mod store;
mod sys;
pub mod task;
#[cfg(feature = "proofs")]
pub mod verifier;
pub mod watch;
pub mod worker;

#[cfg(feature = "proofs")]
pub use piece::piece_of_file;
pub use plan::{Plan, PlanError};
pub use staged::StagedPipeline;

/// Whether this build can do PC1 with several cores of one cache: feature `multicore-sdr`.
pub const BUILT_WITH_MULTICORE_SDR: bool = cfg!(feature = "multicore-sdr");

/// Whether this build can use GPUs: feature `cuda` or `opencl`.
pub const BUILT_WITH_GPUS: bool = cfg!(any(feature = "cuda", feature = "opencl"));
