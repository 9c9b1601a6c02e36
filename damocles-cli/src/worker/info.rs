//! `damocles-worker info`: what a running worker is made of.

use super::{
    control::{Reload, refused_text},
    hot::Hot,
    metrics::Calls,
    stores::{Store, Stores},
};
use crate::{
    config::WorkerConfig,
    output::{Render, table, time_text},
};
use damocles_core::{ByteSize, Timestamp, pool::SlotReport};
use damocles_seal::pool::Binding;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, sync::Arc};

/// The version of the document that `info --json` prints.
pub const INFO_VERSION: u32 = 1;

/// What a running worker is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The version of this document.
    pub version: u32,
    /// The worker's name.
    pub worker: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in milliseconds since 1970.
    pub since: Timestamp,
    /// The program.
    pub build: Build,
    /// Its manager.
    pub manager: Manager,
    /// Its slots.
    pub slots: Vec<Slot>,
    /// How many jobs of a kind may run at a time, where that is limited.
    pub concurrent: BTreeMap<String, u32>,
    /// The least time between two starts of a kind, in seconds, where there is one.
    pub staggered: BTreeMap<String, f64>,
    /// The named locks, and how many may hold each.
    pub locks: BTreeMap<String, u32>,
    /// Its stores.
    pub stores: Vec<Store>,
    /// What its threads go by.
    #[serde(default)]
    pub threads: Vec<ThreadSettings>,
    /// What came of the last try to take its file over; none since it started if it is absent.
    #[serde(default)]
    pub reload: Option<Reload>,
}

/// What a sealing thread goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSettings {
    /// Its number.
    pub index: usize,
    /// Its sealing store.
    pub location: PathBuf,
    /// Whether a `config.toml` in that store says some of it.
    pub by_store: bool,
    /// Whether a change of that file is seen by itself; else it is at the next SIGHUP or `reload`.
    pub watched: bool,
    /// Why that file is not in force as it is now, if so.
    pub refused: Option<String>,
    /// By the keys of `[sealing]`.
    pub settings: BTreeMap<String, String>,
}

/// The program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// What it was built with, of what it may be built without.
    pub features: Vec<String>,
}

impl Build {
    /// This program.
    pub fn own() -> Self {
        let features =
            [("multicore-sdr", damocles_seal::BUILT_WITH_MULTICORE_SDR), ("gpu", damocles_seal::BUILT_WITH_GPUS)];
        let features = features.into_iter().filter(|(_, with)| *with).map(|(name, _)| name.to_owned()).collect();
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), features }
    }
}

/// The connection to the manager.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Where it is.
    pub endpoint: String,
    /// Calls so far.
    pub calls: u64,
    /// Those without an answer, or with a refusal.
    pub errors: u64,
    /// Whether the last call was answered; absent before the first.
    pub answers: Option<bool>,
    /// When it answered last.
    pub answered_at: Option<Timestamp>,
    /// Why the last call that failed did.
    pub last_error: Option<String>,
}

/// A slot, with what it does and what it is bound to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// What it does.
    #[serde(flatten)]
    pub report: SlotReport,
    /// The CPUs that its process may use; all if it is absent.
    pub cpus: Option<String>,
    /// The memory nodes that it allocates from; all if it is absent.
    pub mems: Option<String>,
    /// The most memory that it may take, if that is limited.
    pub memory: Option<ByteSize>,
    /// Its share of CPUs that others want too, if it is not the kernel's own.
    pub cpu_weight: Option<u16>,
    /// The GPUs that it has for itself while it works.
    pub gpus: Vec<String>,
    /// Who holds what it has for itself on this machine: `this slot`, or somebody else in words.
    pub held_by: Option<String>,
    /// The locks that each of its jobs holds.
    pub locks: Vec<String>,
}

/// What stays the same while a worker runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) since: Timestamp,
    pub(super) calls: Arc<Calls>,
    pub(super) stores: std::sync::OnceLock<Stores>,
    endpoint: String,
    /// The locks of each slot of the file.
    held: BTreeMap<String, Vec<String>>,
}

impl Facts {
    pub(super) fn new(config: &WorkerConfig, since: Timestamp, calls: Arc<Calls>) -> Self {
        let held = config.slots().into_iter().map(|slot| (slot.name, slot.locks));
        Self {
            since,
            calls,
            stores: std::sync::OnceLock::new(),
            endpoint: config.sector_manager.rpc_client.addr.url_or("/"),
            held: held.collect(),
        }
    }

    pub(super) async fn info(
        &self,
        worker: &str,
        slots: Vec<SlotReport>,
        mut bound: BTreeMap<String, Binding>,
        hot: &Hot,
    ) -> WorkerInfo {
        let config = hot.config();
        let limits = &config.processors.limitation;
        let kind = |kind: &crate::config::ProcessorKind| kind.task_kind().to_string();
        let slots = slots.into_iter().map(|report| {
            // A slot with several children is one entry of the file; each is called `NAME.N`.
            let entry = report.name.rsplit_once('.').map_or(report.name.as_str(), |(entry, _)| entry);
            let locks = self.held.get(&report.name).or_else(|| self.held.get(entry)).cloned().unwrap_or_default();
            Slot::new(bound.remove(&report.name), report, locks)
        });
        WorkerInfo {
            version: INFO_VERSION,
            worker: worker.to_owned(),
            pid: std::process::id(),
            since: self.since,
            build: Build::own(),
            manager: self.calls.manager(&self.endpoint),
            slots: slots.collect(),
            concurrent: limits.concurrent.iter().map(|(k, n)| (kind(k), *n)).collect(),
            staggered: limits.staggered.iter().map(|(k, gap)| (kind(k), gap.0.as_secs_f64())).collect(),
            locks: config.processors.ext_locks.clone(),
            stores: self.stores().await,
            threads: hot.threads(),
            reload: hot.last_reload(),
        }
    }

    /// The stores with the space that is left; none before they are opened.
    pub(super) async fn stores(&self) -> Vec<Store> {
        match self.stores.get() {
            Some(stores) => stores.views().await,
            None => Vec::new(),
        }
    }
}

impl Slot {
    fn new(bound: Option<Binding>, report: SlotReport, locks: Vec<String>) -> Self {
        let (placement, held_by) = bound.map(|bound| (bound.placement, bound.held_by)).unwrap_or_default();
        let claims = !placement.gpus.is_empty() || placement.exclusive_cpus;
        let own = (claims && report.job.is_some()).then(|| "this slot".to_owned());
        Self {
            report,
            cpus: placement.cpus.map(|cpus| cpus.to_string()),
            mems: placement.mems.map(|mems| mems.to_string()),
            memory: placement.memory,
            cpu_weight: placement.cpu_weight,
            gpus: placement.gpus.into_iter().map(|gpu| gpu.0).collect(),
            held_by: held_by.or(own),
            locks,
        }
    }

    /// What it is bound to beside CPUs, in words.
    fn limits(&self) -> String {
        let parts = [
            self.mems.as_ref().map(|mems| format!("nodes {mems}")),
            self.memory.map(|memory| format!("at most {memory}")),
            self.cpu_weight.map(|weight| format!("weight {weight}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Its GPUs and who has what it claims.
    fn hardware(&self) -> String {
        let held = self.held_by.as_ref().map(|by| format!("held by {by}"));
        self.gpus.iter().cloned().chain(held).collect::<Vec<_>>().join(", ")
    }
}

impl Render for WorkerInfo {
    fn text(&self, color: bool) -> String {
        let features = if self.build.features.is_empty() { "none".to_owned() } else { self.build.features.join(", ") };
        let mut text = format!(
            "worker {} (process {}) since {}\nversion {}, optional features: {features}\n",
            self.worker,
            self.pid,
            time_text(self.since),
            self.build.version,
        );
        let Manager { endpoint, calls, errors, answers, answered_at, last_error } = &self.manager;
        let state = match answers {
            Some(true) => "answers",
            Some(false) => "does not answer",
            None => "was not asked yet",
        };
        let _ = writeln!(text, "manager {endpoint} {state}: {calls} calls, {errors} failed");
        if let (Some(false), Some(at)) = (answers, answered_at) {
            let _ = writeln!(text, "  it answered last at {}", time_text(*at));
        }
        if let Some(error) = last_error {
            let _ = writeln!(text, "  last error: {error}");
        }
        for (kind, most) in &self.concurrent {
            let _ = writeln!(text, "limit: {most} {kind} at a time");
        }
        for (kind, gap) in &self.staggered {
            let _ = writeln!(text, "limit: {gap} s between two starts of {kind}");
        }
        for (lock, most) in &self.locks {
            let _ = writeln!(text, "lock `{lock}`: held by {most} at a time");
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let slots = self.slots.iter().map(|slot| {
            let Slot { report, cpus, locks, .. } = slot;
            let some = |text: String| or_dash(Some(text).filter(|text| !text.is_empty()));
            vec![
                report.name.clone(),
                report.state.to_string(),
                or_dash(report.pid.map(|pid| pid.to_string())),
                cpus.clone().unwrap_or_else(|| "all".to_owned()),
                some(slot.limits()),
                some(slot.hardware()),
                if locks.is_empty() { "-".to_owned() } else { locks.join(",") },
                or_dash(report.sector.map(|sector| sector.to_string())),
                report.restarts.to_string(),
                report.failures.to_string(),
                or_dash(report.next_try.map(|rest| format!("in {}s", rest.as_secs()))),
                or_dash(report.last_error.clone()),
            ]
        });
        let header = [
            "SLOT",
            "STATE",
            "PID",
            "CPUS",
            "LIMITS",
            "GPUS",
            "LOCKS",
            "SECTOR",
            "RESTARTS",
            "FAILURES",
            "NEXT TRY",
            "LAST ERROR",
        ];
        let slots = table(&header, slots, color);
        let size = |size: Option<ByteSize>| size.map_or_else(|| "unknown".to_owned(), |size| size.to_string());
        let stores = self.stores.iter().map(|store| {
            let marks = store.low_mark.zip(store.high_mark).map(|(low, high)| format!("{low}, {high}"));
            vec![
                or_dash(store.name.clone()),
                store.location.display().to_string(),
                store.kind.clone(),
                if store.read_only { "yes" } else { "no" }.to_owned(),
                store.state.name().to_owned(),
                size(store.free),
                size(store.total),
                or_dash(store.promised.map(|promised| promised.to_string())),
                or_dash(marks),
                or_dash(store.reason.clone()),
            ]
        });
        let header = ["STORE", "LOCATION", "KIND", "READ-ONLY", "STATE", "FREE", "OF", "PROMISED", "MARKS", "REASON"];
        let stores = table(&header, stores, color);
        let threads = self.threads.iter().map(|thread| {
            let settings: Vec<_> = thread.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let by = if thread.by_store { "store" } else { "worker" };
            vec![thread.index.to_string(), by.to_owned(), settings.join(" ")]
        });
        let mut threads = table(&["THREAD", "FILE OF", "SETTINGS"], threads, color);
        for thread in &self.threads {
            if let Some(why) = &thread.refused {
                threads.push_str(&refused_text(thread.index, why));
            }
        }
        threads.extend(self.reload.iter().flat_map(|reload| ["\n\n".to_owned(), reload.text()]));
        format!("{text}\n{slots}\n\n{stores}\n\n{threads}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::pool::TaskKind;
    use damocles_seal::store::StoreState;

    #[test]
    fn a_worker_is_shown() {
        let mut report = SlotReport::new("pc1-0", vec![TaskKind::new("pc1")]);
        (report.pid, report.restarts) = (Some(77), 2);
        let info = WorkerInfo {
            version: INFO_VERSION,
            worker: "w".to_owned(),
            pid: 5,
            since: Timestamp(1_000),
            build: Build { version: "1.0".to_owned(), features: vec!["gpu".to_owned()] },
            manager: Manager {
                endpoint: "http://m:1/".to_owned(),
                calls: 9,
                errors: 1,
                answers: Some(false),
                answered_at: Some(Timestamp(2_000)),
                last_error: Some("no route".to_owned()),
            },
            slots: vec![Slot {
                report,
                cpus: Some("0-3".to_owned()),
                mems: Some("0".to_owned()),
                memory: Some(ByteSize(64 << 30)),
                cpu_weight: None,
                gpus: vec!["GPU-1".to_owned()],
                held_by: Some("this slot".to_owned()),
                locks: vec!["disk".to_owned()],
            }],
            concurrent: BTreeMap::from([("pc1".to_owned(), 2)]),
            staggered: BTreeMap::from([("pc1".to_owned(), 60.0)]),
            locks: BTreeMap::from([("disk".to_owned(), 1)]),
            stores: vec![Store {
                name: Some("p".to_owned()),
                location: "/mnt/p".into(),
                kind: "persist".to_owned(),
                read_only: true,
                state: StoreState::NotMounted,
                reason: Some("away".to_owned()),
                free: None,
                total: Some(ByteSize(1 << 40)),
                promised: None,
                low_mark: None,
                high_mark: None,
            }],
            threads: vec![ThreadSettings {
                index: 0,
                location: "/mnt/a".into(),
                by_store: true,
                watched: true,
                refused: Some("/mnt/a/config.toml:1:1: error: no".to_owned()),
                settings: BTreeMap::from([("max_retries".to_owned(), "5".to_owned())]),
            }],
            reload: Some(Reload { by: "SIGHUP".to_owned(), ..Reload::default() }),
        };
        let text = info.text(false);
        for part in [
            "worker w (process 5) since 1970-01-01T00:00:01Z",
            "version 1.0, optional features: gpu",
            "manager http://m:1/ does not answer: 9 calls, 1 failed",
            "it answered last at 1970-01-01T00:00:02Z",
            "last error: no route",
            "limit: 2 pc1 at a time",
            "lock `disk`: held by 1 at a time",
            "max_retries=5",
            "stays as it was, what its sealing store says is refused:\n  /mnt/a/config.toml:1:1: error: no",
            "by SIGHUP: nothing else than was in force",
        ] {
            assert!(text.contains(part), "`{part}` in `{text}`");
        }
        let row = |begins: &str| {
            let line = text.lines().find(|line| line.starts_with(begins)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("pc1-0"), "pc1-0 idle 77 0-3 nodes 0, at most 64GiB GPU-1, held by this slot disk - 2 0 - -");
        assert_eq!(row("p "), "p /mnt/p persist yes not_mounted unknown 1TiB - - away");
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!(serde_json::from_value::<WorkerInfo>(json).unwrap(), info);
    }
}
