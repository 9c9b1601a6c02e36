//! Protocol v1 from the side of the pool.

use super::{
    banner, has_v1,
    line::{excerpt, next_line},
    translate::{self, Given},
    words::{Answer, KINDS},
};
use crate::pool::{
    dialect::{Cancel, Dialect, Output, Problem, Said, on_a_thread},
    spec::SlotSpec,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use damocles_core::{
    BoxError, CancellationToken,
    pool::{Job, PoolErrorKind, TaskKind},
};

/// What a processor says before its first task: a name and two words.
const MAX_BANNER: usize = 64 << 10;

/// The longest answer: several hundred times what PC1 says.
const MAX_ANSWER: usize = 64 << 20;

/// Speaks lines with one child.
#[derive(Debug)]
pub(in crate::pool) struct Lines {
    stage: TaskKind,
    scanned: usize,
    /// The number of the last request; they begin with 1 in every child.
    last: u64,
    /// The request that is not answered yet.
    given: Option<Given>,
    /// The one whose answer has come.
    answered: Option<Given>,
}

impl Lines {
    pub(in crate::pool) fn of(slot: &SlotSpec) -> Result<Self, BoxError> {
        let [stage] = slot.kinds.as_slice() else {
            return Err("a processor of protocol v1 serves one kind of task, and its slot has several".into());
        };
        if !has_v1(stage) {
            let known = KINDS.join(", ");
            return Err(
                format!("the kind `{stage}` cannot be given to a processor of protocol v1 ({known} can)").into()
            );
        }
        Ok(Self { stage: stage.clone(), scanned: 0, last: 0, given: None, answered: None })
    }
}

#[async_trait]
impl Dialect for Lines {
    fn ready(&mut self, read: &mut BytesMut, _: &SlotSpec) -> Result<Option<Bytes>, BoxError> {
        let Some(line) = next_line(read, &mut self.scanned, MAX_BANNER)? else { return Ok(None) };
        let expected = banner(self.stage.as_str());
        if line.trim_ascii() == expected.as_bytes() {
            Ok(Some(Bytes::new()))
        } else {
            Err(format!("its first line is `{}`, not `{expected}`", excerpt(&line)).into())
        }
    }

    async fn said(&mut self, read: &mut BytesMut) -> Result<Option<Said>, BoxError> {
        let line = loop {
            match next_line(read, &mut self.scanned, MAX_ANSWER)? {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => break line,
                None => return Ok(None),
            }
        };
        let answer: Answer = serde_json::from_slice(&line)
            .map_err(|e| format!("a line that is no answer, `{}` ({} bytes): {e}", excerpt(&line), line.len()))?;
        let known = self.given.take_if(|_| answer.id == self.last);
        let given = known.ok_or_else(|| format!("an answer to request {}, which nobody made", answer.id))?;
        match (answer.err_msg, answer.output) {
            (Some(text), _) => Ok(Some(Said::Failed { kind: PoolErrorKind::Failed, text })),
            (None, Some(output)) => {
                self.answered = Some(given);
                Ok(Some(Said::Done(Output::Value(output))))
            }
            (None, None) => Err(format!("an answer to request {} with neither output nor err_msg", answer.id).into()),
        }
    }

    async fn task(&mut self, job: &Job, stop: &CancellationToken) -> Result<Bytes, Problem> {
        let (job, stop) = (job.clone(), stop.clone());
        let id = self.last + 1;
        let (line, given) = on_a_thread(move || translate::give(&job, id, &stop)).await?;
        self.last = id;
        self.given = Some(given);
        Ok(line)
    }

    async fn output(&mut self, done: Output, stop: &CancellationToken) -> Result<Bytes, Problem> {
        let (Output::Value(value), Some(given)) = (done, self.answered.take()) else {
            return Err(Problem::new(PoolErrorKind::Rubbish, "there is no such answer in protocol v1"));
        };
        let stop = stop.clone();
        on_a_thread(move || translate::take(given, value, &stop)).await
    }

    fn ping(&self, _: u64) -> Option<Bytes> {
        None
    }

    fn cancel(&self) -> Cancel {
        Cancel::Signal
    }

    fn shutdown(&self) -> Option<Bytes> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::CommandSpec;
    use futures::FutureExt as _;
    use proptest::prelude::*;

    fn lines() -> Lines {
        let slot = SlotSpec::new("c2-0", vec![TaskKind::new("c2")], CommandSpec::new("c2", [""; 0]));
        let mut lines = Lines::of(&slot).unwrap();
        (lines.last, lines.given) = (7, Some(Given::C2));
        lines
    }

    fn error(line: &[u8]) -> String {
        let mut read = BytesMut::from(line);
        read.extend_from_slice(b"\n");
        lines().said(&mut read).now_or_never().unwrap().unwrap_err().to_string()
    }

    #[test]
    fn rubbish_is_named() {
        assert!(error(b"Segmentation fault").starts_with("a line that is no answer, `Segmentation fault` (18 bytes)"));
        assert!(error(&[0xff; 300]).contains(&format!("`{}` (300 bytes)", "\u{fffd}".repeat(100))));
        assert_eq!(error(br#"{"id":6,"output":1}"#), "an answer to request 6, which nobody made");
        let null = error(br#"{"id":7,"err_msg":null,"output":null}"#);
        assert_eq!(null, "an answer to request 7 with neither output nor err_msg");
        let twice = b"{\"id\":7,\"output\":1}\n\r\n{\"id\":7,\"output\":1}\n";
        let (mut lines, mut read) = (lines(), BytesMut::from(&twice[..]));
        assert!(matches!(lines.said(&mut read).now_or_never(), Some(Ok(Some(Said::Done(_))))));
        assert!(lines.said(&mut read).now_or_never().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut read = BytesMut::from(bytes.as_slice());
            let mut lines = lines();
            while let Some(Ok(Some(_))) = lines.said(&mut read).now_or_never() {}
            let slot = SlotSpec::new("c2-0", vec![TaskKind::new("c2")], CommandSpec::new("c2", [""; 0]));
            let _ = Lines::of(&slot).unwrap().ready(&mut BytesMut::from(bytes.as_slice()), &slot);
        }
    }
}
