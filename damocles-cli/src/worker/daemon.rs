//! `daemon`: the worker.

use super::{
    args::DaemonArgs,
    control::{ControlRpc, NoSuchThread, STATUS_VERSION, ThreadState, ThreadStatus, WorkerControl, WorkerStatus},
    list::control_socket,
};
use crate::{
    children,
    clock::SystemClock,
    config::{
        Secret, WorkerConfig,
        worker::{Attached, SealingSettings},
    },
    exit::{Exit, Failure},
    frame,
    logging::LogSink,
    output::Printer,
    parameters,
    progress::Progress,
    server::{CONTROL_PATH, UnixServer},
    signals::{self, Shutdown},
    verifier,
};
use anyhow::{Context as _, anyhow};
use damocles_core::{
    CancellationToken, Context, SealProofType, SectorSize, pool::ProcessorPool, verify::ProofVerifier,
};
use damocles_seal::{
    Plan, StagedPipeline,
    allocator::RemoteAllocator,
    journal::{Journal, SqliteJournal},
    rpc::{RpcClient, RpcOptions, RpcService, WorkerIdentity},
    service::{KeyTable, SealingService},
    stage::{FirstOf, HttpPieces, LocalPieces, PieceSource, StageDeps},
    store::{Attach, DiskLedger, KnownStores, PersistStores, SealingStore, StoreSettings, Wanted},
    worker::{SealingThread, ThreadConfig, ThreadControl, ThreadParts},
};
use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::task::JoinSet;

/// How long one call to the manager may take.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Runs the worker until it is told to stop.
///
/// # Errors
///
/// Its configuration, stores or control socket cannot be used, or a store is proven to be inconsistent.
pub fn daemon(args: DaemonArgs, printer: Printer) -> Result<(), Failure> {
    let config = WorkerConfig::load(&args.file.config)?;
    frame::runtime()?.block_on(serve(args, config, printer))
}

/// Settings that are understood and that this version cannot do are refused, not passed over.
fn refuse(config: &WorkerConfig) -> Result<(), Failure> {
    let threads = config.threads();
    let any = |asked: fn(&SealingSettings) -> bool| threads.iter().any(asked);
    let told = "remove it: `damocles-worker list --json` tells what the worker does";
    let chosen = "remove it: the manager gives each new sector the pieces that wait";
    let refusals = [
        ("metrics.enable", config.metrics.enable, told),
        ("metrics.http_listen", config.metrics.http_listen.is_some(), told),
        (
            "worker.ping_interval",
            config.worker.ping_interval.is_some(),
            "remove it: the manager hears from the worker at every step of a sector",
        ),
        ("sealing.enable_deals = false", any(|t| !t.enable_deals), "remove it and queue no pieces at the manager"),
        ("sealing.disable_cc = true", any(|t| t.disable_cc), chosen),
        ("sealing.max_deals", any(|t| t.max_deals.is_some()), chosen),
        ("sealing.min_deal_space", any(|t| t.min_deal_space.is_some()), chosen),
        (
            "processors.static_tree_d",
            !config.processors.static_tree_d.is_empty(),
            "remove it: tree D is built for every sector",
        ),
    ];
    match refusals.into_iter().find(|(_, asked, _)| *asked).map(|(key, _, instead)| (key, instead)) {
        Some((key, instead)) => Err(Failure::usage(format_args!("this version cannot honour `{key}`")).hint(instead)),
        None => Ok(()),
    }
}

async fn serve(args: DaemonArgs, config: WorkerConfig, printer: Printer) -> Result<(), Failure> {
    refuse(&config)?;
    let shutdown = signals::install().context("listen for signals")?;
    let socket = control_socket(&config)?;
    let control = UnixServer::bind(&socket).await?;
    let board = Arc::new(Board::new(&config));
    let control = control.route_rpc(CONTROL_PATH, Arc::new(ControlRpc::new(board.clone())));
    // Its own token: at the second signal it answers until the threads have stopped.
    let served = CancellationToken::new();
    let working = async {
        let worked = work(&args, &config, &socket, &board, &shutdown, printer).await;
        served.cancel();
        worked
    };
    let serving = async {
        let served = control.serve(served.clone()).await;
        // A worker that nobody reaches is to end.
        shutdown.drain.cancel();
        served
    };
    let (worked, served) = tokio::join!(working, serving);
    worked?;
    if shutdown.stop.is_cancelled() {
        return Err(Failure::new(Exit::Retryable, anyhow!("stopped before running work had ended")));
    }
    Ok(served?)
}

/// Waits for the manager, then seals until it is told to stop.
async fn work(
    args: &DaemonArgs,
    config: &WorkerConfig,
    socket: &Path,
    board: &Board,
    shutdown: &Shutdown,
    printer: Printer,
) -> Result<(), Failure> {
    let client = client(config)?;
    let Some(keys) = own_keys(&client, config, shutdown, printer).await? else { return Ok(()) };
    let pool = children::pool(&config.slots(), &config.processors)?;
    let ledger = DiskLedger::default();
    let shared = Shared {
        name: config.name(),
        client,
        pool: pool.clone(),
        persist: persist_stores(config, &ledger)?,
        ledger,
        pieces: pieces(config)?,
        keys,
    };
    let mut threads = Vec::new();
    for settings in config.threads() {
        threads.push(thread(&shared, &settings).await?);
    }
    board.begin(threads.iter().map(SealingThread::control).collect());
    printer.note(format_args!("worker `{}`: control socket `{}`", shared.name, socket.display()));
    args.supervision.ready(None, shutdown)?;
    let cx = Context { cancel: shutdown.stop.clone(), events: Arc::new(LogSink) };
    let ended = tokio::select! {
        ended = seal(threads, shutdown) => ended,
        never = shared.persist.keep_attached(&cx) => match never {},
    };
    // Idle children end; running ones were asked to by their jobs' cancellation.
    let _ = shutdown.stop.run_until_cancelled(pool.drain()).await;
    ended
}

/// What all threads share.
struct Shared {
    name: String,
    client: RpcClient,
    pool: Arc<dyn ProcessorPool>,
    persist: PersistStores,
    ledger: DiskLedger,
    pieces: Arc<dyn PieceSource>,
    keys: KeyTable,
}

fn client(config: &WorkerConfig) -> Result<RpcClient, Failure> {
    let mut options = RpcOptions::new(config.sector_manager.rpc_client.addr.url_or("/rpc/v0"));
    options.token = config.token()?.map(|token| token.reveal().to_owned());
    options.timeout = CALL_LIMIT;
    Ok(RpcClient::http(&options)?)
}

/// The digests of the verifying keys that this worker's proofs are made for, by the proof types whose keys the manager
/// tells. A manager that does not answer is waited for. None at all when the worker is told to end meanwhile.
async fn own_keys(
    client: &RpcClient,
    config: &WorkerConfig,
    shutdown: &Shutdown,
    printer: Printer,
) -> Result<Option<KeyTable>, Failure> {
    let greeting = async {
        let mut wait = Duration::from_millis(200);
        loop {
            match client.hello().await {
                Ok(hello) => return hello,
                Err(error) => tracing::warn!(error = %error.chain(), "the manager does not answer; waiting for it"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    };
    let Some(hello) = shutdown.drain.run_until_cancelled(greeting).await else { return Ok(None) };
    let fake = hello.network.as_deref().is_some_and(verifier::is_fake);
    if fake {
        return Ok(Some(KeyTable::new()));
    }
    let told: Vec<SectorSize> = hello.keys.keys().map(|proof_type| proof_type.sector_size()).collect();
    let (verifier, mut keys) = (damocles_seal::verifier::Groth16Verifier::new(), KeyTable::new());
    for size in sizes_of(config, &told) {
        parameters::ensure(size, &Progress::new(printer.is_quiet()), shutdown.drain.clone()).await?;
        if told.contains(&size) {
            let proof_type = SealProofType::of(size);
            keys.insert(proof_type, verifier.keys(proof_type)?);
        }
    }
    Ok(Some(keys))
}

/// The sector sizes that the threads are for: those of the manager that one allows. If it tells none of them, the first
/// that one allows, else that of a devnet.
fn sizes_of(config: &WorkerConfig, told: &[SectorSize]) -> Vec<SectorSize> {
    let threads = config.threads();
    let any = threads.iter().any(|t| t.allowed_sizes.is_empty());
    let allowed: Vec<_> = threads.into_iter().flat_map(|t| t.allowed_sizes).collect();
    let wanted: Vec<_> = told.iter().copied().filter(|size| any || allowed.contains(size)).collect();
    if wanted.is_empty() { vec![allowed.into_iter().min().unwrap_or(SectorSize::KiB2)] } else { wanted }
}

/// The attached stores, and those that the patterns of `scan_persist_stores` find by their `sectorstore.json`. None of
/// them has to be there yet. What is remembered of them lies in the sealing stores.
fn persist_stores(config: &WorkerConfig, ledger: &DiskLedger) -> Result<PersistStores, Failure> {
    let of = |a: &Attached| Attach {
        location: a.location.clone(),
        name: a.name.clone(),
        read_only: a.readonly,
        scanned: false,
    };
    let mut found: Vec<Attach> = config.attached.iter().map(of).collect();
    for pattern in &config.worker.scan_persist_stores {
        let dirs =
            glob::glob(pattern).with_context(|| format!("use `worker.scan_persist_stores` pattern `{pattern}`"))?;
        for dir in dirs {
            let location = dir.with_context(|| format!("scan `{pattern}`"))?;
            if found.iter().all(|attach| attach.location != location) {
                found.push(Attach { location, name: None, read_only: false, scanned: true });
            }
        }
    }
    let probed = |(index, attach)| Ok(Wanted { attach, prober: Some(children::prober(index)?) });
    let wanted = found.into_iter().enumerate().map(probed).collect::<Result<Vec<_>, Failure>>()?;
    let memory = config.threads().into_iter().map(|thread| thread.location.join("meta").join("persist-stores.json"));
    let known = KnownStores::open(memory)?;
    let settings = StoreSettings { known, ledger: ledger.clone(), ..StoreSettings::default() };
    Ok(PersistStores::wanted(wanted, settings)?)
}

fn pieces(config: &WorkerConfig) -> Result<Arc<dyn PieceSource>, Failure> {
    let url = config.sector_manager.rpc_client.addr.url_or("/");
    let mut base = reqwest::Url::parse(&url).with_context(|| format!("use `{url}`"))?;
    base.set_path("/piecestore");
    let token = config.token()?.map(|token: Secret| token.reveal().to_owned());
    let local: Arc<dyn PieceSource> = Arc::new(LocalPieces::new(config.worker.local_pieces_dirs.clone()));
    let remote = Arc::new(HttpPieces::new(base, token, CALL_LIMIT)?);
    Ok(Arc::new(FirstOf(vec![local, remote])))
}

async fn thread(shared: &Shared, settings: &SealingSettings) -> Result<SealingThread, Failure> {
    let store = Arc::new(SealingStore::open(&settings.location)?.accounted_in(&shared.ledger));
    let clock = Arc::new(SystemClock);
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(store.journal_path(), clock.clone()).await?);
    let identity = WorkerIdentity { instance: shared.name.clone(), location: settings.location.display().to_string() };
    let service: Arc<dyn SealingService> = Arc::new(RpcService::new(shared.client.clone(), identity));
    let deps = StageDeps {
        service: Arc::clone(&service),
        pool: Arc::clone(&shared.pool),
        store: Arc::clone(&store),
        persist: shared.persist.clone(),
        pieces: Arc::clone(&shared.pieces),
        call_limit: CALL_LIMIT,
    };
    let pipeline =
        StagedPipeline::new(Plan::interactive(deps), Arc::clone(&journal)).reporting_to(Arc::clone(&service));
    let parts = ThreadParts {
        allocator: Arc::new(RemoteAllocator::new(shared.client.clone())),
        service,
        pipeline: Arc::new(pipeline),
        journal,
        store,
        clock,
        keys: shared.keys.clone(),
    };
    Ok(SealingThread::new(parts, thread_config(&shared.name, settings)))
}

fn thread_config(worker: &str, settings: &SealingSettings) -> ThreadConfig {
    ThreadConfig {
        worker: worker.to_owned(),
        miners: settings.allowed_miners.clone(),
        proof_types: settings.allowed_sizes.iter().copied().map(SealProofType::of).collect(),
        seal_interval: settings.seal_interval,
        idle_interval: settings.recover_interval,
        poll_interval: settings.rpc_polling_interval,
        call_limit: CALL_LIMIT,
        max_retries: settings.max_retries,
        longest_wait: settings.recover_interval.max(Duration::from_secs(1)),
        ..ThreadConfig::default()
    }
}

/// Runs all threads to their end. One that ends by an error drains the others: its store is inconsistent, theirs are
/// not.
async fn seal(threads: Vec<SealingThread>, shutdown: &Shutdown) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    for thread in threads {
        let cx = Context { cancel: shutdown.stop.clone(), events: Arc::new(LogSink) };
        let drain = shutdown.drain.clone();
        running.spawn(async move { thread.run(&cx, &drain).await });
    }
    let mut first = Ok(());
    while let Some(ended) = running.join_next().await {
        let failure = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Failure::from(error),
            Err(error) => Failure::from(anyhow!(error).context("a sealing thread broke")),
        };
        shutdown.drain.cancel();
        if first.is_ok() {
            first = Err(failure);
        }
    }
    first
}

/// The threads as `damocles-worker list` sees them.
#[derive(Debug)]
struct Board {
    worker: String,
    threads: Vec<SealingSettings>,
    /// None until the manager answered and the parameters are there.
    controls: OnceLock<Vec<ThreadControl>>,
}

impl Board {
    fn new(config: &WorkerConfig) -> Self {
        Self { worker: config.name(), threads: config.threads(), controls: OnceLock::new() }
    }

    fn begin(&self, controls: Vec<ThreadControl>) {
        // It begins once.
        let _ = self.controls.set(controls);
    }

    fn control(&self, index: usize) -> Option<&ThreadControl> {
        self.controls.get().and_then(|controls| controls.get(index))
    }

    fn thread(&self, index: usize) -> Result<&ThreadControl, NoSuchThread> {
        self.control(index).ok_or(NoSuchThread(index))
    }
}

impl WorkerControl for Board {
    fn status(&self) -> WorkerStatus {
        let threads = self.threads.iter().enumerate().map(|(index, settings)| {
            let status = self.control(index).map(ThreadControl::status);
            let last_error = status.as_ref().and_then(|status| status.last_error.clone());
            ThreadStatus {
                index,
                location: settings.location.clone(),
                plan: settings.plan.name().to_owned(),
                state: status.as_ref().map_or(ThreadState::Starting, |status| state_of(status.state)),
                sector: status.as_ref().and_then(|status| status.sector),
                stage: status.and_then(|status| status.stage).map(|stage| stage.to_string()),
                last_error: last_error.map(|e| match e.hint {
                    Some(hint) => format!("{} (hint: {hint})", e.error),
                    None => e.error,
                }),
            }
        });
        WorkerStatus { version: STATUS_VERSION, worker: self.worker.clone(), threads: threads.collect() }
    }

    fn pause(&self, index: usize) -> Result<bool, NoSuchThread> {
        let thread = self.thread(index)?;
        let changed = thread.status().state != damocles_seal::worker::ThreadState::Paused;
        thread.pause();
        Ok(changed)
    }

    fn resume(&self, index: usize) -> Result<bool, NoSuchThread> {
        use damocles_seal::worker::ThreadState as S;
        let thread = self.thread(index)?;
        let changed = matches!(thread.status().state, S::Paused | S::Parked | S::Waiting);
        thread.resume();
        Ok(changed)
    }
}

fn state_of(state: damocles_seal::worker::ThreadState) -> ThreadState {
    use damocles_seal::worker::ThreadState as S;
    match state {
        S::Running => ThreadState::Running,
        S::Waiting => ThreadState::Waiting,
        S::Paused => ThreadState::Paused,
        S::Parked => ThreadState::Parked,
        S::Stopped => ThreadState::Draining,
        _ => ThreadState::Idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn config(rest: &str) -> WorkerConfig {
        let least = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n";
        let text = format!("{least}{rest}\n[[sealing_thread]]\nlocation = \"/mnt/a\"\n");
        WorkerConfig::parse(&Source::of("worker.toml", text)).unwrap()
    }

    #[test]
    fn keys_are_compared_for_the_sizes_of_both_sides() {
        let (small, large) = (SectorSize::KiB2, SectorSize::GiB32);
        let any = config("");
        assert_eq!(sizes_of(&any, &[small, large]), [small, large]);
        assert_eq!(sizes_of(&any, &[]), [small], "an incumbent does not tell");
        let one = config("[sealing]\nallowed_sizes = [\"32GiB\"]");
        assert_eq!(sizes_of(&one, &[small, large]), [large]);
        assert_eq!(sizes_of(&one, &[small]), [large]);
    }

    #[test]
    fn a_worker_that_waits_for_its_manager_says_so() {
        let board = Board::new(&config(""));
        let status = board.status();
        assert_eq!((status.threads.len(), status.threads[0].state), (1, ThreadState::Starting));
        assert_eq!(status.threads[0].location, Path::new("/mnt/a"));
        assert!(board.pause(0).is_err() && board.resume(0).is_err());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (rest, key) in [
            ("[metrics]\nenable = true", "metrics.enable"),
            ("[metrics]\nhttp_listen = \"127.0.0.1:9000\"", "metrics.http_listen"),
            ("[worker]\nping_interval = \"30s\"", "worker.ping_interval"),
            ("[sealing]\nenable_deals = false", "sealing.enable_deals = false"),
            ("[sealing]\ndisable_cc = true", "sealing.disable_cc = true"),
            ("[sealing]\nmax_deals = 3", "sealing.max_deals"),
            ("[sealing]\nmin_deal_space = \"8GiB\"", "sealing.min_deal_space"),
            ("[processors.static_tree_d]\n32GiB = \"/x\"", "processors.static_tree_d"),
        ] {
            let failure = refuse(&config(rest)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.error.to_string().contains(&format!("`{key}`")), "{}", failure.error);
            assert!(failure.hint.is_some());
        }
        refuse(&config("[sealing]\nenable_deals = true\ndisable_cc = false")).unwrap();
        refuse(&config("")).unwrap();
    }
}
