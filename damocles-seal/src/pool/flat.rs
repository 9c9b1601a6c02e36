//! A frame as it comes, before it is known which one it is.
//!
//! What may be large stays text: as values it would take twenty times the memory. Fields that nobody knows are skipped.

use super::{
    payload::FileRef,
    wire::{Files, FromChild, Hello, Json, ToChild},
};
use damocles_core::{JobId, pool::TaskKind};
use serde::{Deserialize, de::DeserializeOwned};

/// The longest list of names or texts in a frame, in bytes.
const MAX_LIST: usize = 1 << 20;

/// Every field of every frame.
#[derive(Deserialize)]
pub(super) struct Flat {
    frame: String,
    id: Option<JobId>,
    n: Option<u64>,
    magic: Option<String>,
    version: Option<u32>,
    oldest: Option<u32>,
    pid: Option<u32>,
    kinds: Option<Json>,
    features: Option<Json>,
    max_frame: Option<u64>,
    files: Option<Files>,
    /// A kind of task, or of failure.
    kind: Option<Json>,
    payload: Option<Json>,
    payload_file: Option<FileRef>,
    deadline_ms: Option<u64>,
    done: Option<u64>,
    total: Option<u64>,
    output: Option<Json>,
    output_file: Option<FileRef>,
    error: Option<Json>,
}

impl Flat {
    fn id(&self) -> Result<JobId, String> {
        need(self.id, "id")
    }

    fn unknown<T>(&self) -> Result<T, String> {
        Err(format!("there is no frame `{}`", self.frame.chars().take(40).collect::<String>().escape_debug()))
    }
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("missing field `{name}`"))
}

/// What is a list, or short anyway.
fn short<T: DeserializeOwned>(field: Option<Json>, name: &str) -> Result<Option<T>, String> {
    let Some(json) = field else { return Ok(None) };
    let len = json.get().len();
    if len > MAX_LIST {
        return Err(format!("`{name}` has {len} bytes, {MAX_LIST} at most are taken"));
    }
    serde_json::from_str(json.get()).map(Some).map_err(|e| format!("`{name}`: {e}"))
}

impl TryFrom<Flat> for ToChild {
    type Error = String;

    fn try_from(flat: Flat) -> Result<Self, String> {
        Ok(match flat.frame.as_str() {
            "hello" => Self::Hello(Hello {
                version: need(flat.version, "version")?,
                features: need(short(flat.features, "features")?, "features")?,
                max_frame: need(flat.max_frame, "max_frame")?,
                files: flat.files,
            }),
            "ping" => Self::Ping { n: need(flat.n, "n")? },
            "task" => Self::Task {
                id: flat.id()?,
                kind: need(short::<TaskKind>(flat.kind, "kind")?, "kind")?,
                payload: flat.payload.unwrap_or_default(),
                payload_file: flat.payload_file,
                deadline_ms: flat.deadline_ms,
            },
            "cancel" => Self::Cancel { id: flat.id()? },
            "shutdown" => Self::Shutdown,
            _ => return flat.unknown(),
        })
    }
}

impl TryFrom<Flat> for FromChild {
    type Error = String;

    fn try_from(flat: Flat) -> Result<Self, String> {
        Ok(match flat.frame.as_str() {
            "ready" => Self::Ready {
                magic: need(flat.magic, "magic")?,
                version: need(flat.version, "version")?,
                oldest: flat.oldest,
                kinds: need(short(flat.kinds, "kinds")?, "kinds")?,
                pid: need(flat.pid, "pid")?,
                features: short(flat.features, "features")?.unwrap_or_default(),
            },
            "pong" => Self::Pong { n: need(flat.n, "n")? },
            "progress" => Self::Progress { id: flat.id()?, done: need(flat.done, "done")?, total: flat.total },
            "done" => {
                Self::Done { id: flat.id()?, output: flat.output.unwrap_or_default(), output_file: flat.output_file }
            }
            "cancelled" => Self::Cancelled { id: flat.id()? },
            "failed" => Self::Failed {
                id: flat.id()?,
                kind: need(short(flat.kind, "kind")?, "kind")?,
                error: need(short(flat.error, "error")?, "error")?,
            },
            _ => return flat.unknown(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: &str) -> Result<FromChild, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_large_stays_text_and_lists_are_short() {
        let id = JobId(7);
        let zeros = format!("[{}0]", "0,".repeat(MAX_LIST));
        let done = said(&format!(r#"{{"frame":"done","id":"{id}","output":{zeros},"new":{zeros}}}"#)).unwrap();
        let FromChild::Done { output, .. } = done else { panic!("{done:?}") };
        assert_eq!(output.get(), zeros);
        assert_eq!(output.into_bytes(), zeros.as_bytes());
        let long = format!(r#"{{"frame":"failed","id":"{id}","kind":"failed","error":{zeros}}}"#);
        assert!(said(&long).unwrap_err().contains("`error` has 2097155 bytes, 1048576 at most are taken"));
    }

    #[test]
    fn a_frame_without_what_it_needs_is_none() {
        for (json, text) in [
            (r#"{"frame":"pong"}"#, "missing field `n`"),
            (r#"{"frame":"done","output":1}"#, "missing field `id`"),
            (r#"{"frame":"progress","id":"7"}"#, "missing field `done`"),
            (r#"{"frame":"nonsense\n"}"#, "there is no frame `nonsense\\n`"),
            (r#"{"n":1}"#, "missing field `frame`"),
            (r#"{"frame":"failed","id":"7","kind":"odd","error":[]}"#, "unknown variant `odd`"),
        ] {
            let error = said(json).unwrap_err();
            assert!(error.contains(text), "{json}: {error}");
        }
        let none = said(r#"{"frame":"done","id":"7"}"#).unwrap();
        assert_eq!(none, FromChild::Done { id: JobId(7), output: Json::default(), output_file: None });
    }
}
