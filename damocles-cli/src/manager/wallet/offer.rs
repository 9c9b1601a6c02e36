//! The keys of a wallet, offered to a cluster through its gateway.

use super::{
    args::{GatewayArgs, SupportArgs},
    command::Desk,
    password, remote,
    watch::{Place, Watch},
};
use crate::{
    config::{Endpoint as NamedEndpoint, Secret},
    exit::{Exit, Failure},
    frame,
    server::{ServerError, UnixClient},
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{
    rpc::Endpoint,
    venus::gateway::{GatewayConfig, GatewayLink, WalletLink},
    wallet::Wallet,
};
use damocles_core::CancellationToken;
use jsonrpc_core::{Error as RpcFault, ErrorCode, IoHandler, Params};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tracing::warn;

const SUPPORT: &str = "Damocles.SupportAccount";
/// A gateway that does not answer is given up before whoever waits at the socket.
const ANSWER: Duration = Duration::from_secs(15);

/// The gateway that the arguments name.
///
/// # Errors
///
/// Its address or token cannot be used.
pub(super) fn link(args: &GatewayArgs, wallet: &Wallet) -> Result<Option<Arc<WalletLink>>, Failure> {
    let Some(text) = &args.gateway else { return Ok(None) };
    let named: NamedEndpoint = text.parse().map_err(|e| Failure::usage(format_args!("--gateway: {e}")))?;
    if named.token().map(Secret::reveal).is_some() {
        return Err(Failure::usage(
            "--gateway: a token stands before the address, where every user of the machine sees it",
        )
        .hint("write it into a file of mode 0600 and name that as --gateway-token-file"));
    }
    let mut endpoint: Endpoint = named.to_string().parse().with_context(|| format!("use gateway `{named}`"))?;
    if let Some(file) = &args.gateway_token_file {
        endpoint = endpoint.with_token(password::private_text(file)?.trim());
    }
    let link = GatewayLink::new(GatewayConfig::new(endpoint))?;
    Ok(Some(Arc::new(link.wallet(Arc::new(wallet.clone()), args.accounts.clone()))))
}

/// Offers the keys of a wallet until cancelled. The gateway is told when another process changes the file, and when the
/// wallet is locked or unlocked.
pub(super) async fn serve(link: &WalletLink, wallet: &Wallet, cancel: &CancellationToken) {
    let mut usable = wallet.usable();
    let locks = async {
        // The other end lives as long as the wallet.
        while usable.changed().await.is_ok() {
            link.keys_changed();
        }
    };
    let place = Place::File(wallet.path().to_owned());
    let news = cancel.run_until_cancelled(async { tokio::join!(locks, tell_of_changes(link, &place)) });
    tokio::join!(link.run(cancel.clone()), news);
}

/// Has a gateway told of what other processes change where the keys lie.
pub(in crate::manager) async fn tell_of_changes(link: &WalletLink, place: &Place) {
    let watching = async {
        let watch = Watch::of(place)?;
        // What was changed before it was watched.
        link.keys_changed();
        loop {
            watch.changed().await?;
            link.keys_changed();
        }
    };
    let ended: std::io::Result<()> = watching.await;
    if let Err(error) = ended {
        warn!(?place, %error, "keys that are made from now on are told to the gateway when its channel is opened next");
    }
}

/// What the owner of a running wallet asks besides what wallets are asked.
pub(super) struct Control(IoHandler);

#[derive(Deserialize)]
struct Asked {
    method: String,
}

impl Control {
    /// The methods, over the gateway if there is one.
    pub(super) fn new(link: Option<Arc<WalletLink>>) -> Self {
        let mut io = IoHandler::new();
        io.add_method(SUPPORT, move |params: Params| {
            let link = link.clone();
            async move {
                let (account,): (String,) = params.parse()?;
                support_here(link.as_deref(), &account).await.map(|()| Value::Null).map_err(fault)
            }
        });
        Self(io)
    }

    /// The answer, if it is one of these methods that is asked for.
    pub(super) async fn handle(&self, body: &str) -> Option<String> {
        let asked: Asked = serde_json::from_str(body).ok()?;
        if asked.method == SUPPORT { self.0.handle_request(body).await } else { None }
    }
}

async fn support_here(link: Option<&WalletLink>, account: &str) -> Result<(), Failure> {
    let link = link.ok_or_else(|| {
        Failure::new(Exit::Usage, anyhow!("this wallet is offered to no gateway"))
            .hint("start `wallet run` with --gateway")
    })?;
    let told = tokio::time::timeout(ANSWER, link.support_account(account)).await;
    let late = |_| Failure::new(Exit::Retryable, anyhow!("the gateway does not answer"));
    Ok(told.map_err(late)??)
}

fn fault(failure: Failure) -> RpcFault {
    let data = json!({"hint": failure.hint, "exit": failure.exit as u8});
    RpcFault { code: ErrorCode::ServerError(1), message: format!("{:#}", failure.error), data: Some(data) }
}

/// Has the running wallet serve further accounts.
pub(super) fn support(desk: &Desk<'_>, args: &SupportArgs) -> Result<(), Failure> {
    frame::runtime()?.block_on(async {
        let client = UnixClient::new(&remote::socket(desk, &args.socket))?;
        for account in &args.accounts {
            client.call::<()>(SUPPORT, json!([account])).await.map_err(nobody)?;
            desk.printer.note(format_args!(
                "account `{account}` is signed for until `wallet run` ends; start it with --account {account} to keep that"
            ));
        }
        Ok(())
    })
}

/// The hint of a socket that nobody listens on is another one here.
fn nobody(error: ServerError) -> Failure {
    let away = matches!(error, ServerError::Unreachable { .. });
    let failure = Failure::from(error);
    if away { Failure { hint: None, ..failure }.hint("is `wallet run` at work with this socket?") } else { failure }
}
