//! Each rule, broken and kept.

use super::fake::Fake;
use damocles_core::{ByteSize, pool::TaskKind};
use damocles_seal::machine::{
    Machine,
    legal::{SlotClaim, StoreClaim, Violation, ViolationKind, check_memory, check_slots, check_stores},
};

/// Two nodes of 8 cores, 4 to a cache; CPU 15 is switched off; one card; 512 GiB.
fn machine() -> Machine {
    Fake { gpus: 2, ..Fake::new(2, 8, 4) }.read()
}

fn slot(name: &str, cpus: &str) -> SlotClaim {
    let mut slot = SlotClaim::new(name, TaskKind::new("pc2"));
    slot.cpus = Some(cpus.parse().unwrap());
    slot.exclusive = true;
    slot
}

fn kinds(violations: &[Violation]) -> Vec<ViolationKind> {
    violations.iter().map(|v| v.kind).collect()
}

fn broken(slots: &[SlotClaim]) -> Vec<ViolationKind> {
    kinds(&check_slots(&machine(), slots))
}

#[test]
fn cpus_are_there_online_and_allowed() {
    assert_eq!(broken(&[slot("a", "0-15")]), []);
    assert_eq!(broken(&[slot("a", "14-17")]), [ViolationKind::UnknownCpu]);
    let mut machine = Fake { offline: vec![15], ..Fake::new(2, 8, 4) }.read();
    machine.cpu.allowed = Some("0-7,15".parse().unwrap());
    let found = check_slots(&machine, &[slot("a", "7-8,15-16")]);
    assert_eq!(kinds(&found), [ViolationKind::UnknownCpu, ViolationKind::OfflineCpu, ViolationKind::ForbiddenCpu]);
    insta::assert_snapshot!(found.iter().map(|v| format!("{v}; {}\n", v.remedy)).collect::<String>());
}

#[test]
fn cpus_are_shared_only_in_turn() {
    assert_eq!(broken(&[slot("a", "0-3"), slot("b", "4-7")]), []);
    assert_eq!(broken(&[slot("a", "0-3"), slot("b", "3-7")]), [ViolationKind::Overlap]);
    assert_eq!(broken(&[slot("a", "0-3"), slot("b", "0-3")]), [ViolationKind::Overlap]);
    let locked = |name: &str, cpus: &str, lock: &str| SlotClaim { locks: vec![lock.into()], ..slot(name, cpus) };
    assert_eq!(broken(&[locked("a", "0-3", "x"), locked("b", "0-3", "x")]), []);
    assert_eq!(broken(&[locked("a", "0-3", "x"), locked("b", "0-3", "y")]), [ViolationKind::Overlap]);
    assert_eq!(broken(&[locked("a", "0-3", "x"), locked("b", "0-4", "x")]), [ViolationKind::Overlap]);
    let shared = |name: &str| SlotClaim { exclusive: false, ..slot(name, "0-3") };
    assert_eq!(broken(&[shared("a"), shared("b")]), []);
    assert_eq!(broken(&[shared("a"), slot("b", "3")]), [ViolationKind::Overlap]);
}

#[test]
fn cpus_lie_in_their_node() {
    let on = |cpus: &str, node: &str| SlotClaim { mems: Some(node.parse().unwrap()), ..slot("a", cpus) };
    assert_eq!(broken(&[on("0-7", "0")]), []);
    assert_eq!(broken(&[on("0-8", "0")]), [ViolationKind::OutsideNode]);
    assert_eq!(broken(&[on("0-8", "0-1")]), []);
    assert_eq!(broken(&[on("0-7", "2")]), [ViolationKind::UnknownNode]);
    let plain = Fake { numa: false, ..Fake::new(1, 8, 4) }.read();
    assert_eq!(kinds(&check_slots(&plain, &[on("0-7", "0")])), []);
    assert_eq!(kinds(&check_slots(&plain, &[on("0-7", "1")])), [ViolationKind::UnknownNode]);
}

#[test]
fn sdr_groups_lie_in_one_cache() {
    let sdr = |cpus: &str, producers: u16, concurrent: u32| SlotClaim {
        multicore_sdr: Some(producers),
        concurrent,
        ..slot("pc1-0", cpus)
    };
    assert_eq!(broken(&[sdr("0-3", 3, 1)]), []);
    assert_eq!(broken(&[sdr("0-7", 3, 2)]), []);
    assert_eq!(broken(&[sdr("0-7", 3, 3)]), [ViolationKind::SplitSdrGroup]);
    assert_eq!(broken(&[sdr("2-5", 3, 1)]), [ViolationKind::SplitSdrGroup]);
    // The library counts from the first core of a cache: 1-3 is not a group of three.
    assert_eq!(broken(&[sdr("1-3", 2, 1)]), [ViolationKind::SplitSdrGroup]);
    let uneven = Fake { offline: vec![1], ..Fake::new(2, 8, 4) }.read();
    assert_eq!(kinds(&check_slots(&uneven, &[sdr("4-7", 3, 1)])), [ViolationKind::UnevenCaches]);
}

#[test]
fn gpus_are_there() {
    let with = |gpu: &str| SlotClaim { gpus: vec![gpu.into()], ..slot("c2-0", "0") };
    assert_eq!(broken(&[with("0"), SlotClaim { cpus: None, ..with("GPU-fake-1") }]), []);
    assert_eq!(broken(&[with("2")]), [ViolationKind::UnknownGpu]);
    // Both cards begin with this.
    assert_eq!(broken(&[with("GPU-fake")]), [ViolationKind::UnknownGpu]);
    assert_eq!(broken(&[with("")]), [ViolationKind::UnknownGpu]);
    let names = |names: &[&str]| SlotClaim { gpus: names.iter().map(|n| (*n).into()).collect(), ..with("0") };
    assert_eq!(broken(&[names(&["0", "1"])]), []);
    // By number, by identifier and by its beginning: one card.
    assert_eq!(broken(&[names(&["0", "GPU-fake-0"])]), [ViolationKind::RepeatedGpu]);
    assert_eq!(broken(&[names(&["GPU-fake-1", "0", "1"])]), [ViolationKind::RepeatedGpu]);
    let free = |gpu: &str| SlotClaim { cpus: None, ..with(gpu) };
    assert_eq!(broken(&[free("0"), free("0")]), [], "two slots may lease one card in turn");
}

#[test]
fn memory_adds_up() {
    let gib = |n: u64| ByteSize(n << 30);
    let with = |name: &str, memory: u64, lock: Option<&str>| SlotClaim {
        memory: Some(gib(memory)),
        locks: lock.map(str::to_owned).into_iter().collect(),
        ..SlotClaim::new(name, TaskKind::new("c2"))
    };
    let check = |slots: &[SlotClaim], shared| kinds(&check_memory(&machine(), slots, gib(shared)));
    assert_eq!(check(&[with("a", 256, None), with("b", 200, None)], 56), []);
    assert_eq!(check(&[with("a", 256, None), with("b", 201, None)], 56), [ViolationKind::MachineMemory]);
    assert_eq!(check(&[with("a", 400, Some("x")), with("b", 400, Some("x"))], 56), []);
    let near = SlotClaim { mems: Some("0".parse().unwrap()), ..with("a", 257, None) };
    assert_eq!(check(&[near], 0), [ViolationKind::NodeMemory]);
    let many = SlotClaim { task_memory: Some(gib(64)), concurrent: 8, ..SlotClaim::new("p", TaskKind::new("pc1")) };
    assert_eq!(check(std::slice::from_ref(&many), 0), []);
    assert_eq!(check(&[many], 1), [ViolationKind::MachineMemory]);
}

#[test]
fn slots_in_turn_count_as_the_greatest_of_them() {
    let gib = |n: u64| ByteSize(n << 30);
    let slot = |kind: &'static str, memory: u64, locks: &[&str]| SlotClaim {
        task_memory: Some(gib(memory)),
        locks: locks.iter().map(|lock| (*lock).to_owned()).collect(),
        ..SlotClaim::new(kind, TaskKind::new(kind))
    };
    // The least memory with which nothing is broken.
    let needed = |slots: &[SlotClaim], shared: u64| {
        let mut machine = machine();
        machine.nodes.clear();
        let fits = |total: u64, machine: &mut Machine| {
            machine.memory.total = Some(gib(total));
            check_memory(machine, slots, gib(shared)).is_empty()
        };
        (0..2000).find(|total| fits(*total, &mut machine)).unwrap()
    };
    let (c2, pc2) = (slot("c2", 192, &["gpu"]), slot("pc2", 64, &["gpu"]));
    assert_eq!(needed(&[c2.clone(), pc2.clone()], 56), 248);
    // Tree D is in turn with the proofs by its second lock, and leaves the first to a small one.
    let (tree_d, c1) = (slot("tree_d", 47, &["prepare", "gpu"]), slot("c1", 1, &["prepare"]));
    assert_eq!(needed(&[tree_d.clone(), c1.clone(), c2.clone(), pc2.clone()], 0), 193);
    assert_eq!(needed(&[c1, tree_d, pc2, slot("c2", 192, &[])], 0), 192 + 64 + 1);
    // The cache serves PC1: while all of these wait for another stage it can go.
    let pc1 = slot("pc1", 64, &["memory"]);
    assert_eq!(needed(&[pc1.clone(), slot("c2", 192, &["memory"])], 56), 192);
    assert_eq!(needed(&[pc1.clone(), slot("pc2", 64, &["memory"])], 56), 120);
    assert_eq!(needed(&[pc1, slot("pc1", 64, &[]), slot("c2", 192, &["memory"])], 56), 192 + 64 + 56);
    // A lock lets one task of a slot run, however many it could take.
    assert_eq!(needed(&[SlotClaim { concurrent: 9, ..c2 }], 0), 192);
}

#[test]
fn stores_lie_where_they_were_made() {
    let mut machine = machine();
    let store = |location: &str, on: Option<&str>| StoreClaim {
        name: "s".into(),
        location: location.into(),
        writable: true,
        on: on.map(str::to_owned),
        space: Some(ByteSize(4000 << 30)),
    };
    let check = |machine: &Machine, stores: &[StoreClaim]| kinds(&check_stores(machine, stores));
    assert_eq!(check(&machine, &[store("/mnt/nvme0/a", None),]), []);
    for name in ["nvme0n1", "259:0", "/dev/nvme0n1", "/mnt/nvme0"] {
        assert_eq!(check(&machine, &[store("/mnt/nvme0/a", Some(name))]), [], "{name}");
    }
    // The disk is not mounted: the path lies on the system's own then.
    let small = StoreClaim { space: None, ..store("/mnt/nvme7/a", Some("nvme7n1")) };
    assert_eq!(check(&machine, &[small]), [ViolationKind::OtherDisk]);
    assert_eq!(check(&machine, &[store("relative", None)]), [ViolationKind::NoFileSystem]);
    assert_eq!(check(&machine, &[store("/mnt/nvme0/a", None), store("/mnt/nvme0/b", None)]), [ViolationKind::Space]);
    machine.mounts.iter_mut().for_each(|mount| mount.read_only = true);
    assert_eq!(check(&machine, &[store("/mnt/nvme0/a", None)]), [ViolationKind::ReadOnly]);
    machine.mounts.clear();
    assert_eq!(check(&machine, &[store("/mnt/nvme0/a", None)]), [], "a record without file systems tells of none");
}
