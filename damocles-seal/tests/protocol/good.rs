//! Our own child: it is there while it works, stops what can be stopped, and ends when its time is over.

use crate::{
    runner::{Case, cases},
    support::{in_time, me, pool_of, slot},
};
use damocles_core::{
    Context, Event, EventSink, JobEvent, JobId,
    pool::{PoolErrorKind, ProcessorPool, ProcessorPoolExt, Task, TaskKind},
};
use damocles_seal::{
    pool::{
        Protocol,
        wire::{self, FailureKind, Feature, FileRef, Files, FromChild, Hello, Json, ToChild},
    },
    processor::{Processor, ProcessorError, ProgressSink, Registry, ServeOptions, serve},
};
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::sync::Notify;

pub(crate) fn all() -> Vec<Case> {
    cases![
        a_child_that_works_answers_pings,
        work_that_stops_when_asked_costs_no_child,
        a_child_ends_when_its_time_is_over,
        a_job_that_has_not_begun_is_cancelled_and_an_unknown_one_ignored,
        a_payload_that_is_not_there_is_a_failure_of_its_own,
    ]
    .into()
}

#[derive(Debug)]
struct Act;

macro_rules! task {
    ($name:ident, $kind:literal, $output:ty) => {
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) struct $name(pub(crate) String);
        impl Task for $name {
            const KIND: TaskKind = TaskKind::new($kind);
            type Output = $output;
        }
    };
}
task!(Echo, "echo", String);
task!(Busy, "busy", String);
task!(Patient, "patient", String);

impl Processor<Echo> for Act {
    fn process(&self, task: Echo, _: &dyn ProgressSink) -> Result<String, ProcessorError> {
        Ok(task.0)
    }
}

impl Processor<Busy> for Act {
    fn process(&self, task: Busy, _: &dyn ProgressSink) -> Result<String, ProcessorError> {
        thread::sleep(Duration::from_millis(task.0.parse().unwrap()));
        Ok(task.0)
    }
}

/// Works until it is stopped.
impl Processor<Patient> for Act {
    fn process(&self, _: Patient, progress: &dyn ProgressSink) -> Result<String, ProcessorError> {
        while !progress.is_stopped() {
            progress.progress(1, None);
            thread::sleep(Duration::from_millis(5));
        }
        Err(ProcessorError::because("stopped"))
    }

    fn stops_when_asked(&self) -> bool {
        true
    }
}

/// The life of the child.
pub(crate) fn main() -> ExitCode {
    let registry = Registry::new().with::<Echo>(Act).with::<Busy>(Act).with::<Patient>(Act);
    serve(registry, &ServeOptions::default()).unwrap();
    ExitCode::SUCCESS
}

async fn a_child_that_works_answers_pings() {
    let mut slot = slot(Protocol::V2, Busy::KIND, me(["good"]));
    slot.talk.ping_every = Duration::from_millis(10);
    slot.talk.hung_after = Duration::from_secs(2);
    let pool = pool_of(slot, |_| ());
    for n in 1..3 {
        // Longer than it may be silent.
        let task = Busy("3000".to_owned());
        assert_eq!(in_time(pool.run_task(JobId(n), None, &task, &Context::detached())).await.unwrap(), "3000");
    }
}

#[derive(Debug, Default)]
struct Moves(Notify);

impl EventSink for Moves {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Job { what: JobEvent::Progress { .. }, .. }) {
            self.0.notify_one();
        }
    }
}

async fn work_that_stops_when_asked_costs_no_child() {
    let pool = pool_of(slot(Protocol::V2, Patient::KIND, me(["good"])), |spec| spec.grace = Duration::from_secs(60));
    let mut first = None;
    for n in 1..4 {
        let moves = Arc::new(Moves::default());
        let cx = Context::new(moves.clone());
        let cancel = async {
            moves.0.notified().await;
            cx.cancel.cancel();
        };
        let task = Patient(String::new());
        let (result, ()) = in_time(async { tokio::join!(pool.run_task(JobId(n), None, &task, &cx), cancel) }).await;
        assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
        let pid = pool.slots()[0].pid;
        assert!(pid.is_some());
        assert_eq!(*first.get_or_insert(pid), pid, "the child is kept");
    }
}

/// Our child, spoken with by hand.
struct ByHand {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl ByHand {
    fn new(dir: &Path) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut child = Command::new(me).arg("good").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut this = Self { child, requests, answers };
        let ready = this.hear();
        let FromChild::Ready { version: 2, oldest: Some(2), features, .. } = ready else { panic!("{ready:?}") };
        assert_eq!(features, Feature::ALL);
        let files = Some(Files { dir: dir.to_owned(), above: 1000 });
        this.say(&ToChild::Hello(Hello { version: 2, features, max_frame: 1 << 20, files }));
        this
    }

    fn say(&mut self, frame: &ToChild) {
        self.requests.write_all(&wire::encode(frame).unwrap()).unwrap();
    }

    fn hear(&mut self) -> FromChild {
        wire::read(&mut self.answers).unwrap().unwrap()
    }
}

fn busy(id: u128, time: &str, deadline_ms: Option<u64>) -> ToChild {
    let payload = Json::parse(format!("\"{time}\"").as_bytes()).unwrap();
    ToChild::Task { id: JobId(id), kind: Busy::KIND, payload, payload_file: None, deadline_ms }
}

async fn a_child_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut hand = ByHand::new(dir.path());
    hand.say(&busy(1, "1", Some(600_000)));
    assert!(matches!(hand.hear(), FromChild::Done { id: JobId(1), .. }));
    hand.say(&busy(2, "1000000", Some(50)));
    assert!(wire::read::<FromChild>(&mut hand.answers).unwrap().is_none(), "it says nothing more");
    assert!(hand.child.wait().unwrap().success());
}

async fn a_job_that_has_not_begun_is_cancelled_and_an_unknown_one_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut hand = ByHand::new(dir.path());
    hand.say(&ToChild::Cancel { id: JobId(99) });
    hand.say(&busy(1, "300", None));
    hand.say(&busy(2, "1000000", None));
    hand.say(&ToChild::Cancel { id: JobId(2) });
    hand.say(&ToChild::Ping { n: 5 });
    assert!(matches!(hand.hear(), FromChild::Pong { n: 5 }), "while the first one works");
    assert!(matches!(hand.hear(), FromChild::Done { id: JobId(1), .. }));
    assert!(matches!(hand.hear(), FromChild::Cancelled { id: JobId(2) }));
    hand.say(&ToChild::Shutdown);
    assert!(hand.child.wait().unwrap().success());
}

async fn a_payload_that_is_not_there_is_a_failure_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut hand = ByHand::new(dir.path());
    let file = FileRef { name: "nowhere".to_owned(), len: 3, sha256: String::new() };
    let task = |id| ToChild::Task {
        id: JobId(id),
        kind: Echo::KIND,
        payload: Json::default(),
        payload_file: Some(file.clone()),
        deadline_ms: None,
    };
    hand.say(&task(1));
    let FromChild::Failed { kind, error, .. } = hand.hear() else { panic!("it cannot succeed") };
    assert_eq!(kind, FailureKind::Payload);
    assert!(error.join(": ").contains("nowhere"), "{error:?}");
    hand.say(&busy(2, "1", None));
    assert!(matches!(hand.hear(), FromChild::Done { id: JobId(2), .. }), "the child goes on");
    drop(hand.requests);
    assert!(hand.child.wait().unwrap().success());
}
