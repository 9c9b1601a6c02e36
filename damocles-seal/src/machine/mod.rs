//! What a machine is made of, what may be placed on it, and what it can seal.
//!
//! [`Machine`] is the record: plain data, read from the kernel or from a file that `damocles-worker hwinfo --json` wrote. No rule
//! here touches the machine that it runs on; all of them take a record, so that a plan for a machine can be made on another one.

mod facts;
pub mod figures;
pub mod legal;
pub mod pipeline;
pub mod plan;
mod query;
mod read;
mod size;

pub use facts::{
    CgroupFacts, Core, CpuFacts, Disk, Gpu, HugePages, L3Group, MACHINE_VERSION, Machine, MemoryFacts, Mount, Node,
    Problem, RecordError, V1Controller, V2Facts,
};
pub use query::{CoreGroup, cpu_set};
pub use read::Roots;
