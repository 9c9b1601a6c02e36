//! `devnet run`: a chain of one machine.

use super::args::DevnetArgs;
use crate::{
    exit::Failure,
    frame,
    output::Printer,
    parameters,
    progress::Progress,
    server::{RequestHeaders, RpcHandler, Server, WsHandler, WsIncoming, WsOutgoing},
    signals, verifier,
};
use anyhow::Context as _;
use async_trait::async_trait;
use damocles_chain::devnet::{Devnet, DevnetConfig, DevnetRpc};
use damocles_core::{CancellationToken, SectorSize};
use std::{path::Path, sync::Arc, time::Duration};

/// Runs a devnet until it is told to stop.
///
/// # Errors
///
/// Its directory or its address cannot be used.
pub(super) fn run(args: &DevnetArgs, home: &Path, printer: Printer) -> Result<(), Failure> {
    frame::runtime()?.block_on(serve(args, home, printer))
}

async fn serve(args: &DevnetArgs, home: &Path, printer: Printer) -> Result<(), Failure> {
    let shutdown = signals::install().context("listen for signals")?;
    let server = Server::bind(args.listen).await?;
    let config = config(args)?;
    let network = config.network_name.clone();
    if !verifier::is_fake(&network) {
        let progress = Progress::new(printer.is_quiet());
        parameters::ensure(SectorSize::KiB2, &progress, shutdown.drain.clone()).await?;
        parameters::ensure_for_devnet(SectorSize::KiB2, &progress, shutdown.drain.clone()).await?;
    }
    fs_err::create_dir_all(home)?;
    let devnet = Devnet::open(config, verifier::for_network(&network), home)?;
    let address = server.address();
    // Who can be reached from elsewhere does not misbehave on command.
    let serve = if address.ip().is_loopback() { DevnetRpc::new } else { DevnetRpc::public };
    let rpc = Arc::new(DevnetRpcServer(serve(Arc::clone(&devnet))));
    let mut server = server;
    for path in ["/rpc/v0", "/rpc/v1"] {
        server = server.route_rpc(path, rpc.clone()).route_ws(path, rpc.clone());
    }
    printer.note(format_args!("devnet `{network}` at epoch {}: http://{address}/rpc/v1", devnet.head().epoch));
    args.supervision.ready(Some(address), &shutdown)?;
    let clock = devnet.run(shutdown.drain.clone());
    let served = server.serve(shutdown.drain.clone());
    // The clock's failure must end the server too: a chain that stands still for no reason is worse than none.
    tokio::select! {
        ended = clock => ended?,
        ended = served => ended?,
    }
    Ok(())
}

/// What is in the file, if there is one, and what was given beside it.
fn config(args: &DevnetArgs) -> Result<DevnetConfig, Failure> {
    let mut config = match &args.config {
        Some(path) => DevnetConfig::load(path)?,
        None => DevnetConfig { network_name: "devnet".to_owned(), ..DevnetConfig::default() },
    };
    if let Some(name) = &args.network {
        config.network_name.clone_from(name);
    }
    if let Some(millis) = args.epoch_ms {
        config.epoch_duration = Duration::from_millis(millis);
    }
    for account in &args.fund {
        let address = DevnetConfig::parse_address(account.address.as_str())
            .ok_or_else(|| Failure::usage(format_args!("`{}` is no account's address", account.address)))?;
        config.fund.push((address, fvm_shared::econ::TokenAmount::from_atto(account.amount.atto())));
    }
    Ok(config)
}

/// The devnet's RPC behind our server.
struct DevnetRpcServer(DevnetRpc);

#[async_trait]
impl RpcHandler for DevnetRpcServer {
    async fn handle(&self, _: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle(&body).await
    }
}

#[async_trait]
impl WsHandler for DevnetRpcServer {
    async fn serve(&self, _: RequestHeaders, incoming: WsIncoming, outgoing: WsOutgoing, cancel: CancellationToken) {
        // A peer that went away is no failure of ours.
        let _ = cancel.run_until_cancelled(self.0.serve_ws(incoming, outgoing)).await;
    }
}
