//! sophon-messager: who fills, signs and sends messages for the whole of a Venus cluster.

mod client;
mod record;
mod spec;

pub use client::{MessagerClient, MessagerConfig};
pub use record::{MessagerRecord, MessagerState, MessagerStatus};
pub use spec::{Replacement, SendSpec};
