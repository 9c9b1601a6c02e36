//! What the worker counts, for Prometheus. The names are documented in `docs/metrics-worker.md`.

use super::{
    board::Board,
    control::{ThreadState, WorkerControl as _},
    info::{Build, Manager},
    stores::Store,
};
use damocles_core::{Clock, SectorId, StageEvent, Timestamp, pipeline::StageId, pool::SlotState};
use damocles_seal::{
    pool::schedule::PoolStats,
    rpc::{CallObserver, CallResult},
    store::StoreState,
};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};
use tokio::time::Instant;

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;
type SecondsTotal = Counter<f64, AtomicU64>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// From a tenth of a second to a day and a half.
fn stage_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.5, 16))
}

/// From a millisecond to a minute.
fn call_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 3.0, 11))
}

/// How long stages took.
#[derive(Debug)]
pub(super) struct StageTimes {
    begun: Mutex<HashMap<(SectorId, StageId), Instant>>,
    seconds: Histograms,
    copied: Counter,
}

impl Default for StageTimes {
    fn default() -> Self {
        Self {
            begun: Mutex::default(),
            seconds: Family::new_with_constructor(stage_buckets as fn() -> Histogram),
            copied: Counter::default(),
        }
    }
}

impl StageTimes {
    /// So many bytes more were copied to a persist store.
    pub(super) fn copied(&self, bytes: u64) {
        self.copied.inc_by(bytes);
    }

    /// Follows a stage from its start to its end, its waits included. `now` is when this happened.
    pub(super) fn follow(&self, sector: SectorId, stage: &StageId, what: &StageEvent, now: Instant) {
        let key = (sector, stage.clone());
        let begun = |begun: &Instant| now.saturating_duration_since(*begun);
        let result = match what {
            StageEvent::Started => {
                self.begun.lock().insert(key, now);
                return;
            }
            StageEvent::Advanced => ("done", self.begun.lock().remove(&key).as_ref().map(begun)),
            // What waits for a manager or for room goes on from the same start.
            StageEvent::Failed { .. } => ("failed", self.begun.lock().get(&key).map(begun)),
            _ => return,
        };
        // What began in an earlier process took at least no time here.
        let (result, took) = result;
        let labels = vec![("stage", stage.to_string()), ("result", result.to_owned())];
        self.seconds.get_or_create(&labels).observe(took.unwrap_or_default().as_secs_f64());
    }
}

/// What the manager was asked, and how it answered.
#[derive(Debug)]
pub(super) struct Calls {
    clock: Arc<dyn Clock>,
    known: Mutex<Manager>,
    seconds: Histograms,
    errors: Family<Labels, Counter>,
}

impl Calls {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let seconds = Family::new_with_constructor(call_buckets as fn() -> Histogram);
        Self { clock, known: Mutex::default(), seconds, errors: Family::default() }
    }

    /// The manager as its answers show it.
    pub(super) fn manager(&self, endpoint: &str) -> Manager {
        Manager { endpoint: endpoint.to_owned(), ..self.known.lock().clone() }
    }
}

impl CallObserver for Calls {
    fn called(&self, method: &str, took: Duration, result: CallResult<'_>) {
        let labels = vec![("method", method.to_owned())];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let mut known = self.known.lock();
        known.calls += 1;
        let answered = !matches!(result, CallResult::Unanswered(_));
        known.answers = Some(answered);
        if answered {
            known.answered_at = Some(self.clock.now());
        }
        if let CallResult::Refused(why) | CallResult::Unanswered(why) = result {
            known.errors += 1;
            known.last_error = Some(format!("{method}: {why}"));
            self.errors.get_or_create(&labels).inc();
        }
    }
}

/// Everything, as Prometheus reads it.
pub(super) async fn scrape(board: &Board, stages: &StageTimes, now: Timestamp) -> String {
    let mut registry = Registry::with_prefix("damocles_worker");
    about(&mut registry, board, now);
    registry.register("stage_seconds", "How long stages took, their waits included", stages.seconds.clone());
    registry.register("transferred_bytes", "Bytes copied to persist stores", stages.copied.clone());
    let calls = &board.facts.calls;
    registry.register("manager_call_seconds", "How long calls to the manager took", calls.seconds.clone());
    registry.register("manager_call_errors", "Calls that were refused or not answered", calls.errors.clone());
    threads(&mut registry, board);
    slots(&mut registry, board);
    if let Some(pool) = board.pool() {
        jobs(&mut registry, &pool.stats());
    }
    stores(&mut registry, board.facts.stores().await);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn about(registry: &mut Registry, board: &Board, now: Timestamp) {
    let Build { version, features } = Build::own();
    let build = Family::<Labels, Gauge>::default();
    build.get_or_create(&vec![("version", version), ("features", features.join(","))]).set(1);
    registry.register("build_info", "The program; always 1", build);
    let up = Seconds::default();
    up.set(now.since(board.facts.since).as_secs_f64());
    registry.register("up_seconds", "Since the start of the process", up);
    let manager = board.facts.calls.manager("");
    let answers = Gauge::<i64, AtomicI64>::default();
    answers.set(i64::from(manager.answers == Some(true)));
    registry.register("manager_answers", "Whether the manager answered the last call", answers);
}

fn threads(registry: &mut Registry, board: &Board) {
    let states = Family::<Labels, Gauge>::default();
    for state in ThreadState::ALL {
        states.get_or_create(&vec![("state", state.name().to_owned())]).set(0);
    }
    let failures = Family::<Labels, Gauge>::default();
    for thread in board.status().threads {
        states.get_or_create(&vec![("state", thread.state.name().to_owned())]).inc();
        failures.get_or_create(&vec![("thread", thread.index.to_string())]).set(thread.failures.into());
    }
    registry.register("threads", "Sealing threads by what they do", states);
    registry.register("thread_failures", "Failures of a thread's stage since its sector moved on", failures);
}

fn slots(registry: &mut Registry, board: &Board) {
    let states = Family::<Labels, Gauge>::default();
    let (restarts, open) = (Family::<Labels, Counter>::default(), Family::<Labels, Gauge>::default());
    let children = Gauge::<i64, AtomicI64>::default();
    for slot in board.slots() {
        let kinds = slot.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",");
        states.get_or_create(&vec![("kind", kinds), ("state", slot.state.to_string())]).inc();
        let name = vec![("slot", slot.name)];
        restarts.get_or_create(&name).inc_by(slot.restarts);
        open.get_or_create(&name).set(i64::from(slot.state == SlotState::Open));
        children.inc_by(i64::from(slot.pid.is_some()));
    }
    registry.register("slots", "Slots by kind and by what they do", states);
    registry.register("slot_restarts", "How often the process of a slot was started anew", restarts);
    registry.register("slot_breaker_open", "Whether a slot rests after repeated failures", open);
    registry.register("children", "Processes of slots", children);
}

fn stores(registry: &mut Registry, stores: Vec<Store>) {
    type Bytes = Family<Labels, Gauge<i64, AtomicI64>>;
    let (free, total, promised) = (Bytes::default(), Bytes::default(), Bytes::default());
    let states = Family::<Labels, Gauge>::default();
    for store in stores {
        let labels = vec![("store", store.location.display().to_string()), ("kind", store.kind)];
        for (family, bytes) in [(&free, store.free), (&total, store.total), (&promised, store.promised)] {
            if let Some(bytes) = bytes {
                family.get_or_create(&labels).set(i64::try_from(bytes.0).unwrap_or(i64::MAX));
            }
        }
        for state in StoreState::ALL {
            let labels: Labels = labels.iter().cloned().chain([("state", state.name().to_owned())]).collect();
            states.get_or_create(&labels).set((state == store.state).into());
        }
    }
    registry.register("store_free_bytes", "Space that is left in a store", free);
    registry.register("store_total_bytes", "Size of the file system of a store", total);
    registry.register("store_promised_bytes", "Free space that is promised to sectors of this worker", promised);
    registry.register("store_state", "1 for the state that a store is in", states);
}

fn jobs(registry: &mut Registry, stats: &PoolStats) {
    let (waiting, running) = (Family::<Labels, Gauge>::default(), Family::<Labels, Gauge>::default());
    let (starts, done) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let (waited, worked) = (Family::<Labels, SecondsTotal>::default(), Family::<Labels, SecondsTotal>::default());
    let failures = Family::<Labels, Counter>::default();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    for (kind, stats) in &stats.kinds {
        let kind = vec![("kind", kind.to_string())];
        waiting.get_or_create(&kind).set(count(stats.waiting));
        running.get_or_create(&kind).set(count(stats.running));
        starts.get_or_create(&kind).inc_by(stats.starts);
        done.get_or_create(&kind).inc_by(stats.done);
        waited.get_or_create(&kind).inc_by(stats.waited.as_secs_f64());
        worked.get_or_create(&kind).inc_by(stats.worked.as_secs_f64());
        for (error, times) in &stats.failures {
            let labels: Labels = kind.iter().cloned().chain([("error", error.clone())]).collect();
            failures.get_or_create(&labels).inc_by(*times);
        }
    }
    registry.register("jobs_waiting", "Jobs without a slot", waiting);
    registry.register("jobs_running", "Jobs with a slot", running);
    registry.register("jobs_started", "Jobs that got a slot", starts);
    registry.register("jobs_done", "Jobs that were done", done);
    registry.register("jobs_wait_seconds", "How long jobs waited for their slot, added up", waited);
    registry.register("jobs_work_seconds", "How long jobs that ended had their slot, added up", worked);
    registry.register("job_failures", "Jobs that failed, by what went wrong", failures);
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, Recovery, SectorNumber, testing::FakeClock};

    #[test]
    fn stages_are_counted_by_their_result_with_the_time_since_their_start() {
        let (times, sector) = (StageTimes::default(), SectorId::new(ActorId(1), SectorNumber(2)));
        let stage = StageId::new("pc1");
        let failed = StageEvent::Failed { error: "x".to_owned(), recovery: Recovery::RETRY };
        // Another start after a failure, and a repeat that goes on from the same one.
        let again = [StageEvent::Started, failed.clone(), StageEvent::Started, failed, StageEvent::Advanced];
        let mut now = Instant::now();
        for what in again.into_iter().chain([StageEvent::Advanced]) {
            times.follow(sector, &stage, &what, now);
            now += Duration::from_secs(10);
        }
        let mut registry = Registry::default();
        registry.register("s", "seconds", times.seconds.clone());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in
            ["s_count{R=\"done\"} 2", "s_sum{R=\"done\"} 20.0", "s_count{R=\"failed\"} 2", "s_sum{R=\"failed\"} 20.0"]
        {
            let line = line.replace('R', "stage=\"pc1\",result");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(times.begun.lock().is_empty());
    }

    #[test]
    fn a_manager_that_refuses_answers() {
        let clock = Arc::new(FakeClock::at(Timestamp(7)));
        let calls = Calls::new(clock);
        assert_eq!(calls.manager("m").answers, None);
        calls.called("Seed", Duration::ZERO, CallResult::Refused("no".to_owned().as_str()));
        let manager = calls.manager("m");
        assert_eq!((manager.calls, manager.errors, manager.answers), (1, 1, Some(true)));
        calls.called("Seed", Duration::ZERO, CallResult::Unanswered("gone"));
        let manager = calls.manager("m");
        assert_eq!((manager.answers, manager.answered_at), (Some(false), Some(Timestamp(7))));
        assert_eq!(manager.last_error.as_deref(), Some("Seed: gone"));
        assert_eq!(calls.errors.get_or_create(&vec![("method", "Seed".to_owned())]).get(), 2);
    }
}
