//! The control RPC of a running worker: what `damocles-worker list` asks.

use crate::{
    output::{Render, table},
    server::{RequestHeaders, RpcHandler},
};
use async_trait::async_trait;
use damocles_core::SectorId;
use jsonrpc_core::{IoHandler, Params};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, sync::Arc};

/// What a control socket asks of the worker behind it.
pub trait WorkerControl: fmt::Debug + Send + Sync + 'static {
    /// What the worker does.
    fn status(&self) -> WorkerStatus;
    /// Takes no new step in a thread. False if it was paused already.
    ///
    /// # Errors
    ///
    /// There is no such thread, or it is not at work yet.
    fn pause(&self, index: usize) -> Result<bool, NoSuchThread>;
    /// Goes on in a thread. False if it was not paused.
    ///
    /// # Errors
    ///
    /// There is no such thread, or it is not at work yet.
    fn resume(&self, index: usize) -> Result<bool, NoSuchThread>;
}

/// An index beyond the last thread that is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no sealing thread at work has the number {0}")]
pub struct NoSuchThread(pub usize);

/// The version of the document that `list --json` prints.
pub const STATUS_VERSION: u32 = 1;

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The version of this document.
    pub version: u32,
    /// The worker's name.
    pub worker: String,
    /// Its threads, in the order of the configuration file.
    pub threads: Vec<ThreadStatus>,
}

/// What a sealing thread does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadStatus {
    /// Its number.
    pub index: usize,
    /// Its sealing store.
    pub location: PathBuf,
    /// Its plan.
    pub plan: String,
    /// Whether it is at work.
    pub state: ThreadState,
    /// Its sector.
    pub sector: Option<SectorId>,
    /// The stage of that sector.
    pub stage: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Whether a thread is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadState {
    /// Not at work yet: the worker waits for its manager, or for parameters.
    Starting,
    /// Without a sector.
    Idle,
    /// Doing a step.
    Running,
    /// For the chain, a slot or the manager.
    Waiting,
    /// Until an operator acts on its sector.
    Parked,
    /// By an operator.
    Paused,
    /// Not taking new sectors any more.
    Draining,
}

impl ThreadState {
    const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

impl Render for WorkerStatus {
    fn text(&self, color: bool) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rows = self.threads.iter().map(|thread| {
            vec![
                thread.index.to_string(),
                thread.location.display().to_string(),
                thread.plan.clone(),
                thread.state.name().to_owned(),
                or_dash(thread.sector.map(|s| s.to_string())),
                or_dash(thread.stage.clone()),
                or_dash(thread.last_error.clone()),
            ]
        });
        table(&["#", "LOCATION", "PLAN", "STATE", "SECTOR", "STAGE", "LAST ERROR"], rows, color)
    }
}

/// Serves a [`WorkerControl`] as JSON-RPC.
#[derive(Debug)]
pub struct ControlRpc(IoHandler);

impl ControlRpc {
    /// The methods `Worker.List`, `Worker.Pause` and `Worker.Resume`.
    pub fn new(control: Arc<dyn WorkerControl>) -> Self {
        let mut io = IoHandler::new();
        let worker = Arc::clone(&control);
        io.add_sync_method("Worker.List", move |params: Params| {
            params.expect_no_params()?;
            serde_json::to_value(worker.status()).map_err(|_| jsonrpc_core::Error::internal_error())
        });
        let worker = Arc::clone(&control);
        io.add_sync_method("Worker.Pause", move |params: Params| {
            let (index,): (usize,) = params.parse()?;
            worker.pause(index).map(Into::into).map_err(refused)
        });
        io.add_sync_method("Worker.Resume", move |params: Params| {
            let (index,): (usize,) = params.parse()?;
            control.resume(index).map(Into::into).map_err(refused)
        });
        Self(io)
    }
}

fn refused(error: NoSuchThread) -> jsonrpc_core::Error {
    jsonrpc_core::Error::invalid_params(error.to_string())
}

#[async_trait]
impl RpcHandler for ControlRpc {
    async fn handle(&self, _headers: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle_request(&body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct FakeWorker;

    impl WorkerControl for FakeWorker {
        fn status(&self) -> WorkerStatus {
            let thread = ThreadStatus {
                index: 0,
                location: "/mnt/a".into(),
                plan: "sealer".to_owned(),
                state: ThreadState::Waiting,
                sector: "s-t01000-7".parse().ok(),
                stage: Some("seed".to_owned()),
                last_error: None,
            };
            WorkerStatus { version: STATUS_VERSION, worker: "w".to_owned(), threads: vec![thread] }
        }

        fn pause(&self, index: usize) -> Result<bool, NoSuchThread> {
            if index == 0 { Ok(true) } else { Err(NoSuchThread(index)) }
        }

        fn resume(&self, index: usize) -> Result<bool, NoSuchThread> {
            if index == 0 { Ok(false) } else { Err(NoSuchThread(index)) }
        }
    }

    async fn ask(body: &str) -> String {
        ControlRpc::new(Arc::new(FakeWorker)).handle(&RequestHeaders::default(), body.to_owned()).await.unwrap()
    }

    #[tokio::test]
    async fn the_three_methods_answer() {
        insta::assert_snapshot!(ask(r#"{"jsonrpc":"2.0","id":1,"method":"Worker.List","params":[]}"#).await, @r#"{"jsonrpc":"2.0","result":{"threads":[{"index":0,"last_error":null,"location":"/mnt/a","plan":"sealer","sector":{"miner":1000,"number":7},"stage":"seed","state":"waiting"}],"version":1,"worker":"w"},"id":1}"#);
        insta::assert_snapshot!(ask(r#"{"jsonrpc":"2.0","id":1,"method":"Worker.Pause","params":[0]}"#).await, @r#"{"jsonrpc":"2.0","result":true,"id":1}"#);
        insta::assert_snapshot!(ask(r#"{"jsonrpc":"2.0","id":1,"method":"Worker.Resume","params":[5]}"#).await, @r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"no sealing thread at work has the number 5"},"id":1}"#);
        insta::assert_snapshot!(ask("rubbish").await, @r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"},"id":null}"#);
    }

    #[test]
    fn the_list_is_a_table() {
        insta::assert_snapshot!(FakeWorker.status().text(false), @r"
        #  LOCATION  PLAN    STATE    SECTOR      STAGE  LAST ERROR
        0  /mnt/a    sealer  waiting  s-t01000-7  seed   -
        ");
    }
}
