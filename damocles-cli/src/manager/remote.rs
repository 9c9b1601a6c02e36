//! Commands that ask a running manager.

use crate::{
    config::{ManagerConfig, manager::Home},
    exit::Failure,
    manager::outbox::socket,
    server::UnixClient,
};
use damocles_seal::rpc::{Method, RpcClient, RpcOptions};
use std::net::SocketAddr;

/// Where the manager of this home listens.
///
/// # Errors
///
/// The configuration cannot be read.
pub(crate) fn address(home: &Home) -> Result<SocketAddr, Failure> {
    Ok(ManagerConfig::load(home.config())?.listen.address)
}

/// Asks the manager of a home what only operators may ask for.
///
/// # Errors
///
/// No daemon runs there, it is starting, or it refuses.
pub(crate) async fn ask<M: Method>(home: &Home, params: &M::Params) -> Result<M::Output, Failure> {
    let params = serde_json::to_value(params).map_err(anyhow::Error::from)?;
    Ok(UnixClient::new(&socket(home))?.call(M::NAME, params).await?)
}

/// A client of the manager at an address.
///
/// # Errors
///
/// The address cannot be used.
pub(crate) fn client(address: SocketAddr) -> Result<RpcClient, Failure> {
    Ok(RpcClient::http(&RpcOptions::new(format!("http://{address}/rpc/v0")))?)
}
