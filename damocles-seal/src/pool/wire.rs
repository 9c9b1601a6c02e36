//! What a pool and its children say to each other.
//!
//! A frame is its length as four bytes, most significant first, and that many bytes of JSON. A child speaks on its
//! standard output and listens on its standard input. It says [`FromChild::Ready`] first, before it loads anything
//! large; the pool sends nothing before that. A child that meets the end of its input exits.
//!
//! What goes beyond ready, task, progress, done, failed, cancel and shutdown is a [`Feature`]: a child names those that
//! it has, and a pool says [`ToChild::Hello`] to a child that has the first of them. What is not named is not used, so
//! that an old child and a new pool understand each other.

pub use super::payload::FileRef;

use super::flat::Flat;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use damocles_core::{JobId, pool::TaskKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{
    fmt,
    io::{self, Read},
    path::PathBuf,
};

/// The newest version of the protocol that is spoken here.
pub const VERSION: u32 = 2;

/// The oldest version of the protocol that is spoken here.
pub const OLDEST: u32 = 2;

/// What every [`FromChild::Ready`] carries, so that a program that says something else is told apart.
pub const MAGIC: &str = "damocles-processor";

/// The longest frame: whoever announces a longer one is not speaking this protocol. The vanilla proofs of two full
/// partitions of 32 GiB sectors take half of it, and every text in letters announces more.
pub const MAX_FRAME: usize = 512 << 20;

const HEADER: usize = 4;

/// JSON as it was written. Payloads and outputs are passed on and not looked into: as values they would take twenty times
/// their length.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Takes a text that is JSON.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The text, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        String::from(Box::<str>::from(self.0)).into_bytes()
    }
}

impl Default for Json {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

/// Something that one side can do and the other may not know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// A child waits for [`ToChild::Hello`] no longer than for anything else, and understands it.
    Hello,
    /// A child answers [`ToChild::Ping`] also while it works.
    Ping,
    /// A child answers [`ToChild::Cancel`] at once: with [`FromChild::Cancelled`] or [`FromChild::Done`] where the work
    /// ends by itself, else by its exit. No signal is sent before it had its time.
    Cancel,
    /// Large payloads and outputs go by file.
    Files,
    /// A task says how much time it has.
    Deadline,
    /// One of a later version.
    #[serde(other)]
    Unknown,
}

impl Feature {
    /// All that this version has.
    pub const ALL: [Self; 5] = [Self::Hello, Self::Ping, Self::Cancel, Self::Files, Self::Deadline];
}

/// What a pool says of itself to a child that has [`Feature::Hello`], before anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that is spoken from now on: the newest that both sides know.
    pub version: u32,
    /// The features that both sides have.
    pub features: Vec<Feature>,
    /// The longest frame that the pool takes, in bytes.
    pub max_frame: u64,
    /// Where large payloads go, if they go by file.
    pub files: Option<Files>,
}

/// Where payloads and outputs go that are too large for a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// The directory, which is this child's alone.
    pub dir: PathBuf,
    /// Longer ones than this go by file, in bytes.
    pub above: u64,
}

/// What a pool says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", try_from = "Flat")]
pub enum ToChild {
    /// Who speaks.
    Hello(Hello),
    /// Say that you are there: [`FromChild::Pong`].
    Ping {
        /// What the answer names.
        n: u64,
    },
    /// Do this.
    Task {
        /// The job; named in every answer.
        id: JobId,
        /// Its kind.
        kind: TaskKind,
        /// The task; null when it is in a file.
        payload: Json,
        /// The file that holds the task as JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_file: Option<FileRef>,
        /// How many milliseconds the work may take, counted from now. The pool stops a child that takes longer.
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// Stop doing this. A child that cannot exits. One that does not know the job, because it has ended, does nothing.
    Cancel {
        /// The job.
        id: JobId,
    },
    /// Exit when the running job has ended.
    Shutdown,
}

impl ToChild {
    /// A task whose payload is in the frame, without a deadline.
    pub fn task(id: JobId, kind: TaskKind, payload: Json) -> Self {
        Self::Task { id, kind, payload, payload_file: None, deadline_ms: None }
    }
}

/// What a child says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", try_from = "Flat")]
pub enum FromChild {
    /// It takes tasks now.
    Ready {
        /// [`MAGIC`].
        magic: String,
        /// The newest version that it speaks; [`VERSION`].
        version: u32,
        /// The oldest version that it speaks; the newest is the only one without.
        #[serde(skip_serializing_if = "Option::is_none")]
        oldest: Option<u32>,
        /// The kinds of task that it knows.
        kinds: Vec<TaskKind>,
        /// Its process id as it sees it.
        pid: u32,
        /// What it can do beyond that.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        features: Vec<Feature>,
    },
    /// It is there.
    Pong {
        /// Of the ping.
        n: u64,
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
        /// Its output; null when it is in a file.
        output: Json,
        /// The file that holds the output as JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        output_file: Option<FileRef>,
    },
    /// The job was stopped as it was asked to be. Nothing of it is left, and the child takes the next one.
    Cancelled {
        /// The job.
        id: JobId,
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
    /// The file that a payload came in, or was to go out in, is not what it should be. Said only to who said hello.
    Payload,
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

pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, WireError> {
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

/// Takes the next frame out of what was read; none if it is not whole yet.
pub(super) fn take<T: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<T>, WireError> {
    next(buffer)?.map(|json| decode(&json)).transpose()
}

/// The same, still to be decoded. Nothing is allocated for what is announced.
pub(super) fn next(buffer: &mut BytesMut) -> Result<Option<BytesMut>, WireError> {
    let Some(header) = buffer.first_chunk() else { return Ok(None) };
    let len = announced(*header)?;
    if buffer.len() < HEADER + len {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(buffer.split_to(len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn json(value: &Value) -> Json {
        Json::parse(value.to_string().as_bytes()).unwrap()
    }

    fn done(text: &str) -> FromChild {
        FromChild::Done { id: JobId(7), output: json(&Value::String(text.to_owned())), output_file: None }
    }

    #[test]
    fn rubbish_is_named_and_a_cut_is_seen() {
        let error = take::<FromChild>(&mut BytesMut::from(&b"hello, world"[..])).unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }), "{error}");
        let whole = encode(&done("x")).unwrap();
        for cut in 1..whole.len() {
            assert!(matches!(take::<FromChild>(&mut BytesMut::from(&whole[..cut])), Ok(None)), "{cut}");
            assert!(matches!(read::<FromChild>(&mut &whole[..cut]), Err(WireError::Truncated)), "{cut}");
        }
    }

    #[test]
    fn a_gigabyte_is_refused_when_it_is_announced() {
        let mut announced = BytesMut::from(&(1u32 << 30).to_be_bytes()[..]);
        assert!(matches!(take::<FromChild>(&mut announced), Err(WireError::TooLong { len }) if len == 1 << 30));
        // The longest one that is allowed costs no memory before it is there.
        let longest = u32::try_from(MAX_FRAME).unwrap().to_be_bytes();
        let mut buffer = BytesMut::from(&longest[..]);
        assert!(matches!(take::<FromChild>(&mut buffer), Ok(None)));
        assert!(buffer.capacity() < 1 << 20);
    }

    #[test]
    fn what_an_old_child_says_is_understood_and_new_words_are_not_said_to_it() {
        let old = r#"{"frame":"ready","magic":"damocles-processor","version":2,"kinds":["echo"],"pid":1}"#;
        let ready: FromChild = serde_json::from_str(old).unwrap();
        let FromChild::Ready { oldest: None, features, .. } = &ready else { panic!("{ready:?}") };
        assert_eq!(*features, []);
        assert_eq!(serde_json::to_string(&ready).unwrap(), old);
        let task = serde_json::to_string(&ToChild::task(JobId(7), TaskKind::new("echo"), Json::default())).unwrap();
        assert!(!task.contains("file") && !task.contains("deadline"), "{task}");
        let newer: Feature = serde_json::from_str("\"telepathy\"").unwrap();
        assert_eq!(newer, Feature::Unknown);
    }

    /// 4698 sectors of 32 GiB, or 4600 of 64 GiB: a vanilla proof has ten paths of ten levels, each with seven siblings of
    /// 32 bytes, their lengths and their place, and goes over in hex.
    #[test]
    fn the_largest_window_post_fits_with_room_to_spare() {
        let vanilla = hex::encode(vec![0xa5; 10 * (11 * (7 * 32 + 16) + 100)]);
        let task = serde_json::json!({ "vanilla": vec![Value::String(vanilla); 2 * 2349] });
        let bytes = encode(&ToChild::task(JobId(1), TaskKind::new("window_post"), json(&task))).unwrap();
        assert!(bytes.len() > 240_000_000 && bytes.len() < MAX_FRAME / 10 * 6, "{}", bytes.len());
        let Ok(Some(ToChild::Task { payload, .. })) = read(&mut bytes.as_ref()) else { panic!("a task") };
        let payload: Value = serde_json::from_str(payload.get()).unwrap();
        assert_eq!(payload["vanilla"].as_array().unwrap().len(), 2 * 2349);
        for text in [" a space", "hello", "<html>", "{\"a\""] {
            let header = *text.as_bytes().first_chunk().unwrap();
            assert!(matches!(announced(header), Err(WireError::TooLong { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(cuts in proptest::collection::vec(1..200usize, 1..200), long in 0..5000usize) {
            let frames = [done("a"), done(&"b".repeat(long)), FromChild::Pong { n: 3 }];
            let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).unwrap()).collect();
            let (mut rest, mut buffer, mut got) = (bytes.as_slice(), BytesMut::new(), Vec::new());
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                buffer.extend_from_slice(now);
                while let Some(frame) = take::<FromChild>(&mut buffer).unwrap() {
                    got.push(frame);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = bytes.as_slice();
            while let Ok(Some(_)) = read::<FromChild>(&mut stream) {}
            let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(&bytes);
            prop_assert!(read::<FromChild>(&mut framed.as_slice()).is_err());
            prop_assert!(take::<FromChild>(&mut BytesMut::from(framed.as_slice())).is_err());
            while let Ok(Some(_)) = take::<FromChild>(&mut BytesMut::from(bytes.as_slice())) {}
        }
    }
}
