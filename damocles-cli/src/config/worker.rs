//! The worker's file, in the layout and with the names that workers of this network have had since 2022.

use super::{
    ConfigError, Endpoint, Findings, HumanDuration, ProcessorKind, Processors, Retired, Secret, Source, StoreFile,
    retired,
};
use damocles_core::{ActorId, ByteSize, SectorSize};
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

mod rules;
mod settings;
mod stores;

pub(super) use rules::check_sealing;
pub use settings::SealingSettings;
pub use stores::StoresSection;

pub(super) use rules::plain;

/// A worker's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Who the worker is.
    #[serde(default)]
    pub worker: WorkerSection,
    /// Where metrics are served.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// Where the manager is.
    pub sector_manager: ManagerSection,
    /// What is sealed and how patiently.
    #[serde(default)]
    pub sealing: SealingSection,
    /// One sector at a time each.
    #[serde(default)]
    pub sealing_thread: Vec<SealingThread>,
    /// Stores that finished sectors go to.
    #[serde(default)]
    pub attached: Vec<Attached>,
    /// How stores are used.
    #[serde(default)]
    pub stores: StoresSection,
    /// The children.
    #[serde(default)]
    pub processors: Processors,
}

/// `[worker]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSection {
    /// The name that the manager shows; the machine's name if it is absent.
    pub name: Option<String>,
    /// How often the worker tells the manager that it is there; every 30 seconds if it is absent.
    pub ping_interval: Option<HumanDuration>,
    /// Directories that are searched first for deal pieces.
    pub local_pieces_dirs: Vec<PathBuf>,
    /// Patterns of directories; each match with a `sectorstore.json` is attached.
    pub scan_persist_stores: Vec<String>,
    /// Where the control socket lies; the run directory of the user if it is absent.
    pub run_dir: Option<PathBuf>,
    /// A port on which the worker takes orders too, from whoever has the token; none if it is absent.
    pub control_listen: Option<SocketAddr>,
    /// The file with that token, which only its owner may read.
    pub control_token_file: Option<PathBuf>,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Whether metrics are served.
    pub enable: bool,
    /// Where.
    pub http_listen: Option<SocketAddr>,
}

/// `[sector_manager]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerSection {
    /// How the manager is reached.
    pub rpc_client: RpcClient,
    /// The token that is sent to it.
    pub token: Option<Secret>,
    /// A file that holds that token.
    pub token_file: Option<PathBuf>,
    /// The variable of the daemon's environment that holds that token.
    pub token_env: Option<String>,
}

/// `rpc_client.*`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcClient {
    /// A URL or a multiaddr.
    pub addr: Endpoint,
    /// How long one call may take.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl RpcClient {
    /// How long one call to the manager may take, with the default filled in.
    pub fn call_limit(&self) -> Duration {
        self.timeout.unwrap_or(HumanDuration::secs(60)).0
    }
}

/// `[sealing]`, and `sealing.*` of a thread, which goes first field by field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealingSection {
    /// Only sectors of these miners; all if it is absent.
    pub allowed_miners: Option<Vec<ActorId>>,
    /// Only sectors of these sizes; all if it is absent.
    pub allowed_sizes: Option<Vec<SectorSize>>,
    /// Whether deals are asked for.
    pub enable_deals: Option<bool>,
    /// Whether a sector without deals waits for some.
    pub disable_cc: Option<bool>,
    /// At most so many deals a sector.
    pub max_deals: Option<usize>,
    /// At least so many bytes of deals a sector.
    pub min_deal_space: Option<ByteSize>,
    /// How often in a row a step may fail before its sector is parked.
    pub max_retries: Option<u32>,
    /// The pause between two sectors of a thread.
    pub seal_interval: Option<HumanDuration>,
    /// The pause before a failed step is tried again.
    pub recover_interval: Option<HumanDuration>,
    /// The longest time between two questions about the state of the chain.
    pub rpc_polling_interval: Option<HumanDuration>,
    /// After how long a parked sector goes on by itself, if its error may pass; `0s` is never. One hour if it is absent.
    pub auto_resume: Option<HumanDuration>,
}

/// `[[sealing_thread]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealingThread {
    /// The sealing store.
    pub location: PathBuf,
    /// What becomes of its sectors.
    #[serde(default)]
    pub plan: PlanName,
    /// The disk, device, mount point or file-system identifier that the store must lie on.
    #[serde(default)]
    pub disk: Option<String>,
    /// Goes before `[sealing]`.
    #[serde(default)]
    pub sealing: SealingSection,
    /// What the store's own file says, which goes before that. Read where the worker runs.
    #[serde(skip)]
    pub store: StoreFile,
}

/// The name of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanName {
    /// New sectors, with or without deals.
    #[default]
    Sealer,
}

impl PlanName {
    /// The name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealer => "sealer",
        }
    }
}

/// `[[attached]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attached {
    /// The name by which the manager knows it; the location if it is absent.
    pub name: Option<String>,
    /// Its directory.
    pub location: PathBuf,
    /// Whether no sector goes there.
    #[serde(default)]
    pub readonly: bool,
    /// The disk, device, mount point or file-system identifier that the store must lie on.
    #[serde(default)]
    pub disk: Option<String>,
    /// The bytes a second that all copies to it may take together.
    #[serde(default)]
    pub bandwidth: Option<ByteSize>,
}

impl WorkerConfig {
    /// Reads and checks a worker's file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the first thing in it that cannot be used.
    pub fn load(file: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        Self::parse(&Source::read(file)?)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    ///
    /// The first thing in it that cannot be used.
    pub fn parse(source: &Source) -> Result<Self, ConfigError> {
        let retired: Vec<Retired> = retired::WORKER.iter().chain(retired::PROCESSORS).copied().collect();
        let config: Self = source.parse(&retired)?;
        let mut found = Findings::new(source);
        config.check(&mut found);
        found.first()?;
        Ok(config)
    }

    /// Reads and checks a text to its end, however much of it is wrong. `None` where the rest is no worker's file.
    pub fn parse_all<'s>(source: &'s Source) -> (Option<Self>, Findings<'s>) {
        let retired: Vec<Retired> = retired::WORKER.iter().chain(retired::PROCESSORS).copied().collect();
        let mut found = Findings::new(source);
        let (config, mistakes) = source.parse_all::<Self>(&retired);
        found.read(mistakes);
        if let Some(config) = &config {
            config.check(&mut found);
        }
        (config, found)
    }

    /// The worker's name: its own, else the machine's.
    pub fn name(&self) -> String {
        self.worker.name()
    }

    /// The token for the manager, from the file or the variable that holds it if one is named.
    ///
    /// # Errors
    ///
    /// The token file cannot be read, or the variable is not set.
    #[expect(clippy::disallowed_methods, reason = "the file names the variable")]
    pub fn token(&self) -> std::io::Result<Option<Secret>> {
        let manager = &self.sector_manager;
        if let Some(file) = &manager.token_file {
            return Ok(Some(Secret::new(fs_err::read_to_string(file)?.trim())));
        }
        if let Some(name) = &manager.token_env {
            let unset =
                |_| std::io::Error::other(format!("the variable `{name}` of `sector_manager.token_env` is not set"));
            return std::env::var(name).map(|token| Some(Secret::new(token.trim()))).map_err(unset);
        }
        Ok(manager.token.clone())
    }

    /// What each thread seals, with every default filled in.
    pub fn threads(&self) -> Vec<SealingSettings> {
        self.sealing_thread.iter().map(|thread| thread.resolve(&self.sealing)).collect()
    }

    /// The slots with every default filled in.
    pub fn slots(&self) -> Vec<super::SlotSpec> {
        self.processors.slots(&ProcessorKind::SEALING)
    }
}

impl WorkerSection {
    /// The worker's name: its own, else the machine's.
    pub fn name(&self) -> String {
        let machine = || {
            let name = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            Some(name.trim().to_owned()).filter(|n| is_file_name(n)).unwrap_or_else(|| "worker".to_owned())
        };
        self.name.clone().unwrap_or_else(machine)
    }

    /// Where a file says that its worker is reached, although other parts of it cannot be used: name and run directory,
    /// and nothing else. None if these cannot be used either.
    pub fn salvaged(source: &Source) -> Option<Self> {
        #[derive(Deserialize)]
        struct File {
            worker: Reached,
        }
        #[derive(Deserialize)]
        struct Reached {
            name: Option<String>,
            run_dir: Option<PathBuf>,
        }
        let Reached { name, run_dir } = source.salvage::<File>()?.worker;
        let worker = Self { name, run_dir, ..Self::default() };
        Some(worker).filter(|worker| worker.name.as_deref().is_none_or(is_file_name))
    }
}

impl Attached {
    /// The name by which the manager knows it.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.location.display().to_string())
    }
}

/// Whether a name can be a file's, because the control socket is named after the worker.
fn is_file_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    plain && !name.is_empty() && name.len() <= 64 && !name.starts_with('.')
}

#[cfg(test)]
mod tests;
