//! `daemon`: the worker.

use super::{
    args::DaemonArgs,
    board::Board,
    hot::{Hot, Work},
    info::Facts,
    jobs::Jobs,
    keys::Compared,
    list::control_socket,
    metrics::{Calls, StageTimes, scrape},
    ping::Pinger,
    rpc::{ControlRpc, Guarded},
    stores::{self, Stores},
};
use crate::{
    children,
    clock::SystemClock,
    config::{Secret, Source, WorkerConfig, check::control_token, worker::SealingSettings},
    exit::{Exit, Failure},
    frame,
    output::Printer,
    parameters,
    progress::Progress,
    server::{CONTROL_PATH, Server, TextSource, UnixServer},
    signals::{self, Shutdown},
    verifier,
};
use anyhow::{Context as _, anyhow};
use damocles_core::{
    CancellationToken, Clock as _, Context, SealProofType, SectorSize, pool::ProcessorPool as _, verify::ProofVerifier,
};
use damocles_seal::{
    Plan, StagedPipeline,
    allocator::RemoteAllocator,
    journal::{Journal, SqliteJournal},
    pool::LocalPool,
    rpc::{RpcClient, RpcOptions, RpcService, WorkerIdentity},
    service::{KeyTable, SealingService},
    stage::{DealPolicy, DealSettings, FirstOf, HttpPieces, LocalPieces, PieceSource, StageDeps},
    store::{DiskLedger, PersistStores, SealingStore, StaticTrees},
    worker::{SealingThread, ThreadConfig, ThreadParts},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// Runs the worker until it is told to stop.
///
/// # Errors
///
/// Its configuration, stores or control socket cannot be used, or a store is proven to be inconsistent.
pub fn daemon(args: DaemonArgs, printer: Printer) -> Result<(), Failure> {
    let (source, config) = super::config::load(&args.file.config, printer)?;
    frame::run_to_end(serve(args, source, config, printer))
}

async fn serve(args: DaemonArgs, source: Source, config: WorkerConfig, printer: Printer) -> Result<(), Failure> {
    let shutdown = signals::install().context("listen for signals")?;
    let hangups = signals::hangups().context("listen for SIGHUP")?;
    let socket = control_socket(&config)?;
    let control = UnixServer::bind(&socket).await?;
    let stages = Arc::new(StageTimes::default());
    let calls = Arc::new(Calls::new(Arc::new(SystemClock)));
    let facts = Facts::new(&config, SystemClock.now(), calls);
    let jobs = Arc::new(Jobs::new(Arc::clone(&stages)));
    let clock = Arc::new(SystemClock);
    let hot = Hot::new(source, config.clone(), clock.clone());
    let board = Arc::new(Board::new(&config, &shutdown, jobs, facts, hot));
    let control = control.route_rpc(CONTROL_PATH, Arc::new(ControlRpc::new(board.clone(), clock)));
    let claims = claims_socket(&config, &board).await?;
    let mut ports = Vec::new();
    ports.extend(control_port(&config, &board, printer).await?);
    ports.extend(metrics_port(&config, &board, &stages, printer).await?);
    let pinger = Pinger::new(client(&config, &board.facts.calls)?, &board, &config, &socket);
    // Its own token: at the second signal it answers until the threads have stopped.
    let served = CancellationToken::new();
    let working = async {
        let working = work(&args, &config, &socket, &board, &shutdown, printer);
        // What is asked before there is anything to change is done then.
        let worked = tokio::select! {
            worked = working => worked,
            never = pinger.run() => match never {},
            never = board.hot.follow(hangups) => match never {},
        };
        served.cancel();
        worked
    };
    let serving = async {
        let ports = ports.into_iter().map(|port| until(port.serve(served.clone()), &shutdown));
        let sockets = [Some(control), claims].into_iter().flatten();
        let sockets = sockets.map(|socket| until(socket.serve(served.clone()), &shutdown));
        let (sockets, ports) =
            tokio::join!(futures::future::try_join_all(sockets), futures::future::try_join_all(ports));
        sockets.and(ports).map(drop)
    };
    let (worked, served) = tokio::join!(working, serving);
    worked?;
    if shutdown.stop.is_cancelled() {
        return Err(Failure::new(Exit::Retryable, anyhow!("stopped before running work had ended")));
    }
    Ok(served?)
}

/// A server until its end. A worker that nobody reaches is to end too.
async fn until<T>(server: impl Future<Output = T>, shutdown: &Shutdown) -> T {
    let served = server.await;
    shutdown.drain.cancel();
    served
}

/// Where the worker is asked for a GPU by programs of other users, if it shares a directory of claims with them: they may
/// not connect to its control socket.
fn claims_path(config: &WorkerConfig) -> Option<PathBuf> {
    let dir = config.processors.isolation.claims_dir.as_ref()?;
    Some(dir.join(format!("yield-{}.sock", config.name())))
}

async fn claims_socket(config: &WorkerConfig, board: &Arc<Board>) -> Result<Option<UnixServer>, Failure> {
    let Some(path) = claims_path(config) else { return Ok(None) };
    let socket = UnixServer::bind_shared(&path).await.context("claim hardware")?;
    Ok(Some(socket.route_rpc(CONTROL_PATH, Arc::new(ControlRpc::of_claims(board.clone())))))
}

/// The port on which the worker takes orders from whoever has the token.
async fn control_port(config: &WorkerConfig, board: &Arc<Board>, printer: Printer) -> Result<Option<Server>, Failure> {
    let (Some(address), Some(file)) = (config.worker.control_listen, &config.worker.control_token_file) else {
        return Ok(None);
    };
    let token = control_token(file)?;
    let mut server = Server::bind_anywhere(address).await?;
    printer.note(format_args!("orders are taken at http://{} from whoever has the token", server.address()));
    // Tools of the incumbent use any of these.
    for path in ["/", CONTROL_PATH] {
        let rpc = ControlRpc::new(board.clone(), Arc::new(SystemClock));
        server = server.route_rpc(path, Arc::new(Guarded::new(rpc, &token)));
    }
    Ok(Some(server))
}

/// Where metrics are served if the file does not say where.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 17_891);

/// The port from which Prometheus reads.
async fn metrics_port(
    config: &WorkerConfig,
    board: &Arc<Board>,
    stages: &Arc<StageTimes>,
    printer: Printer,
) -> Result<Option<Server>, Failure> {
    if !config.metrics.enable {
        return Ok(None);
    }
    let server = Server::bind_anywhere(config.metrics.http_listen.unwrap_or(METRICS)).await?;
    printer.note(format_args!("metrics are served at http://{}/metrics", server.address()));
    let (board, stages) = (Arc::clone(board), Arc::clone(stages));
    let text: TextSource = Arc::new(move || {
        let (board, stages) = (Arc::clone(&board), Arc::clone(&stages));
        Box::pin(async move { scrape(&board, &stages, SystemClock.now()).await })
    });
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(Some(server.route_text("/metrics", content, text)))
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
    let client = client(config, &board.facts.calls)?;
    // Before the manager is waited for: a slot that cannot be had is told at once.
    let program = format!("worker `{}`", config.name());
    let asked_at = claims_path(config).unwrap_or_else(|| socket.to_owned());
    let pool = children::pool(&config.slots(), &config.processors, &program, Some(asked_at))?;
    let Some((keys, compared)) = own_keys(&client, config, shutdown, printer).await? else { return Ok(()) };
    let ledger = stores::ledger(config);
    let shared = Shared {
        name: config.name(),
        client,
        pool: pool.clone(),
        persist: stores::persist(config, &ledger)?,
        ledger,
        pieces: pieces(config)?,
        keys,
        static_trees: StaticTrees::new(config.processors.static_tree_d.clone()),
        call_limit: config.sector_manager.rpc_client.call_limit(),
    };
    let mut threads = Vec::new();
    let mut sealing = Vec::new();
    for settings in config.threads() {
        let store = Arc::new(SealingStore::open(&settings.location)?.accounted_in(&shared.ledger));
        sealing.push(Arc::clone(&store));
        threads.push(thread(&shared, &settings, store).await?);
    }
    // They are opened once.
    let _ = board.facts.stores.set(Stores::new(shared.persist.clone(), sealing));
    let controls: Vec<_> = threads.iter().map(SealingThread::control).collect();
    board.hot.begin(Work { worker: shared.name.clone(), controls, pool: Arc::clone(&pool), compared });
    printer.note(format_args!("worker `{}`: control socket `{}`", shared.name, socket.display()));
    args.supervision.ready(None, shutdown)?;
    let cx = Context { cancel: shutdown.stop.clone(), events: Arc::clone(&board.jobs) as _ };
    let ended = tokio::select! {
        ended = seal(threads, &board.jobs, shutdown) => ended,
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
    pool: Arc<LocalPool>,
    persist: PersistStores,
    ledger: DiskLedger,
    pieces: Arc<dyn PieceSource>,
    keys: KeyTable,
    static_trees: StaticTrees,
    call_limit: Duration,
}

fn client(config: &WorkerConfig, calls: &Arc<Calls>) -> Result<RpcClient, Failure> {
    let mut options = RpcOptions::new(config.sector_manager.rpc_client.addr.url_or("/rpc/v0"));
    options.token = config.token()?.map(|token| token.reveal().to_owned());
    options.timeout = config.sector_manager.rpc_client.call_limit();
    options.observer = Some(Arc::clone(calls) as _);
    Ok(RpcClient::http(&options)?)
}

/// The digests of the verifying keys that this worker's proofs are made for, by the proof types whose keys the manager
/// tells. A manager that does not answer is waited for. None at all when the worker is told to end meanwhile.
async fn own_keys(
    client: &RpcClient,
    config: &WorkerConfig,
    shutdown: &Shutdown,
    printer: Printer,
) -> Result<Option<(KeyTable, Compared)>, Failure> {
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
        return Ok(Some((KeyTable::new(), Compared::Nothing)));
    }
    let told: Vec<SectorSize> = hello.keys.keys().map(|proof_type| proof_type.sector_size()).collect();
    let (verifier, mut keys) = (damocles_seal::verifier::Groth16Verifier::new(), KeyTable::new());
    let known = sizes_of(config, &told);
    for size in known.iter().copied() {
        parameters::ensure(size, &Progress::new(printer.is_quiet()), shutdown.drain.clone()).await?;
        if told.contains(&size) {
            let proof_type = SealProofType::of(size);
            keys.insert(proof_type, verifier.keys(proof_type)?);
        }
    }
    Ok(Some((keys, Compared::Sizes { told, known })))
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

fn pieces(config: &WorkerConfig) -> Result<Arc<dyn PieceSource>, Failure> {
    let url = config.sector_manager.rpc_client.addr.url_or("/");
    let mut base = reqwest::Url::parse(&url).with_context(|| format!("use `{url}`"))?;
    base.set_path("/piecestore");
    let token = config.token()?.map(|token: Secret| token.reveal().to_owned());
    let local: Arc<dyn PieceSource> = Arc::new(LocalPieces::new(config.worker.local_pieces_dirs.clone()));
    let remote = Arc::new(HttpPieces::new(base, token, config.sector_manager.rpc_client.call_limit())?);
    Ok(Arc::new(FirstOf(vec![local, remote])))
}

async fn thread(
    shared: &Shared,
    settings: &SealingSettings,
    store: Arc<SealingStore>,
) -> Result<SealingThread, Failure> {
    let clock = Arc::new(SystemClock);
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(store.journal_path(), clock.clone()).await?);
    let identity = WorkerIdentity { instance: shared.name.clone(), location: settings.location.display().to_string() };
    let service: Arc<dyn SealingService> = Arc::new(RpcService::new(shared.client.clone(), identity));
    let deals = DealSettings::default();
    let deps = StageDeps {
        service: Arc::clone(&service),
        pool: Arc::clone(&shared.pool) as _,
        store: Arc::clone(&store),
        persist: shared.persist.clone(),
        pieces: Arc::clone(&shared.pieces),
        deals: deals.clone(),
        static_trees: shared.static_trees.clone(),
        call_limit: shared.call_limit,
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
        backlog: Some(Arc::clone(&shared.pool) as _),
        deals,
    };
    let thread = SealingThread::new(parts, thread_config(&shared.name, shared.call_limit, settings));
    if let Err(error) = thread.keep_room().await {
        // The thread meets the same error, and says what to do about it.
        tracing::warn!(error = %error.chain(), "the space of a sector is not counted");
    }
    Ok(thread)
}

pub(super) fn thread_config(worker: &str, call_limit: Duration, settings: &SealingSettings) -> ThreadConfig {
    ThreadConfig {
        worker: worker.to_owned(),
        miners: settings.allowed_miners.clone(),
        proof_types: settings.allowed_sizes.iter().copied().map(SealProofType::of).collect(),
        deals: deal_policy(settings),
        seal_interval: settings.seal_interval,
        idle_interval: settings.recover_interval,
        poll_interval: settings.rpc_polling_interval,
        call_limit,
        max_retries: settings.max_retries,
        longest_wait: settings.recover_interval.max(Duration::from_secs(1)),
        auto_resume: settings.auto_resume,
        ..ThreadConfig::default()
    }
}

fn deal_policy(settings: &SealingSettings) -> DealPolicy {
    DealPolicy {
        enabled: settings.enable_deals,
        waits: settings.disable_cc,
        most: settings.max_deals.map(|most| u64::try_from(most).unwrap_or(u64::MAX)),
        least: settings.min_deal_space.map_or(0, |least| least.0),
        ask_again: settings.recover_interval,
    }
}

/// Runs all threads to their end. One that ends by an error drains the others: its store is inconsistent, theirs are
/// not.
async fn seal(threads: Vec<SealingThread>, jobs: &Arc<Jobs>, shutdown: &Shutdown) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    for thread in threads {
        let cx = Context { cancel: shutdown.stop.clone(), events: Arc::clone(jobs) as _ };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Source,
        worker::control::{Order, ThreadState, WorkerControl as _},
    };

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

    #[tokio::test]
    async fn a_worker_that_waits_for_its_manager_says_so() {
        let (config, shutdown) = (config(""), Shutdown::new());
        let jobs = Arc::new(Jobs::new(Arc::default()));
        let calls = Arc::new(Calls::new(Arc::new(SystemClock)));
        let facts = Facts::new(&config, SystemClock.now(), calls);
        let hot = Hot::new(Source::of("worker.toml", ""), config.clone(), Arc::new(SystemClock));
        let board = Board::new(&config, &shutdown, jobs, facts, hot);
        let status = board.status();
        assert_eq!((status.threads.len(), status.threads[0].state), (1, ThreadState::Starting));
        assert_eq!(status.threads[0].location, Path::new("/mnt/a"));
        assert!(board.order(0, Order::Pause { now: true, by: None }).await.is_err());
        assert_eq!(board.reload().await.unwrap_err().exit, Exit::Retryable);
        let told = board.explain();
        assert!(!told.threads[0].works && told.threads[0].reasons[0].contains("http://m:1"), "{told:?}");
        assert_eq!(board.info().await.manager.answers, None);
        assert!(scrape(&board, &StageTimes::default(), SystemClock.now()).await.contains("state=\"starting\"} 1"));
        // There is no sector to finish yet.
        assert!(board.drain(true).changed && shutdown.drain.is_cancelled() && !board.drain(false).changed);
    }

    #[test]
    fn a_port_for_orders_needs_a_token() {
        let text = "[worker]\ncontrol_listen = \"127.0.0.1:0\"\n[sector_manager]\nrpc_client.addr = \"http://m:1\"\n";
        let error = WorkerConfig::parse(&Source::of("worker.toml", text.to_owned())).unwrap_err();
        assert!(error.to_string().contains("control_token_file"), "{error}");
    }

    #[test]
    fn parked_sectors_go_on_by_themselves_unless_that_is_switched_off() {
        let after = |rest: &str| thread_config("w", Duration::ZERO, &config(rest).threads()[0]).auto_resume;
        assert_eq!(after(""), Some(Duration::from_secs(3600)));
        assert_eq!(after("[sealing]\nauto_resume = \"5m\""), Some(Duration::from_secs(300)));
        assert_eq!(after("[sealing]\nauto_resume = \"0s\""), None);
    }

    #[test]
    fn what_a_thread_takes_is_its_own_word_before_the_common_one() {
        let policy = |rest: &str| deal_policy(&config(rest).threads()[0]);
        assert_eq!(policy(""), DealPolicy::default());
        let common =
            "[sealing]\nenable_deals = false\nmax_deals = 3\nmin_deal_space = \"8GiB\"\nrecover_interval = \"5s\"\n";
        let ask_again = Duration::from_secs(5);
        let expected = DealPolicy { enabled: false, waits: false, most: Some(3), least: 8 << 30, ask_again };
        assert_eq!(policy(common), expected);
        let least = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\nrpc_client.timeout = \"7s\"\n";
        let own = "[[sealing_thread]]\nlocation = \"/mnt/a\"\nsealing.enable_deals = true\nsealing.disable_cc = true\nsealing.max_deals = 1\n";
        let text = format!("{least}{common}{own}[[sealing_thread]]\nlocation = \"/mnt/b\"\n");
        let config = WorkerConfig::parse(&Source::of("worker.toml", text)).unwrap();
        assert_eq!(config.sector_manager.rpc_client.call_limit(), Duration::from_secs(7));
        let threads = config.threads();
        let first = DealPolicy { enabled: true, waits: true, most: Some(1), ..expected };
        assert_eq!([deal_policy(&threads[0]), deal_policy(&threads[1])], [first, expected]);
    }
}
