//! The worker's file, in the layout and with the names that workers of this network have had since 2022.

use super::{ConfigError, Endpoint, HumanDuration, ProcessorKind, Processors, Retired, Secret, Source, processors};
use damocles_core::{ActorId, ByteSize, SectorSize};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

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
    pub sealing_thread: Vec<SealingThread>,
    /// Stores that finished sectors go to.
    #[serde(default)]
    pub attached: Vec<Attached>,
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
    /// How often the manager hears from the worker.
    pub ping_interval: Option<HumanDuration>,
    /// Directories that are searched first for deal pieces.
    pub local_pieces_dirs: Vec<PathBuf>,
    /// Patterns of directories; each match with a `sectorstore.json` is attached.
    pub scan_persist_stores: Vec<String>,
    /// Where the control socket lies; the run directory of the user if it is absent.
    pub run_dir: Option<PathBuf>,
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
}

/// `rpc_client.*`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcClient {
    /// A URL or a multiaddr.
    pub addr: Endpoint,
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
    /// Goes before `[sealing]`.
    #[serde(default)]
    pub sealing: SealingSection,
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
}

/// What one thread seals, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SealingSettings {
    /// The sealing store.
    pub location: PathBuf,
    /// What becomes of its sectors.
    pub plan: PlanName,
    /// Only sectors of these miners; all if it is empty.
    pub allowed_miners: Vec<ActorId>,
    /// Only sectors of these sizes; all if it is empty.
    pub allowed_sizes: Vec<SectorSize>,
    /// Whether deals are asked for.
    pub enable_deals: bool,
    /// Whether a sector without deals waits for some.
    pub disable_cc: bool,
    /// At most so many deals a sector.
    pub max_deals: Option<usize>,
    /// At least so many bytes of deals a sector.
    pub min_deal_space: Option<ByteSize>,
    /// How often in a row a step may fail before its sector is parked.
    pub max_retries: u32,
    /// The pause between two sectors of a thread.
    pub seal_interval: Duration,
    /// The pause before a failed step is tried again.
    pub recover_interval: Duration,
    /// The longest time between two questions about the state of the chain.
    pub rpc_polling_interval: Duration,
}

const RETIRED: &[Retired] = &[
    Retired {
        path: "worker.rpc_server",
        instead: "remove it: the control RPC is a Unix socket, `<run dir>/<worker name>.sock`, see `worker.run_dir`",
    },
    Retired { path: "worker.local_pieces_dir", instead: "write `local_pieces_dirs = [\"...\"]`" },
    Retired { path: "worker.ScanPersistStores", instead: "write `scan_persist_stores`" },
    Retired { path: "sector_manager.piece_token", instead: "write `token` or `token_file`" },
    Retired { path: "sector_manager.rpc_client.headers", instead: "write `sector_manager.token` or `token_file`" },
    Retired {
        path: "sealing.ignore_proof_check",
        instead: "remove it: a sector is done when its proof has landed and not before",
    },
    Retired { path: "sealing.request_task_max_retries", instead: "remove it: an idle thread waits for work" },
    Retired { path: "sealing.verify_after_pc2", instead: "remove it: every proof is verified before it is sent" },
    Retired {
        path: "sealing_thread.sealing.ignore_proof_check",
        instead: "remove it: a sector is done when its proof has landed and not before",
    },
    Retired {
        path: "sealing_thread.sealing.request_task_max_retries",
        instead: "remove it: an idle thread waits for work",
    },
    Retired {
        path: "sealing_thread.sealing.verify_after_pc2",
        instead: "remove it: every proof is verified before it is sent",
    },
    Retired { path: "remote_store", instead: "write [[attached]] with `name` and `location`" },
    Retired { path: "remote", instead: "write [[attached]] with `name` and `location`" },
    Retired { path: "attached_selection", instead: "remove it: the manager chooses the store" },
    Retired { path: "instance", instead: "write `worker.name`" },
    Retired { path: "worker_server", instead: "remove it: the control RPC is a Unix socket, see `worker.run_dir`" },
    Retired { path: "sealer_rpc", instead: "write [sector_manager] with `rpc_client.addr`" },
    Retired { path: "piece_store", instead: "pieces come from the manager: write [sector_manager] with `token`" },
    Retired { path: "store", instead: "write [[sealing_thread]] with `location`" },
    Retired { path: "limit", instead: "write [processors.limitation.concurrent]" },
    Retired { path: "static_tree_d", instead: "write [processors.static_tree_d]" },
];

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
        let retired: Vec<Retired> = RETIRED.iter().chain(processors::RETIRED).copied().collect();
        let config: Self = source.parse(&retired)?;
        config.check(source)?;
        Ok(config)
    }

    /// The worker's name: its own, else the machine's.
    pub fn name(&self) -> String {
        let machine = || {
            let name = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            Some(name.trim().to_owned()).filter(|n| is_file_name(n)).unwrap_or_else(|| "worker".to_owned())
        };
        self.worker.name.clone().unwrap_or_else(machine)
    }

    /// How often the manager hears from the worker.
    pub fn ping_interval(&self) -> Duration {
        self.worker.ping_interval.map_or(Duration::from_secs(30), |i| i.0)
    }

    /// The token for the manager, from the file that holds it if one is named.
    ///
    /// # Errors
    ///
    /// The token file cannot be read.
    pub fn token(&self) -> std::io::Result<Option<Secret>> {
        match &self.sector_manager.token_file {
            Some(file) => Ok(Some(Secret::new(fs_err::read_to_string(file)?.trim()))),
            None => Ok(self.sector_manager.token.clone()),
        }
    }

    /// What each thread seals, with every default filled in.
    pub fn threads(&self) -> Vec<SealingSettings> {
        self.sealing_thread.iter().map(|thread| thread.resolve(&self.sealing)).collect()
    }

    /// The slots with every default filled in.
    pub fn slots(&self) -> Vec<super::SlotSpec> {
        self.processors.slots(&ProcessorKind::SEALING)
    }

    fn check(&self, source: &Source) -> Result<(), ConfigError> {
        if let Some(name) = &self.worker.name
            && !is_file_name(name)
        {
            let error = source.error_at("worker.name", format_args!("`{name}` cannot name a worker"));
            return Err(error.hint_with("use letters, digits, `-`, `_` and `.`, at most 64"));
        }
        if self.worker.ping_interval.is_some_and(|i| i.0.is_zero()) {
            return Err(source.error_at("worker.ping_interval", "no time at all"));
        }
        if self.sector_manager.token.is_some() && self.sector_manager.token_file.is_some() {
            let error = source.error_at("sector_manager.token_file", "there is a `token` too");
            return Err(error.hint_with("keep one of the two"));
        }
        if self.sealing_thread.is_empty() {
            let error = source.error_at("sealing_thread", "a worker needs at least one");
            return Err(error.hint_with("add [[sealing_thread]] with `location = \"<sealing store>\"`"));
        }
        self.check_threads(source)?;
        self.check_attached(source)?;
        self.processors.check(source, &ProcessorKind::SEALING)
    }

    fn check_threads(&self, source: &Source) -> Result<(), ConfigError> {
        check_sealing(source, "sealing", &self.sealing)?;
        let mut seen = BTreeMap::new();
        for (i, thread) in self.sealing_thread.iter().enumerate() {
            let path = format!("sealing_thread[{i}].location");
            if thread.location.as_os_str().is_empty() {
                return Err(source.error_at(&path, "names no directory"));
            }
            if let Some(first) = seen.insert(plain(&thread.location), i) {
                let error = source.error_at(&path, format_args!("sealing_thread[{first}] has the same store"));
                return Err(error.hint_with("give each thread a store of its own"));
            }
            check_sealing(source, &format!("sealing_thread[{i}].sealing"), &thread.sealing)?;
        }
        Ok(())
    }

    fn check_attached(&self, source: &Source) -> Result<(), ConfigError> {
        let mut names = BTreeMap::new();
        let mut locations = BTreeMap::new();
        for (i, attached) in self.attached.iter().enumerate() {
            let path = format!("attached[{i}]");
            if attached.location.as_os_str().is_empty() {
                return Err(source.error_at(&format!("{path}.location"), "names no directory"));
            }
            if let Some(first) = names.insert(attached.name(), i) {
                let name = attached.name();
                let error = source.error_at(&format!("{path}.name"), format_args!("attached[{first}] is `{name}` too"));
                return Err(error.hint_with("give each store the name that the manager knows it by"));
            }
            if let Some(first) = locations.insert(plain(&attached.location), i) {
                let error = format!("attached[{first}] has the same directory");
                return Err(source.error_at(&format!("{path}.location"), error));
            }
            if let Some(thread) = self.sealing_thread.iter().position(|t| plain(&t.location) == plain(&attached.location)) {
                let error = format!("sealing_thread[{thread}] has the same directory");
                return Err(source.error_at(&format!("{path}.location"), error));
            }
        }
        Ok(())
    }
}

impl Attached {
    /// The name by which the manager knows it.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.location.display().to_string())
    }
}

impl SealingThread {
    fn resolve(&self, common: &SealingSection) -> SealingSettings {
        let own = &self.sealing;
        let time = |own: Option<HumanDuration>, common: Option<HumanDuration>, seconds| {
            own.or(common).unwrap_or(HumanDuration::secs(seconds)).0
        };
        SealingSettings {
            location: self.location.clone(),
            plan: self.plan,
            allowed_miners: own.allowed_miners.clone().or_else(|| common.allowed_miners.clone()).unwrap_or_default(),
            allowed_sizes: own.allowed_sizes.clone().or_else(|| common.allowed_sizes.clone()).unwrap_or_default(),
            enable_deals: own.enable_deals.or(common.enable_deals).unwrap_or(false),
            disable_cc: own.disable_cc.or(common.disable_cc).unwrap_or(false),
            max_deals: own.max_deals.or(common.max_deals),
            min_deal_space: own.min_deal_space.or(common.min_deal_space),
            max_retries: own.max_retries.or(common.max_retries).unwrap_or(5),
            seal_interval: time(own.seal_interval, common.seal_interval, 30),
            recover_interval: time(own.recover_interval, common.recover_interval, 60),
            rpc_polling_interval: time(own.rpc_polling_interval, common.rpc_polling_interval, 180),
        }
    }
}

fn check_sealing(source: &Source, path: &str, sealing: &SealingSection) -> Result<(), ConfigError> {
    let empty = [
        ("allowed_miners", sealing.allowed_miners.as_ref().is_some_and(Vec::is_empty)),
        ("allowed_sizes", sealing.allowed_sizes.as_ref().is_some_and(Vec::is_empty)),
    ];
    if let Some((key, _)) = empty.into_iter().find(|(_, empty)| *empty) {
        let error = source.error_at(&format!("{path}.{key}"), "allows nothing");
        return Err(error.hint_with("remove it to allow all"));
    }
    let times = [
        ("recover_interval", sealing.recover_interval),
        ("rpc_polling_interval", sealing.rpc_polling_interval),
    ];
    match times.into_iter().find(|(_, time)| time.is_some_and(|t| t.0.is_zero())) {
        Some((key, _)) => Err(source.error_at(&format!("{path}.{key}"), "no time at all")),
        None => Ok(()),
    }
}

/// Whether a name can be a file's, because the control socket is named after the worker.
fn is_file_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    plain && !name.is_empty() && name.len() <= 64 && !name.starts_with('.')
}

/// The path without `.` parts and doubled separators, for comparison only.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[sector_manager]\nrpc_client.addr = \"/ip4/127.0.0.1/tcp/1789\"\n\n";
    const THREAD: &str = "[[sealing_thread]]\nlocation = \"/mnt/a\"\n\n";

    fn read(text: &str) -> Result<WorkerConfig, ConfigError> {
        WorkerConfig::parse(&Source::of("worker.toml", text))
    }

    fn refused(rest: &str) -> String {
        let error = read(&format!("{LEAST}{THREAD}{rest}")).unwrap_err();
        format!("{error}\nhint: {}", error.hint().unwrap_or("-"))
    }

    #[test]
    fn the_least_file_has_defaults() {
        let config = read(&format!("{LEAST}{THREAD}")).unwrap();
        assert_eq!(config.sector_manager.rpc_client.addr.url_or("/rpc/v0"), "http://127.0.0.1:1789/rpc/v0");
        let thread = config.threads().remove(0);
        assert_eq!((thread.max_retries, thread.plan, thread.enable_deals), (5, PlanName::Sealer, false));
        let slots = config.slots();
        assert_eq!(slots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" "), "add_pieces-0 tree_d-0 pc1-0 pc2-0 c1-0 c2-0 transfer-0");
        assert!(slots.iter().all(|s| s.bin.is_none() && s.args == ["processor", s.kind.name()]));
    }

    #[test]
    fn a_full_file_of_the_field_is_read() {
        let config = read(FULL).unwrap();
        let threads = config.threads();
        assert_eq!((threads[0].max_retries, threads[1].max_retries), (3, 10));
        assert_eq!(threads[1].allowed_miners, [ActorId(10123)]);
        let slots = config.slots();
        let c2 = slots.iter().find(|s| s.name == "c2-0").unwrap();
        assert_eq!((c2.locks.as_slice(), c2.stable_wait), (["gpu1".to_owned()].as_slice(), Duration::from_secs(10)));
        assert_eq!(slots.iter().filter(|s| s.kind == ProcessorKind::Pc1).count(), 2);
        assert!(!slots.iter().find(|s| s.name == "pc1-1").unwrap().inherit_envs);
        assert_eq!(config.processors.limitation.concurrent[&ProcessorKind::AddPieces], 8);
    }

    #[test]
    fn mistakes_are_errors_with_a_place() {
        insta::assert_snapshot!(refused("[worker]\nping_interval = 30\n"), @"");
        insta::assert_snapshot!(refused("[worker]\nping_interval = \"30 parsecs\"\n"), @"");
        insta::assert_snapshot!(refused("[worker]\nname = \"../x\"\n"), @"");
        insta::assert_snapshot!(refused("[[sealing_thread]]\nlocation = \"/mnt/./a/\"\n"), @"");
        insta::assert_snapshot!(refused("[[sealing_thread]]\nlocation = \"/mnt/b\"\nplan = \"snapup\"\n"), @"");
        insta::assert_snapshot!(refused("[[sealing_thread]]\nplan = \"sealer\"\n"), @"");
        insta::assert_snapshot!(refused("[processors.limitation.concurrent]\npc3 = 1\n"), @"");
        insta::assert_snapshot!(refused("[processors.limitation.concurrent]\npc1 = 0\n"), @"");
        insta::assert_snapshot!(refused("[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\"gpu2\"]\n"), @"");
        insta::assert_snapshot!(refused("[[processors.c2]]\ncgroup.cpuset = \"7-0\"\n"), @"");
        insta::assert_snapshot!(refused("[[processors.c2]]\ncgroup.cpus = \"0-7\"\n"), @"");
        insta::assert_snapshot!(refused("[[processors.window_post]]\nconcurrent = 2\n"), @"");
        insta::assert_snapshot!(refused("[sealing]\nallowed_sizes = [\"3GiB\"]\n"), @"");
        let twice = "[[attached]]\nname = \"p\"\nlocation = \"/p\"\n\n[[attached]]\nname = \"p\"\nlocation = \"/q\"\n";
        insta::assert_snapshot!(refused(twice), @"");
        insta::assert_snapshot!(refused("[[attached]]\nlocation = \"/mnt/a\"\n"), @"");
    }

    #[test]
    fn retired_keys_name_their_successor() {
        insta::assert_snapshot!(refused("[worker]\nrpc_server.port = 17891\n"), @"");
        insta::assert_snapshot!(refused("[remote_store]\nname = \"x\"\n"), @"");
        insta::assert_snapshot!(refused("[[processors.pc1]]\nweight = 2\n"), @"");
        insta::assert_snapshot!(refused("[processors.limit]\npc1 = 2\n"), @"");
        insta::assert_snapshot!(refused("[instance]\nname = \"x\"\n"), @"");
    }

    #[test]
    fn a_worker_without_threads_or_manager_is_refused() {
        insta::assert_snapshot!(read(LEAST).unwrap_err(), @"");
        insta::assert_snapshot!(read(THREAD).unwrap_err(), @"");
        insta::assert_snapshot!(read(&format!("sealing_thread = []\n{LEAST}")).unwrap_err(), @"");
    }

    #[test]
    fn tokens_are_not_printed() {
        let config = read(&format!("[sector_manager]\nrpc_client.addr = \"http://m\"\ntoken = \"hunter2\"\n{THREAD}")).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.token().unwrap().unwrap().reveal(), "hunter2");
    }

    const FULL: &str = r#"
[worker]
name = "worker-1"
scan_persist_stores = ["/mnt/stores/*"]

[metrics]
enable = true
http_listen = "127.0.0.1:9000"

[sector_manager]
rpc_client.addr = "/ip4/127.0.0.1/tcp/1789"
token = "TOKEN"

[sealing]
allowed_miners = [10123, 10124, 10125]
allowed_sizes = ["32GiB", "64GiB"]
enable_deals = true
max_deals = 3
min_deal_space = "8GiB"
max_retries = 3
seal_interval = "30s"
recover_interval = "60s"
rpc_polling_interval = "180s"

[[sealing_thread]]
location = "/mnt/nvme1/store1"

[[sealing_thread]]
location = "/mnt/nvme1/store2"
sealing.allowed_miners = [10123]
sealing.max_retries = 10

[[attached]]
name = "persist-store1"
location = "/mnt/remote/store1"

[[attached]]
name = "persist-store2"
location = "/mnt/remote/store2"
readonly = true

[processors.limitation.concurrent]
add_pieces = 8
pc1 = 4
pc2 = 2
c2 = 1

[processors.limitation.staggered]
pc1 = "5min"
pc2 = "4min"

[processors.ext_locks]
gpu1 = 1

[processors.static_tree_d]
32GiB = "/var/tmp/32g/sc-02-data-tree-d.dat"

[[processors.tree_d]]
cgroup.cpuset = "40-45"
auto_restart = true

[[processors.pc1]]
numa_preferred = 0
cgroup.cpuset = "0-7"
concurrent = 2
envs = { FIL_PROOFS_USE_MULTICORE_SDR = "1" }

[[processors.pc1]]
numa_preferred = 1
cgroup.cpuset = "12-19"
concurrent = 2
envs = { FIL_PROOFS_USE_MULTICORE_SDR = "1" }
inherit_envs = false

[[processors.pc2]]
cgroup.cpuset = "8-11,24-27"
locks = ["gpu1"]
envs = { FIL_PROOFS_USE_GPU_COLUMN_BUILDER = "1", CUDA_VISIBLE_DEVICES = "0" }

[[processors.c2]]
bin = "/opt/prover/c2"
args = ["--verbose"]
stable_wait = "10s"
cgroup.cpuset = "28-35"
cgroup.group_name = "vc-worker"
locks = ["gpu1"]
envs = { CUDA_VISIBLE_DEVICES = "2,3" }
"#;
}
