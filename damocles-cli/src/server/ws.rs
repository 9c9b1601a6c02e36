//! JSON-RPC over WebSocket.

use super::{RequestHeaders, WsHandler, WsIncoming, WsOutgoing};
use axum::{
    extract::ws::{Message, WebSocket},
    http::HeaderMap,
};
use damocles_core::CancellationToken;
use futures::{SinkExt as _, StreamExt as _, future};
use std::sync::Arc;

/// The longest message of a peer.
pub(super) const MESSAGE_LIMIT: usize = 64 << 20;

pub(super) async fn serve(
    handler: Arc<dyn WsHandler>,
    headers: HeaderMap,
    socket: WebSocket,
    cancel: CancellationToken,
) {
    let Ok(headers) = RequestHeaders::of(&headers) else { return };
    let (sink, stream) = socket.split();
    let texts = stream
        .take_while(|message| future::ready(matches!(message, Ok(m) if !matches!(m, Message::Close(_)))))
        .filter_map(|message| future::ready(message.ok().and_then(text)))
        .take_until(cancel.clone().cancelled_owned());
    let incoming: WsIncoming = Box::pin(texts);
    let outgoing: WsOutgoing = Box::pin(sink.with(|text: String| future::ready(Ok(Message::Text(text.into())))));
    handler.serve(headers, incoming, outgoing, cancel).await;
}

/// Pings are answered below us; some clients send their JSON as binary.
fn text(message: Message) -> Option<String> {
    match message {
        Message::Text(text) => Some(text.as_str().to_owned()),
        Message::Binary(bytes) => String::from_utf8(bytes.into()).ok(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}
