//! Commands that ask a running manager.

use crate::{
    config::{ManagerConfig, manager::Home},
    exit::Failure,
};
use damocles_seal::rpc::{RpcClient, RpcOptions};
use std::net::SocketAddr;

/// Where the manager of this home listens.
///
/// # Errors
///
/// The configuration cannot be read.
pub(crate) fn address(home: &Home) -> Result<SocketAddr, Failure> {
    Ok(ManagerConfig::load(home.config())?.listen.address)
}

/// A client of the manager at an address.
///
/// # Errors
///
/// The address cannot be used.
pub(crate) fn client(address: SocketAddr) -> Result<RpcClient, Failure> {
    Ok(RpcClient::http(&RpcOptions::new(format!("http://{address}/rpc/v0")))?)
}
