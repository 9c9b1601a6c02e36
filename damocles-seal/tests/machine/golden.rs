//! What is planned for machines as operators have them, and what the rules say of a configuration on each of them.

use super::fake::Fake;
use damocles_core::{ByteSize, SectorSize, pool::TaskKind};
use damocles_seal::machine::{
    Machine,
    figures::Figures,
    legal::{Claims, SlotClaim, check},
    plan::{Plan, PlanOptions, Shortage, plan},
};
use std::fmt::Write as _;

pub(crate) const OPTIONS: PlanOptions = PlanOptions { multicore_sdr: true, gpus: true, post_gpus: 0, reserve: None };

/// Two PC1 groups, PC2 and C2 on one card, as a file for a machine of 16 cores with two nodes says it.
fn sample() -> Claims {
    let slot = |name: &str, cpus: &str| {
        let mut slot = SlotClaim::new(name, TaskKind::read(name.split('-').next().unwrap()));
        slot.cpus = Some(cpus.parse().unwrap());
        slot.exclusive = true;
        slot
    };
    let sdr = |name: &str, cpus: &str, node: &str| SlotClaim {
        mems: Some(node.parse().unwrap()),
        multicore_sdr: Some(3),
        task_memory: Some("64GiB".parse().unwrap()),
        ..slot(name, cpus)
    };
    let card = |name: &str| SlotClaim { gpus: vec!["0".into()], locks: vec!["gpu0".into()], ..slot(name, "12-15") };
    let slots = vec![sdr("pc1-0", "0-3", "0"), sdr("pc1-1", "8-11", "1"), card("pc2-0"), card("c2-0")];
    Claims { slots, stores: Vec::new(), shared_memory: "56GiB".parse().unwrap() }
}

/// The plan, the rules' answer to the sample, and the slots of the sample that the machine could give.
fn told(machine: &Machine) -> String {
    let mut text = format!(
        "{} cores, {} L3 caches, {} nodes\n",
        machine.cpu.cores.len(),
        machine.cpu.l3.len(),
        machine.nodes.len()
    );
    let mut line = |said: String| writeln!(text, "{said}").unwrap();
    match plan(machine, &Figures::of(SectorSize::GiB32), &OPTIONS) {
        Ok(plan) => {
            assert_eq!(check(machine, &plan.claims()), [], "a plan breaks no rule");
            shown(&plan, &mut line);
        }
        Err(shortage) => line(format!("{shortage}; hint: {}", shortage.hint())),
    }
    line("-- the sample on this machine".into());
    let violations = check(machine, &sample());
    for violation in &violations {
        line(format!("{:?}: {violation}; {}", violation.kind, violation.remedy));
    }
    let fits: Vec<_> =
        sample().slots.into_iter().map(|s| s.name).filter(|s| violations.iter().all(|v| !v.of.contains(s))).collect();
    line(format!("slots that fit: {}", fits.join(" ")));
    text
}

fn shown(plan: &Plan, line: &mut impl FnMut(String)) {
    for bound in &plan.bounds {
        line(format!("{:?} {}: {}", bound.rule, if bound.decides { "decides" } else { "allows" }, bound.why));
    }
    line(format!("{} PC1, {} sectors: {}", plan.pc1, plan.sectors, plan.sectors_why));
    for slot in &plan.slots {
        let claim = &slot.claim;
        let cpus = claim.cpus.as_ref().map_or("any".into(), ToString::to_string);
        let node = claim.mems.as_ref().map_or("-".into(), ToString::to_string);
        let mut said = format!("{} cpus {cpus} node {node}", claim.name);
        if let Some(producers) = claim.multicore_sdr {
            write!(said, " producers {producers}").unwrap();
        }
        if claim.concurrent > 1 {
            write!(said, " x{}", claim.concurrent).unwrap();
        }
        for more in claim.gpus.iter().chain(&claim.locks) {
            write!(said, " {more}").unwrap();
        }
        line(said);
    }
    let places: Vec<_> = plan.threads.iter().map(|p| p.location.display().to_string()).collect();
    line(format!("threads {}", places.join(" ")));
    line(format!("notes {:?}", plan.notes));
}

macro_rules! golden {
    ($($name:ident: $fake:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(told(&$fake.read()));
        }
    )*};
}

golden! {
    one_node_of_16_cores_l3_of_8: Fake { gpus: 1, ..Fake::new(1, 16, 8) };
    one_node_without_numa: Fake { gpus: 1, numa: false, ..Fake::new(1, 32, 16) };
    two_nodes_of_48_cores_l3_of_3: Fake { gpus: 2, memory_gib: 2048, nvme_gib: vec![15_360; 2], ..Fake::new(2, 48, 3) };
    two_nodes_smt_l3_of_4: Fake { smt: true, gpus: 2, memory_gib: 1024, ..Fake::new(2, 32, 4) };
    four_nodes_l3_of_6: Fake { memory_gib: 768, gpus: 1, ..Fake::new(4, 12, 6) };
    eight_nodes_smt_l3_of_16: Fake { smt: true, gpus: 4, memory_gib: 4096, nvme_gib: vec![7680; 8], ..Fake::new(8, 16, 16) };
    offline_siblings_are_smt_off: Fake { smt: true, offline: (16..32).collect(), gpus: 1, ..Fake::new(2, 8, 4) };
    offline_cores_make_caches_uneven: Fake { offline: vec![1, 12, 13], gpus: 1, ..Fake::new(2, 8, 4) };
    no_card: Fake { memory_gib: 1024, ..Fake::new(2, 16, 8) };
    disk_decides: Fake { memory_gib: 2048, nvme_gib: vec![1920], gpus: 2, ..Fake::new(2, 32, 8) };
    too_little_memory: Fake { memory_gib: 96, ..Fake::new(1, 16, 8) };
    too_little_disk: Fake { nvme_gib: vec![400], ..Fake::new(1, 16, 8) };
    nodes_too_small_for_one_pc1: Fake { memory_gib: 252, gpus: 1, ..Fake::new(4, 8, 8) };
    nodes_that_cannot_hold_a_proof: Fake { gpus: 2, ..Fake::new(2, 16, 4) };
    one_pc1_more_needs_more_proofs_at_a_time: Fake { memory_gib: 1024, gpus: 4, nvme_gib: vec![7680; 4], ..Fake::new(2, 32, 8) };
    memory_holds_more_without_its_nodes: Fake { memory_gib: 1008, nvme_gib: vec![7680; 2], ..Fake::new(8, 16, 8) };
    one_core: Fake { memory_gib: 256, ..Fake::new(1, 1, 1) };
}

#[test]
fn the_record_of_a_fake_machine_is_complete() {
    let machine = Fake { smt: true, gpus: 1, offline: vec![7], ..Fake::new(2, 4, 2) }.read();
    insta::assert_snapshot!(serde_json::to_string_pretty(&machine).unwrap());
    let text = serde_json::to_string(&machine).unwrap();
    assert_eq!(Machine::from_json(&text).unwrap(), machine);
}

/// Facts that do not go together: from some of them a plan follows that others forbid.
#[test]
fn a_record_that_contradicts_itself_is_no_ground_for_a_plan() {
    let contradiction = |change: &dyn Fn(&mut Machine)| {
        let mut machine = Fake { memory_gib: 2048, gpus: 1, ..Fake::new(2, 8, 4) }.read();
        assert!(plan(&machine, &Figures::of(SectorSize::GiB32), &OPTIONS).is_ok());
        change(&mut machine);
        match plan(&machine, &Figures::of(SectorSize::GiB32), &OPTIONS) {
            Err(shortage @ Shortage::Contradiction(_)) => format!("{shortage}; hint: {}", shortage.hint()),
            other => panic!("{other:?}"),
        }
    };
    insta::assert_snapshot!(contradiction(&|machine| machine.cpu.cores[4].cpus = "0,4".parse().unwrap()));
    insta::assert_snapshot!(contradiction(&|machine| {
        let (left, right) = machine.nodes.split_at_mut(1);
        std::mem::swap(&mut left[0].cpus, &mut right[0].cpus);
    }));
}

/// An amount that is to be left is left, and one that is too small for the other stages is told.
#[test]
fn a_reserve_is_kept() {
    let machine = Fake { memory_gib: 1024, ..Fake::new(2, 32, 4) }.read();
    let with = |gib: u64| {
        let options = PlanOptions { reserve: Some(ByteSize(gib << 30)), gpus: false, ..OPTIONS };
        plan(&machine, &Figures::of(SectorSize::GiB32), &options)
    };
    assert_eq!(with(500).unwrap().pc1, 7);
    let small = with(100).unwrap();
    assert!(small.notes.iter().any(|note| note.starts_with("100GiB were to be left")), "{:?}", small.notes);
    let Err(Shortage::Memory { needed, .. }) = with(1000) else { panic!() };
    assert_eq!(needed, ByteSize(1120 << 30));
}
