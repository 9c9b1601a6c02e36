//! What a check tells.

use super::*;

const LEAST: &str = "[sector_manager]\nrpc_client.addr = \"/ip4/127.0.0.1/tcp/1789\"\n";

fn lab() -> Machine {
    Machine::from_json(include_str!("../../worker/lab.json")).unwrap()
}

fn told(text: &str, site: Site<'_>) -> String {
    let (config, report) = check(&Source::of("w.toml", text), site);
    assert_eq!(config.is_some(), report.is_usable());
    report.text(false)
}

#[test]
fn what_the_file_itself_can_tell_is_told_without_a_machine() {
    let text = format!(
        "{LEAST}token = \"hunter2\"\nnonsense = 1\n\n[sealing]\nmax_deals = 3\n\n[processors.ext_locks]\ngpu = 1\n\n\
         [[processors.pc1]]\ncgroup.cpuset = \"0-7\"\nconcurrent = 0\n\n[[processors.pc1]]\ncgroup.cpuset = \"4-11\"\n\
         locks = [\"gpx\"]\n\n[[sealing_thread]]\nlocation = \"relative\"\nplan = \"snapup\"\n"
    );
    let told = told(&text, Site::NONE);
    assert!(!told.contains("hunter2"), "{told}");
    insta::assert_snapshot!(told);
}

#[test]
fn what_a_recorded_machine_lacks_is_told() {
    let text = format!(
        "{LEAST}[sealing]\nallowed_sizes = [\"32GiB\"]\n[[sealing_thread]]\nlocation = \"/mnt/nowhere/a\"\ndisk = \"nvme7n1\"\n\
         [[attached]]\nlocation = \"/mnt/p\"\n\
         [[processors.pc1]]\ncgroup.cpuset = \"14-18\"\nnuma_preferred = 0\n\
         envs = {{ FIL_PROOFS_USE_MULTICORE_SDR = \"1\" }}\n\
         [[processors.pc2]]\ncgroup.cpuset = \"30-33\"\ngpus = [\"GPU-nowhere\", 1]\nnuma = \"5\"\n\
         [[processors.c2]]\nbin = \"/opt/c2\"\ncgroup.memory = \"4TiB\"\nenvs = {{ CUDA_VISIBLE_DEVICES = \"0,7\" }}\n"
    );
    let machine = lab();
    insta::assert_snapshot!(told(&text, Site::recorded(&machine)));
}

#[test]
fn programs_and_stores_are_looked_for_where_the_worker_runs() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    damocles_seal::store::SealingStore::init(&at("good")).unwrap();
    damocles_seal::store::PersistStore::init(&at("kept"), None).unwrap();
    for empty in ["empty", "old", "unkept"] {
        std::fs::create_dir(at(empty)).unwrap();
    }
    std::fs::write(at("old/.holder"), "").unwrap();
    std::fs::write(at("plain"), "").unwrap();
    let shown = |name: &str| at(name).display().to_string();
    let thread = |name: &str| format!("[[sealing_thread]]\nlocation = \"{}\"\n", shown(name));
    let attached = |name: &str| format!("[[attached]]\nlocation = \"{}\"\n", shown(name));
    let bin = |kind: &str, bin: &str| format!("[[processors.{kind}]]\nbin = \"{bin}\"\n");
    let mut text = format!("{LEAST}token_file = \"{}\"\n", shown("token"));
    for part in ["good", "empty", "old", "nowhere"].map(thread).into_iter().chain(["kept", "unkept"].map(attached)) {
        text.push_str(&part);
    }
    let bins = [bin("pc2", &shown("nothing")), bin("c2", &shown("plain")), bin("c2", "sh"), bin("c1", "no-such-bin")];
    text.push_str(&bins.concat());
    let machine = Machine::read(&damocles_seal::machine::Roots::host());
    let told = told(&text, Site::here(&machine)).replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(told);
}

#[test]
fn what_stores_say_is_checked_where_the_worker_runs() {
    let dir = tempfile::tempdir().unwrap();
    for (store, says) in
        [("a", "sealing.max_retries = 7\n"), ("b", "[sealing]\nmax_retrys = 7\nmax_deals = 'x'\n"), ("c", "")]
    {
        damocles_seal::store::SealingStore::init(&dir.path().join(store)).unwrap();
        std::fs::write(dir.path().join(store).join("config.toml"), says).unwrap();
    }
    let thread = |store: &str| format!("[[sealing_thread]]\nlocation = \"{}\"\n", dir.path().join(store).display());
    let machine = Machine::read(&damocles_seal::machine::Roots::host());
    let text = format!("{LEAST}{}", thread("a"));
    let (config, _) = check(&Source::of("w.toml", text.as_str()), Site::here(&machine));
    assert_eq!(config.unwrap().threads()[0].max_retries, 7);
    let (config, _) = check(&Source::of("w.toml", text), Site::recorded(&machine));
    assert_eq!(config.unwrap().threads()[0].max_retries, 5, "a record says nothing of stores");
    let text = format!("{LEAST}{}nonsense = 1\n{}", thread("b"), thread("c"));
    let told = told(&text, Site::here(&machine)).replace(&dir.path().display().to_string(), "DIR");
    let places: Vec<_> = told.lines().filter_map(|line| line.split_once(" error: ")).map(|(place, _)| place).collect();
    assert_eq!(places, ["w.toml:5:1:", "DIR/b/config.toml:2:1:", "DIR/b/config.toml:3:13:"], "{told}");
    assert!(told.contains("remedy: did you mean `max_retries`?") && told.contains("3 errors"), "{told}");
}
