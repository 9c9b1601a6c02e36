//! Hardware used exactly as configured: control groups, reading back, environments by placement.
//!
//! A slot that names CPUs, memory nodes, a memory limit or a CPU weight gets exactly these, or its child does not start.
//! [`CgroupTree`] finds what the host offers (control groups of version 2, version 1, both or none), [`Groups`] makes the
//! groups `<name>/<owner>/<slot>/<child>` in each hierarchy that has what a slot asks for, [`Bound`] is read back from
//! `/proc` for every thread of a child, now and whenever it is asked for again. What no hierarchy can give falls back to
//! affinity and memory policy where that binds as surely (CPUs, nodes), and is an error where nothing does (memory limit,
//! CPU weight).
//!
//! `owner` is a process: its number, its start time and its PID namespace. Groups of an owner that is gone are ended and
//! removed when the next one starts; nobody else's are touched.

mod capability;
mod cpuset;
mod environment;
mod error;
mod group;
mod isolation;
mod leaf;
mod leftovers;
mod limits;
mod owner;
mod readback;
mod setup;
mod tree;

pub use capability::{CapabilityNeed, missing_capabilities, own_capabilities};
pub use environment::{
    BuildFeature, MissingFeature, MulticoreMisfit, against_gpus, gpu_env, missing_features, multicore_sdr_env,
    needs_multicore_sdr,
};
pub use error::{PlacementError, PlacementErrorKind};
pub use group::Groups;
pub use isolation::{Isolation, IsolationSpec, Placed};
pub use leaf::{Leaf, OutOfMemory};
pub use readback::Bound;
pub use setup::{SetUp, SetUpDir, set_up};
pub use tree::{CgroupTree, Controller, Hierarchy};
