//! Groth16 parameters for the Filecoin circuits: found in the standard cache, or made.
//!
//! A Groth16 proof needs a proving key (`.params`) and a verifying key (`.vk`) for its circuit. For 32 and 64 GiB sectors
//! they come from Filecoin's trusted set-up ceremony and nowhere else. The small sizes (2 KiB, 8 MiB, 512 MiB) exist on
//! no public network, so their trapdoors need not be secret: [`ParameterCache::ensure`] makes them from a published seed
//! per circuit, and every machine makes the same bytes.
//!
//! The generator differs from bellperson's stock one in three ways, each measured by `benches/params.rs`:
//!
//! * the circuit is synthesised twice, once to count and once to evaluate, so the matrices of the QAP are never stored;
//! * a multiplication of the fixed generator is a sum of table entries (no doublings), and the sums of a whole batch
//!   of scalars are made together in affine coordinates with one shared inversion;
//! * points go to the file as they are made, so that memory does not grow with the key.
//!
//! [`ParameterCache::ensure`] is a plain blocking function that uses both rayon's pool and the calling thread: an
//! asynchronous caller wraps it into `spawn_blocking`.

mod assembly;
mod cache;
mod circuit;
mod error;
mod files;
mod fixed_base;
mod generate;
mod lock;
mod progress;
mod qap;
mod srs;
mod trapdoor;
mod verifying;

pub use cache::{Action, EnsureReport, Origin, ParameterCache, ReadySet, SetStatus};
pub use circuit::{CircuitId, CircuitKind};
pub use error::ParamsError;
pub use generate::{GenerateError, generate_to};
pub use progress::ParamProgress;
pub use srs::Srs;
pub use trapdoor::Trapdoor;
