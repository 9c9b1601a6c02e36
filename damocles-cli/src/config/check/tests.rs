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
