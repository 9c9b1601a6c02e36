//! Who may work on which sector.

mod policy;
mod sql;

pub use policy::MinerPolicy;
pub use sql::{LeaseRecord, SqlAllocator};

pub(crate) use sql::{INCUMBENT_STORE, lease_of};
