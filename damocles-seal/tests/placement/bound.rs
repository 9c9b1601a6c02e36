//! Where children run.

use crate::world::{Name, ROOT, isolation, only, pool, run, slot, threads, wait_until};
use damocles_core::{
    ByteSize, Context, GpuId, Recovery,
    pool::{PoolErrorKind, ProcessorPool},
};
use damocles_seal::{placement::IsolationSpec, pool::LocalPool};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

/// The first and the last CPU that this process may use, if they are two.
fn two_cpus() -> Option<[u16; 2]> {
    let mine = threads(u64::from(std::process::id()), "Cpus_allowed_list:").remove(0);
    let cpus: damocles_core::CpuSet = mine.parse().unwrap();
    let (first, last) = (cpus.iter().min().unwrap(), cpus.iter().max().unwrap());
    if first == last {
        println!("SKIPPED: this process may use only CPU {first}");
    }
    (first != last).then_some([first, last])
}

/// Two slots on two CPUs with busy children, killed and started again: asked of the kernel each time.
async fn two_slots(isolation: IsolationSpec, name: &Name, groups: &[&str]) {
    let Some(cpus) = two_cpus() else { return };
    let pools: Vec<LocalPool> = cpus
        .iter()
        .map(|cpu| {
            let mut slot = slot(&format!("pc1/{cpu}"));
            slot.placement.cpus = Some(cpu.to_string().parse().unwrap());
            pool(isolation.clone(), vec![slot])
        })
        .collect();
    let mut before = Vec::new();
    for _ in 0..2 {
        let mut pids = Vec::new();
        for (pool, cpu) in pools.iter().zip(cpus) {
            let pid = run(pool, "busy", json!(6)).await.unwrap().as_u64().unwrap();
            assert_eq!(pool.slots()[0].pid.map(u64::from), Some(pid), "the child itself is reported, not its guard");
            pids.push(pid);
            wait_until("six busy threads", || threads(pid, "Name:").len() >= 7);
            let allowed = threads(pid, "Cpus_allowed_list:");
            assert!(allowed.iter().all(|list| *list == cpu.to_string()), "{allowed:?} instead of {cpu}");
            assert_where_it_ran(pid, cpu);
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            for group in groups {
                let path = cgroup.lines().find(|line| line.contains(group)).unwrap();
                assert!(path.contains(&format!("/{}/owner-", name.0)), "{path}");
            }
        }
        assert!(pids.iter().all(|pid| !before.contains(pid)), "others than before the restart");
        for (pool, pid) in pools.iter().zip(&pids) {
            Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
            wait_until("the slot is empty", || pool.slots()[0].pid.is_none());
        }
        before = pids;
    }
    for pool in &pools {
        pool.drain().await.unwrap();
    }
    assert_eq!(name.leaves(), Vec::<std::path::PathBuf>::new(), "no group of a child is left");
}

/// The CPU that each thread ran on last.
fn assert_where_it_ran(pid: u64, cpu: u16) {
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        assert_eq!(rest.split(' ').nth(36), Some(&*cpu.to_string()));
    }
}

pub(crate) async fn two_slots_stay_on_their_cpus_also_after_a_restart() {
    let Some(_root) = only(&["cpuset"]) else { return };
    let name = Name::new();
    two_slots(isolation(Some(Path::new(ROOT)), &name), &name, &[":cpuset:"]).await;
}

pub(crate) async fn affinity_alone_binds_as_well() {
    let name = Name::new();
    two_slots(isolation(None, &name), &name, &[]).await;
    assert!(name.dirs().is_empty(), "no group was made");
}

pub(crate) async fn a_child_that_is_moved_is_killed_and_its_slot_goes_on() {
    let Some([first, last]) = two_cpus() else { return };
    let name = Name::new();
    let mut spec = isolation(None, &name);
    spec.verify_every = Duration::from_millis(20);
    let mut slot = slot("pc1");
    slot.placement.cpus = Some(first.to_string().parse().unwrap());
    let pool = pool(spec, vec![slot]);
    // Before a job, and in the middle of one.
    for in_the_middle in [false, true] {
        let pid = run(&pool, "busy", json!(1)).await.unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hangs");
        let move_it = || {
            assert!(Command::new("taskset").args(["-acp", &last.to_string(), &pid]).output().unwrap().status.success())
        };
        if !in_the_middle {
            move_it();
        }
        let job = run(&pool, "hang", json!(file));
        let act = async {
            while in_the_middle && !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if in_the_middle {
                move_it();
            }
        };
        let (ended, ()) = tokio::join!(job, act);
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), PoolErrorKind::Start);
        let wanted = format!("what: CPUs, wanted: {first}, got: {last}");
        assert!(error.chain().contains(&wanted), "{}", error.chain());
    }
}

pub(crate) async fn a_proc_that_cannot_be_read_ends_no_job() {
    let (name, dir) = (Name::new(), tempfile::tempdir().unwrap());
    let link = |to: &Path| {
        let new = dir.path().join("new");
        symlink(to, &new).unwrap();
        fs::rename(new, dir.path().join("proc")).unwrap();
    };
    link(Path::new("/proc"));
    let mut spec = isolation(None, &name);
    spec.proc = dir.path().join("proc");
    spec.verify_every = Duration::from_millis(5);
    let pool = pool(spec, vec![slot("pc1")]);
    let file = dir.path().join("works");
    let job = run(&pool, "until", json!(file));
    let act = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // No directory where the threads should be.
        let broken = dir.path().join("broken");
        let process = broken.join(fs::read_to_string(&file).unwrap());
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("task"), "").unwrap();
        link(&broken);
        tokio::time::sleep(Duration::from_millis(200)).await;
        fs::write(file.with_extension("go"), "").unwrap();
    };
    let (ended, ()) = tokio::join!(job, act);
    assert_eq!(ended.unwrap_or_else(|error| panic!("{}", error.chain())), json!(true));
}

pub(crate) async fn a_group_that_lost_a_cpu_gets_it_back() {
    let (Some(root), Some([first, last])) = (only(&["cpuset"]), two_cpus()) else { return };
    let name = Name::new();
    // As the kernel leaves a group from which a CPU was taken and to which it came back.
    let top = root.path().join("cpuset");
    let ours = top.join(&name.0);
    fs::create_dir(&ours).unwrap();
    fs::write(ours.join("cpuset.cpus"), first.to_string()).unwrap();
    fs::write(ours.join("cpuset.mems"), fs::read_to_string(top.join("cpuset.mems")).unwrap().trim()).unwrap();
    let mut slot = slot("pc1");
    slot.placement.cpus = Some(last.to_string().parse().unwrap());
    let there = pool(isolation(Some(root.path()), &name), vec![slot.clone()]);
    run(&there, "busy", json!(0)).await.unwrap_or_else(|error| panic!("{}", error.chain()));

    slot.placement.cpus = Some("0,1000".parse().unwrap());
    let absent = pool(isolation(Some(root.path()), &name), vec![slot]);
    let error = run(&absent, "busy", json!(0)).await.unwrap_err();
    assert!(error.chain().contains("/cpuset.cpus, wanted: 0,1000, got: "), "{}", error.chain());
    assert!(error.hint().unwrap().contains("bring it online"), "{:?}", error.hint());
}

pub(crate) async fn memory_that_runs_out_is_told_from_a_crash() {
    let Some(_root) = only(&["memory"]) else { return };
    let name = Name::new();
    let mut slot = slot("c2");
    slot.placement.memory = Some(ByteSize(64 << 20));
    let pool = pool(isolation(Some(Path::new(ROOT)), &name), vec![slot]);
    assert_eq!(run(&pool, "eat", json!(8)).await.unwrap(), json!(8 << 20), "within the limit");
    let error = run(&pool, "eat", json!(256)).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::OutOfMemory, "{}", error.chain());
    assert!(error.to_string().contains("memory limit: 64MiB"), "{error}");
    assert!(error.hint().unwrap().contains("memory limit"));
    // The next child starts with a clean count.
    assert_eq!(run(&pool, "eat", json!(8)).await.unwrap(), json!(8 << 20));
    assert_eq!(run(&pool, "die", json!(0)).await.unwrap_err().kind(), PoolErrorKind::Crashed);
}

pub(crate) async fn a_memory_policy_binds_where_no_group_does() {
    if !Path::new("/proc/self/numa_maps").exists() {
        println!("SKIPPED: this kernel has no memory policies");
        return;
    }
    let name = Name::new();
    let mut bound = slot("pc1");
    bound.placement.mems = Some("0".parse().unwrap());
    let bound = pool(isolation(None, &name), vec![bound]);
    let pid = run(&bound, "busy", json!(1)).await.unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).unwrap();
    assert!(maps.lines().all(|line| line.split(' ').nth(1) == Some("bind:0")), "{maps}");

    let mut absent = slot("pc1");
    absent.placement.mems = Some("1000".parse().unwrap());
    let error = run(&pool(isolation(None, &name), vec![absent]), "busy", json!(1)).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Start);
    assert!(error.chain().contains("bind memory to nodes 1000"), "{}", error.chain());

    if Path::new("/sys/devices/system/node/node1").exists() {
        println!("SKIPPED: this machine has a second node");
        return;
    }
    // The kernel takes this, and gives node 0 alone.
    let mut half = slot("pc1");
    half.placement.mems = Some("0-1".parse().unwrap());
    let error = run(&pool(isolation(None, &name), vec![half]), "busy", json!(1)).await.unwrap_err();
    assert!(error.chain().contains("nodes 0-1 were asked for, and the kernel gave fewer"), "{}", error.chain());
}

pub(crate) async fn what_nobody_can_give_is_an_error_with_its_remedy() {
    let name = Name::new();
    let mut greedy = slot("c2");
    greedy.placement.memory = Some(ByteSize(1 << 30));
    let mut weighty = slot("pc2");
    weighty.placement.cpu_weight = Some(200);
    for (slot, controller) in [(greedy, "memory"), (weighty, "cpu")] {
        let pool = pool(isolation(None, &name), vec![slot]);
        for _ in 0..2 {
            // Its slot is free again each time.
            let start = run(&pool, "busy", json!(0));
            let error = tokio::time::timeout(Duration::from_secs(60), start).await.expect("in time").unwrap_err();
            assert_eq!((error.kind(), error.recovery()), (PoolErrorKind::Start, Recovery::Park));
            assert!(error.chain().contains(&format!("missing: {controller}")), "{}", error.chain());
            assert!(error.hint().unwrap().contains("damocles-worker cgroup setup --user"), "{:?}", error.hint());
        }
        assert_eq!(pool.start(&Context::detached()).await.unwrap_err().kind(), PoolErrorKind::Start);
    }
    let mut absent = slot("pc1");
    absent.placement.cpus = Some("0,1000".parse().unwrap());
    let error = run(&pool(isolation(None, &name), vec![absent]), "busy", json!(1)).await.unwrap_err();
    assert!(error.chain().contains("CPUs 0,1000 were asked for, and the kernel gave fewer"), "{}", error.chain());
}

pub(crate) async fn children_keep_no_capabilities_that_they_do_not_need() {
    let effective = |status: &Value| {
        let status = status.as_str().unwrap().to_owned();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    let name = Name::new();
    let mut spec = isolation(None, &name);
    let mut with_gpu = slot("c2");
    with_gpu.placement.gpus = vec![GpuId("GPU-0".to_owned())];
    for (slot, needed) in [(slot("pc1"), &[0, 1, 2, 3, 4, 14][..]), (with_gpu, &[0, 1, 2, 3, 4, 14, 16, 27])] {
        let needed: u64 = needed.iter().map(|cap| 1u64 << cap).sum();
        let kept = effective(&run(&pool(spec.clone(), vec![slot]), "status", json!(0)).await.unwrap());
        assert_eq!(kept & !needed, 0, "{kept:x}");
    }
    spec.keep_capabilities = true;
    let kept = effective(&run(&pool(spec, vec![slot("pc1")]), "status", json!(0)).await.unwrap());
    let mine = effective(&json!(fs::read_to_string("/proc/self/status").unwrap()));
    assert_eq!(kept, mine);
}
