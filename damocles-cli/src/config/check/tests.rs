//! What a check tells.

use super::*;
use sha2::{Digest as _, Sha256};

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
        "{LEAST}token = \"hunter2\"\nnonsense = 1\n\n[sealing]\nmax_deals = 0\n\n[processors.ext_locks]\ngpu = 1\n\n\
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

/// All that is told of these slots on the lab's machine, for sectors of 32 GiB.
fn told_of(slots: &str) -> String {
    let lab = lab();
    let text = format!(
        "{LEAST}[sealing]\nallowed_sizes = [\"32GiB\"]\n[[sealing_thread]]\nlocation = \"/mnt/nvme/a\"\n[[attached]]\n\
         location = \"/mnt/nas/p\"\n{slots}"
    );
    told(&text, Site::recorded(&lab))
}

/// What the daemon refuses at its start is an error of the file, with its line.
#[test]
fn groups_of_cores_are_those_of_the_daemon() {
    let on = |cpus: &str, more: &str, envs: &str| {
        told_of(&format!(
            "[[processors.pc1]]\nbin = \"/opt/pc1\"\ncgroup.cpuset = \"{cpus}\"\n{more}\n\
             envs = {{ FIL_PROOFS_USE_MULTICORE_SDR = \"1\"{envs} }}\n"
        ))
    };
    let producers = |n: &str| format!(", FIL_PROOFS_MULTICORE_SDR_PRODUCERS = \"{n}\"");
    for (cpus, more, envs) in [("0-3", "", ""), ("0-3", "", &*producers("3")), ("0-7", "concurrent = 2", "")] {
        assert!(on(cpus, more, envs).contains("0 errors"), "{}", on(cpus, more, envs));
    }
    for (cpus, envs) in [("0-7", String::new()), ("2-5", String::new()), ("0-7", producers("3"))] {
        let told = on(cpus, "", &envs);
        assert!(told.contains("w.toml:9:1: error: `processors.pc1[0]`"), "{told}");
        assert!(told.contains("are not all behind one L3 cache") && told.contains("1 error,"), "{told}");
    }
    for bad in ["0", "many", "-1", "3.5", ""] {
        let told = on("0-3", "", &producers(bad));
        assert!(told.contains(&format!("`{bad}` is no number of producers")), "{told}");
        assert!(told.contains("w.toml:13:") && told.contains("1 error,"), "{told}");
    }
}

#[test]
fn memory_that_cannot_work_is_an_error() {
    let pc1 = |more: &str| told_of(&format!("[[processors.pc1]]\n{more}\n"));
    assert!(pc1("cgroup.memory = \"64GiB\"").contains("0 errors, 0 warnings"), "{}", pc1("cgroup.memory = \"64GiB\""));
    let starved = pc1("cgroup.memory = \"1GiB\"");
    assert!(starved.contains("`processors.pc1[0].cgroup.memory`: 1GiB hold no PC1 of 32GiB"), "{starved}");
    let c2 = told_of("[[processors.c2]]\ncgroup.memory = \"100GiB\"\n");
    assert!(c2.contains("warning: `processors.c2[0].cgroup.memory`: c2 of 32GiB is known to take 192GiB"), "{c2}");
    assert!(c2.contains("0 errors"), "{c2}");

    // Twelve are too many beside all else; of 13 the layers alone are.
    assert!(pc1("concurrent = 12").contains("0 errors, 1 warning"), "{}", pc1("concurrent = 12"));
    for many in ["13", "1000"] {
        let told = pc1(&format!("concurrent = {many}"));
        assert!(told.contains("error: `processors.pc1[0]`: pc1-0: ") && told.contains("1 error, 0 warnings"), "{told}");
    }
    let limited = pc1("concurrent = 1000\n[processors.limitation.concurrent]\npc1 = 4");
    assert!(limited.contains("0 errors"), "only four of them run: {limited}");
    let node = pc1("concurrent = 7\nnuma = \"0\"");
    assert!(node.contains("448GiB are claimed of memory node 0, which has 384GiB"), "{node}");

    let lab = lab();
    let any = told(&format!("{LEAST}[[sealing_thread]]\nlocation = \"/mnt/nvme/a\"\n"), Site::recorded(&lab));
    assert!(any.contains("warning: `sealing_thread[0]`: memory was not checked"), "{any}");
}

#[test]
fn a_card_is_named_once() {
    let told = told_of("[[processors.c2]]\nbin = \"/opt/c2\"\ngpus = [0, \"GPU-1111\", 1]\n");
    assert!(told.contains("`0` and `GPU-1111` are the same GPU, GPU-11111111-2222-3333-4444-555555555555"), "{told}");
    assert!(told.contains("1 error,"), "{told}");
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
fn a_ready_made_tree_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (file, wrong) = (dir.path().join("tree"), dir.path().join("wrong"));
    damocles_seal::store::SealingStore::init(&dir.path().join("store")).unwrap();
    let (mut bytes, mut width, mut hash) = (Vec::new(), 64_usize, [0_u8; 32]);
    while width > 0 {
        bytes.extend(hash.repeat(width));
        hash = Sha256::new().chain_update(hash).chain_update(hash).finalize().into();
        hash[31] &= 0x3f;
        width /= 2;
    }
    std::fs::write(&file, &bytes).unwrap();
    std::fs::write(&wrong, vec![0; bytes.len()]).unwrap();
    let machine = Machine::read(&damocles_seal::machine::Roots::host());
    let of = |tree: &str, site: Site<'_>| {
        let store = dir.path().join("store").display().to_string();
        let text = format!(
            "{LEAST}[[sealing_thread]]\nlocation = \"{store}\"\n[processors.static_tree_d]\n2KiB = \"{tree}\"\n"
        );
        told(&text, site).replace(&dir.path().display().to_string(), "DIR")
    };
    let good = of(&file.display().to_string(), Site::here(&machine));
    assert!(good.contains("0 errors"), "{good}");
    let wrong = of(&wrong.display().to_string(), Site::here(&machine));
    assert!(
        wrong.contains("w.toml:6:1: error: `processors.static_tree_d.2KiB`") && wrong.contains("remedy"),
        "{wrong}"
    );
    assert!(wrong.contains("DIR/wrong") && wrong.contains("1 error,"), "{wrong}");
    let gone = of("tree", Site::here(&machine));
    assert!(gone.contains("1 error, ") && gone.contains("from the root on"), "{gone}");
    assert!(of("/nowhere", Site::NONE).contains("0 errors"), "without the machine nothing is known of files");
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

#[test]
fn what_no_slot_can_have_is_told_without_a_machine() {
    let text = format!(
        "{LEAST}[[sealing_thread]]\nlocation = \"/mnt/a\"\n[[attached]]\nlocation = \"/mnt/p\"\n\
         [[processors.c1]]\nprotocol = \"v1\"\n\
         [[processors.c2]]\ngpus = [0]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"1\", BELLMAN_NO_GPU = \"1\" }}\n\
         [[processors.pc2]]\ngpus = [\"GPU-a\", 1]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"GPU-a,1\" }}\n\
         [[processors.pc2]]\nenvs = {{ CUDA_VISIBLE_DEVICES = \"0\" }}\n"
    );
    insta::assert_snapshot!(told(&text, Site::NONE));
}

#[test]
fn slots_after_one_that_cannot_be_read_keep_their_numbers() {
    let text = format!(
        "{LEAST}[[sealing_thread]]\nlocation = 3\n[[sealing_thread]]\nlocation = \"/mnt/nowhere\"\ndisk = \"nvme7n1\"\n\
         [[attached]]\nlocation = \"/mnt/p\"\n\
         [processors]\npc1 = [7, {{ cgroup.cpuset = \"0-3\" }}, {{ cgroup.cpuset = \"2-5\" }}]\n"
    );
    insta::assert_snapshot!(told(&text, Site::recorded(&lab())));
}

#[test]
fn tokens_are_looked_at_as_the_daemon_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let told = |manager: &str| {
        let text = format!(
            "[worker]\ncontrol_listen = \"127.0.0.1:0\"\ncontrol_token_file = \"{}\"\n{LEAST}{manager}\n\
             [[sealing_thread]]\nlocation = \"/mnt/a\"\n",
            file.display()
        );
        let (_, report) = check(&Source::of("w.toml", text), Site::here(&lab()));
        let about_tokens = report.errors.iter().filter(|error| error.message.contains("token"));
        let lines: Vec<_> = about_tokens.map(|e| format!("{}: {}", e.line.unwrap(), e.message)).collect();
        assert!(report.errors.iter().all(|error| error.remedy.is_some()));
        lines.join("\n").replace(&dir.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(told("token_env = \"DAMOCLES_NO_SUCH_VARIABLE\""), @r"
    3: `worker.control_token_file`: failed to open file `DIR/token`: No such file or directory (os error 2)
    6: `sector_manager.token_env`: the variable `DAMOCLES_NO_SUCH_VARIABLE` of `sector_manager.token_env` is not set
    ");
    std::fs::write(&file, "short\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    insta::assert_snapshot!(told("token = \"hunter\\n2\""), @r"
    3: `worker.control_token_file`: `DIR/token` holds no token of at least 16 characters
    6: `sector_manager.token`: is no token that can be sent
    ");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    assert_eq!(told(&format!("token_file = \"{}\"", file.display())), "");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    insta::assert_snapshot!(told(""), @"3: `worker.control_token_file`: others can read `DIR/token`");
}

#[test]
fn a_store_lies_where_its_path_leads() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("disk")).unwrap();
    std::os::unix::fs::symlink(root.join("disk"), root.join("link")).unwrap();
    let mut machine = lab();
    let mut mount = machine.mounts[0].clone();
    (mount.point, mount.source) = (root.join("disk"), "tank/seal".to_owned());
    machine.mounts.push(mount);
    let elsewhere = |store: &str, site: Site<'_>| {
        let location = root.join(store);
        let text = format!(
            "{LEAST}[[sealing_thread]]\nlocation = \"{}\"\ndisk = \"tank/seal\"\n[[attached]]\nlocation = \"/mnt/p\"\n",
            location.display()
        );
        let (_, report) = check(&Source::of("w.toml", text), site);
        let told: Vec<_> = report.errors.into_iter().map(|error| error.message).collect();
        told.iter().any(|message| message.contains("made on tank/seal") || message.contains("where `..` leads"))
    };
    let (here, recorded) = (Site::here(&machine), Site::recorded(&machine));
    assert!(!elsewhere("disk/a", here) && !elsewhere("disk/a", recorded));
    assert!(!elsewhere("link/a", here), "the link leads to the disk");
    assert!(elsewhere("disk/../a", here), "the path leads away from the disk");
    assert!(elsewhere("disk/../disk/a", recorded), "a record does not tell");
}
