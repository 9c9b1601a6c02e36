//! JSON-RPC over HTTP POST.

use super::{
    RequestHeaders, RpcHandler,
    http::{BODY_LIMIT, READ_TIMEOUT},
};
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;

pub(super) async fn answer(handler: Arc<dyn RpcHandler>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let headers = match RequestHeaders::of(&parts.headers) {
        Ok(headers) => headers,
        Err(why) => return (StatusCode::BAD_REQUEST, why.to_string()).into_response(),
    };
    let text = match read(body).await {
        Ok(text) => text,
        Err(refusal) => return refusal.into_response(),
    };
    match handler.handle(&headers, text).await {
        Some(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn read(body: Body) -> Result<String, (StatusCode, &'static str)> {
    let bytes = tokio::time::timeout(READ_TIMEOUT, axum::body::to_bytes(body, BODY_LIMIT))
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?
        .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or broke off"))?;
    String::from_utf8(bytes.into()).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}
