//! Where the bytes of pieces come from.

use crate::world::{SECTOR, World};
use damocles_core::{
    CommP, Context, PaddedPieceSize, PieceInfo,
    pipeline::{SealError, SealErrorKind},
};
use damocles_seal::{
    service::DealPiece,
    stage::{FirstOf, HttpPieces, LocalPieces, PieceSource},
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn piece(payload_size: u64) -> DealPiece {
    let size = PaddedPieceSize::try_from(2048).unwrap();
    DealPiece { piece: PieceInfo { comm_p: CommP([9; 32]), size }, payload_size }
}

/// Answers one request with these bytes and ends; returns the source, and the request when it has come.
async fn serve(answer: Vec<u8>) -> (HttpPieces, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}/piecestore/", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let n = stream.read(&mut request).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8_lossy(&request[..n]).into_owned()
    });
    (HttpPieces::new(base, Some("secret".to_owned()), Duration::from_secs(20)).unwrap(), served)
}

fn ok(len: usize, body: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n").into_bytes();
    answer.extend(std::iter::repeat_n(7, body));
    answer
}

async fn fetch(answer: Vec<u8>, payload: u64) -> (Result<Option<PathBuf>, SealError>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (source, served) = serve(answer).await;
    let found = source.fetch(&piece(payload), dir.path(), &Context::detached()).await;
    let request = served.await.unwrap();
    let line = format!("GET /piecestore/{} HTTP/1.1", piece(1).piece.comm_p);
    assert!(request.starts_with(&line) && request.to_lowercase().contains("bearer secret"), "{request}");
    assert!(!format!("{source:?}").contains("secret"), "a token is never shown");
    let len = match &found {
        Ok(Some(path)) => std::fs::read(path).unwrap().len(),
        _ => 0,
    };
    let name = dir.path().join(piece(1).piece.comm_p.to_string());
    assert_eq!(name.exists(), len > 0, "a file of the final name is whole");
    (found, len)
}

#[tokio::test]
async fn a_piece_is_fetched_whole_or_not_at_all() {
    let (found, len) = fetch(ok(2000, 2000), 2000).await;
    assert!(found.unwrap().is_some());
    assert_eq!(len, 2000);
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    assert_eq!(fetch(missing, 2000).await.0.unwrap(), None);
    let failing = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    assert_eq!(fetch(failing, 2000).await.0.unwrap_err().kind(), SealErrorKind::Service);
    let cut = fetch(ok(2000, 1000), 2000).await.0.unwrap_err();
    assert_eq!(cut.kind(), SealErrorKind::Service, "{}", cut.chain());
    assert_eq!(fetch(ok(1000, 1000), 2000).await.0.unwrap_err().kind(), SealErrorKind::Stage, "too short");
    assert_eq!(fetch(ok(3000, 3000), 2000).await.0.unwrap_err().kind(), SealErrorKind::Stage, "longer than the piece");
    assert_eq!(fetch(b"rubbish\r\n\r\n".to_vec(), 2000).await.0.unwrap_err().kind(), SealErrorKind::Service);
}

#[tokio::test]
async fn a_fetch_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}", silent.local_addr().unwrap());
    let source = HttpPieces::new(base, None, Duration::from_secs(600)).unwrap();
    let cx = Context::detached();
    cx.cancel.cancel();
    let err = source.fetch(&piece(1), dir.path(), &cx).await.unwrap_err();
    assert_eq!(err.kind(), SealErrorKind::Cancelled);
}

#[tokio::test]
async fn local_directories_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let car = dir.path().join(format!("{}.car", piece(1).piece.comm_p));
    std::fs::write(&car, [1; 100]).unwrap();
    let local: Arc<dyn PieceSource> = Arc::new(LocalPieces::new([dir.path().join("none"), dir.path().to_owned()]));
    let nowhere = Arc::new(HttpPieces::new("http://127.0.0.1:1", None, Duration::from_secs(5)).unwrap());
    let sources = FirstOf(vec![local, nowhere]);
    let cx = Context::detached();
    assert_eq!(sources.fetch(&piece(100), dir.path(), &cx).await.unwrap(), Some(car.clone()));
    let err = sources.fetch(&piece(101), dir.path(), &cx).await.unwrap_err();
    assert!(err.to_string().contains(".car"), "a short file is named: {err}");
}

#[tokio::test]
async fn a_sector_with_a_piece_waits_for_its_file_and_ends_proven() {
    let world = World::new();
    world.service.inner.add_piece(piece(1500));
    let process = world.start().await;
    process.take(&world).await;
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!(err.recovery(), damocles_core::Recovery::RETRY);
    assert!(err.hint().unwrap().contains("local_pieces_dirs"));
    let dir = world.dir.path().join("pieces");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(piece(1).piece.comm_p.to_string()), [3; 1500]).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(world.service.inner.pre_commit_of(SECTOR).unwrap().comm_d.0, [9; 32]);
    assert!(dir.join(piece(1).piece.comm_p.to_string()).exists(), "files of others are left alone");
}
