//! What a pool and its children say to each other.
//!
//! A frame is its length as four bytes, most significant first, and that many bytes of JSON. A child speaks on its
//! standard output and listens on its standard input. It says [`FromChild::Ready`] first, before it loads anything
//! large; the pool sends no task before that. A child that meets the end of its input exits.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use damocles_core::{JobId, pool::TaskKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::io::{self, Read};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version of the protocol.
pub const VERSION: u32 = 2;

/// What every [`FromChild::Ready`] carries, so that a program that says something else is told apart.
pub const MAGIC: &str = "damocles-processor";

/// The longest frame: whoever announces a longer one is not speaking this protocol. The vanilla proofs of two full
/// partitions of 32 GiB sectors take half of it, and every text in letters announces more.
pub const MAX_FRAME: usize = 512 << 20;

const HEADER: usize = 4;

/// What a pool says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ToChild {
    /// Do this.
    Task {
        /// The job; named in every answer.
        id: JobId,
        /// Its kind.
        kind: TaskKind,
        /// The task.
        payload: Value,
    },
    /// Stop doing this. A child that cannot exits.
    Cancel {
        /// The job.
        id: JobId,
    },
    /// Exit when the running job has ended.
    Shutdown,
}

/// What a child says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum FromChild {
    /// It takes tasks now.
    Ready {
        /// [`MAGIC`].
        magic: String,
        /// [`VERSION`].
        version: u32,
        /// The kinds of task that it knows.
        kinds: Vec<TaskKind>,
        /// Its process id as it sees it.
        pid: u32,
    },
    /// The job moved on.
    Progress {
        /// The job.
        id: JobId,
        /// Work done so far.
        done: u64,
        /// Work in all, if known.
        total: Option<u64>,
    },
    /// The job succeeded.
    Done {
        /// The job.
        id: JobId,
        /// Its output.
        output: Value,
    },
    /// The job failed.
    Failed {
        /// The job.
        id: JobId,
        /// In which way.
        kind: FailureKind,
        /// The error and its causes, outermost first.
        error: Vec<String>,
    },
}

/// In which way a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It did.
    Failed,
    /// No space is left.
    DiskFull,
    /// The child does not know the kind of task.
    UnknownKind,
}

/// A frame that is none.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[from] io::Error),
    /// It ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// No frame is this long.
    #[error("a frame of {len} bytes was announced, {MAX_FRAME} at most are taken")]
    TooLong {
        /// The announced length.
        len: usize,
    },
    /// The frame holds something else.
    #[error("a frame of {len} bytes is not understood, it begins with `{start}`")]
    Json {
        /// Its length.
        len: usize,
        /// Its beginning, escaped.
        start: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A frame as bytes.
///
/// # Errors
///
/// It is too long, or not JSON.
pub fn encode<T: Serialize>(frame: &T) -> Result<Bytes, WireError> {
    let json = serde_json::to_vec(frame).map_err(|e| WireError::Json { len: 0, start: String::new(), source: e })?;
    let len = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME);
    let len = len.ok_or(WireError::TooLong { len: json.len() })?;
    let mut bytes = BytesMut::with_capacity(HEADER + json.len());
    bytes.put_u32(len);
    bytes.put_slice(&json);
    Ok(bytes.freeze())
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(json).map_err(|source| WireError::Json {
        len: json.len(),
        start: json.iter().take(60).flat_map(|b| b.escape_ascii()).map(char::from).collect(),
        source,
    })
}

fn announced(header: [u8; HEADER]) -> Result<usize, WireError> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len > MAX_FRAME { Err(WireError::TooLong { len }) } else { Ok(len) }
}

/// Reads one frame; none at the end of the stream. Blocks.
///
/// # Errors
///
/// What came is no frame.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<T>, WireError> {
    let mut header = [0; HEADER];
    let mut json = Vec::new();
    let got = stream.by_ref().take(HEADER as u64).read_to_end(&mut json)?;
    if got == 0 {
        return Ok(None);
    }
    header.copy_from_slice(json.get(..HEADER).ok_or(WireError::Truncated)?);
    let len = announced(header)?;
    json.clear();
    // Not allocated ahead: the length is only what the other side says.
    let got = stream.by_ref().take(len as u64).read_to_end(&mut json)?;
    if got < len { Err(WireError::Truncated) } else { decode(&json).map(Some) }
}

/// Reads frames from an asynchronous stream.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame; none at the end of the stream. Nothing is lost when the future is dropped.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        loop {
            if let Some(json) = self.take()? {
                return decode(&json).map(Some);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(WireError::Truncated) };
            }
        }
    }

    fn take(&mut self) -> Result<Option<BytesMut>, WireError> {
        let Some(header) = self.buffer.first_chunk() else { return Ok(None) };
        let len = announced(*header)?;
        if self.buffer.len() < HEADER + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(text: &str) -> FromChild {
        FromChild::Done { id: JobId(7), output: Value::String(text.to_owned()) }
    }

    #[tokio::test]
    async fn frames_survive_any_split() {
        let frames = [done("a"), done(&"b".repeat(10_000)), FromChild::Progress { id: JobId(1), done: 1, total: None }];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).unwrap()).collect();
        let mut sync = bytes.as_slice();
        let mut reader = FrameReader::new(tokio_test_stream(&bytes));
        for frame in &frames {
            assert_eq!(read::<FromChild>(&mut sync).unwrap().as_ref(), Some(frame));
            assert_eq!(reader.next::<FromChild>().await.unwrap().as_ref(), Some(frame));
        }
        assert!(read::<FromChild>(&mut sync).unwrap().is_none());
        assert!(reader.next::<FromChild>().await.unwrap().is_none());
    }

    /// Gives three bytes at a time.
    fn tokio_test_stream(bytes: &[u8]) -> impl AsyncRead + Unpin + use<> {
        let (mut send, receive) = tokio::io::duplex(3);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut send, &bytes).await });
        receive
    }

    #[tokio::test]
    async fn rubbish_is_named_and_a_cut_is_seen() {
        let error = FrameReader::new(b"hello, world".as_slice()).next::<FromChild>().await.unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }), "{error}");
        let whole = encode(&done("x")).unwrap();
        for cut in 1..whole.len() {
            let error = FrameReader::new(&whole[..cut]).next::<FromChild>().await.unwrap_err();
            assert!(matches!(error, WireError::Truncated), "{cut}: {error}");
            assert!(matches!(read::<FromChild>(&mut &whole[..cut]), Err(WireError::Truncated)), "{cut}");
        }
    }

    /// 4698 sectors of 32 GiB, or 4600 of 64 GiB: a vanilla proof has ten paths of ten levels, each with seven siblings of
    /// 32 bytes, their lengths and their place, and goes over in hex.
    #[test]
    fn the_largest_window_post_fits_with_room_to_spare() {
        let vanilla = hex::encode(vec![0xa5; 10 * (11 * (7 * 32 + 16) + 100)]);
        let task = serde_json::json!({ "vanilla": vec![Value::String(vanilla); 2 * 2349] });
        let bytes = encode(&ToChild::Task { id: JobId(1), kind: TaskKind::new("window_post"), payload: task }).unwrap();
        assert!(bytes.len() > 240_000_000 && bytes.len() < MAX_FRAME / 10 * 6, "{}", bytes.len());
        let Ok(Some(ToChild::Task { payload, .. })) = read(&mut bytes.as_ref()) else { panic!("a task") };
        assert_eq!(payload["vanilla"].as_array().unwrap().len(), 2 * 2349);
        for text in [" a space", "hello", "<html>", "{\"a\""] {
            let header = *text.as_bytes().first_chunk().unwrap();
            assert!(matches!(announced(header), Err(WireError::TooLong { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = bytes.as_slice();
            while let Ok(Some(_)) = read::<FromChild>(&mut stream) {}
            let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(&bytes);
            prop_assert!(read::<FromChild>(&mut framed.as_slice()).is_err());
        }
    }
}
