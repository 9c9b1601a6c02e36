//! Files over HTTP GET.

use super::FileLookup;
use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use std::io;
use tokio::{fs::File, io::AsyncReadExt as _};

const CHUNK: usize = 256 << 10;

pub(super) async fn answer(lookup: FileLookup, name: String) -> Response {
    // The lookup may touch a slow disk.
    let found = tokio::task::spawn_blocking(move || lookup(&name)).await.ok().flatten();
    let Some(path) = found else { return StatusCode::NOT_FOUND.into_response() };
    let opened = async {
        let file = File::open(&path).await?;
        let meta = file.metadata().await?;
        if meta.is_file() { Ok((file, meta.len())) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    match opened.await {
        Ok((file, length)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (headers, body(file, length)).into_response()
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(e) => {
            tracing::warn!(path = %path.display(), error = %e, "a file that was asked for cannot be opened");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Never more than `length`: a file that grows must not break the framing.
fn body(file: File, length: u64) -> Body {
    let chunks = stream::try_unfold(file.take(length), |mut file| async move {
        let mut buffer = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut buffer).await?;
        Ok::<_, io::Error>((read > 0).then(|| (Bytes::from(buffer), file)))
    });
    Body::from_stream(chunks)
}
