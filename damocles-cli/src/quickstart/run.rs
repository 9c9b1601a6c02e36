//! The course of a quickstart.

use super::{
    daemon::Daemon,
    gather::Gather,
    lab::Lab,
    report::{Report, Seconds},
    watch::Watch,
};
use crate::{
    config::WorkerConfig,
    exit::{Exit, Failure},
    manager::{args::QuickstartArgs, piece, remote},
    output::{Printer, Render, table},
    parameters,
    progress::{Progress, TaskProgress},
    server::UnixClient,
    signals,
    worker::{
        control::{ThreadState, WorkerStatus},
        control_socket,
    },
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{LotusClient, LotusConfig, Senders, rpc::RpcClient, signer::Keystore};
use damocles_core::{
    ActorId, CancellationToken, Context, SealProofType, SectorSize, chain::ChainClient as _, verify::ProofVerifier as _,
};
use damocles_seal::{
    rpc::damocles::ListSectors,
    sector_state::SectorSummary,
    store::{PersistStore, SealingStore},
    verifier::Groth16Verifier,
};
use serde_json::json;
use sqlx::any::AnyPoolOptions;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

const SIZE: SectorSize = SectorSize::KiB2;

/// Seals and proves sectors on a devnet of its own.
///
/// # Errors
///
/// Something could not be started, or a sector is not proven at the end.
pub async fn run(args: &QuickstartArgs, printer: Printer) -> Result<Exit, Failure> {
    let shutdown = signals::install().context("listen for signals")?;
    let interrupted = shutdown.drain.clone();
    tokio::select! {
        done = course(args, printer, &shutdown.drain) => done,
        () = interrupted.cancelled() => Err(anyhow!("interrupted; the daemons were told to end").into()),
    }
}

async fn course(args: &QuickstartArgs, printer: Printer, cancel: &CancellationToken) -> Result<Exit, Failure> {
    let begun = Stopwatch::start();
    let progress = Progress::new(printer.is_quiet());
    let temporary = match &args.keep {
        Some(_) => None,
        None => Some(tempdir()?),
    };
    let dir = args.keep.clone().or_else(|| temporary.as_ref().map(|t| t.path.clone()));
    let lab = Lab::at(&dir.context("a directory was named or made")?)?;

    parameters::ensure(SIZE, &progress, cancel.clone()).await?;
    let parameters = begun.seconds();
    progress.note(format_args!(
        "sealing {} sectors with real proofs: about two minutes each on two cores, then one window PoSt",
        args.sectors
    ));

    let cx = Context { cancel: cancel.clone(), ..Context::detached() };
    let running = Running::start(&lab, args.sectors, &progress, &cx).await?;
    let sealed = seal_and_prove(&lab, &running, args, &progress, parameters, &begun);
    // A daemon that ends by itself ends the run at once, with its last words.
    let outcome = running.watched(sealed).await;
    running.stop().await;
    let report = outcome?;

    let complete = report.is_complete(usize::try_from(args.sectors).unwrap_or(usize::MAX));
    if args.keep.is_some() {
        lab.settle()?;
        let keys = lab.keys()?;
        for line in lab.commands(&keys) {
            printer.note(format_args!("  {line}"));
        }
    }
    printer.data(&report)?;
    if complete {
        return Ok(Exit::Ok);
    }
    Err(anyhow!("not every sector is active and proven").into())
}

async fn seal_and_prove(
    lab: &Lab,
    running: &Running,
    args: &QuickstartArgs,
    progress: &Progress,
    parameters: f64,
    begun: &Stopwatch,
) -> Result<Report, Failure> {
    let wanted = u64::from(args.sectors);
    let rpc = RpcClient::new(running.endpoint()?)?;
    let chain = running.reader(lab).await?;
    let watch = Watch { rpc: &rpc, chain: &*chain, miner: running.miner, wanted };
    let first = chain.head().await?.epoch;

    let sealing = Stopwatch::start();
    let shown = progress.task("sealing", Some(u64::from(args.sectors)));
    tokio::select! {
        active = watch.active(&shown) => active?,
        never = narrate(lab, running.manager_address, &shown) => never?,
    }
    shown.done("all sectors are active on chain");
    let seal = sealing.seconds();

    let shown = progress.task("window PoSt", Some(u64::from(args.sectors)));
    watch.proven(&shown).await?;
    shown.done("done");

    let verifier = Groth16Verifier::new();
    let gather = Gather { rpc: &rpc, chain: &*chain, verifier: &verifier, miner: running.miner };
    let mut sectors = gather.sectors().await?;
    for sector in &mut sectors {
        // On a directory that was kept, only what was proven by this run counts.
        sector.posts.retain(|post| post.epoch >= first);
    }
    let network = chain.network(&chain.head().await?).await?.name;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network,
        proofs: "real".to_owned(),
        verifying_keys: verifier.keys(SealProofType::of(SIZE))?,
        miner: format!("t0{}", running.miner),
        sectors,
        seconds: Seconds { parameters, seal, total: begun.seconds() },
    })
}

/// Says what the sectors are at, until dropped.
///
/// # Errors
///
/// A sector cannot go on by itself: nothing would come of waiting longer.
async fn narrate(lab: &Lab, manager: SocketAddr, shown: &TaskProgress) -> Result<(), Failure> {
    let client = remote::client(manager)?;
    let worker = UnixClient::new(&control_socket(&WorkerConfig::load(lab.worker_file())?)?)?;
    loop {
        // The chain decides when all is done; what manager and worker know is only shown.
        if let Ok(sectors) = client.ask::<ListSectors>(&[]).await {
            let at = |s: &SectorSummary| format!("{} {}", s.sector, s.stage_next.as_deref().unwrap_or("done"));
            shown.note(sectors.iter().map(at).collect::<Vec<_>>().join(", "));
            if let Some((sector, why)) = sectors.iter().find_map(|s| Some((s.sector, s.abort_reason.as_ref()?))) {
                return Err(anyhow!("{sector} was given up: {why}").into());
            }
        }
        if let Ok(status) = worker.call::<WorkerStatus>("Worker.List", json!([])).await
            && let Some(parked) = status.threads.iter().find(|t| t.state == ThreadState::Parked)
        {
            let sector = parked.sector.map_or_else(|| "the worker".to_owned(), |s| s.to_string());
            let why = parked.last_error.as_deref().unwrap_or("it does not say why");
            return Err(anyhow!("{sector} waits for an operator: {why}").into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Render for Report {
    fn text(&self, color: bool) -> String {
        let (header, rows) = self.table();
        table(&header, rows, color)
    }
}

/// The three daemons.
#[derive(Debug)]
struct Running {
    devnet: tokio::sync::Mutex<Daemon>,
    manager: tokio::sync::Mutex<Daemon>,
    worker: tokio::sync::Mutex<Daemon>,
    node: SocketAddr,
    manager_address: SocketAddr,
    miner: ActorId,
}

impl Running {
    async fn start(lab: &Lab, sectors: u32, progress: &Progress, cx: &Context) -> Result<Self, Failure> {
        let keys = lab.keys()?;
        let (devnet, node) = lab.devnet(&keys).await?;
        progress.note(format_args!("devnet: http://{node}/rpc/v1"));
        init_stores(lab)?;
        let miner = lab.miner(node, sectors, cx).await?;
        progress.note(format_args!("miner: t0{miner}"));
        let (manager, address) = lab.manager().await?;
        if sectors > 1 {
            piece::add_sample(&lab.pieces(), &lab.home(), SIZE).await?;
        }
        let worker = lab.worker(address).await?;
        let [devnet, manager, worker] = [devnet, manager, worker].map(tokio::sync::Mutex::new);
        Ok(Self { devnet, manager, worker, node, manager_address: address, miner })
    }

    fn endpoint(&self) -> Result<damocles_chain::rpc::Endpoint, Failure> {
        let url = format!("http://{}/rpc/v1", self.node);
        Ok(url.parse().with_context(|| format!("use endpoint `{url}`"))?)
    }

    /// A client that only reads: its outbox is in memory and stays empty.
    async fn reader(&self, lab: &Lab) -> Result<Arc<LotusClient>, Failure> {
        sqlx::any::install_default_drivers();
        let memory = AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await;
        let memory = memory.context("open a database in memory")?;
        let keystore = Keystore::open(lab.home().keystore())?;
        let config = LotusConfig::new(self.endpoint()?, Senders::all(lab.keys()?.worker));
        Ok(LotusClient::connect(config, Arc::new(keystore), memory).await?)
    }

    async fn watched<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut devnet = self.devnet.lock().await;
        let mut manager = self.manager.lock().await;
        let mut worker = self.worker.lock().await;
        tokio::select! {
            done = work => done,
            error = devnet.ended() => Err(error.into()),
            error = manager.ended() => Err(error.into()),
            error = worker.ended() => Err(error.into()),
        }
    }

    /// Those who ask end before those who answer.
    async fn stop(self) {
        self.worker.into_inner().stop().await;
        self.manager.into_inner().stop().await;
        self.devnet.into_inner().stop().await;
    }
}

fn init_stores(lab: &Lab) -> Result<(), Failure> {
    if !lab.sealing_store().exists() {
        SealingStore::init(&lab.sealing_store())?;
    }
    if !lab.persist_store().exists() {
        PersistStore::init(&lab.persist_store(), Some("persist"))?;
    }
    Ok(())
}

/// A directory that goes with the run.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

fn tempdir() -> Result<Temporary, Failure> {
    let name = format!("damocles-quickstart-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let path = std::env::temp_dir().join(name);
    fs_err::create_dir_all(&path)?;
    Ok(Temporary { path })
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is only a nuisance, and the system's own clean-up finds it.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

/// Elapsed time for people. Nothing is decided by it.
#[derive(Clone, Copy, Debug)]
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "durations in the report, read by people")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn seconds(self) -> f64 {
        let elapsed: Duration = self.0.elapsed();
        (elapsed.as_secs_f64() * 10.0).round() / 10.0
    }
}
