//! `wallet run`: signing for managers, nodes and gateways.

use super::{
    args::RunArgs,
    command::Desk,
    offer::{self, Control},
    password::{self, Asked},
    remote,
};
use crate::{
    exit::Failure,
    frame,
    server::{RequestHeaders, RpcHandler, Server, UnixServer},
    signals,
};
use anyhow::Context as _;
use async_trait::async_trait;
use damocles_chain::wallet::{Wallet, WalletCaller, WalletOptions, WalletRpc};
use damocles_core::CancellationToken;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rand::{RngCore as _, rngs::OsRng};
use std::{io::Write as _, path::Path, sync::Arc};
use zeroize::Zeroizing;

const PATHS: [&str; 2] = ["/rpc/v0", "/rpc/v1"];

/// Serves until told to stop.
pub(super) fn run(desk: &Desk<'_>, args: &RunArgs) -> Result<(), Failure> {
    let mut options = WalletOptions::default();
    if let Some(idle) = args.auto_lock {
        options = options.with_auto_lock(idle);
    }
    let wallet = desk.wallet(options)?;
    if !args.locked {
        wallet.unlock(&password::current(&desk.args.password, Asked::Switches)?)?;
    }
    frame::runtime()?.block_on(serve(desk, args, wallet))
}

async fn serve(desk: &Desk<'_>, args: &RunArgs, wallet: Wallet) -> Result<(), Failure> {
    let shutdown = signals::install().context("listen for signals")?;
    let token_file = args.token_file.clone().unwrap_or_else(|| desk.home.path().join("wallet-token"));
    let token = match args.listen {
        Some(_) => token(&token_file)?,
        // Nobody comes by the network.
        None => random(),
    };
    let rpc = WalletRpc::new(wallet.clone(), &token);
    let cluster = offer::link(&args.gateway, &wallet)?;
    let control = Arc::new(Control::new(cluster.clone()));
    let socket = remote::socket(desk, &args.socket);
    let mut by_socket = UnixServer::bind(&socket).await?;
    for path in PATHS {
        by_socket = by_socket.route_rpc(path, Arc::new(ByOwner(rpc.clone(), Arc::clone(&control))));
    }
    let by_network = match args.listen {
        Some(address) => {
            let mut server = Server::bind(address).await?;
            for path in PATHS {
                server = server.route_rpc(path, Arc::new(ByNetwork(rpc.clone())));
            }
            Some(server)
        }
        None => None,
    };
    let address = by_network.as_ref().map(Server::address);
    desk.printer.note(format_args!("`{}` signs at {}", wallet.path().display(), socket.display()));
    if let Some(address) = address {
        let file = token_file.display();
        desk.printer.note(format_args!("and at http://{address}/rpc/v0 for callers with the token in `{file}`"));
    }
    if let Some(gateway) = &args.gateway.gateway {
        desk.printer.note(format_args!("and for {} through the gateway {gateway}", args.gateway.accounts.join(", ")));
    }
    args.supervision.ready(address, &shutdown)?;
    let ending = shutdown.drain.clone();
    let network = async {
        match by_network {
            Some(server) => server.serve(ending.clone()).await,
            None => {
                ending.cancelled().await;
                Ok(())
            }
        }
    };
    let socket = by_socket.serve(ending.clone());
    let offered = async {
        if let Some(link) = &cluster {
            offer::serve(link, &wallet, &ending).await;
        }
    };
    let parts = async {
        tokio::join!(wallet.auto_lock(ending.clone()), offered, stopping(socket, &ending), stopping(network, &ending))
    };
    let (_, (), by_socket, by_network) = parts.await;
    wallet.lock();
    Ok(by_socket.and(by_network)?)
}

/// A server whose end is the end of all.
async fn stopping<T>(server: impl Future<Output = T>, ending: &CancellationToken) -> T {
    let ended = server.await;
    ending.cancel();
    ended
}

/// The token in a file, which is made if it is not there.
fn token(path: &Path) -> Result<Zeroizing<String>, Failure> {
    if !path.exists() {
        let token = random();
        let mut file = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(token.as_bytes())?;
        file.sync_all()?;
    }
    let text = password::private_text(path)?;
    let token = text.trim();
    if token.len() < 16 || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Failure::usage(format_args!("`{}` holds no token", path.display()))
            .hint("remove the file, and a token is made; or write one of at least 16 letters and digits into it"));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

fn random() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(bytes.as_mut_slice());
    Zeroizing::new(hex::encode(bytes.as_slice()))
}

/// The wallet's RPC behind the socket of its owner, and what else the owner asks.
struct ByOwner(WalletRpc, Arc<Control>);

#[async_trait]
impl RpcHandler for ByOwner {
    async fn handle(&self, _: &RequestHeaders, body: String) -> Option<String> {
        let body = Zeroizing::new(body);
        match self.1.handle(&body).await {
            Some(answer) => Some(answer),
            None => self.0.handle(&WalletCaller::Owner, &body).await,
        }
    }
}

/// The wallet's RPC behind a port.
struct ByNetwork(WalletRpc);

#[async_trait]
impl RpcHandler for ByNetwork {
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle(&WalletCaller::Remote { bearer: headers.bearer.clone() }, &body).await
    }
}
