//! The directory of a quickstart, and the three daemons on it.

use super::daemon::Daemon;
use crate::{
    config::{
        ManagerConfig, ProcessorKind,
        manager::{Home, ListenSection, StoreSection},
    },
    exit::Failure,
    manager::{
        args::InitArgs,
        init::{self, Initialised},
        miner::{self, args::CreateMinerArgs},
    },
    supervised::Ready,
};
use anyhow::Context as _;
use damocles_core::{ActorId, Context, SectorSize};
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// What each of the owner and the worker gets at genesis.
const FUNDS: &str = "1000000";
/// Where the devnet listens when it is started by hand.
const NODE: &str = "127.0.0.1:1234";
/// Starting takes seconds; only a machine in trouble takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Blocks of a devnet come so fast that a few of them are a real confidence.
const CONFIDENCE: u32 = 3;

/// The directory of a quickstart.
#[derive(Clone, Debug)]
pub(super) struct Lab {
    dir: PathBuf,
}

impl Lab {
    /// A lab in `dir`, which is made.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub(super) fn at(dir: &Path) -> Result<Self, Failure> {
        for sub in ["logs", "pieces"] {
            fs_err::create_dir_all(dir.join(sub))?;
        }
        Ok(Self { dir: fs_err::canonicalize(dir)? })
    }

    /// The manager's home.
    pub(super) fn home(&self) -> Home {
        // A named home is always taken.
        Home::resolve(Some(self.dir.join("manager"))).unwrap_or_else(|| unreachable!("the home is named"))
    }

    /// The worker's configuration file.
    pub(super) fn worker_file(&self) -> PathBuf {
        self.dir.join("worker.toml")
    }

    /// Where pieces are made.
    pub(super) fn pieces(&self) -> PathBuf {
        self.dir.join("pieces")
    }

    /// Where the layers lie.
    pub(super) fn sealing_store(&self) -> PathBuf {
        self.dir.join("sealing")
    }

    /// Where the replicas lie.
    pub(super) fn persist_store(&self) -> PathBuf {
        self.dir.join("persist")
    }

    /// The file by which children that prove take turns: a proof fills the memory of a small machine.
    fn turns(&self) -> PathBuf {
        self.dir.join("proving.lock")
    }

    /// The slot of a kind that takes turns, for a configuration file.
    fn taking_turns(&self, kind: ProcessorKind) -> String {
        let (kind, lock) = (kind.name(), quoted(&self.turns()));
        format!("\n[[processors.{kind}]]\nargs = [\"processor\", \"{kind}\", \"--turn-lock\", {lock}]\n")
    }

    /// Has the manager's child take turns, as the file that was written for it leaves out children.
    fn write_turns(&self) -> Result<(), Failure> {
        let file = self.home().config();
        if ManagerConfig::load(file.clone())?.processors.window_post.is_empty() {
            let text = fs_err::read_to_string(&file)?;
            fs_err::write(&file, text + &self.taking_turns(ProcessorKind::WindowPost))?;
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// The manager's keys; made at the first call.
    ///
    /// # Errors
    ///
    /// The home cannot be written.
    pub(super) fn keys(&self) -> Result<Initialised, Failure> {
        init::init(&InitArgs { devnet: true, ..InitArgs::default() }, &self.home())
    }

    /// Starts the devnet.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub(super) async fn devnet(&self, keys: &Initialised) -> Result<(Daemon, SocketAddr), Failure> {
        let mut args = words(&["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--home"]);
        args.push(self.dir.join("devnet").into());
        for account in [&keys.owner, &keys.worker] {
            args.extend(["--fund".into(), format!("{account}={FUNDS}").into()]);
        }
        let (daemon, ready) = Daemon::start::<Ready>("devnet", args, self.log("devnet"), PATIENCE).await?;
        Ok((daemon, ready.listening.context("the devnet says where it listens")?))
    }

    /// Writes the manager's file for a devnet at this address, and makes the miner if there is none yet.
    ///
    /// # Errors
    ///
    /// The miner cannot be made.
    pub(super) async fn miner(&self, devnet: SocketAddr, sectors: u32, cx: &Context) -> Result<ActorId, Failure> {
        let home = self.home();
        let mut config = ManagerConfig::load(home.config())?;
        config.chain.endpoint = format!("http://{devnet}/rpc/v1").parse().context("our own endpoint")?;
        config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
        config.persist_stores =
            vec![StoreSection { name: "persist".to_owned(), path: self.persist_store(), read_only: false }];
        config.pieces.dirs = vec![self.pieces()];
        config.commitment.confidence = CONFIDENCE;
        config.proving.confidence = CONFIDENCE;
        config.proving.challenge_confidence = 1;
        config.proving.submit_confidence = 1;
        for miner in &mut config.miners {
            miner.max_sectors = Some(u64::from(sectors));
        }
        init::write_config(&home, &config)?;
        if let Some(miner) = config.miners.first() {
            return Ok(miner.actor);
        }
        let args = CreateMinerArgs::agreed(SectorSize::KiB2, Some(u64::from(sectors)));
        Ok(miner::create(&args, &home, cx).await?.miner)
    }

    /// Starts the manager.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub(super) async fn manager(&self) -> Result<(Daemon, SocketAddr), Failure> {
        self.write_turns()?;
        let mut args = words(&["daemon", "run", "--child", "--home"]);
        args.push(self.home().path().into());
        let (daemon, ready) = Daemon::start::<Ready>("manager", args, self.log("manager"), PATIENCE).await?;
        Ok((daemon, ready.listening.context("the manager says where it listens")?))
    }

    /// Writes the worker's file and starts the worker.
    ///
    /// # Errors
    ///
    /// It did not start.
    pub(super) async fn worker(&self, manager: SocketAddr) -> Result<Daemon, Failure> {
        self.write_worker_file(manager)?;
        let mut args = words(&["quickstart-worker", "--child", "-c"]);
        args.push(self.worker_file().into());
        let (daemon, _) = Daemon::start::<Ready>("worker", args, self.log("worker"), PATIENCE).await?;
        Ok(daemon)
    }

    /// Gives manager and worker the addresses that the printed commands use, instead of those of this run.
    ///
    /// # Errors
    ///
    /// The files cannot be written.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let home = self.home();
        let mut config = ManagerConfig::load(home.config())?;
        config.chain.endpoint = format!("http://{NODE}/rpc/v1").parse().context("our own endpoint")?;
        config.listen = ListenSection::default();
        init::write_config(&home, &config)?;
        self.write_turns()?;
        self.write_worker_file(config.listen.address)
    }

    fn write_worker_file(&self, manager: SocketAddr) -> Result<(), Failure> {
        let text = format!(
            "[worker]\nname = \"quickstart\"\nrun_dir = {run}\n\n[sector_manager]\nrpc_client.addr = \"http://{manager}\"\n\n\
             [sealing]\nenable_deals = true\nseal_interval = \"1s\"\nrecover_interval = \"2s\"\n\n\
             [[sealing_thread]]\nlocation = {sealing}\n\n\
             [[attached]]\nname = \"persist\"\nlocation = {persist}\n{c2}",
            run = quoted(&self.dir.join("run")),
            sealing = quoted(&self.sealing_store()),
            persist = quoted(&self.persist_store()),
            c2 = self.taking_turns(ProcessorKind::C2),
        );
        Ok(fs_err::write(self.worker_file(), text)?)
    }

    /// The commands that start the three daemons on this directory again.
    pub(super) fn commands(&self, keys: &Initialised) -> [String; 3] {
        let (dir, home) = (self.dir.display(), self.home().path().display().to_string());
        [
            format!(
                "damocles-manager devnet run --home {dir}/devnet --listen {NODE} --fund {}={FUNDS} --fund {}={FUNDS}",
                keys.owner, keys.worker
            ),
            format!("damocles-manager daemon run --home {home}"),
            format!("damocles-worker daemon -c {}", self.worker_file().display()),
        ]
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Processors, WorkerConfig};

    #[test]
    fn real_proofs_of_both_daemons_take_turns_by_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::at(dir.path()).unwrap();
        lab.keys().unwrap();
        let slot = |processors: &Processors, kind| {
            let slots = processors.slots(&[kind]);
            assert_eq!(slots.len(), 1);
            slots[0].args.clone()
        };
        let lock = lab.turns().display().to_string();
        let args = |kind: &str| ["processor", kind, "--turn-lock", &lock].map(ToOwned::to_owned);
        for _ in 0..2 {
            lab.write_turns().unwrap();
            let manager = ManagerConfig::load(lab.home().config()).unwrap();
            assert_eq!(slot(&manager.processors, ProcessorKind::WindowPost), args("window_post"));
        }
        lab.settle().unwrap();
        let manager = ManagerConfig::load(lab.home().config()).unwrap();
        assert_eq!(slot(&manager.processors, ProcessorKind::WindowPost), args("window_post"));
        let worker = WorkerConfig::load(lab.worker_file()).unwrap();
        assert_eq!(slot(&worker.processors, ProcessorKind::C2), args("c2"));
    }
}
