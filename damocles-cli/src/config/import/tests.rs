//! Files of older programs become files that can be used.
//!
//! `samples/` holds worker files as operators had them: `damocles-worker-2023.toml` is the example of damocles-worker
//! condensed, the `venus-worker-2021*.toml` are of venus-worker before March 2022.

use super::*;
use crate::config::check::{Site, check};
use damocles_seal::machine::Machine;

const SAMPLES: [(&str, &str); 4] = [
    ("damocles-worker-2023", include_str!("../samples/damocles-worker-2023.toml")),
    ("venus-worker-2021", include_str!("../samples/venus-worker-2021.toml")),
    ("venus-worker-2021-subs", include_str!("../samples/venus-worker-2021-subs.toml")),
    ("venus-worker-2021-c2-cgroup", include_str!("../samples/venus-worker-2021-c2-cgroup.toml")),
];

#[path = "../../../../damocles-seal/tests/machine/fake.rs"]
mod fake;

fn imported(name: &str, text: &str) -> Imported {
    import(&Source::of(format!("{name}.toml"), text)).unwrap()
}

fn of(text: &str) -> Imported {
    imported("old", text)
}

#[test]
fn samples_of_the_field_become_files_that_can_be_used() {
    for (name, text) in SAMPLES {
        let imported = imported(name, text);
        let shown = format!("{}-----\n{}", imported.file, imported.listing(format!("{name}.toml").as_ref()));
        insta::assert_snapshot!(name, shown);
        let (config, report) = check(&Source::of("new.toml", imported.file.as_str()), Site::NONE);
        assert!(config.is_some(), "{name}:\n{}", report.errors_text());
    }
}

#[test]
fn ignored_keys_are_listed_with_line_and_nearest_key() {
    let (_, text) = SAMPLES[3];
    let imported = imported("venus-worker-2021-c2-cgroup", text);
    let note = imported.notes.iter().find(|note| note.what == What::Ignored).unwrap();
    assert_eq!((note.line, note.key.as_str()), (Some(45), "cessors"));
    assert!(note.why.contains("the nearest key is `processors`"), "{}", note.why);
}

#[test]
fn a_token_is_kept_and_never_listed() {
    let old = "[sector_manager]\nrpc_client.addr = \"http://m\"\npiece_token = \"hunter2\"\n";
    let imported = of(old);
    assert!(imported.file.contains("token = \"hunter2\""));
    assert!(!imported.listing("old.toml".as_ref()).contains("hunter2"));
    assert!(imported.notes.iter().any(|note| note.what == What::Warning && note.line == Some(3)));
}

#[test]
fn what_has_no_place_here_is_listed() {
    let imported = of(
        "[instance]\nname = \"w\"\n[worker_server]\nport = 1\n[sealer_rpc]\naddr = \"/ip4/1.2.3.4/tcp/1789/ws\"\n\
         headers = { a = \"b\" }\n[piece_store]\nurl = \"http://p\"\ntoken = \"t\"\n[[store]]\nlocation = \"/mnt/a\"\n\
         sealing = { enable_deals = false, max_retries = 9 }\n[[store]]\nlocation = \"/mnt/a\"\n[remote_store]\nname = \"p\"\n\
         location = \"/mnt/p\"\n[attached_selection]\nenable_space_weighted = true\n[static_tree_d]\n32GiB = \"/x\"\n\
         [processors.limit]\npc1 = 0\nsnap_encode = 1\npc3 = 1\n[processors.limitation.staggered]\npc1 = \"10ms\"\n\
         [processors.pc1]\nexternal = true\nlocks = [\"a\", \"b\"]\n[[processors.pc1.subs]]\nweight = 2\nnuma_preferred = 1\n\
         envs = { HUGEPAGE_FILES_PATH = \"/h\", A = \"b\" }\n[[processors.tree_d]]\nargs = [\"processor\", \"tree_d\"]\nconcurrent = 0\n\
         [[processors.sealing_daemons]]\nbin = \"d\"\n[processors.ext_locks]\na = 1\nb = 0\n[[processors.c2]]\nbin = \"/c2\"\n\
         cgroup = { cpuset = \"0-3\", group_name = \"g\", cpus = 1 }\n[[processors.c2]]\ncgroup.group_name = \"h\"\n[sealing]\nverify_after_pc2 = true\n",
    );
    insta::assert_snapshot!(format!("{}-----\n{}", imported.file, imported.listing("old.toml".as_ref())));
}

#[test]
fn a_machine_that_is_too_small_is_told_each_thing_that_it_lacks() {
    let (name, text) = SAMPLES[0];
    // 32 cores and two cards; neither the stores nor the program are there.
    let lab = Machine::from_json(include_str!("../../worker/lab.json")).unwrap();
    let file = imported(name, text).file;
    let (_, report) = check(&Source::of("new.toml", file), Site::here(&lab));
    let told = report.errors_text();
    for lacking in [
        "CPUs 40-45",
        "CPUs 32-35",
        "no GPU `3`",
        "`/opt/prover/c2` is not there",
        "/mnt/nvme1/store1",
        "/mnt/remote/store1",
    ] {
        assert!(told.contains(lacking), "{lacking}:\n{told}");
    }
}

#[test]
fn a_recorded_machine_that_fits_accepts_them() {
    // Four nodes of 12 cores with caches of 4: what the samples name lies in one node and whole caches each.
    let machine = fake::Fake { gpus: 4, memory_gib: 1024, nvme_gib: vec![7680; 3], ..fake::Fake::new(4, 12, 4) }.read();
    let record = Machine::from_json(&serde_json::to_string(&machine).unwrap()).unwrap();
    for (name, text) in SAMPLES {
        let file = imported(name, text).file;
        let (config, report) = check(&Source::of("new.toml", file), Site::recorded(&record));
        assert!(config.is_some(), "{name}:\n{}", report.errors_text());
    }
}

const LEAST: &str = "[sector_manager]\nrpc_client.addr = \"http://m\"\n";

/// The file and the listing; the file can be used.
fn shown(text: &str) -> String {
    let imported = of(text);
    let (config, report) = check(&Source::of("new.toml", imported.file.as_str()), Site::NONE);
    assert!(config.is_some(), "{}{}", imported.file, report.errors_text());
    let file = imported.file.lines().skip(2).filter(|line| !line.is_empty());
    format!("{}\n-----\n{}", file.collect::<Vec<_>>().join("\n"), imported.listing("old.toml".as_ref()))
}

fn threads(count: usize) -> String {
    (0..count).map(|i| format!("[[sealing_thread]]\nlocation = \"/mnt/{i}\"\n")).collect()
}

#[test]
fn a_child_without_a_number_does_as_much_as_before() {
    let concurrent = |threads_: usize, processors: &str| {
        let imported = of(&format!("{LEAST}{}{processors}", threads(threads_)));
        let (config, report) = check(&Source::of("new.toml", imported.file.as_str()), Site::NONE);
        let slots = config.unwrap_or_else(|| panic!("{}", report.errors_text())).slots();
        let pc1: Vec<u32> = slots.iter().filter(|s| s.name.starts_with("pc1")).map(|s| s.concurrent.get()).collect();
        let listed = imported.notes.iter().filter(|note| note.key.starts_with("processors.pc1[")).count();
        (pc1, listed)
    };
    let limit = "[processors.limitation.concurrent]\npc1 = 4\n";
    let bare = "[[processors.pc1]]\n";
    assert_eq!(concurrent(2, &format!("{limit}{bare}")), (vec![2], 1));
    assert_eq!(concurrent(9, &format!("{limit}{bare}")), (vec![4], 1));
    assert_eq!(concurrent(9, &format!("{limit}{bare}{bare}")), (vec![2, 2], 2), "the least loaded one was taken");
    assert_eq!(concurrent(3, &format!("{bare}[[processors.pc1]]\nconcurrent = 1\n")), (vec![3, 1], 1));
    assert_eq!(concurrent(1, bare), (vec![1], 0));
    let locked = "[processors.ext_locks]\na = 2\n[[processors.pc1]]\nlocks = [\"a\"]\n";
    assert_eq!(concurrent(4, locked), (vec![2], 1));
    let multicore = "[[processors.pc1]]\ncgroup.cpuset = \"0-5\"\nenvs.FIL_PROOFS_USE_MULTICORE_SDR = \"1\"\n";
    assert_eq!(concurrent(9, multicore), (vec![3], 1));
}

#[test]
fn what_the_old_program_took_and_ours_refuses_is_mended() {
    insta::assert_snapshot!(shown(
        "[instance]\nname = \"older\"\n[worker]\nname = \"my worker:1\"\n[metrics]\nenable = true\n\
         [sector_manager]\nrpc_client.addr = \"http://m\"\npiece_token = \"one\"\n\
         [sealer_rpc]\nurl = \"ws://other:1\"\n[piece_store]\ntoken = \"two\"\n\
         [sealing]\nallowed_miners = []\nallowed_sizes = [\"32GiB\"]\nrecover_interval = \"0s\"\n\
         [[sealing_thread]]\nlocation = \"/mnt/a\"\nsealing.allowed_sizes = []\n\
         [[sealing_thread]]\nlocation = \"/mnt/a/\"\n[remote_store]\nname = \"p\"\n\
         [processors.ext_locks]\ng = 1\n\
         [[processors.pc1]]\ncgroup.cpuset = \"0-7\"\ncgroup.group_name = \"/vc\"\n\
         [[processors.pc1]]\ncgroup.cpuset = \"0-7\"\ncgroup.group_name = \"vc\"\n\
         [[processors.pc2]]\ncgroup.cpuset = \"8-15\"\nlocks = [\"g\", \"g\"]\n\
         [[processors.c2]]\ncgroup.cpuset = \"8-15\"\nlocks = [\"g\"]\n\
         [[processors.tree_d]]\ncgroup.cpuset = \"\"\n"
    ));
}

#[test]
fn cards_of_a_variable_become_those_of_the_slot() {
    insta::assert_snapshot!(shown(&format!(
        "{LEAST}{}[[processors.pc2]]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"0\", NVIDIA_VISIBLE_DEVICES = \"all\" }}\n\
         [[processors.c2]]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"GPU-8f6c, 1\" }}\n\
         [[processors.c2]]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"\" }}\n\
         [[processors.c2]]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"2\", BELLMAN_NO_GPU = \"1\" }}\n",
        threads(1)
    )));
}
