//! What slots come to on a recorded machine.

use super::*;
use crate::{
    config::{Source, WorkerConfig},
    exit::Exit,
};
use std::time::Duration;

/// 32 cores in two nodes, caches of 4 cores, two cards.
fn lab() -> Machine {
    Machine::from_json(include_str!("../worker/lab.json")).unwrap()
}

fn spec(processors: &str) -> Result<PoolSpec, Failure> {
    let least = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n[[sealing_thread]]\nlocation = \"/mnt/a\"\n";
    let config = WorkerConfig::parse(&Source::of("worker.toml", format!("{least}{processors}"))).unwrap();
    pool_spec(&config.slots(), &config.processors, &lab)
}

fn slots<'s>(spec: &'s PoolSpec, kind: &str) -> Vec<&'s damocles_seal::pool::SlotSpec> {
    spec.slots.iter().filter(|slot| slot.kinds.iter().any(|k| k.as_str() == kind)).collect()
}

#[test]
fn a_slot_is_bound_as_it_says() {
    let spec = spec(
        "[processors.isolation]\nname = \"vc-worker\"\nkeep_capabilities = true\nverify_interval = \"5s\"\n\
         [processors.breaker]\nfailures = 2\nrest = \"1min\"\n\
         [[processors.c2]]\nbin = \"/opt/c2\"\ncgroup.cpuset = \"0-3\"\ncgroup.memory = \"64GiB\"\n\
         cgroup.cpu_weight = 50\nnuma = \"0-1\"\nconcurrent = 3\nauto_restart = false\ngpus = [1]\n\
         [[processors.pc2]]\nnuma_preferred = 1\n",
    )
    .unwrap();
    let c2 = slots(&spec, "c2")[0];
    assert_eq!((c2.concurrent, c2.auto_restart), (3, false));
    let place = &c2.placement;
    assert_eq!(place.cpus.as_ref().unwrap().to_string(), "0-3");
    assert_eq!((place.memory.unwrap().to_string(), place.cpu_weight), ("64GiB".to_owned(), Some(50)));
    assert_eq!(place.mems.as_ref().unwrap().to_string(), "0-1");
    assert_eq!(place.gpus, [lab().gpus[1].uuid.clone()]);
    assert_eq!(slots(&spec, "pc2")[0].placement.mems.as_ref().unwrap().to_string(), "1");
    assert_eq!((spec.isolation.name.as_str(), spec.isolation.keep_capabilities), ("vc-worker", true));
    assert_eq!(spec.isolation.verify_every, Duration::from_secs(5));
    assert_eq!((spec.breaker.failures, spec.breaker.rest.as_secs()), (2, 60));
    spec.check().unwrap();
}

#[test]
fn pc1_runs_ahead_of_pc2_as_far_as_it_should() {
    let most = |text: &str| {
        let pool = spec(text).unwrap();
        pool.backlog.get(&ProcessorKind::Pc1.task_kind()).map(|backlog| backlog.most)
    };
    assert_eq!(most(""), Some(2));
    assert_eq!(most("[[processors.pc1]]\nconcurrent = 4\n"), Some(5));
    assert_eq!(most("[[processors.pc1]]\nconcurrent = 4\n[processors.limitation.concurrent]\npc1 = 2\n"), Some(3));
    assert_eq!(most("[processors.backlog]\npc2 = 0\n"), Some(0));
    assert_eq!(most("[processors.backlog]\nenable = false\n"), None);
}

#[test]
fn multicore_children_have_cores_of_one_cache_each() {
    // A program of somebody else's: this build may have no multicore SDR.
    let multicore = |cpus: &str, n: u32| {
        let text = format!(
            "[[processors.pc1]]\nbin = \"/opt/pc1\"\ncgroup.cpuset = \"{cpus}\"\nconcurrent = {n}\n\
             envs = {{ FIL_PROOFS_USE_MULTICORE_SDR = \"1\" }}\n"
        );
        spec(&text).map(|spec| {
            let told = slots(&spec, "pc1").into_iter().map(|slot| {
                let producers = &slot.command.envs["FIL_PROOFS_MULTICORE_SDR_PRODUCERS"];
                format!("{}: {} with {producers}", slot.name, slot.placement.cpus.as_ref().unwrap())
            });
            told.collect::<Vec<_>>().join("; ")
        })
    };
    assert_eq!(multicore("0-3", 1).unwrap(), "pc1-0: 0-3 with 3");
    assert_eq!(multicore("0-7", 2).unwrap(), "pc1-0.0: 0-3 with 3; pc1-0.1: 4-7 with 3");
    assert_eq!(multicore("0-3", 2).unwrap(), "pc1-0.0: 0-1 with 1; pc1-0.1: 2-3 with 1");
    for (cpus, n) in [("2-5", 1), ("0-7", 1), ("0-3", 3), ("0", 1)] {
        let failure = multicore(cpus, n).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{cpus}");
        assert!(failure.hint.unwrap().contains("L3 cache"), "{cpus}");
    }
    // Without multicore SDR the children share their CPUs.
    let shared = spec("[[processors.pc2]]\ncgroup.cpuset = \"0-7\"\nconcurrent = 2\n").unwrap();
    assert_eq!((slots(&shared, "pc2").len(), slots(&shared, "pc2")[0].concurrent), (1, 2));
}

#[test]
fn a_variable_that_names_the_same_cards_gives_way_to_their_identifiers() {
    let text = "[[processors.c2]]\nbin = \"/opt/c2\"\ngpus = [1]\nenvs = { CUDA_VISIBLE_DEVICES = \"1\", A = \"b\" }\n";
    let spec = spec(text).unwrap();
    let c2 = slots(&spec, "c2")[0];
    assert_eq!(c2.placement.gpus, [lab().gpus[1].uuid.clone()]);
    assert_eq!(c2.command.envs.keys().collect::<Vec<_>>(), ["A"]);
}

#[test]
fn what_cannot_be_had_is_refused() {
    let refused = |text: &str| {
        let failure = spec(text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hint.is_some());
        failure.error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    assert!(refused("[[processors.c1]]\nprotocol = \"v1\"\n").contains("`protocol = \"v1\"`"));
    assert!(refused("[[processors.c2]]\nbin = \"/x\"\ngpus = [\"GPU-nowhere\"]\n").contains("no GPU `GPU-nowhere`"));
    assert!(refused("[[processors.c2]]\nbin = \"/x\"\ngpus = [0, \"GPU-1111\"]\n").contains("which it names already"));
    if !damocles_seal::BUILT_WITH_MULTICORE_SDR {
        let said = refused("[[processors.pc1]]\nenvs = { FIL_PROOFS_USE_MULTICORE_SDR = \"1\" }\n");
        assert!(said.contains("multicore-sdr"), "{said}");
    }
    if !damocles_seal::BUILT_WITH_GPUS {
        let said = refused("[[processors.c2]]\ngpus = [0]\n");
        assert!(said.contains("cuda"), "{said}");
    }
}
