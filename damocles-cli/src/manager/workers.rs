//! `worker list|remove`.

use super::{
    args::{WorkerCommand, WorkerNameArgs},
    remote,
};
use crate::{
    clock::SystemClock,
    config::manager::Home,
    exit::{Exit, Failure},
    output::{Printer, Render, table},
};
use anyhow::anyhow;
use damocles_core::{Clock as _, Timestamp};
use damocles_seal::rpc::damocles::{ListWorkers, RemoveWorker, WorkerView};
use serde::Serialize;
use std::time::Duration;

/// A worker that was not heard from for so long is marked.
const SILENT: Duration = Duration::from_secs(600);

/// Asks the manager of this home.
///
/// # Errors
///
/// It does not answer, or does not know the worker.
pub(super) async fn run(command: &WorkerCommand, home: &Home, printer: Printer) -> Result<(), Failure> {
    match command {
        WorkerCommand::List => {
            let workers = remote::ask::<ListWorkers>(home, &[]).await?;
            let now = SystemClock.now();
            printer.data(&Listed(workers.into_iter().map(|worker| Seen::at(now, worker)).collect()))
        }
        WorkerCommand::Remove(WorkerNameArgs { name }) => {
            if !remote::ask::<RemoveWorker>(home, &(name.clone(),)).await? {
                return Err(Failure::new(Exit::Failed, anyhow!("the manager does not know a worker `{name}`"))
                    .hint("`damocles-manager worker list` shows those that it knows"));
            }
            printer.note(format_args!("worker `{name}` is forgotten"));
            Ok(())
        }
    }
}

#[derive(Serialize)]
struct Seen {
    #[serde(flatten)]
    worker: WorkerView,
    /// How long ago it was heard from, in seconds.
    silence_secs: u64,
    /// Whether that is long for any worker.
    silent: bool,
}

impl Seen {
    fn at(now: Timestamp, worker: WorkerView) -> Self {
        let silence =
            Duration::from_millis(u64::try_from(now.0.saturating_sub(worker.last_ping.0)).unwrap_or_default());
        Self { worker, silence_secs: silence.as_secs(), silent: silence > SILENT }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Listed(Vec<Seen>);

impl Render for Listed {
    fn text(&self, color: bool) -> String {
        let header = [
            "NAME",
            "ADDRESS",
            "VERSION",
            "THREADS",
            "EMPTY",
            "PAUSED",
            "RUNNING",
            "WAITING",
            "ERRORS",
            "HEARD",
            "LAST ERROR",
        ];
        let rows = self.0.iter().map(|Seen { worker, silence_secs, silent }| {
            let threads = &worker.threads;
            let counts = [threads.all, threads.empty, threads.paused, threads.running, threads.waiting, threads.errors];
            let [all, empty, paused, running, waiting, errors] = counts.map(|count| count.to_string());
            let ago = humantime::format_duration(Duration::from_secs(*silence_secs));
            let heard = format!("{ago} ago{}", if *silent { " (silent)" } else { "" });
            let error = worker.last_error.clone().unwrap_or_else(|| "-".to_owned());
            let (name, address, version) = (worker.name.clone(), worker.address.clone(), worker.version.clone());
            [name, address, version, all, empty, paused, running, waiting, errors, heard, error]
        });
        table(&header, rows, color)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_seal::rpc::damocles::ThreadCounts;

    #[test]
    fn a_worker_is_shown_with_its_threads_and_its_silence() {
        let worker = WorkerView {
            name: "worker-1".to_owned(),
            address: "10.0.0.1:17890".to_owned(),
            version: "0.1.0".to_owned(),
            threads: ThreadCounts { all: 5, empty: 1, paused: 1, running: 2, waiting: 1, errors: 1 },
            last_error: Some("no space is left".to_owned()),
            last_ping: Timestamp(1_000),
        };
        let early = Seen::at(Timestamp(31_500), worker.clone());
        assert_eq!((early.silence_secs, early.silent), (30, false));
        assert_eq!(Seen::at(Timestamp(0), worker.clone()).silence_secs, 0, "clocks differ");
        let late = Seen::at(Timestamp(601_001 + 1_000), worker);
        insta::assert_snapshot!(Listed(vec![early, late]).text(false));
    }
}
