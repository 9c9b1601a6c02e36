//! Settings that a running worker takes over: those of its own file at SIGHUP or by order, those of a sealing store's
//! `config.toml` whenever that changes.
//!
//! The worker's file is taken over as a whole or not at all, and with it what all stores say. A store's file is one such
//! whole by itself: what is wrong with it leaves its thread as it was and the others alone.

mod changes;
mod watch;

use super::{
    control::{Answer, Refusal, Reload},
    daemon::thread_config,
    info::ThreadSettings,
    keys::Compared,
};
use crate::{
    children,
    config::{
        Source, StoreFile, WorkerConfig,
        check::{self, Finding, Site},
        differ,
    },
    exit::Exit,
};
use changes::{changes, limits_changed};
use damocles_core::Clock;
use damocles_seal::{
    machine::{Machine, Roots},
    pool::LocalPool,
    store::SealingStore,
    worker::ThreadControl,
};
use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::sync::Notify;

/// What to do about a change that a running worker cannot take over.
const RESTART: &str =
    "restart the worker to change that, or take it back: until then nothing of the file is taken over";

/// What is in force, and what came of the last try to change it.
#[derive(Debug)]
pub(super) struct Hot {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    /// The text that is in force. Whoever changes anything holds it from the first look to the end.
    turn: tokio::sync::Mutex<Source>,
    config: Mutex<Arc<WorkerConfig>>,
    shown: Mutex<Shown>,
    work: OnceLock<Work>,
    /// Told once, when there is work.
    begun: Notify,
}

#[derive(Debug, Default)]
struct Shown {
    reload: Option<Reload>,
    /// By thread.
    stores: Vec<Store>,
}

/// What came of a store's file.
#[derive(Clone, Debug, Default)]
struct Store {
    refused: Option<String>,
    watched: bool,
}

/// What settings are applied to.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) worker: String,
    pub(super) controls: Vec<ThreadControl>,
    pub(super) pool: Arc<LocalPool>,
    pub(super) compared: Compared,
}

impl Hot {
    pub(super) fn new(source: Source, config: WorkerConfig, clock: Arc<dyn Clock>) -> Self {
        let stores = vec![Store::default(); config.sealing_thread.len()];
        Self {
            file: source.file().to_owned(),
            clock,
            turn: tokio::sync::Mutex::new(source),
            config: Mutex::new(Arc::new(config)),
            shown: Mutex::new(Shown { reload: None, stores }),
            work: OnceLock::new(),
            begun: Notify::new(),
        }
    }

    /// From now on there is something to change.
    pub(super) fn begin(&self, work: Work) {
        // It begins once.
        let _ = self.work.set(work);
        self.begun.notify_one();
    }

    /// What there is to change; none until the manager answered and the parameters are there.
    pub(super) fn work(&self) -> Option<&Work> {
        self.work.get()
    }

    /// What is in force.
    pub(super) fn config(&self) -> Arc<WorkerConfig> {
        Arc::clone(&self.config.lock())
    }

    /// The last try to take the worker's file over.
    pub(super) fn last_reload(&self) -> Option<Reload> {
        self.shown.lock().reload.clone()
    }

    /// Why the file of a thread's store is not in force, if it is not.
    pub(super) fn refused(&self, thread: usize) -> Option<String> {
        self.shown.lock().stores.get(thread)?.refused.clone()
    }

    /// What is in force for each thread.
    pub(super) fn threads(&self) -> Vec<ThreadSettings> {
        let config = self.config();
        let threads = config.threads().into_iter().zip(&config.sealing_thread).enumerate();
        let shown = self.shown.lock();
        let threads = threads.map(|(index, (settings, thread))| {
            let store = shown.stores.get(index).cloned().unwrap_or_default();
            let values = settings.shown().into_iter().map(|(key, value)| (key.to_owned(), value));
            ThreadSettings {
                index,
                location: settings.location.clone(),
                by_store: thread.store != StoreFile::default(),
                watched: store.watched,
                refused: store.refused,
                settings: values.collect(),
            }
        });
        threads.collect()
    }

    /// Takes the worker's file over by an operator's order.
    pub(super) async fn order(&self) -> Result<Answer, Refusal> {
        if self.work.get().is_none() {
            return Err(Refusal {
                message: "the worker is not at work yet: there is nothing that settings could be applied to".to_owned(),
                hint: Some("`damocles-worker explain` says what it waits for; order it again after that".to_owned()),
                exit: Exit::Retryable,
            });
        }
        let Reload { changes, refused, hint, .. } = self.reload("an order").await;
        let file = self.file.display();
        if !refused.is_empty() {
            let message = format!("nothing of {file} was taken over\n{}", refused.join("\n"));
            return Err(Refusal { message, hint, exit: Exit::Usage });
        }
        Ok(match changes.is_empty() {
            true => Answer::new(false, format!("{file} says nothing else than is in force")),
            false => Answer::new(true, format!("{file} was taken over\n{}", changes.join("\n"))),
        })
    }

    /// Reads the worker's file again and takes it over as a whole, or not at all.
    pub(super) async fn reload(&self, by: &str) -> Reload {
        let mut turn = self.turn.lock().await;
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let done = read.unwrap_or_else(|error| Err(Refused::plain(error))).and_then(|(source, after)| {
            let changes = self.take_over(&turn, &source, after)?;
            *turn = source;
            Ok(changes)
        });
        let mut reload = Reload { at: self.clock.now(), by: by.to_owned(), ..Reload::default() };
        let file = self.file.display();
        match done {
            Ok(changes) => {
                tracing::info!(%file, by, changes = changes.join("; "), "the configuration is taken over");
                self.show_refused(|_, _| None);
                reload.changes = changes;
            }
            Err(refused) => {
                let why = refused.why.join("; ");
                tracing::warn!(%file, by, why, "the configuration is refused as a whole: all stays as it was");
                let config = self.config();
                self.show_refused(|index, before| {
                    let store = config.sealing_thread.get(index).map(|thread| StoreFile::path(&thread.location));
                    let told = refused.findings.iter().filter(|finding| Some(&finding.file) == store.as_ref());
                    let told = texts(told).join("\n");
                    // It was perhaps not come to.
                    if told.is_empty() { before.map(str::to_owned) } else { Some(told) }
                });
                (reload.refused, reload.hint) = (refused.why, refused.hint);
            }
        }
        self.shown.lock().reload = Some(reload.clone());
        reload
    }

    /// Looks at the files of all stores, each for itself.
    pub(super) async fn look(&self) {
        let _turn = self.turn.lock().await;
        let before = self.config();
        let config = Arc::clone(&before);
        let read = tokio::task::spawn_blocking(move || {
            let stores = config.sealing_thread.iter().map(|thread| &thread.location);
            stores.map(|location| look_at(location)).collect::<Vec<_>>()
        });
        let Ok(read) = read.await else { return };
        let mut after = WorkerConfig::clone(&before);
        let mut refused = Vec::new();
        for (index, (read, thread)) in read.into_iter().zip(&mut after.sealing_thread).enumerate() {
            refused.push(match read.and_then(|file| self.suits(&before, index, file)) {
                Ok(file) => {
                    thread.store = file;
                    None
                }
                Err(why) => Some(why),
            });
        }
        if after != *before {
            let changes = changes(&before.threads(), &after.threads()).join("; ");
            self.apply(after);
            tracing::info!(changes, "what sealing stores say is taken over");
        }
        self.show_refused(|index, _| refused.get(index).cloned().flatten());
    }

    /// Whether a thread can do what its store says from now on.
    fn suits(&self, before: &WorkerConfig, index: usize, file: StoreFile) -> Result<StoreFile, String> {
        let Some(thread) = before.sealing_thread.get(index) else { return Ok(file) };
        let mut after = before.clone();
        if let Some(thread) = after.sealing_thread.get_mut(index) {
            thread.store.clone_from(&file);
        }
        let why = self.unsuitable(before, &after);
        if why.is_empty() {
            return Ok(file);
        }
        Err(format!("{}: {}", StoreFile::path(&thread.location).display(), why.join("; ")))
    }

    /// What threads cannot do from now on, although it could be had at a start.
    fn unsuitable(&self, before: &WorkerConfig, after: &WorkerConfig) -> Vec<String> {
        let mut why = Vec::new();
        for (index, (before, after)) in before.threads().iter().zip(&after.threads()).enumerate() {
            if before.plan != after.plan {
                why.push(format!("`plan` of thread {index} cannot change while the worker runs"));
            }
            let lacks = self.work.get().map(|work| work.compared.lacks(before, after)).unwrap_or_default();
            if !lacks.is_empty() {
                let sizes = lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                why.push(format!(
                    "`allowed_sizes` of thread {index} lets {sizes} in, whose verifying keys were not compared with the \
                     manager's when the worker started; restart it for that"
                ));
            }
        }
        why
    }

    fn take_over(&self, old: &Source, new: &Source, after: WorkerConfig) -> Result<Vec<String>, Refused> {
        let before = self.config();
        let cold = differ::cold((old, &before), (new, &after));
        let mut why: Vec<String> = cold
            .iter()
            .map(|key| format!("`{key}` cannot change while the worker runs: a restart is needed"))
            .collect();
        if why.is_empty() {
            why = self.unsuitable(&before, &after);
        }
        if !why.is_empty() {
            return Err(Refused { why, hint: Some(RESTART.to_owned()), findings: Vec::new() });
        }
        let mut changed = changes(&before.threads(), &after.threads());
        let limited = limits_changed(&before.processors, &after.processors);
        if let Some(work) = self.work.get().filter(|_| !limited.is_empty()) {
            let (limits, backlog) = children::limits(&after.slots(), &after.processors);
            work.pool.limit(limits, &backlog).map_err(Refused::plain)?;
        }
        changed.extend(limited);
        self.apply(after);
        Ok(changed)
    }

    /// Lets every thread do as it is told now. Nothing of this can fail.
    fn apply(&self, after: WorkerConfig) {
        if let Some(work) = self.work.get() {
            let call_limit = after.sector_manager.rpc_client.call_limit();
            for (control, settings) in work.controls.iter().zip(after.threads()) {
                control.reconfigure(thread_config(&work.worker, call_limit, &settings));
            }
        }
        *self.config.lock() = Arc::new(after);
    }

    /// Shows why the files of stores are refused, and logs what is new of that. `why` is asked by thread, and told what
    /// is known so far.
    fn show_refused(&self, why: impl Fn(usize, Option<&str>) -> Option<String>) {
        for (thread, store) in self.shown.lock().stores.iter_mut().enumerate() {
            let refused = why(thread, store.refused.as_deref());
            match &refused {
                Some(why) if store.refused != refused => {
                    tracing::warn!(thread, why, "what the sealing store says is refused; its thread stays as it was");
                }
                None if store.refused.is_some() => {
                    tracing::info!(thread, "what the sealing store says is in force");
                }
                _ => {}
            }
            store.refused = refused;
        }
    }
}

/// Why nothing of a file is taken over.
#[derive(Debug, Default)]
struct Refused {
    why: Vec<String>,
    hint: Option<String>,
    findings: Vec<Finding>,
}

impl Refused {
    fn plain(why: impl ToString) -> Self {
        Self { why: vec![why.to_string()], ..Self::default() }
    }

    fn found(findings: Vec<Finding>) -> Self {
        Self { why: texts(&findings), hint: None, findings }
    }
}

fn texts<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Vec<String> {
    findings.into_iter().map(|finding| finding.lines("error").trim_end().to_owned()).collect()
}

/// Reads and checks a worker's file, and what its stores say, as at a start.
fn read(file: &Path) -> Result<(Source, WorkerConfig), Refused> {
    let source = Source::read(file).map_err(|error| Refused::found(vec![Finding::from(&error)]))?;
    let (config, report) = check::check(&source, Site::here(&Machine::read(&Roots::host())));
    for warning in &report.warnings {
        tracing::warn!("{}", warning.lines("warning").trim_end());
    }
    let config = config.ok_or_else(|| Refused::found(report.errors))?;
    Ok((source, config))
}

/// What the store of a thread says.
fn look_at(location: &Path) -> Result<StoreFile, String> {
    // A file of a store that is not there was not removed.
    SealingStore::look(location).map_err(|error| error.chain())?;
    check::store_file(location).map_err(|errors| {
        let findings: Vec<Finding> = errors.iter().map(Finding::from).collect();
        texts(&findings).join("\n")
    })
}

#[cfg(test)]
mod tests;
