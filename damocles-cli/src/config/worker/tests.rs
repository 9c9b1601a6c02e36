//! What a worker file may and may not say.

use super::*;
use std::time::Duration;

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
    assert_eq!((thread.max_retries, thread.plan, thread.enable_deals), (5, PlanName::Sealer, true));
    let slots = config.slots();
    assert_eq!(
        slots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" "),
        "add_pieces-0 tree_d-0 pc1-0 pc2-0 c1-0 c2-0 transfer-0"
    );
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
    insta::assert_snapshot!(refused("[worker]\nping_interval = 30\n"), @r"
    worker.toml:8:17: `worker.ping_interval`: invalid type: integer `30`, expected a string
    hint: -
    ");
    insta::assert_snapshot!(refused("[worker]\nping_interval = \"30 parsecs\"\n"), @r"
    worker.toml:8:17: `worker.ping_interval`: `30 parsecs` is not a time such as `30s` or `5min`
    hint: -
    ");
    insta::assert_snapshot!(refused("[worker]\nname = \"../x\"\n"), @r"
    worker.toml:8:1: `worker.name`: `../x` cannot name a worker
    hint: use letters, digits, `-`, `_` and `.`, at most 64
    ");
    insta::assert_snapshot!(refused("[[sealing_thread]]\nlocation = \"/mnt/./a/\"\n"), @r"
    worker.toml:8:1: `sealing_thread[1].location`: sealing_thread[0] has the same store
    hint: give each thread a store of its own
    ");
    insta::assert_snapshot!(refused("[[sealing_thread]]\nlocation = \"/mnt/b\"\nplan = \"snapup\"\n"), @r"
    worker.toml:9:8: `sealing_thread[1].plan`: unknown name `snapup`
    hint: known here: sealer
    ");
    insta::assert_snapshot!(refused("[[sealing_thread]]\nplan = \"sealer\"\n"), @r"
    worker.toml:7:1: `sealing_thread[1]`: missing key `location`
    hint: -
    ");
    insta::assert_snapshot!(refused("[processors.limitation.concurrent]\npc3 = 1\n"), @r"
    worker.toml:8:1: unknown key `processors.limitation.concurrent.pc3`
    hint: did you mean `pc1`?
    ");
    insta::assert_snapshot!(refused("[processors.limitation.concurrent]\npc1 = 0\n"), @r"
    worker.toml:8:1: `processors.limitation.concurrent.pc1`: 0 would block for ever
    hint: remove it to set no limit
    ");
    insta::assert_snapshot!(refused("[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\"gpu2\"]\n"), @r"
    worker.toml:10:10: `processors.c2[0].locks[0]`: unknown lock `gpu2`
    hint: did you mean `gpu1`?
    ");
    insta::assert_snapshot!(refused("[[processors.c2]]\ncgroup.cpuset = \"7-0\"\n"), @r"
    worker.toml:8:17: `processors.c2[0].cgroup.cpuset`: `7-0` is not a CpuSet such as `0-7,16`
    hint: -
    ");
    insta::assert_snapshot!(refused("[[processors.c2]]\ncgroup.cpus = \"0-7\"\n"), @r"
    worker.toml:8:8: unknown key `processors.c2[0].cgroup.cpus`
    hint: did you mean `cpuset`?
    ");
    insta::assert_snapshot!(refused("[[processors.window_post]]\nconcurrent = 2\n"), @r"
    worker.toml:7:1: `processors.window_post[0]`: this program runs no such processor
    hint: known here: add_pieces, tree_d, pc1, pc2, c1, c2, transfer
    ");
    insta::assert_snapshot!(refused("[sealing]\nallowed_sizes = [\"3GiB\"]\n"), @r"
    worker.toml:8:17: `sealing.allowed_sizes`: `3GiB` is not a sector size (2KiB, 8MiB, 512MiB, 32GiB, 64GiB)
    hint: -
    ");
    let other = |addr: &str| {
        let error = read(&format!("[sector_manager]\nrpc_client.addr = \"{addr}\"\n{THREAD}")).unwrap_err();
        format!("{error}\nhint: {}", error.hint().unwrap_or("-"))
    };
    let said = other("ws://manager:1789");
    assert!(said.contains("does not speak WebSocket") && said.contains("hint: write the address with http"), "{said}");
    let said = other("hunter2:/ip4/127.0.0.1/tcp/1789");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(
        said.contains("a token stands before") && said.contains("hint: write it as `sector_manager.token`"),
        "{said}"
    );
    let said = refused("[processors.limitation.timeout]\npc1 = \"0s\"\n");
    assert!(said.contains("`processors.limitation.timeout.pc1`: no time at all"), "{said}");
    let twice = "[[attached]]\nname = \"p\"\nlocation = \"/p\"\n\n[[attached]]\nname = \"p\"\nlocation = \"/q\"\n";
    insta::assert_snapshot!(refused(twice), @r"
    worker.toml:12:1: `attached[1].name`: attached[0] is `p` too
    hint: give each store the name that the manager knows it by
    ");
    insta::assert_snapshot!(refused("[[attached]]\nlocation = \"/mnt/a\"\n"), @r"
    worker.toml:8:1: `attached[0].location`: sealing_thread[0] has the same directory
    hint: -
    ");
}

#[test]
fn retired_keys_name_their_successor() {
    insta::assert_snapshot!(refused("[worker]\nrpc_server.port = 17891\n"), @r"
    worker.toml:8:1: key `worker.rpc_server` is no longer used
    hint: remove it: the control RPC is a Unix socket, `<run dir>/<worker name>.sock`, see `worker.run_dir`
    ");
    insta::assert_snapshot!(refused("[remote_store]\nname = \"x\"\n"), @r"
    worker.toml:7:2: key `remote_store` is no longer used
    hint: write [[attached]] with `name` and `location`
    ");
    insta::assert_snapshot!(refused("[[processors.pc1]]\nweight = 2\n"), @r"
    worker.toml:8:1: key `processors.pc1[0].weight` is no longer used
    hint: remove it: the least loaded slot is taken
    ");
    insta::assert_snapshot!(refused("[processors.limit]\npc1 = 2\n"), @r"
    worker.toml:7:13: key `processors.limit` is no longer used
    hint: write [processors.limitation.concurrent]
    ");
    insta::assert_snapshot!(refused("[instance]\nname = \"x\"\n"), @r"
    worker.toml:7:2: key `instance` is no longer used
    hint: write `worker.name`
    ");
}

#[test]
fn a_worker_without_threads_or_manager_is_refused() {
    insta::assert_snapshot!(read(LEAST).unwrap_err(), @"worker.toml: `sealing_thread`: a worker needs at least one");
    insta::assert_snapshot!(read(THREAD).unwrap_err(), @"worker.toml:1:1: missing key `sector_manager`");
    insta::assert_snapshot!(read(&format!("sealing_thread = []\n{LEAST}")).unwrap_err(), @"worker.toml:1:1: `sealing_thread`: a worker needs at least one");
}

#[test]
fn tokens_are_not_printed() {
    let config =
        read(&format!("[sector_manager]\nrpc_client.addr = \"http://m\"\ntoken = \"hunter2\"\n{THREAD}")).unwrap();
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

#[test]
fn a_worker_is_found_by_a_file_that_cannot_be_used() {
    let found = |text: &str| {
        let worker = WorkerSection::salvaged(&Source::of("worker.toml", text));
        worker.map(|worker| (worker.name(), worker.run_dir))
    };
    let worker = "[worker]\nname = \"w\"\nrun_dir = \"/run/w\"\nnonsense = 1\n";
    let expected = Some(("w".to_owned(), Some(PathBuf::from("/run/w"))));
    for broken in ["", "[sealing]\nmax_retries = \n", "[sealing\n", "= 3\n", "[sealing]\nmax_retries = 'x'\n"] {
        assert_eq!(found(&format!("{worker}{broken}")), expected, "{broken}");
        assert_eq!(found(&format!("{broken}{worker}")), expected, "{broken}");
    }
    assert_eq!(found(&format!("{worker}[sealing]\nmax_retries = 'x'\n[[x]\n")), expected);
    assert_eq!(found("[worker]\nname = \"../x\"\n"), None);
    assert_eq!(found("no worker at all"), None);
}

#[test]
fn what_a_store_says_goes_before_its_thread_and_that_before_all() {
    let text =
        format!("{LEAST}[sealing]\nmax_retries = 1\nseal_interval = \"1s\"\nrecover_interval = \"1s\"\n{THREAD}");
    let mut config = read(&format!("{text}sealing.max_retries = 2\nsealing.seal_interval = \"2s\"\n")).unwrap();
    config.sealing_thread[0].store.sealing.max_retries = Some(3);
    let thread = config.threads().remove(0);
    let seconds = (thread.seal_interval.as_secs(), thread.recover_interval.as_secs());
    assert_eq!((thread.max_retries, seconds, thread.rpc_polling_interval.as_secs()), (3, (2, 1), 180));
}
