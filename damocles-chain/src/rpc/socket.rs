//! Opening a WebSocket to a node.

use super::Endpoint;
use damocles_core::BoxError;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error,
        client::IntoClientRequest as _,
        http::{HeaderValue, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What to do where a node refuses a token.
pub(super) const TOKEN_HINT: &str = "check the token of the endpoint: the node refuses it or wants one";

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The node wants another token.
    Token(u16),
    /// The other side speaks HTTP only.
    NoUpgrade(u16),
    /// Anything else.
    Failed(BoxError),
}

pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Arc<rustls::ClientConfig>,
    max_message: usize,
) -> Result<Socket, Refusal> {
    let failed = |e: Error| Refusal::Failed(e.into());
    let mut request = endpoint.ws().as_str().into_client_request().map_err(failed)?;
    if let Some(token) = endpoint.authorization() {
        let mut value = HeaderValue::from_str(&token).map_err(|e| Refusal::Failed(e.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let config = WebSocketConfig::default().max_message_size(Some(max_message)).max_frame_size(Some(max_message));
    match connect_async_tls_with_config(request, Some(config), true, Some(Connector::Rustls(tls))).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => match answer.status().as_u16() {
            status @ (401 | 403) => Err(Refusal::Token(status)),
            status => Err(Refusal::NoUpgrade(status)),
        },
        Err(e) => Err(failed(e)),
    }
}
