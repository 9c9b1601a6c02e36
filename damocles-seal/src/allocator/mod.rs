//! Who may work on which sector.

mod policy;
mod remote;
mod sql;

pub use policy::MinerPolicy;
pub use remote::RemoteAllocator;
pub use sql::{LeaseRecord, SqlAllocator};

pub(crate) use sql::{INCUMBENT_STORE, end_lease, lease_of};
