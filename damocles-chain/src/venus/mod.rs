//! The chain behind a Venus cluster: reads from the node, messages through the messager, keys behind the gateway.

mod client;
mod config;
pub mod gateway;
pub mod messager;
mod prepare;
mod run;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod view;

pub use client::{Cancelled, Price, VenusClient, VenusEntry};
pub use config::{FeesByClass, MessageFees, VenusConfig};
pub use prepare::message_uid;
pub use store::VenusState;
