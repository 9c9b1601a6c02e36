//! The life of a child under protocol v1, so that a daemon of damocles 0.13 can use it as its processor.

use super::{ProcessorError, ProofTurn, ServeError, Served, panic_text, serve::chain, v1_work};
use crate::{
    pool::v1::{MAX_LINE, banner, excerpt, next_line, words::Answer},
    sys,
};
use bytes::BytesMut;
use damocles_core::pool::TaskKind;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
};

/// How much is read at a time.
const READ: usize = 64 << 10;

/// A request.
#[derive(Debug, Deserialize)]
struct Request {
    id: u64,
    #[serde(default)]
    task: Value,
}

/// Serves the tasks of one stage on standard input and output in the lines of protocol v1, as many at a time as come,
/// until the input ends. Blocks. `main` should return at once when this returns: tasks may still be at work on threads.
///
/// Everything that this process prints from now on goes to standard error.
///
/// # Errors
///
/// The stage is none of protocol v1's, or the streams break.
pub fn serve_v1(stage: &TaskKind, turn_lock: Option<PathBuf>) -> Result<Served, ServeError> {
    let work = v1_work::of(stage).ok_or_else(|| ServeError::UnknownKind { kind: stage.clone() })?;
    let (requests, answers) = sys::take_protocol().map_err(ServeError::Streams)?;
    let server =
        Server { stage: stage.clone(), work, turn: turn_lock.map(ProofTurn::new), answers: Mutex::new(answers) };
    Arc::new(server).serve(requests)
}

struct Server {
    stage: TaskKind,
    work: v1_work::Work,
    turn: Option<ProofTurn>,
    answers: Mutex<File>,
}

impl Server {
    fn serve(self: Arc<Self>, mut requests: File) -> Result<Served, ServeError> {
        self.say(&banner(self.stage.as_str())).map_err(ServeError::Streams)?;
        let (mut buffer, mut scanned) = (BytesMut::new(), 0);
        let mut chunk = vec![0; READ];
        loop {
            while let Some(line) = next_line(&mut buffer, &mut scanned, MAX_LINE)
                .map_err(|e| ServeError::Streams(io::Error::new(io::ErrorKind::InvalidData, e)))?
            {
                self.begin(&line)?;
            }
            match requests.read(&mut chunk) {
                Ok(0) => return Ok(Served::InputEnded),
                Ok(len) => buffer.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ServeError::Streams(error)),
            }
        }
    }

    fn begin(self: &Arc<Self>, line: &[u8]) -> Result<(), ServeError> {
        let request = match serde_json::from_slice::<Request>(line) {
            Ok(request) => request,
            Err(error) => {
                // There is no number that an answer could name.
                tracing::error!(line = excerpt(line), %error, "a line is no request");
                return Ok(());
            }
        };
        let server = Arc::clone(self);
        // Proof code recurses and keeps large arrays on the stack.
        let builder = thread::Builder::new().name(format!("{} {}", self.stage, request.id)).stack_size(16 << 20);
        let work = move || {
            let id = request.id;
            let (err_msg, output) = match server.work(request.task) {
                Ok(output) => (None, Some(output)),
                Err(error) => (Some(chain(&error).join(": ")), None),
            };
            let said = serde_json::to_string(&Answer { id, err_msg, output })
                .map_err(io::Error::from)
                .and_then(|answer| server.say(&answer));
            if let Err(error) = said {
                tracing::error!(id, %error, "nobody hears the answer");
            }
        };
        builder.spawn(work).map(drop).map_err(ServeError::Thread)
    }

    fn work(&self, task: Value) -> Result<Value, ProcessorError> {
        let turn = self.turn.as_ref().map(|turn| turn.take(&self.stage)).transpose();
        let _turn = turn.map_err(|e| ProcessorError::new("wait for the turn to prove", e))?;
        catch_unwind(AssertUnwindSafe(|| (self.work)(task)))
            .unwrap_or_else(|panic| Err(ProcessorError::because(panic_text(&*panic))))
    }

    fn say(&self, line: &str) -> io::Result<()> {
        self.answers.lock().write_all(format!("{line}\n").as_bytes())
    }
}
