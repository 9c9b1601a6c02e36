//! A devnet, a manager and a worker as real processes with the fake prover, and the ways in which they meet trouble.

use crate::{
    audit::{Hits, Journal},
    fake_prover::{DIARY, DOOM, MOOD, Snarks},
    program::{self, Program},
    proxy::Proxy,
};
use anyhow::{Context as _, bail, ensure};
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::{Endpoint, RpcClient},
    signer::Keystore,
};
use damocles_cli::{
    config::{
        ManagerConfig,
        manager::{Home, StoreSection},
    },
    manager::{
        init::{Initialised, write_config},
        miner::Created,
        piece::Queued,
    },
    progress::Progress,
    quickstart::{Gather, SectorReport, Watch},
    worker::control::WorkerStatus,
};
use damocles_core::{ActorId, SectorId};
use damocles_seal::sector_state::{SectorDetail, SectorSummary};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::any::AnyPoolOptions;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// What each account gets at genesis.
const FUNDS: &str = "1000000";
/// How often something is looked at that cannot tell by itself that it changed.
const GLANCE: Duration = Duration::from_millis(3);
/// Children of the worker and of the manager.
const SEALING: [&str; 7] = ["add_pieces", "tree_d", "pc1", "pc2", "c1", "c2", "transfer"];
const PROVING: [&str; 2] = ["wdpost_read", "window_post"];

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Bins {
    /// `damocles-manager`.
    pub manager: PathBuf,
    /// `damocles-worker`.
    pub worker: PathBuf,
    /// The fake prover.
    pub prover: PathBuf,
}

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many sectors there will be; the first holds data if there is more than one.
    pub sectors: u64,
    /// How SNARKs are made; with real ones the network must be one that takes them.
    pub snarks: Snarks,
    /// The network's name.
    pub network: String,
    /// The length of an epoch.
    pub epoch_ms: u64,
    /// How often the worker repeats a step before it parks a sector.
    pub max_retries: u32,
    /// Other programs for some kinds of task.
    pub provers: BTreeMap<&'static str, PathBuf>,
    /// How long tasks of some kinds may take in the worker.
    pub timeouts: BTreeMap<&'static str, &'static str>,
    /// Other places for the stores `sealing` and `persist`.
    pub stores: BTreeMap<&'static str, PathBuf>,
}

impl Options {
    /// One sector with real proofs, on a network that takes no others.
    pub fn real() -> Self {
        Self { sectors: 1, snarks: Snarks::Real, network: "devnet-lab".to_owned(), epoch_ms: 250, ..Self::default() }
    }

    /// The longest that a life may take on a machine that is busy with other things too.
    fn patience(&self) -> Duration {
        match self.snarks {
            Snarks::Fake => Duration::from_secs(240),
            // A proof takes minutes, and may have to be made again after each kill.
            Snarks::Real => Duration::from_secs(2400),
        }
    }

    /// Where a store is in a lab in this directory.
    fn store(&self, root: &Path, name: &str) -> PathBuf {
        self.stores.get(name).cloned().unwrap_or_else(|| root.join(name))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sectors: 2,
            snarks: Snarks::Fake,
            network: "devnet-fake-lab".to_owned(),
            epoch_ms: 20,
            max_retries: 5,
            timeouts: BTreeMap::new(),
            provers: BTreeMap::new(),
            stores: BTreeMap::new(),
        }
    }
}

/// Who has children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The worker.
    Worker,
    /// The manager.
    Manager,
}

impl Parent {
    const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// The three daemons, and proxies between them.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    bins: Bins,
    options: Options,
    /// The miner.
    pub miner: ActorId,
    /// The chain.
    pub devnet: Program,
    /// The manager.
    pub manager: Program,
    /// The worker.
    pub worker: Program,
    /// Between manager and chain.
    pub to_devnet: Proxy,
    /// Between worker and manager.
    pub to_manager: Proxy,
    /// Between the observer and the chain. Nothing is ever trapped here.
    observer: Proxy,
    rpc: RpcClient,
    chain: Arc<LotusClient>,
    /// Which stages were under way at each kill.
    pub hits: Hits,
}

impl Lab {
    /// A lab whose worker is not started yet.
    ///
    /// # Errors
    ///
    /// Something did not start.
    pub async fn prepare(bins: Bins, options: Options) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().to_owned();
        for sub in ["logs", "pieces"] {
            std::fs::create_dir(root.join(sub))?;
        }
        let home = path_text(&root.join("manager"))?;
        let keys: Initialised =
            program::run_json(&bins.manager, &["--home", &home, "daemon", "init", "--devnet", "--json"]).await?;
        for (command, store) in [("sealing-init", "sealing"), ("file-init", "persist")] {
            let output =
                program::run(&bins.worker, &["store", command, "-l", &path_text(&options.store(&root, store))?])
                    .await?;
            ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }

        let mut devnet = Program::new("devnet", &bins.manager, devnet_args(&root, &options, &keys), &root.join("logs"));
        let node = devnet.start().await?.context("the devnet listens")?;
        let (to_devnet, observer) = (Proxy::start(node).await?, Proxy::start(node).await?);
        // The manager has no address before it runs: nobody asks it until then.
        let to_manager = Proxy::start(node).await?;
        let endpoint: Endpoint = format!("http://{}/rpc/v1", observer.address()).parse()?;
        let rpc = RpcClient::new(endpoint.clone())?;
        let chain = reader(endpoint, &home_of(&root)?, &keys).await?;

        let mut lab = Self {
            manager: Program::new(
                "manager",
                &bins.manager,
                words(&["--home", &home, "daemon", "run", "--child"]),
                &root.join("logs"),
            ),
            worker: Program::new(
                "worker",
                &bins.worker,
                words(&["daemon", "--child", "-c", &path_text(&root.join("worker.toml"))?]),
                &root.join("logs"),
            ),
            dir,
            bins,
            options,
            miner: ActorId(0),
            devnet,
            to_devnet,
            to_manager,
            observer,
            rpc,
            chain,
            hits: Hits::default(),
        };
        lab.write_manager_file(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let most = lab.options.sectors.to_string();
        let created: Created = lab.manage(&["miner", "create", "--really-do-it", "--max-sectors", &most]).await?;
        lab.miner = created.miner;
        lab.write_manager_file(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        std::fs::write(lab.worker_file(), lab.worker_text()?)?;
        lab.start_manager().await?;
        if lab.options.sectors > 1 {
            let file = lab.path("pieces/sample.txt");
            std::fs::write(&file, b"Damocles keeps what it is given. ".repeat(64).get(..2032).context("long enough")?)?;
            let _: Queued = lab.manage(&["piece", "add", &path_text(&file)?]).await?;
        }
        Ok(lab)
    }

    /// A lab in which everything runs.
    ///
    /// # Errors
    ///
    /// Something did not start.
    pub async fn start(bins: Bins, options: Options) -> anyhow::Result<Self> {
        let mut lab = Self::prepare(bins, options).await?;
        lab.worker.start().await?;
        Ok(lab)
    }

    /// A path in the lab's directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn store(&self, name: &str) -> PathBuf {
        self.options.store(self.dir.path(), name)
    }

    /// The worker's configuration.
    pub fn worker_file(&self) -> PathBuf {
        self.path("worker.toml")
    }

    /// How many sectors the chain holds to be faulty.
    ///
    /// # Errors
    ///
    /// The chain does not answer.
    pub async fn faulty(&self) -> anyhow::Result<u64> {
        let params = json!([format!("t0{}", self.miner), null]);
        let count = self.ask("Filecoin.StateMinerSectorCount", params).await?;
        count.get("Faulty").and_then(Value::as_u64).context("a count")
    }

    /// The programs under test.
    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    /// Its sectors.
    pub fn sectors(&self) -> Vec<SectorId> {
        (1..=self.options.sectors).map(|n| SectorId::new(self.miner, damocles_core::SectorNumber(n))).collect()
    }

    /// The manager's configuration as it is, for a manager at this address.
    fn write_manager_file(&self, address: SocketAddr) -> anyhow::Result<()> {
        let home = home_of(self.dir.path())?;
        let mut config = ManagerConfig::load(home.config())?;
        config.chain.endpoint = format!("http://{}/rpc/v1", self.to_devnet.address()).parse()?;
        config.listen.address = address;
        let persist = StoreSection { name: "persist".to_owned(), path: self.store("persist"), read_only: false };
        config.persist_stores = vec![persist];
        config.pieces.dirs = vec![self.path("pieces")];
        config.commitment.confidence = 3;
        config.proving.confidence = 3;
        config.proving.challenge_confidence = 1;
        config.proving.submit_confidence = 1;
        write_config(&home, &config).map_err(|failure| failure.error)?;
        let mut text = std::fs::read_to_string(home.config())?;
        self.write_processors(&mut text, Parent::Manager, &PROVING)?;
        Ok(std::fs::write(home.config(), text)?)
    }

    fn worker_text(&self) -> anyhow::Result<String> {
        let mut text = format!(
            "[worker]\nname = \"lab\"\nrun_dir = {run}\n\n[sector_manager]\nrpc_client.addr = \"http://{manager}\"\n\n\
             [sealing]\nenable_deals = true\nseal_interval = \"10ms\"\nrecover_interval = \"500ms\"\n\
             max_retries = {retries}\n\n[[sealing_thread]]\nlocation = {sealing}\n\n\
             [[attached]]\nname = \"persist\"\nlocation = {persist}\n",
            run = quoted(&self.path("run"))?,
            manager = self.to_manager.address(),
            retries = self.options.max_retries,
            sealing = quoted(&self.store("sealing"))?,
            persist = quoted(&self.store("persist"))?,
        );
        if !self.options.timeouts.is_empty() {
            writeln!(text, "\n[processors.limitation.timeout]")?;
        }
        for (kind, time) in &self.options.timeouts {
            writeln!(text, "{kind} = \"{time}\"")?;
        }
        self.write_processors(&mut text, Parent::Worker, &SEALING)?;
        Ok(text)
    }

    fn write_processors(&self, text: &mut String, parent: Parent, kinds: &[&str]) -> anyhow::Result<()> {
        for kind in kinds {
            let bin = self.options.provers.get(kind).unwrap_or(&self.bins.prover);
            let args = match self.options.snarks {
                Snarks::Fake => format!("\"{kind}\""),
                Snarks::Real => format!("\"{kind}\", \"real\", {}", quoted(&self.path("proving.lock"))?),
            };
            writeln!(text, "\n[[processors.{kind}]]\nbin = {}\nargs = [{args}]", quoted(bin)?)?;
            writeln!(text, "stable_wait = \"5s\"")?;
            for (name, file) in [(DOOM, self.doom(parent)), (DIARY, self.diary(parent)), (MOOD, self.mood())] {
                writeln!(text, "envs.{name} = {}", quoted(&file)?)?;
            }
        }
        Ok(())
    }

    /// The file that dooms a child.
    pub fn doom(&self, parent: Parent) -> PathBuf {
        self.path(&format!("doom-{}", parent.name()))
    }

    /// The file in which children say what they do.
    pub fn diary(&self, parent: Parent) -> PathBuf {
        self.path(&format!("diary-{}", parent.name()))
    }

    /// The file that says how children feel.
    pub fn mood(&self) -> PathBuf {
        self.path("mood")
    }

    /// What children noted so far.
    pub fn diary_lines(&self, parent: Parent) -> Vec<String> {
        let text = std::fs::read_to_string(self.diary(parent)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Starts the manager, at another port than before.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub async fn start_manager(&mut self) -> anyhow::Result<()> {
        self.write_manager_file(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = self.manager.start().await?.context("the manager listens")?;
        self.to_manager.retarget(address);
        // For the commands that ask it.
        self.write_manager_file(address)
    }

    /// Starts the devnet, at another port than before.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub async fn start_devnet(&mut self) -> anyhow::Result<()> {
        let node = self.devnet.start().await?.context("the devnet listens")?;
        self.to_devnet.retarget(node);
        self.observer.retarget(node);
        Ok(())
    }

    /// Runs a command of the manager that prints JSON.
    ///
    /// # Errors
    ///
    /// It failed.
    pub async fn manage<T: DeserializeOwned>(&self, args: &[&str]) -> anyhow::Result<T> {
        let home = path_text(&self.path("manager"))?;
        let all: Vec<&str> = ["--home", home.as_str(), "--json"].iter().chain(args).copied().collect();
        program::run_json(&self.bins.manager, &all).await
    }

    /// What `damocles-worker list` says.
    ///
    /// # Errors
    ///
    /// The worker does not answer.
    pub async fn list(&self) -> anyhow::Result<WorkerStatus> {
        program::run_json(&self.bins.worker, &["list", "--json", "-c", &path_text(&self.worker_file())?]).await
    }

    /// What `damocles-manager sectors list` says.
    ///
    /// # Errors
    ///
    /// The manager does not answer.
    pub async fn sector_list(&self) -> anyhow::Result<Vec<SectorSummary>> {
        self.manage(&["sectors", "list"]).await
    }

    /// What `damocles-manager sectors show` says.
    ///
    /// # Errors
    ///
    /// The manager does not answer.
    pub async fn show(&self, sector: SectorId) -> anyhow::Result<SectorDetail> {
        self.manage(&["sectors", "show", &sector.to_string()]).await
    }

    /// Lets the worker's thread go on.
    ///
    /// # Errors
    ///
    /// The worker does not answer.
    pub async fn resume_thread(&self) -> anyhow::Result<()> {
        let output =
            program::run(&self.bins.worker, &["resume", "-i", "0", "-c", &path_text(&self.worker_file())?]).await?;
        ensure!(output.status.success(), "resume: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Asks the chain, past all traps.
    ///
    /// # Errors
    ///
    /// The chain does not answer.
    pub async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        Ok(self.rpc.raw(method, params).await?)
    }

    /// Stops the chain's clock.
    ///
    /// # Errors
    ///
    /// The chain does not answer.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.ask("Devnet.Pause", json!([])).await.map(drop)
    }

    /// Lets the chain's clock run.
    ///
    /// # Errors
    ///
    /// The chain does not answer.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.ask("Devnet.Resume", json!([])).await.map(drop)
    }

    /// The journal as it is now.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn journal(&self) -> anyhow::Result<Journal> {
        Journal::read(&self.store("sealing").join("meta/journal.db")).await
    }

    /// Notes which stages are under way: something is killed now.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    pub async fn note_hit(&mut self) -> anyhow::Result<()> {
        let journal = self.journal().await?;
        self.hits.add(&journal);
        Ok(())
    }

    /// Notes that somebody whom the worker asks was killed now.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    pub async fn note_absence(&mut self) -> anyhow::Result<()> {
        let journal = self.journal().await?;
        self.hits.add_absence(&journal);
        Ok(())
    }

    /// Notes that a child of the worker died at a task of this kind.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    pub async fn note_death(&mut self, kind: &str) -> anyhow::Result<()> {
        let journal = self.journal().await?;
        self.hits.add_death(&journal, kind);
        Ok(())
    }

    /// Resolves when the journal is as wished.
    ///
    /// # Errors
    ///
    /// It never is.
    pub async fn journal_shows(&self, what: &str, wish: impl Fn(&Journal) -> bool + Send + Sync) -> anyhow::Result<()> {
        self.eventually(what, async || Ok(wish(&self.journal().await?))).await
    }

    /// Resolves when the worker's first thread is as wished; gives its last error.
    ///
    /// # Errors
    ///
    /// It never is.
    pub async fn thread_shows(
        &self,
        what: &str,
        wish: impl Fn(&damocles_cli::worker::control::ThreadStatus) -> bool,
    ) -> anyhow::Result<damocles_cli::worker::control::ThreadStatus> {
        let mut seen = None;
        let until = tokio::time::Instant::now() + self.options.patience() / 4;
        while tokio::time::Instant::now() < until {
            let thread = self.list().await?.threads.into_iter().next().context("there is a thread")?;
            if wish(&thread) {
                return Ok(thread);
            }
            seen = Some(thread);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{what}: the thread shows {seen:#?}\n{}", self.last_words())
    }

    /// Resolves when a check says yes. An error of the check ends the wait.
    ///
    /// # Errors
    ///
    /// It never does.
    pub async fn eventually(
        &self,
        what: &str,
        mut check: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + self.options.patience() / 4;
        while !check().await? {
            ensure!(tokio::time::Instant::now() < until, "{what}: never seen\n{}", self.last_words());
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Resolves when every sector is active and was proven from now on, and the worker is done with it.
    ///
    /// # Errors
    ///
    /// That does not happen.
    pub async fn finish(&self) -> anyhow::Result<Vec<SectorReport>> {
        let work = async {
            self.active().await?;
            self.proven().await
        };
        let ended = tokio::time::timeout(self.options.patience(), work).await;
        let sectors = ended.with_context(|| format!("the sectors are not proven in time\n{}", self.last_words()))??;
        let wanted = self.options.sectors;
        self.journal_shows("all sectors end", |j| j.ended() == wanted).await?;
        Ok(sectors)
    }

    /// Resolves when every sector is active on chain.
    ///
    /// # Errors
    ///
    /// The chain does not answer in a way that makes sense.
    pub async fn active(&self) -> anyhow::Result<()> {
        self.watch().active(&Progress::new(true).task("active", None)).await
    }

    /// Resolves when every sector was proven from now on or missed too many deadlines; says what the chain knows.
    ///
    /// # Errors
    ///
    /// The chain does not answer in a way that makes sense.
    pub async fn proven(&self) -> anyhow::Result<Vec<SectorReport>> {
        let first = damocles_core::chain::ChainClient::head(&*self.chain).await?.epoch;
        self.watch().proven(&Progress::new(true).task("proven", None)).await?;
        let verifier = damocles_cli::verifier::for_network(&self.options.network);
        let gather = Gather { rpc: &self.rpc, chain: &*self.chain, verifier: &*verifier, miner: self.miner };
        let mut sectors = gather.sectors().await?;
        for sector in &mut sectors {
            sector.posts.retain(|post| post.epoch >= first);
        }
        Ok(sectors)
    }

    fn watch(&self) -> Watch<'_> {
        Watch { rpc: &self.rpc, chain: &*self.chain, miner: self.miner, wanted: self.options.sectors }
    }

    /// The end of each log.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (name, program) in [("devnet", &self.devnet), ("manager", &self.manager), ("worker", &self.worker)] {
            let _ = writeln!(text, "--- {name}\n{}", program.last_words());
        }
        text
    }
}

/// A client that only reads: its outbox is in memory and stays empty.
async fn reader(endpoint: Endpoint, home: &Home, keys: &Initialised) -> anyhow::Result<Arc<LotusClient>> {
    sqlx::any::install_default_drivers();
    let memory = AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    let config = LotusConfig::new(endpoint, Senders::all(keys.worker.clone()));
    Ok(LotusClient::connect(config, Arc::new(Keystore::open(home.keystore())?), memory).await?)
}

fn devnet_args(root: &Path, options: &Options, keys: &Initialised) -> Vec<OsString> {
    let mut args = words(&["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--home"]);
    args.push(root.join("devnet").into());
    args.extend(words(&["--network", &options.network, "--epoch-ms", &options.epoch_ms.to_string()]));
    for account in [&keys.owner, &keys.worker] {
        args.extend(["--fund".into(), format!("{account}={FUNDS}").into()]);
    }
    args
}

fn home_of(root: &Path) -> anyhow::Result<Home> {
    Home::resolve(Some(root.join("manager"))).context("the home is named")
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A path as an argument.
///
/// # Errors
///
/// It is no text.
pub fn path_text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("paths of tests are text")?.to_owned())
}

/// A path as a TOML string.
fn quoted(path: &Path) -> anyhow::Result<String> {
    // The strings of JSON are strings of TOML.
    Ok(serde_json::to_string(&path_text(path)?)?)
}
