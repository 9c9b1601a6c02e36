//! A messager and a gateway on loopback that keep to their protocols and misbehave on command.

mod fault;
mod messager;
mod server;

pub use fault::Fault;
pub use messager::FakeMessager;
pub use server::{Arrived, FakeServer, Socket};
