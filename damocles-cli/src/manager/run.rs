//! `daemon run`: the manager.

use super::{
    args::RunArgs,
    client::ManagerChain,
    outbox::{self, Here, OperatorRpc, Standing},
    rpc::ManagerRpc,
    signer::{self, Keys},
    stores::{Replicas, Stores},
    wallet::{offer, watch::Place},
};
use crate::{
    children,
    clock::SystemClock,
    config::{ManagerConfig, manager::Home},
    database::Database,
    exit::{Exit, Failure},
    frame,
    logging::LogSink,
    output::Printer,
    parameters,
    progress::Progress,
    server::{CONTROL_PATH, Server, ServerError, UnixServer},
    signals::{self, Shutdown},
    verifier,
};
use anyhow::{Context as _, anyhow};
use damocles_chain::venus::gateway::WalletLink;
use damocles_core::{
    CancellationToken, Context, SealProofType,
    chain::{ChainClient, ChainError, ChainErrorKind, MinerInfo},
    pool::ProcessorPool,
    verify::ProofVerifier,
};
use damocles_post::{Deps, Options, PoStLoop, WindowScheduler};
use damocles_seal::{
    allocator::{MinerPolicy, SqlAllocator},
    sector_state::SealDb,
    service::{ManagerConfig as ServiceConfig, ManagerParts, ManagerService, PieceDirs},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// Runs the manager until it is told to stop.
///
/// # Errors
///
/// Its configuration, database, keys, stores, node or address cannot be used.
pub(super) fn run(args: RunArgs, home: &Home, printer: Printer) -> Result<(), Failure> {
    let config = ManagerConfig::load(home.config())?;
    // A password is asked for before anything else waits.
    let keys = Keys::open(&config, home)?;
    frame::run_to_end(serve(args, config, keys, home, printer))
}

async fn serve(args: RunArgs, config: ManagerConfig, keys: Keys, home: &Home, printer: Printer) -> Result<(), Failure> {
    let shutdown = signals::install().context("listen for signals")?;
    let Some(database) = shutdown.drain.run_until_cancelled(own(home, printer)).await.transpose()? else {
        return Ok(());
    };
    let rest = shutdown.stop.child_token();
    let commands = OperatorRpc::new();
    let operators = operators(home, &commands, &rest).await;
    let server = Server::bind(config.listen.address).await?;
    let Some(chain) =
        shutdown.drain.run_until_cancelled(reach_node(&config, home, &keys, &database)).await.transpose()?
    else {
        return Ok(());
    };
    let client = chain.client();
    let Some((network, miners)) = shutdown.drain.run_until_cancelled(ask_node(&client, &config)).await else {
        return Ok(());
    };
    super::chain::admit(&config, &keys, &network)?;
    let verifier = verifier::for_network(&network);
    if !verifier::is_fake(&network) {
        let progress = Progress::new(printer.is_quiet());
        for size in miners.iter().map(|m| m.sector_size).collect::<BTreeSet<_>>() {
            parameters::ensure(size, &progress, shutdown.drain.clone()).await?;
        }
    }
    let stores = Arc::new(Stores::open(&config)?);
    let service = service(&config, home, &database, &client, &miners, &stores, &verifier).await?;
    let posts = posts(&config, &database, &client, &service, &stores, &verifier).await?;

    let rpc = Arc::new(ManagerRpc::of_workers(Arc::clone(&service)));
    let address = server.address();
    let server = server.route_rpc("/rpc/v0", rpc.clone()).route_files("/piecestore", rpc.pieces());
    let signing = served_keys(&config, &keys, home).await?;
    let senders = super::chain::senders(&config, &keys).await?;
    let standing = Standing { network: Some(network.clone()), senders, fees: config.fees.clone() };
    let sectors = Arc::new(ManagerRpc::of_operators(Arc::clone(&service)));
    commands.open(Here::of_daemon(chain.clone(), standing, &database).await?, sectors);
    printer.note(format_args!("manager of {} on network `{network}`: http://{address}/rpc/v0", names(&miners)));
    args.supervision.ready(Some(address), &shutdown)?;
    work(Messages { chain, signing }, &service, posts, Servers { workers: server, operators, rest }, &shutdown).await
}

/// How long commands of this home may take to give the outbox back.
const OUTBOX_TAKEN: Duration = Duration::from_secs(30 * 60);

/// The database, which a command may have that waits for its message.
async fn own(home: &Home, printer: Printer) -> Result<Database, Failure> {
    let file = home.database();
    if let Some(database) = Database::open_if_free(&file).await? {
        return Ok(database);
    }
    if outbox::is_served(home).await {
        return Database::open(&file).await;
    }
    printer.note("a command of this home sends a message; the daemon starts when that has landed");
    Database::open_within(&file, OUTBOX_TAKEN).await?.ok_or_else(|| {
        let error = anyhow!("database `{}` is in use for {} minutes", file.display(), OUTBOX_TAKEN.as_secs() / 60);
        Failure::new(Exit::Retryable, error).hint("end the command that waits; `message wait` takes it up again")
    })
}

/// Where commands of this home use the outbox, from the start on: until it is there they are told so. A home whose path no
/// socket can have is no reason not to prove.
async fn operators(home: &Home, rpc: &OperatorRpc, cancel: &CancellationToken) -> Option<Serving> {
    match UnixServer::bind(&outbox::socket(home)).await {
        Ok(server) => {
            let server = server.route_rpc(CONTROL_PATH, Arc::new(rpc.clone()));
            Some(tokio::spawn(server.serve(cancel.clone())))
        }
        Err(error) => {
            tracing::warn!(%error, "commands that send messages have to wait until this daemon ends");
            None
        }
    }
}

/// The keys that the cluster may sign with, if it may with any.
async fn served_keys(config: &ManagerConfig, keys: &Keys, home: &Home) -> Result<Option<Served>, Failure> {
    let (Some(section), Some(signer)) = (&config.venus, keys.signer()) else { return Ok(None) };
    let senders = super::chain::senders(config, keys).await?;
    let link = super::chain::cluster(config, section, home, senders)?.gateway_link()?;
    Ok(link.map(|link| Served {
        link: link.wallet(Arc::clone(signer), section.accounts.clone()),
        place: signer::place(config, home),
    }))
}

/// Keys that a cluster signs with.
struct Served {
    link: WalletLink,
    /// Where they lie, if that is on this machine.
    place: Option<Place>,
}

impl Served {
    async fn run(&self, cancel: CancellationToken) {
        let news = async {
            if let Some(place) = &self.place {
                offer::tell_of_changes(&self.link, place).await;
            }
        };
        tokio::join!(self.link.run(cancel.clone()), cancel.run_until_cancelled(news));
    }
}

/// What has messages move.
struct Messages {
    chain: ManagerChain,
    signing: Option<Served>,
}

impl Messages {
    async fn run(&self, cancel: CancellationToken) {
        let signing = async {
            if let Some(served) = &self.signing {
                served.run(cancel.clone()).await;
            }
        };
        tokio::join!(self.chain.run(cancel.clone()), signing);
    }
}

type Serving = JoinHandle<Result<(), ServerError>>;

/// Who is served, until what.
struct Servers {
    workers: Server,
    operators: Option<Serving>,
    rest: CancellationToken,
}

/// How long until a node that does not answer is asked again.
const NODE_AWAY: Duration = Duration::from_secs(5);

/// The client. A sender that is named by its ID needs the node; one that does not answer is waited for.
async fn reach_node(
    config: &ManagerConfig,
    home: &Home,
    keys: &Keys,
    database: &Database,
) -> Result<ManagerChain, Failure> {
    loop {
        match super::chain::connect(config, home, keys, database.pool.clone(), Arc::new(LogSink)).await {
            Err(failure) if failure.exit == Exit::Retryable => {
                tracing::warn!(error = %format_args!("{:#}", failure.error), "the chain client cannot start yet");
                tokio::time::sleep(NODE_AWAY).await;
            }
            other => return other,
        }
    }
}

/// The network's name and the miners. A node that does not answer is waited for: it may just be starting.
async fn ask_node(client: &Arc<dyn ChainClient>, config: &ManagerConfig) -> (String, Vec<MinerInfo>) {
    use futures::StreamExt as _;
    let mut heads = client.head_changes();
    loop {
        heads.next().await;
        match describe(client.as_ref(), config).await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(error = %error.chain(), "the node does not say which network and miners"),
        }
    }
}

async fn describe(client: &dyn ChainClient, config: &ManagerConfig) -> Result<(String, Vec<MinerInfo>), ChainError> {
    let head = client.head().await?;
    let network = client.network(&head).await?.name;
    let (mut miners, mut missing) = (Vec::new(), None);
    for section in &config.miners {
        match client.miner(&head, section.actor).await {
            Ok(info) => miners.push(info),
            Err(error) if is_no_miner(&error) => {
                tracing::error!(miner = %section.actor, error = %error.chain(), "the chain has no such miner; the others go on");
                missing = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    // A node that knows none of them is not there yet.
    if let (true, Some(error)) = (miners.is_empty(), missing) {
        return Err(error);
    }
    Ok((network, miners))
}

/// Whether the node answered, and said that there is no such miner.
fn is_no_miner(error: &ChainError) -> bool {
    matches!(error.kind(), ChainErrorKind::NotFound | ChainErrorKind::Rejected)
}

async fn service(
    config: &ManagerConfig,
    home: &Home,
    database: &Database,
    client: &Arc<dyn ChainClient>,
    miners: &[MinerInfo],
    stores: &Arc<Stores>,
    verifier: &Arc<dyn ProofVerifier>,
) -> Result<Arc<ManagerService>, Failure> {
    let chain = Arc::clone(client);
    let clock = Arc::new(SystemClock);
    let db = SealDb::open(database.pool.clone()).await.context("open the tables of sectors")?;
    let policies = miners.iter().filter_map(|info| {
        let section = config.miners.iter().find(|section| section.actor == info.miner)?;
        let mut policy = MinerPolicy::new(section.actor, SealProofType::of(info.sector_size));
        policy.min_number = policy.min_number.max(section.min_number);
        policy.enabled = section.enabled;
        policy.max_sectors = section.max_sectors;
        Some(policy)
    });
    let allocator = SqlAllocator::new(db.clone(), Arc::clone(&chain), policies.collect(), clock.clone());
    let parts = ManagerParts {
        db,
        chain,
        allocator: Arc::new(allocator),
        verifier: Arc::clone(verifier),
        stores: stores.clone(),
        clock,
    };
    let service = ServiceConfig {
        confidence: i64::from(config.commitment.confidence),
        seed_confidence: i64::from(config.commitment.seed_confidence),
        piece_dirs: PieceDirs::new(config.pieces.dirs.iter().cloned()).of_home(home.path()),
        ..ServiceConfig::default()
    };
    // The configuration has one lifetime for all miners.
    let lifetime_days = config.miners.first().map_or(service.lifetime_days, |miner| miner.lifetime_days);
    Ok(Arc::new(ManagerService::new(parts, ServiceConfig { lifetime_days, ..service })))
}

/// What keeps sectors proven, unless the configuration switches it off.
struct Posts {
    run: PoStLoop,
    pool: Arc<dyn ProcessorPool>,
}

async fn posts(
    config: &ManagerConfig,
    database: &Database,
    client: &Arc<dyn ChainClient>,
    service: &Arc<ManagerService>,
    stores: &Arc<Stores>,
    verifier: &Arc<dyn ProofVerifier>,
) -> Result<Option<Posts>, Failure> {
    if !config.proving.enabled || config.miners.is_empty() {
        return Ok(None);
    }
    let pool: Arc<dyn ProcessorPool> = children::pool(&config.slots(), &config.processors, "manager", None)?;
    let deps = Deps {
        chain: Arc::clone(client),
        pool: Arc::clone(&pool),
        verifier: Arc::clone(verifier),
        replicas: Arc::new(Replicas { service: Arc::clone(service), stores: Arc::clone(stores) }),
        records: database.pool.clone(),
    };
    let mut options = Options::default();
    options.confidence = i64::from(config.proving.confidence);
    options.challenge_confidence = i64::from(config.proving.challenge_confidence);
    options.submit_confidence = i64::from(config.proving.submit_confidence);
    options.partitions_per_proof = config.proving.partitions_per_proof;
    let scheduler = WindowScheduler::open(deps, options).await.context("open the tables of proofs")?;
    // One that the chain did not have at the start is proven as soon as it has it.
    let run = PoStLoop::new(Arc::new(scheduler), Arc::clone(client), config.miners.iter().map(|m| m.actor));
    Ok(Some(Posts { run, pool }))
}

/// How long the parts may take to wind down once they are stopped.
const WIND_DOWN: Duration = Duration::from_secs(10);

/// Runs all parts until the first signal; then proofs under way end, with the outbox, the service and the server that
/// they need, and after them the rest. At the second signal all stop at once.
async fn work(
    messages: Messages,
    service: &ManagerService,
    posts: Option<Posts>,
    servers: Servers,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let cx = Context { cancel: shutdown.stop.clone(), events: Arc::new(LogSink) };
    let Servers { workers, operators, rest } = servers;
    let proving = async {
        if let Some(posts) = &posts {
            posts.run.run(&cx, &shutdown.drain).await;
            // Children that still prove are stopped by the pool's end.
            let _ = shutdown.stop.run_until_cancelled(posts.pool.drain()).await;
        } else {
            shutdown.drain.cancelled().await;
        }
        rest.cancel();
    };
    let serving = async {
        let operators = async {
            match operators {
                Some(serving) => serving.await,
                None => Ok(Ok(())),
            }
        };
        let (served, by_operators) = tokio::join!(workers.serve(rest.clone()), operators);
        match by_operators {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "commands are no longer served"),
            Err(error) => tracing::error!(%error, "serving commands broke"),
        }
        // A manager that nobody reaches is to end.
        shutdown.drain.cancel();
        served
    };
    let parts = async { tokio::join!(messages.run(rest.clone()), service.run(rest.clone()), proving, serving).3 };
    let stopped = async {
        shutdown.stop.cancelled().await;
        tokio::time::sleep(WIND_DOWN).await;
    };
    let served = tokio::select! {
        served = parts => Some(served),
        () = stopped => None,
    };
    match served {
        Some(served) if !shutdown.stop.is_cancelled() => Ok(served?),
        _ => Err(Failure::new(Exit::Retryable, anyhow!("stopped before running work had ended"))),
    }
}

fn names(miners: &[MinerInfo]) -> String {
    let names: Vec<_> = miners.iter().map(|m| format!("t0{}", m.miner)).collect();
    if names.is_empty() { "no miner".to_owned() } else { names.join(", ") }
}
