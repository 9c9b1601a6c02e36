//! The control RPC of a running worker, under our names and under those of today's tools.

use super::{
    control::{Order, Refusal, WorkerControl},
    legacy,
};
use crate::server::{RequestHeaders, RpcHandler};
use async_trait::async_trait;
use damocles_core::{Clock, SectorId, pool::TaskKind};
use damocles_seal::claims::Resource;
use jsonrpc_core::{Error, ErrorCode, IoHandler, Params, Value};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{future::Future, sync::Arc};

/// Serves a [`WorkerControl`] as JSON-RPC.
#[derive(Debug)]
pub(super) struct ControlRpc(IoHandler);

#[derive(Deserialize)]
struct Pause {
    index: usize,
    #[serde(default)]
    now: bool,
    #[serde(default)]
    by: Option<String>,
}

#[derive(Deserialize)]
struct Resume {
    index: usize,
    #[serde(default)]
    state: Option<String>,
}

#[derive(Deserialize)]
struct Drain {
    #[serde(default)]
    index: Option<usize>,
    #[serde(default)]
    sector: bool,
}

#[derive(Deserialize)]
struct Abort {
    index: usize,
    reason: String,
    #[serde(default)]
    sector: Option<SectorId>,
}

type Control = Arc<dyn WorkerControl>;

impl ControlRpc {
    /// The methods `Worker.*`, and the incumbent's `VenusWorker.*`.
    pub(super) fn new(control: Control, clock: Arc<dyn Clock>) -> Self {
        let mut io = IoHandler::new();
        on(&mut io, &control, "Worker.List", |worker, _: Nothing| async move { told(&worker.status()) });
        on(&mut io, &control, "Worker.Info", |worker, _: Nothing| async move { told(&worker.info().await) });
        on(&mut io, &control, "Worker.Explain", |worker, _: Nothing| async move { told(&worker.explain()) });
        on(&mut io, &control, "Worker.Pause", |worker, Pause { index, now, by }| async move {
            told(&worker.order(index, Order::Pause { now, by }).await.map_err(refused)?)
        });
        on(&mut io, &control, "Worker.Resume", |worker, Resume { index, state }| async move {
            told(&worker.order(index, Order::Resume { state }).await.map_err(refused)?)
        });
        on(&mut io, &control, "Worker.Drain", |worker, Drain { index, sector }| async move {
            told(&match index {
                Some(index) => worker.order(index, Order::Drain { sector }).await.map_err(refused)?,
                None => worker.drain(sector),
            })
        });
        on(&mut io, &control, "Worker.Abort", |worker, Abort { index, reason, sector }| async move {
            told(&worker.order(index, Order::Abort { sector, reason }).await.map_err(refused)?)
        });
        on(&mut io, &control, "Worker.Reload", |worker, _: Nothing| async move {
            told(&worker.reload().await.map_err(refused)?)
        });
        yields(&mut io, &control);
        venus(&mut io, &control, clock);
        Self(io)
    }

    /// `Worker.Yield` alone: what every program may ask that shares this machine's hardware.
    pub(super) fn of_claims(control: Control) -> Self {
        let mut io = IoHandler::new();
        yields(&mut io, &control);
        Self(io)
    }
}

fn yields(io: &mut IoHandler, control: &Control) {
    on(io, control, "Worker.Yield", |worker, (resource, wanted_for): (Resource, TaskKind)| async move {
        told(&worker.yields(&resource, &wanted_for))
    });
}

/// No parameters: an empty list, an empty object or none at all.
#[derive(Deserialize)]
#[serde(untagged)]
enum Nothing {
    List([(); 0]),
    Named {},
    Absent,
}

/// The incumbent's methods, with its parameters and answers.
fn venus(io: &mut IoHandler, control: &Control, clock: Arc<dyn Clock>) {
    on(io, control, "VenusWorker.WorkerList", move |worker, _: Nothing| {
        let now = clock.now();
        async move { told(&worker.status().threads.iter().map(|t| legacy::row(t, now)).collect::<Vec<_>>()) }
    });
    on(io, control, "VenusWorker.WorkerPause", |worker, (index,): (usize,)| async move {
        let pause = Order::Pause { now: false, by: Some("VenusWorker.WorkerPause".to_owned()) };
        told(&worker.order(index, pause).await.map_err(refused)?.changed)
    });
    on(io, control, "VenusWorker.WorkerResume", |worker, params: Vec<Value>| async move {
        let index = params.first().and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let index = index.ok_or_else(|| Error::invalid_params("the first parameter is the number of a thread"))?;
        let state = match params.get(1) {
            None | Some(Value::Null) => None,
            Some(Value::String(state)) => Some(legacy::stage_of(state).unwrap_or(state).to_owned()),
            Some(_) => return Err(Error::invalid_params("the second parameter is the name of a state")),
        };
        told(&worker.order(index, Order::Resume { state }).await.map_err(refused)?.changed)
    });
    on(io, control, "VenusWorker.WorkerVersion", |_, _: Nothing| async {
        told(&format!("damocles-worker {}", env!("CARGO_PKG_VERSION")))
    });
    for name in ["VenusWorker.WorkerSetEnv", "VenusWorker.WorkerRemoveEnv"] {
        on(io, control, name, |_, _: Value| async {
            Err(Error {
                code: ErrorCode::ServerError(code::REFUSED),
                message: "the environment of a running worker cannot be changed from outside".to_owned(),
                data: Some(json!({ "hint": "write `envs` of a processor into the worker's file" })),
            })
        });
    }
}

/// Codes of our own refusals.
mod code {
    /// The worker refuses.
    pub(super) const REFUSED: i64 = -32001;
    /// The caller has no token, or another.
    pub(super) const NO_TOKEN: i64 = -32002;
}

fn on<P, F>(io: &mut IoHandler, control: &Control, name: &str, answer: impl Fn(Control, P) -> F + Send + Sync + 'static)
where
    P: DeserializeOwned + Send,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let control = Arc::clone(control);
    io.add_method(name, move |params: Params| {
        let parsed: Result<P, Error> = params.parse();
        let answered = parsed.map(|params| answer(Arc::clone(&control), params));
        async move { answered?.await }
    });
}

fn told(answer: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(answer).map_err(|_| Error::internal_error())
}

fn refused(refusal: Refusal) -> Error {
    let data = json!({ "hint": refusal.hint, "exit": refusal.exit as u8 });
    let code = match refusal.exit {
        crate::exit::Exit::Usage => ErrorCode::InvalidParams,
        _ => ErrorCode::ServerError(code::REFUSED),
    };
    Error { code, message: refusal.message, data: Some(data) }
}

#[async_trait]
impl RpcHandler for ControlRpc {
    async fn handle(&self, _headers: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle_request(&body).await
    }
}

/// The same for callers who show a token.
pub(super) struct Guarded {
    inner: ControlRpc,
    /// Of the token. What is compared are digests, whose equal beginnings tell a caller nothing about the token.
    digest: [u8; 32],
}

impl Guarded {
    /// Answers only those who send this token.
    pub(super) fn new(inner: ControlRpc, token: &str) -> Self {
        Self { inner, digest: Sha256::digest(token).into() }
    }
}

#[async_trait]
impl RpcHandler for Guarded {
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String> {
        let shown = headers.bearer.as_deref().map(|token| <[u8; 32]>::from(Sha256::digest(token)));
        if shown == Some(self.digest) {
            return self.inner.handle(headers, body).await;
        }
        let message = "this needs the worker's control token as `Authorization: Bearer`";
        let error = json!({ "code": code::NO_TOKEN, "message": message });
        Some(json!({ "jsonrpc": "2.0", "error": error, "id": null }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::Render as _,
        worker::{
            control::{Answer, JobView, Reload, STATUS_VERSION, ThreadState, ThreadStatus, WorkerStatus},
            explain::{EXPLANATION_VERSION, Explanation},
            info::WorkerInfo,
        },
    };
    use damocles_core::{Timestamp, testing::FakeClock};

    #[derive(Debug)]
    struct FakeWorker;

    fn a_thread() -> ThreadStatus {
        ThreadStatus {
            index: 0,
            location: "/mnt/a".into(),
            plan: "sealer".to_owned(),
            state: ThreadState::Running,
            since: Some(Timestamp(1_000)),
            sector: "s-t01000-7".parse::<SectorId>().ok(),
            stage: Some("pc1".to_owned()),
            failures: 1,
            job: Some(JobView {
                kind: "pc1".to_owned(),
                slot: Some("pc1-0".to_owned()),
                pid: Some(77),
                done: Some(3),
                total: Some(11),
                waits: None,
            }),
            last_error: None,
            settings_refused: None,
        }
    }

    #[async_trait]
    impl WorkerControl for FakeWorker {
        fn status(&self) -> WorkerStatus {
            WorkerStatus {
                version: STATUS_VERSION,
                worker: "w".to_owned(),
                threads: vec![a_thread()],
                troubles: Vec::new(),
                reload: None,
            }
        }

        async fn info(&self) -> WorkerInfo {
            WorkerInfo::default()
        }

        fn explain(&self) -> Explanation {
            Explanation { version: EXPLANATION_VERSION, worker: "w".to_owned(), threads: Vec::new() }
        }

        fn yields(&self, resource: &Resource, wanted_for: &TaskKind) -> bool {
            matches!(resource, Resource::Gpu(gpu) if gpu.0 == "GPU-0") && wanted_for.as_str() == "window_post"
        }

        async fn order(&self, index: usize, order: Order) -> Result<Answer, Refusal> {
            if index > 0 { Err(Refusal::no_such_thread(index)) } else { Ok(Answer::new(true, format!("{order:?}"))) }
        }

        async fn reload(&self) -> Result<Answer, Refusal> {
            Ok(Answer::new(true, "taken over"))
        }

        fn drain(&self, sector: bool) -> Answer {
            Answer::new(true, format!("all, sector {sector}"))
        }
    }

    fn rpc() -> ControlRpc {
        ControlRpc::new(Arc::new(FakeWorker), Arc::new(FakeClock::at(Timestamp(6_000))))
    }

    async fn ask(method: &str, params: &str) -> String {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        rpc().handle(&RequestHeaders::default(), body).await.unwrap()
    }

    async fn message(method: &str, params: &str) -> String {
        let answer: Value = serde_json::from_str(&ask(method, params).await).unwrap();
        let text = answer.pointer("/result/message").or_else(|| answer.pointer("/error/message"));
        text.and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    #[tokio::test]
    async fn who_shares_the_hardware_may_ask_for_it_and_order_nothing() {
        let rpc = ControlRpc::of_claims(Arc::new(FakeWorker));
        let ask = async |method: &str, params: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            rpc.handle(&RequestHeaders::default(), body).await.unwrap()
        };
        assert!(ask("Worker.Yield", r#"[{"gpu":"GPU-0"},"window_post"]"#).await.contains(r#""result":true"#));
        for method in ["Worker.Drain", "Worker.List", "VenusWorker.WorkerPause"] {
            assert!(ask(method, "[]").await.contains("-32601"), "{method}");
        }
    }

    #[tokio::test]
    async fn orders_are_taken_by_name_and_by_place() {
        insta::assert_snapshot!(message("Worker.Pause", "[0]").await, @"Pause { now: false, by: None }");
        insta::assert_snapshot!(message("Worker.Pause", r#"{"index":0,"now":true,"by":"op"}"#).await, @r#"Pause { now: true, by: Some("op") }"#);
        insta::assert_snapshot!(message("Worker.Resume", r#"{"index":0,"state":"pc2"}"#).await, @r#"Resume { state: Some("pc2") }"#);
        insta::assert_snapshot!(message("Worker.Drain", "{}").await, @"all, sector false");
        insta::assert_snapshot!(message("Worker.Drain", r#"{"index":0,"sector":true}"#).await, @"Drain { sector: true }");
        insta::assert_snapshot!(message("Worker.Abort", r#"[0,"bad disk"]"#).await, @r#"Abort { sector: None, reason: "bad disk" }"#);
        insta::assert_snapshot!(message("Worker.Reload", "[]").await, @"taken over");
        insta::assert_snapshot!(message("Worker.Pause", "[5]").await, @"no sealing thread at work has the number 5");
        assert!(ask("Worker.Abort", "[0]").await.contains("-32602"), "an abort without a reason is refused");
        assert!(ask("Worker.Explain", "[]").await.contains("threads"));
        for (gpu, yields) in [("GPU-0", true), ("GPU-1", false)] {
            let asked = format!(r#"[{{"gpu":"{gpu}"}},"window_post"]"#);
            assert!(ask("Worker.Yield", &asked).await.contains(&format!(r#""result":{yields}"#)));
        }
    }

    #[tokio::test]
    async fn the_names_of_the_incumbent_answer_in_its_words() {
        insta::assert_snapshot!(ask("VenusWorker.WorkerList", "[]").await, @r#"{"jsonrpc":"2.0","result":[{"index":0,"job_id":"s-t01000-7","job_stage":"PC1","job_state":"TicketAssigned","last_error":null,"location":"/mnt/a","plan":"sealer","thread_state":{"elapsed":5,"proc":"pc1-0 (pid 77) 3/11","state":"Running"}}],"id":1}"#);
        assert!(ask("VenusWorker.WorkerPause", "[0]").await.contains(r#""result":true"#));
        assert!(ask("VenusWorker.WorkerResume", "[0,null]").await.contains(r#""result":true"#));
        assert!(ask("VenusWorker.WorkerResume", "[0,\"PC1Done\"]").await.contains(r#""result":true"#));
        assert!(ask("VenusWorker.WorkerPause", "[9]").await.contains("-32602"));
        assert!(ask("VenusWorker.WorkerVersion", "[]").await.contains("damocles-worker"));
        for method in ["VenusWorker.WorkerSetEnv", "VenusWorker.WorkerRemoveEnv"] {
            let refused = ask(method, r#"["LD_PRELOAD","/x"]"#).await;
            assert!(refused.contains("cannot be changed") && refused.contains("envs"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_port_answers_only_whoever_has_the_token() {
        let guarded = Guarded::new(rpc(), "secret");
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"Worker.List","params":[]}"#;
        for (bearer, served) in
            [(None, false), (Some("secre"), false), (Some("secret2"), false), (Some("secret"), true)]
        {
            let headers = RequestHeaders { bearer: bearer.map(str::to_owned), ..RequestHeaders::default() };
            let answer = guarded.handle(&headers, body.to_owned()).await.unwrap();
            assert_eq!(answer.contains("threads"), served, "{answer}");
        }
    }

    #[test]
    fn what_is_not_in_force_stands_under_the_table() {
        let mut status = FakeWorker.status();
        status.threads[0].settings_refused = Some("/mnt/a/config.toml:1:1: error: no\n  remedy: yes".to_owned());
        status.reload = Some(Reload {
            at: Timestamp(2_000),
            by: "SIGHUP".to_owned(),
            changes: Vec::new(),
            refused: vec!["`worker.name` cannot change".to_owned()],
            hint: Some("restart the worker".to_owned()),
        });
        let below = |status: &WorkerStatus| status.text(false).lines().skip(2).collect::<Vec<_>>().join("\n");
        let told = "thread 0 stays as it was, what its sealing store says is refused:\n  /mnt/a/config.toml:1:1: error: no\n    \
                    remedy: yes\nconfiguration read again at 1970-01-01T00:00:02Z by SIGHUP and refused as a whole:\n  \
                    `worker.name` cannot change\n  hint: restart the worker";
        assert_eq!(below(&status), told);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(serde_json::from_value::<WorkerStatus>(json).unwrap(), status);
        let applied = Reload {
            refused: Vec::new(),
            hint: None,
            changes: vec!["max_retries: 5 -> 7".to_owned()],
            ..status.reload.unwrap()
        };
        let status = WorkerStatus { reload: Some(applied), ..FakeWorker.status() };
        let told = "configuration read again at 1970-01-01T00:00:02Z by SIGHUP and taken over:\n  max_retries: 5 -> 7";
        assert_eq!(below(&status), told);
    }

    #[test]
    fn the_list_is_a_table() {
        let text = FakeWorker.status().text(false);
        let row = text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(row, "0 /mnt/a sealer running 1970-01-01T00:00:01Z s-t01000-7 pc1 1 pc1-0 (pid 77) 3/11 -");
    }
}
