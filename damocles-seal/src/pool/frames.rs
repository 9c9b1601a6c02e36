//! Protocol v2 from the side of the pool.

use super::{
    dialect::{Cancel, Dialect, Output, Problem, Said, on_a_thread},
    payload::{self, PayloadDir},
    spec::SlotSpec,
    talk::TalkSpec,
    wire::{self, FailureKind, Feature, FileRef, Files, FromChild, Hello, Json, ToChild, WireError},
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use damocles_core::{
    BoxError, CancellationToken, JobId,
    pool::{Job, PoolErrorKind, TaskKind},
};
use serde::de::IgnoredAny;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::task::{JoinHandle, spawn_blocking};

/// The longest frame that is decoded where it is read: others would hold up everybody.
const AT_ONCE: usize = 1 << 20;

/// Speaks frames with one child.
#[derive(Debug)]
pub(super) struct Frames {
    features: Vec<Feature>,
    payloads: Option<Arc<PayloadDir>>,
    file_above: usize,
    time: BTreeMap<TaskKind, Duration>,
    job: Option<JobId>,
    /// The file of the last payload: a child that did not read it did not remove it.
    written: Option<PathBuf>,
    /// A frame that is being decoded.
    decoding: Option<JoinHandle<Result<FromChild, WireError>>>,
}

impl Frames {
    pub(super) fn new(talk: &TalkSpec, payloads: Option<Arc<PayloadDir>>) -> Self {
        Self {
            features: Vec::new(),
            payloads,
            file_above: talk.file_above,
            time: talk.time.clone(),
            job: None,
            written: None,
            decoding: None,
        }
    }

    fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// What to say to a child with these abilities.
    fn greet(&mut self, version: u32, theirs: &[Feature]) -> Result<Bytes, WireError> {
        if !theirs.contains(&Feature::Hello) {
            return Ok(Bytes::new());
        }
        let payloads = self.payloads.as_deref();
        let ours = Feature::ALL.iter().filter(|f| **f != Feature::Files || payloads.is_some());
        self.features = ours.filter(|feature| theirs.contains(feature)).copied().collect();
        let files = payloads.filter(|_| theirs.contains(&Feature::Files)).map(|payloads| Files {
            dir: payloads.path().to_owned(),
            above: u64::try_from(self.file_above).unwrap_or(u64::MAX),
        });
        let max_frame = u64::try_from(wire::MAX_FRAME).unwrap_or(u64::MAX);
        wire::encode(&ToChild::Hello(Hello { version, features: self.features.clone(), max_frame, files }))
    }

    fn deadline_ms(&self, job: &Job) -> Option<u64> {
        let deadline = self.time.get(&job.kind).filter(|_| self.has(Feature::Deadline));
        deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// The next frame out of what was read; none if it is not whole yet. A long one is decoded on a thread of its own, and
    /// kept here until then.
    async fn next(&mut self, read: &mut BytesMut) -> Result<Option<FromChild>, BoxError> {
        if self.decoding.is_none() {
            match wire::next(read)? {
                None => return Ok(None),
                Some(json) if json.len() <= AT_ONCE => return Ok(Some(wire::decode(&json)?)),
                Some(json) => self.decoding = Some(spawn_blocking(move || wire::decode(&json))),
            }
        }
        let Some(decoding) = &mut self.decoding else { return Ok(None) };
        let decoded = decoding.await;
        self.decoding = None;
        Ok(Some(decoded??))
    }
    /// Writes a large payload to a file; none if it goes through the pipe.
    async fn write(&mut self, job: &Job) -> Option<FileRef> {
        let old = self.written.take();
        let dir = self.payloads.clone().filter(|_| self.has(Feature::Files) && job.payload.len() > self.file_above);
        if old.is_none() && dir.is_none() {
            return None;
        }
        let (bytes, id) = (job.payload.clone(), job.id);
        let write = move || {
            if let Some(old) = old {
                let _ = fs_err::remove_file(old);
            }
            let Some(dir) = dir else { return Ok(None) };
            match payload::write(dir.path(), format_args!("task-{id}"), &bytes) {
                Ok(file) => Ok(Some((dir.path().join(&file.name), file))),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a payload goes through the pipe");
                    Ok(None)
                }
            }
        };
        let (path, file) = on_a_thread(write).await.ok().flatten()?;
        self.written = Some(path);
        Some(file)
    }
}

/// The newest version that both sides speak.
fn version(newest: u32, oldest: Option<u32>, features: &[Feature]) -> Result<u32, BoxError> {
    let oldest = oldest.unwrap_or(newest);
    let version = newest.min(wire::VERSION);
    if version < oldest || version < wire::OLDEST {
        let theirs = if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") };
        return Err(format!("it speaks version {theirs}, not {}", wire::VERSION).into());
    }
    if version != newest && !features.contains(&Feature::Hello) {
        return Err(format!("it speaks version {newest} and cannot be told to speak {version}").into());
    }
    Ok(version)
}

#[async_trait]
impl Dialect for Frames {
    fn ready(&mut self, read: &mut BytesMut, slot: &SlotSpec) -> Result<Option<Bytes>, BoxError> {
        match wire::take(read)? {
            Some(FromChild::Ready { magic, version: newest, oldest, kinds, features, .. }) if magic == wire::MAGIC => {
                let version = version(newest, oldest, &features)?;
                match slot.kinds.iter().find(|kind| !kinds.contains(kind)) {
                    Some(kind) => Err(format!("it does not know the kind `{kind}` of its slot").into()),
                    None => Ok(Some(self.greet(version, &features)?)),
                }
            }
            Some(_) => Err("it spoke before it said that it is ready".into()),
            None => Ok(None),
        }
    }

    async fn said(&mut self, read: &mut BytesMut) -> Result<Option<Said>, BoxError> {
        let Some(frame) = self.next(read).await? else { return Ok(None) };
        let of = match &frame {
            FromChild::Ready { .. } => return Err("it said twice that it is ready".into()),
            FromChild::Pong { n } => return Ok(Some(Said::Pong(*n))),
            FromChild::Progress { id, .. }
            | FromChild::Done { id, .. }
            | FromChild::Failed { id, .. }
            | FromChild::Cancelled { id } => *id,
        };
        if self.job != Some(of) {
            return Err(format!("it spoke of a job that it does not have, {of}").into());
        }
        let said = match frame {
            FromChild::Progress { done, total, .. } => return Ok(Some(Said::Progress { done, total })),
            FromChild::Done { output_file: Some(file), .. } => Said::Done(Output::File(file)),
            FromChild::Done { output, .. } => Said::Done(Output::Json(output)),
            FromChild::Failed { kind, error, .. } => {
                let kind = match kind {
                    FailureKind::Failed => PoolErrorKind::Failed,
                    FailureKind::DiskFull => PoolErrorKind::DiskFull,
                    FailureKind::UnknownKind => PoolErrorKind::NoProcessor,
                    FailureKind::Payload => PoolErrorKind::Rubbish,
                };
                Said::Failed { kind, text: error.join(": ") }
            }
            FromChild::Ready { .. } | FromChild::Pong { .. } | FromChild::Cancelled { .. } => Said::Cancelled,
        };
        // A second answer is one to a job that it does not have.
        self.job = None;
        Ok(Some(said))
    }

    async fn task(&mut self, job: &Job, _: &CancellationToken) -> Result<Bytes, Problem> {
        self.job = Some(job.id);
        let (id, kind, text) = (job.id, job.kind.clone(), job.payload.clone());
        let deadline_ms = self.deadline_ms(job);
        let payload_file = self.write(job).await;
        let encode = move || {
            let payload = if payload_file.is_some() {
                serde_json::from_slice::<IgnoredAny>(&text)?;
                Json::default()
            } else {
                Json::parse(&text)?
            };
            Ok::<_, BoxError>(wire::encode(&ToChild::Task { id, kind, payload, payload_file, deadline_ms })?)
        };
        on_a_thread(|| encode().map_err(|cause| Problem::new(PoolErrorKind::Encoding, cause))).await
    }

    async fn output(&mut self, done: Output, _: &CancellationToken) -> Result<Bytes, Problem> {
        let rubbish = |cause: BoxError| Problem::new(PoolErrorKind::Rubbish, cause);
        let file = match done {
            Output::Json(json) => return Ok(Bytes::from(json.into_bytes())),
            Output::Value(_) => return Err(rubbish("there is no such answer in protocol v2".into())),
            Output::File(file) => file,
        };
        let dir = self.payloads.clone().filter(|_| self.has(Feature::Files));
        let dir = dir.ok_or_else(|| rubbish("its output is in a file, for which it has no directory".into()))?;
        let read = move || {
            let bytes = payload::take(dir.path(), &file).map_err(|e| Problem::new(PoolErrorKind::Rubbish, e))?;
            serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|e| Problem::new(PoolErrorKind::Rubbish, e))?;
            Ok(Bytes::from(bytes))
        };
        on_a_thread(read).await
    }

    fn ping(&self, n: u64) -> Option<Bytes> {
        self.has(Feature::Ping).then(|| wire::encode(&ToChild::Ping { n }).ok()).flatten()
    }

    fn cancel(&self) -> Cancel {
        let words = self.job.and_then(|id| wire::encode(&ToChild::Cancel { id }).ok());
        match words {
            Some(words) if self.has(Feature::Cancel) => Cancel::Words(words),
            Some(words) => Cancel::WordsAndSignal(words),
            None => Cancel::Signal,
        }
    }

    fn shutdown(&self) -> Option<Bytes> {
        wire::encode(&ToChild::Shutdown).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let hello = &[Feature::Hello][..];
        assert_eq!(version(2, None, &[]).unwrap(), 2);
        assert_eq!(version(3, Some(2), hello).unwrap(), 2);
        assert_eq!(version(2, Some(1), &[]).unwrap(), 2);
        for (newest, oldest, features, text) in [
            (1, None, hello, "it speaks version 1, not 2"),
            (4, Some(3), hello, "it speaks version 3 to 4, not 2"),
            (3, Some(2), &[], "it speaks version 3 and cannot be told to speak 2"),
        ] {
            assert_eq!(version(newest, oldest, features).unwrap_err().to_string(), text);
        }
    }
}
