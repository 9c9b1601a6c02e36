//! What a child says on standard error.

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
};

/// The lines kept for the error of a crash.
const KEPT_LINES: usize = 20;
/// The longest line; what is longer is cut into several.
const MAX_LINE: usize = 8 << 10;

/// Passes a child's standard error on to the log, line by line, and keeps the last lines.
#[derive(Debug)]
pub(super) struct Stderr {
    reader: JoinHandle<()>,
    kept: Arc<Mutex<VecDeque<String>>>,
}

impl Stderr {
    pub(super) fn follow(stream: impl AsyncRead + Unpin + Send + 'static, slot: String) -> Self {
        let kept: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let reader = tokio::spawn(read(stream, slot, Arc::clone(&kept)));
        Self { reader, kept }
    }

    /// The last lines, when the child is dead.
    pub(super) async fn last_lines(&mut self) -> String {
        // A process that left the group may hold the stream open for ever.
        if tokio::time::timeout(Duration::from_secs(1), &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        let kept = self.kept.lock();
        kept.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut stream: impl AsyncRead + Unpin, slot: String, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut buffer = BytesMut::new();
    loop {
        let ended = !matches!(stream.read_buf(&mut buffer).await, Ok(1..));
        while let Some(line) = line(&mut buffer, ended) {
            tracing::info!(target: "processor", slot, "{line}");
            let mut kept = kept.lock();
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        if ended {
            return;
        }
    }
}

/// Takes one line out of the buffer, or what there is if it is too long or the last.
fn line(buffer: &mut BytesMut, ended: bool) -> Option<String> {
    let end = buffer.iter().take(MAX_LINE).position(|b| *b == b'\n');
    let len = match end {
        Some(end) => end,
        None if buffer.len() >= MAX_LINE => MAX_LINE,
        None if ended && !buffer.is_empty() => buffer.len(),
        None => return None,
    };
    let bytes = buffer.split_to(len);
    if end.is_some() {
        buffer.advance(1);
    }
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_whatever_the_bytes() {
        let mut text: Vec<u8> = (0..50).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        text.extend([0xff, 0xfe]);
        text.extend([b'x'; MAX_LINE * 2]);
        let mut stderr = Stderr::follow(std::io::Cursor::new(text), "a".to_owned());
        let lines = stderr.last_lines().await;
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines[0], "line 33");
        assert!(lines[17].starts_with("\u{fffd}\u{fffd}x") && lines[17].len() < MAX_LINE + 10);
    }
}
