//! The routes, and the server on a TCP port.

use super::{FileLookup, RpcHandler, ServerError, TextSource, WsHandler, files, rpc, ws};
use axum::{
    Router,
    extract::{Path, Request, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use damocles_core::CancellationToken;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// The longest request body: our longest request is a proof of a few KiB.
pub const BODY_LIMIT: usize = 8 << 20;
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long answers under way may take when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// What is served where.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router,
    /// Fires when the server ends.
    ending: CancellationToken,
}

impl Routes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// JSON-RPC by POST at `path`.
    #[must_use]
    pub fn rpc(mut self, path: &str, handler: Arc<dyn RpcHandler>) -> Self {
        let answer = move |request: Request| rpc::answer(Arc::clone(&handler), request);
        self.router = self.router.route(path, post(answer));
        self
    }

    /// JSON-RPC by WebSocket at `path`, which may serve [`Self::rpc`] too.
    #[must_use]
    pub fn ws(mut self, path: &str, handler: Arc<dyn WsHandler>) -> Self {
        let ending = self.ending.clone();
        let answer = move |headers: HeaderMap, upgrade: WebSocketUpgrade| {
            let (handler, ending) = (Arc::clone(&handler), ending.child_token());
            let serve = |socket| ws::serve(handler, headers, socket, ending);
            std::future::ready(upgrade.max_message_size(ws::MESSAGE_LIMIT).on_upgrade(serve))
        };
        self.router = self.router.route(path, get(answer));
        self
    }

    /// Files by GET at `<prefix>/<name>`.
    #[must_use]
    pub fn files(mut self, prefix: &str, lookup: FileLookup) -> Self {
        let answer = move |Path(name): Path<String>| files::answer(Arc::clone(&lookup), name);
        self.router = self.router.route(&format!("{}/{{name}}", prefix.trim_end_matches('/')), get(answer));
        self
    }

    /// A text by GET at `path`, made anew for each request.
    #[must_use]
    pub fn text(mut self, path: &str, content_type: &'static str, text: TextSource) -> Self {
        let answer = move || {
            let made = text();
            async move { ([(header::CONTENT_TYPE, content_type)], made.await).into_response() }
        };
        self.router = self.router.route(path, get(answer));
        self
    }

    /// Serves on `listener` until `cancel` fires; answers under way get a grace period.
    pub(super) async fn serve<L>(self, listener: L, cancel: CancellationToken) -> Result<(), ServerError>
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let router = self.router.layer(middleware::from_fn(refuse_browsers));
        let ending = self.ending;
        // Dropping this future ends the connections' handlers too.
        let _on_drop = ending.clone().drop_guard();
        let ended = ending.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move { ended.cancelled().await });
        tokio::select! {
            served = std::future::IntoFuture::into_future(server) => served.map_err(ServerError::Serve),
            () = async {
                cancel.cancelled().await;
                ending.cancel();
                tokio::time::sleep(GRACE).await;
            } => Ok(()),
        }
    }
}

/// A page of another site that is open in an operator's browser could post to loopback; it cannot leave out `Origin`.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    let foreign = request.headers().get(header::ORIGIN).is_some_and(|origin| {
        let host = origin.to_str().ok().and_then(|o| o.split_once("://")).map_or("", |(_, host)| host);
        let name = host.rsplit_once(':').filter(|(_, port)| port.chars().all(|c| c.is_ascii_digit()));
        !matches!(name.map_or(host, |(name, _)| name), "localhost" | "127.0.0.1" | "[::1]")
    });
    if foreign {
        (StatusCode::FORBIDDEN, "requests of web pages are refused").into_response()
    } else {
        next.run(request).await
    }
}

/// A bound TCP port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Routes,
}

impl Server {
    /// Takes a port of loopback.
    ///
    /// # Errors
    ///
    /// The address is not loopback, is in use, or the kernel refuses it.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        if !address.ip().is_loopback() {
            return Err(ServerError::NotLoopback(address));
        }
        Self::bind_anywhere(address).await
    }

    /// Takes a port that other machines may reach: for what asks for a token itself, or may be read by anybody.
    ///
    /// # Errors
    ///
    /// The address is in use, or the kernel refuses it.
    pub async fn bind_anywhere(address: SocketAddr) -> Result<Self, ServerError> {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::InUse(address),
            _ => ServerError::Bind { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| ServerError::Bind { address, source })?;
        Ok(Self { listener, address, routes: Routes::new() })
    }

    /// Where it listens, with the port that the kernel chose if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// JSON-RPC by POST at `path`.
    #[must_use]
    pub fn route_rpc(mut self, path: &str, handler: Arc<dyn RpcHandler>) -> Self {
        self.routes = self.routes.rpc(path, handler);
        self
    }

    /// JSON-RPC by WebSocket at `path`.
    #[must_use]
    pub fn route_ws(mut self, path: &str, handler: Arc<dyn WsHandler>) -> Self {
        self.routes = self.routes.ws(path, handler);
        self
    }

    /// Files by GET at `<prefix>/<name>`.
    #[must_use]
    pub fn route_files(mut self, prefix: &str, lookup: FileLookup) -> Self {
        self.routes = self.routes.files(prefix, lookup);
        self
    }

    /// A text by GET at `path`, made anew for each request.
    #[must_use]
    pub fn route_text(mut self, path: &str, content_type: &'static str, text: TextSource) -> Self {
        self.routes = self.routes.text(path, content_type, text);
        self
    }

    /// Serves until `cancel` fires.
    ///
    /// # Errors
    ///
    /// The listener broke.
    pub async fn serve(self, cancel: CancellationToken) -> Result<(), ServerError> {
        self.routes.serve(self.listener, cancel).await
    }
}
