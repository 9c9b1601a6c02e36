//! A messager and a gateway on loopback that keep to their protocols and misbehave on command.

mod fault;
mod gateway;
mod messager;
mod server;

pub use fault::Fault;
pub use gateway::FakeGateway;
pub use messager::FakeMessager;
pub use server::{Answering, Arrived, FakeServer, Socket};
