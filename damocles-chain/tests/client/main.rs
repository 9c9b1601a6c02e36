//! The client against nodes on loopback: scripted ones that answer rubbish, and the devnet.

#[cfg(feature = "devnet")]
mod devnet;
mod rubbish;
mod server;
mod setup;
