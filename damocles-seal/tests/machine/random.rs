//! Machines that nobody has, and the law that holds for them too.

use super::{fake::Fake, golden::OPTIONS};
use damocles_core::{ByteSize, NodeSet, SectorSize};
use damocles_seal::machine::{
    Core, CpuFacts, Gpu, L3Group, Machine, MemoryFacts, Mount, Node, cpu_set,
    figures::Figures,
    legal::{SlotClaim, ViolationKind, check, check_memory},
    plan::{Plan, PlanOptions, Shortage, plan},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Machines without files: nodes of different sizes, offline and forbidden CPUs, caches across odd boundaries.
fn machines() -> impl Strategy<Value = Machine> {
    let node = (1u16..20, 0u64..900);
    let nodes = prop::collection::vec(node, 1..9);
    let odd = (prop::collection::btree_set(0u16..160, 0..8), prop::collection::btree_set(0u16..160, 0..8));
    let disks = prop::collection::vec(0u64..9000, 0..4);
    (nodes, 1u16..17, any::<bool>(), any::<bool>(), odd, (0u32..7, disks)).prop_map(
        |(nodes, l3, smt, numa, (offline, forbidden), (gpus, disks))| {
            let all: u16 = nodes.iter().map(|(cores, _)| cores).sum();
            let mut machine = Machine::default();
            let (mut cores, mut caches, mut first) = (Vec::new(), Vec::new(), 0);
            for (id, (count, gib)) in (0u16..).zip(&nodes) {
                let online = |core: u16| {
                    let threads = if smt { vec![core, core + all] } else { vec![core] };
                    threads.into_iter().filter(|cpu| !offline.contains(cpu))
                };
                let range: Vec<u16> = (first..first + count).collect();
                for core in &range {
                    let Some(cpus) = cpu_set(online(*core)) else { continue };
                    cores.push(Core {
                        cpus,
                        package: Some(id.into()),
                        die: None,
                        core: None,
                        node: numa.then_some(id),
                    });
                }
                for chunk in range.chunks(l3.into()) {
                    let Some(cpus) = cpu_set(chunk.iter().flat_map(|core| online(*core))) else { continue };
                    caches.push(L3Group { cpus, size: None, id: None });
                }
                if numa {
                    let cpus = cpu_set(range.iter().flat_map(|core| online(*core)));
                    machine.nodes.push(Node { id, cpus, memory: Some(ByteSize(gib << 30)), free: None });
                }
                first += count;
            }
            let total: u64 = nodes.iter().map(|(_, gib)| gib << 30).sum();
            let online: BTreeSet<u16> = cores.iter().flat_map(|core| core.cpus.iter()).collect();
            machine.memory = MemoryFacts { total: Some(ByteSize(total)), ..MemoryFacts::default() };
            machine.cpu = CpuFacts {
                online: cpu_set(online.iter().copied()),
                offline: cpu_set(offline),
                allowed: cpu_set(online.into_iter().filter(|cpu| !forbidden.contains(cpu))),
                cores,
                l3: caches,
                ..CpuFacts::default()
            };
            machine.gpus = (0..gpus).map(|index| gpu(index, &machine)).collect();
            machine.mounts = disks.iter().enumerate().map(|(i, gib)| mount(i, *gib)).collect();
            machine
        },
    )
}

fn gpu(index: u32, machine: &Machine) -> Gpu {
    let node = machine.nodes.get(index as usize).map(|node| node.id);
    Gpu { index, uuid: damocles_core::GpuId(format!("GPU-{index}")), name: None, memory: None, bus_id: None, node }
}

fn mount(i: usize, gib: u64) -> Mount {
    Mount {
        point: format!("/mnt/{i}").into(),
        source: format!("/dev/nvme{i}n1"),
        fs_type: "xfs".into(),
        device: format!("259:{i}"),
        disk: Some(format!("nvme{i}n1")),
        read_only: false,
        total: Some(ByteSize(gib << 30)),
        available: Some(ByteSize((gib << 30) / 8 * 7)),
        fs_id: None,
    }
}

/// What is wrong on a node if everything that may lie there does: slots that are bound to it, and those that are bound to none.
fn starved(machine: &Machine, plan: &Plan, node: &Node) -> Vec<ViolationKind> {
    let only: NodeSet = node.id.to_string().parse().unwrap();
    let slots = plan.slots.iter().map(|slot| &slot.claim);
    if !slots.clone().any(|claim| claim.mems.as_ref() == Some(&only)) {
        return Vec::new();
    }
    let may = slots.filter(|claim| claim.mems.as_ref().is_none_or(|mems| mems.overlaps(&only)));
    let here: Vec<SlotClaim> = may.map(|claim| SlotClaim { mems: Some(only.clone()), ..claim.clone() }).collect();
    check_memory(machine, &here, ByteSize(0)).into_iter().map(|violation| violation.kind).collect()
}

fn sizes() -> impl Strategy<Value = SectorSize> {
    prop::sample::select(SectorSize::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_plan_breaks_a_rule(
        machine in machines(), size in sizes(), multicore_sdr: bool, gpus: bool, post_gpus in 0usize..3,
    ) {
        let options = PlanOptions { multicore_sdr, gpus, post_gpus, reserve: None };
        let plan = plan(&machine, &Figures::of(size), &options);
        prop_assert!(!matches!(plan, Err(Shortage::Contradiction(_))), "{:?}", plan);
        if let Ok(plan) = plan {
            prop_assert_eq!(check(&machine, &plan.claims()), []);
            for slot in &plan.slots {
                let figure = plan.figures.cost(slot.claim.kind.as_str().parse().unwrap()).memory;
                prop_assert_eq!(slot.claim.task_memory, Some(figure), "memory that no rule sees: {}", slot.claim.name);
            }
            for node in &machine.nodes {
                prop_assert_eq!(starved(&machine, &plan, node), []);
            }
            let pc1: u32 = plan.slots.iter().filter(|s| s.claim.kind.as_str() == "pc1").map(|s| s.claim.concurrent).sum();
            prop_assert_eq!((pc1, plan.threads.len()), (plan.pc1, plan.sectors as usize));
            prop_assert!(plan.pc1 >= 1 && plan.sectors >= 1);
            for kind in ["add_pieces", "tree_d", "pc1", "pc2", "c1", "c2", "transfer"] {
                prop_assert!(plan.slots.iter().any(|s| s.claim.kind.as_str() == kind), "no slot for {}", kind);
            }
            for bound in &plan.bounds {
                prop_assert!(bound.allows.is_none_or(|allows| allows >= plan.pc1), "{:?}", bound);
            }
        }
    }

    // Memory decides with everything in it: a plan for more than there is would be killed, one for less leaves sectors out.
    #[test]
    fn one_pc1_more_would_not_fit(mut machine in machines(), total in 100u64..3000, gpus: bool) {
        machine.nodes.clear();
        // With more cards, more PC1 need more proofs at a time.
        machine.gpus.truncate(1);
        machine.cpu.cores.iter_mut().for_each(|core| core.node = None);
        machine.memory.total = Some(ByteSize(total << 30));
        let figures = Figures::of(SectorSize::GiB32);
        let options = PlanOptions { gpus, multicore_sdr: false, ..OPTIONS };
        match plan(&machine, &figures, &options) {
            Ok(plan) => {
                let memory = &plan.bounds[0];
                let mut claims = plan.claims();
                let mut more = claims.slots[0].clone();
                (more.cpus, more.mems, more.concurrent) = (None, None, 1);
                claims.slots.push(more);
                let broken = check_memory(&machine, &claims.slots, claims.shared_memory);
                let in_turn = claims.slots[0].locks.iter().any(|lock| lock == "memory");
                prop_assert!(!memory.decides || in_turn || !broken.is_empty(), "{:?}", plan);
            }
            Err(Shortage::Memory { needed, there }) => prop_assert!(needed > there),
            Err(_) => {}
        }
    }

    // On one node and with one kind of PC1: groups of cores are preferred although they are fewer, and an odd PC1 on each of many
    // nodes takes more cores than pairs on few.
    #[test]
    fn more_memory_never_means_fewer_sectors(mut machine in machines(), more in 1u64..2000) {
        let options = PlanOptions { multicore_sdr: false, ..OPTIONS };
        let figures = Figures::of(SectorSize::GiB32);
        machine.nodes.clear();
        machine.cpu.cores.iter_mut().for_each(|core| core.node = None);
        let mut larger = machine.clone();
        larger.memory.total = larger.memory.total.map(|total| ByteSize(total.0 + (more << 30)));
        if let Ok(small) = plan(&machine, &figures, &options) {
            let large = plan(&larger, &figures, &options);
            prop_assert!(large.is_ok_and(|large| large.pc1 >= small.pc1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn files_are_read_as_they_were_written(
        nodes in 1u16..5, groups in 1u16..4, l3 in 1u16..9, smt: bool, offline in prop::collection::vec(0u16..16, 0..3),
    ) {
        let fake = Fake { smt, offline, ..Fake::new(nodes, groups * l3, l3) };
        let machine = fake.read();
        let there = fake.nodes * fake.cores * if smt { 2 } else { 1 };
        let offline: BTreeSet<u16> = fake.offline.iter().copied().filter(|cpu| *cpu < there).collect();
        prop_assert_eq!(&machine.problems, &[]);
        prop_assert_eq!(machine.online_cpus().len() + offline.len(), usize::from(there));
        prop_assert_eq!(machine.offline_cpus(), offline);
        let of_cores: Vec<u16> = machine.cpu.cores.iter().flat_map(|core| core.cpus.iter()).collect();
        prop_assert_eq!(of_cores.into_iter().collect::<BTreeSet<_>>(), machine.online_cpus());
        for core in &machine.cpu.cores {
            let first = core.cpus.iter().next().unwrap() % (fake.nodes * fake.cores);
            prop_assert_eq!(core.node, Some(first / fake.cores));
            let l3 = machine.l3_of(core.cpus.iter().next().unwrap()).unwrap();
            prop_assert!(l3.cpus.iter().all(|cpu| cpu % (fake.nodes * fake.cores) / fake.l3 == first / fake.l3));
        }
    }
}
