//! `damocles-worker plan`: a worker file for a machine, with the reasons.

use super::hwinfo::machine;
use crate::{
    config::{
        Source,
        check::{Site, check},
    },
    exit::{Exit, Failure},
    output::{Printer, Render},
};
use anyhow::anyhow;
use clap::Args;
use damocles_core::{ByteSize, SectorSize};
use damocles_seal::machine::{
    Machine,
    figures::{Figures, Step},
    plan::{Place, Plan, PlanOptions, PlannedSlot, Rule, plan},
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// What is planned.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The sectors: 2KiB, 8MiB, 512MiB, 32GiB or 64GiB
    #[arg(long, alias = "sector_size", value_name = "SIZE")]
    pub sector_size: SectorSize,
    /// Plan for this record, made by `hwinfo --json`, instead of this machine
    #[arg(long, value_name = "FILE")]
    pub machine: Option<PathBuf>,
    /// Leave so many GPUs to WindowPoSt
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub post_gpus: usize,
    /// Leave so much memory beside parent cache and PC1 [default: what other stages take]
    #[arg(long, value_name = "SIZE")]
    pub reserve_memory: Option<ByteSize>,
    /// Whether the worker is built with `multicore-sdr` [default: as this program]
    #[arg(long, value_name = "BOOL")]
    pub multicore_sdr: Option<bool>,
    /// Whether the worker is built with `cuda` or `opencl` [default: as this program]
    #[arg(long, value_name = "BOOL")]
    pub gpus: Option<bool>,
    /// A measured time, e.g. `pc1=150min`
    #[arg(long = "time", value_name = "STAGE=TIME", value_parser = time)]
    pub times: Vec<(Step, Duration)>,
    /// A measured amount of memory, e.g. `pc2=48GiB`
    #[arg(long = "memory", value_name = "STAGE=SIZE", value_parser = memory)]
    pub memories: Vec<(Step, ByteSize)>,
    /// The scratch space of a sector on its way
    #[arg(long, value_name = "SIZE")]
    pub scratch: Option<ByteSize>,
}

fn assigned(text: &str) -> Result<(Step, &str), String> {
    let (step, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not <stage>=<value>"))?;
    Ok((step.trim().parse().map_err(|e| format!("{e}"))?, value.trim()))
}

fn time(text: &str) -> Result<(Step, Duration), String> {
    let (step, value) = assigned(text)?;
    Ok((
        step,
        humantime::parse_duration(value).map_err(|_| format!("`{value}` is not a time such as `30s` or `5min`"))?,
    ))
}

fn memory(text: &str) -> Result<(Step, ByteSize), String> {
    let (step, value) = assigned(text)?;
    Ok((step, value.parse().map_err(|e| format!("{e}"))?))
}

impl PlanArgs {
    fn figures(&self) -> Figures {
        let mut figures = Figures::of(self.sector_size);
        self.times.iter().for_each(|(step, time)| figures.set_time(*step, *time));
        self.memories.iter().for_each(|(step, memory)| figures.set_memory(*step, *memory));
        figures.scratch = self.scratch.unwrap_or(figures.scratch);
        figures
    }

    fn options(&self) -> PlanOptions {
        PlanOptions {
            multicore_sdr: self.multicore_sdr.unwrap_or(damocles_seal::BUILT_WITH_MULTICORE_SDR),
            gpus: self.gpus.unwrap_or(damocles_seal::BUILT_WITH_GPUS),
            post_gpus: self.post_gpus,
            reserve: self.reserve_memory,
        }
    }
}

pub(super) fn print(args: &PlanArgs, printer: Printer) -> Result<(), Failure> {
    let machine = machine(args.machine.as_deref())?;
    printer.data(&planned(args, &machine)?)
}

/// The plan for this machine with its file, which `config check` on the same record accepts.
fn planned(args: &PlanArgs, machine: &Machine) -> Result<Planned, Failure> {
    let plan = plan(machine, &args.figures(), &args.options()).map_err(|shortage| {
        let hint = shortage.hint();
        Failure::new(Exit::Failed, shortage).hint(hint)
    })?;
    let file = worker_file(machine, &plan);
    let (_, report) = check(&Source::of("worker.toml", file.as_str()), Site::recorded(machine));
    if !report.is_usable() {
        let errors = report.errors_text();
        let hint = "facts of the record, or measurements that were given, contradict each other: look at `--memory`, and make the \
                    record anew with `damocles-worker hwinfo --json`";
        let error = anyhow!("no file can be planned that its own check accepts\n{}", errors.trim_end());
        return Err(Failure::new(Exit::Failed, error).hint(hint));
    }
    Ok(Planned { version: VERSION, file, plan })
}

/// A plan, and the worker file that says it.
#[derive(Debug, Serialize)]
struct Planned {
    version: u32,
    /// The text of the file.
    file: String,
    plan: Plan,
}

impl Render for Planned {
    fn text(&self, _color: bool) -> String {
        self.file.clone()
    }
}

/// Writes a file of comments and keys.
#[derive(Default)]
struct File(String);

impl File {
    /// A comment. Texts of the machine may have any character in them, and must not end it.
    fn say(&mut self, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(self.0, "{}", format!("# {text}").trim_end());
    }

    fn put(&mut self, key: &str, value: impl Into<toml::Value>) {
        let _ = writeln!(self.0, "{key} = {}", value.into());
    }

    fn table(&mut self, header: &str) {
        let _ = writeln!(self.0, "\n{header}");
    }
}

/// The worker file of a plan: it parses as it is, and every place that must be looked at is marked.
fn worker_file(machine: &Machine, plan: &Plan) -> String {
    let mut file = File::default();
    let name = machine.hostname.as_deref().unwrap_or("a machine without a name");
    file.say(&format!("Planned for {name}: sectors of {}, {} PC1 at a time.", plan.figures.sector_size, plan.pc1));
    file.say("");
    for bound in &plan.bounds {
        let rule = match bound.rule {
            Rule::Memory => "Memory",
            Rule::Disk => "Disk",
            Rule::Cpu => "CPU",
            Rule::Gpu => "GPU",
        };
        let allows = match (bound.decides, bound.allows) {
            (true, Some(n)) => format!("decides: {n} PC1"),
            (_, Some(n)) => format!("would allow {n}"),
            (_, None) => "bounds nothing".to_owned(),
        };
        file.say(&format!("{rule} {allows}. {}", bound.why));
    }
    for note in &plan.notes {
        file.say(&format!("NOTE: {note}."));
    }
    if !plan.free_gpus.is_empty() {
        let free: Vec<String> = plan.free_gpus.iter().map(ToString::to_string).collect();
        file.say(&format!("Not used by this plan, e.g. for WindowPoSt: {}.", free.join(", ")));
    }
    file.say("Lines under PLACEHOLDER are guesses: look at each of them.");
    file.table("[sector_manager]");
    file.say("PLACEHOLDER: where the manager listens.");
    file.put("rpc_client.addr", "/ip4/127.0.0.1/tcp/1789");
    file.table("[sealing]");
    file.put("allowed_sizes", vec![plan.figures.sector_size.to_string()]);
    stores(&mut file, plan);
    processors(&mut file, plan);
    file.0
}

fn stores(file: &mut File, plan: &Plan) {
    let guess = |place: &Place| match &place.mount {
        Some(mount) => format!("PLACEHOLDER: on the disk mounted at {}.", mount.display()),
        None => "PLACEHOLDER: no disk for this was found.".to_owned(),
    };
    let _ = writeln!(file.0);
    file.say(&format!("Sealing threads: {}. {}.", plan.sectors, plan.sectors_why));
    file.say(&format!("Each works on one sector and needs {} of scratch space.", plan.figures.scratch));
    file.say("Make the directories with `damocles-worker store sealing-init --loc <location>...`.");
    for place in &plan.threads {
        file.table("[[sealing_thread]]");
        file.say(&guess(place));
        file.put("location", place.location.display().to_string());
    }
    for (i, place) in plan.persist.iter().enumerate() {
        file.table("[[attached]]");
        file.say(&format!("{} Finished sectors: {} each.", guess(place), plan.figures.kept));
        file.put("name", format!("persist-{i}"));
        file.put("location", place.location.display().to_string());
    }
}

fn processors(file: &mut File, plan: &Plan) {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for slot in &plan.slots {
        *counts.entry(slot.claim.kind.as_str()).or_default() += slot.claim.concurrent;
    }
    file.table("[processors.limitation.concurrent]");
    for (kind, count) in counts {
        file.put(kind, i64::from(count));
    }
    if let Some(gap) = plan.stagger {
        file.table("[processors.limitation.staggered]");
        file.say("Spread over the time of one PC1, so that they do not all end and wait for PC2 at once.");
        file.put("pc1", humantime::format_duration(gap).to_string());
    }
    if !plan.locks.is_empty() {
        file.table("[processors.ext_locks]");
        for lock in &plan.locks {
            file.put(lock, 1);
        }
    }
    for slot in &plan.slots {
        processor(file, slot);
    }
}

fn processor(file: &mut File, slot: &PlannedSlot) {
    let claim = &slot.claim;
    file.table(&format!("[[processors.{}]]", claim.kind));
    file.say(&format!("{}: {}.", claim.name, slot.why));
    if let Some(cpus) = &claim.cpus {
        file.put("cgroup.cpuset", cpus.to_string());
    }
    if let Some(nodes) = &claim.mems {
        file.put("numa", nodes.to_string());
    }
    if !claim.gpus.is_empty() {
        file.put("gpus", claim.gpus.clone());
    }
    file.put("concurrent", i64::from(claim.concurrent));
    if !claim.locks.is_empty() {
        file.put("locks", claim.locks.clone());
    }
    if !slot.envs.is_empty() {
        let envs: toml::Table = slot.envs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        file.put("envs", envs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{WorkerConfig, check::Report},
        worker::args::{WorkerArgs, WorkerCommand},
    };
    use clap::Parser as _;
    use damocles_seal::machine::Roots;

    fn planned(machine: &Machine, args: &[&str]) -> Result<(Plan, WorkerConfig, String), String> {
        let words = ["w", "plan", "--sector-size"].into_iter().chain(args.iter().copied());
        let parsed = WorkerArgs::try_parse_from(words).unwrap();
        let WorkerCommand::Plan(args) = parsed.command else { panic!("{parsed:?}") };
        let told = |failure: Failure| format!("{}; {}", failure.error, failure.hint.unwrap_or_default());
        let Planned { plan, file, .. } = super::planned(&args, machine).map_err(told)?;
        let config = WorkerConfig::parse(&Source::of("worker.toml", file.as_str())).unwrap();
        Ok((plan, config, file))
    }

    /// Everything that `config check` on this record says of a file.
    fn checked(machine: &Machine, file: &str) -> Report {
        check(&Source::of("worker.toml", file), Site::recorded(machine)).1
    }

    /// 32 cores in two nodes, caches of 4 cores, two cards, one large NVMe and one file server.
    fn lab() -> Machine {
        Machine::from_json(include_str!("lab.json")).unwrap()
    }

    #[test]
    fn the_file_says_the_plan_and_can_be_read() {
        let (plan, config, text) = planned(&lab(), &["32GiB", "--multicore-sdr", "true", "--gpus", "true"]).unwrap();
        insta::assert_snapshot!(text);
        assert_eq!(config.threads().len(), plan.sectors as usize);
        let slots = config.slots();
        assert_eq!(slots.len(), plan.slots.len());
        for planned in &plan.slots {
            let slot = slots.iter().find(|slot| slot.name == planned.claim.name).unwrap();
            let claim = &planned.claim;
            assert_eq!((&slot.cpuset, &slot.envs, &slot.locks), (&claim.cpus, &planned.envs, &claim.locks));
            assert_eq!((&slot.mems, &slot.gpus), (&claim.mems, &claim.gpus));
            assert_eq!(slot.concurrent.get(), claim.concurrent);
        }
        // A card is claimed on the whole machine only where the slot names it: a proof of PoSt could run into C2 else.
        let cards = |kind: &str| slots.iter().filter(|s| s.kind.name() == kind).flat_map(|s| s.gpus.clone()).collect();
        let (c2, pc2): (Vec<String>, Vec<String>) = (cards("c2"), cards("pc2"));
        assert!(!c2.is_empty() && !pc2.is_empty());
        assert!(slots.iter().all(|slot| !slot.envs.contains_key("CUDA_VISIBLE_DEVICES")));
    }

    /// All stages that may run at a time fit into memory, on whatever node they lie.
    #[test]
    fn a_planned_file_claims_no_more_memory_than_there_is() {
        for gib in [200, 256, 384, 512, 640, 768, 1024, 1536, 2048] {
            for words in [&["32GiB"][..], &["32GiB", "--multicore-sdr", "true", "--gpus", "true"]] {
                let mut machine = lab();
                machine.memory.total = Some(ByteSize(gib << 30));
                machine.nodes.iter_mut().for_each(|node| node.memory = Some(ByteSize(gib << 29)));
                let (_, _, file) = planned(&machine, words).unwrap();
                let report = checked(&machine, &file);
                let said = format!("{}{}", report.errors_text(), report.warnings_text());
                assert!(!said.contains("claimed"), "{gib} GiB, {words:?}:\n{said}");
            }
        }
    }

    /// Records that were written by hand, or read from files that do not go together.
    #[test]
    fn whatever_a_record_says_a_planned_file_passes_its_check() {
        let (mut planned_files, mut refused) = (0, 0);
        for seed in 0..400 {
            let mut dice = Dice(seed);
            let mut machine = lab();
            for _ in 0..=dice.below(3) {
                spoil(&mut machine, &mut dice);
            }
            let size = ["2KiB", "32GiB", "64GiB"][dice.below(3)];
            let yes_or_no = |n: usize| if n == 0 { "false" } else { "true" };
            let (multicore, gpus) = (yes_or_no(dice.below(2)), yes_or_no(dice.below(2)));
            match planned(&machine, &[size, "--multicore-sdr", multicore, "--gpus", gpus]) {
                Ok((_, _, file)) => {
                    planned_files += 1;
                    let report = checked(&machine, &file);
                    assert!(report.is_usable(), "seed {seed}:\n{}", report.errors_text());
                }
                Err(told) => {
                    refused += 1;
                    let (_, hint) = told.split_once("; ").unwrap();
                    assert!(!hint.is_empty(), "seed {seed}: {told}");
                }
            }
        }
        assert!(planned_files > 20 && refused > 20, "{planned_files} planned, {refused} refused");
    }

    /// Numbers that look like chance and are the same in every run (Knuth's constants).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((self.0 >> 33) % n as u64).unwrap()
        }

        fn cpus<S: std::str::FromStr>(&mut self) -> Option<S> {
            let first = self.below(40);
            format!("{first}-{}", first + self.below(12)).parse().ok()
        }
    }

    /// Changes one fact of a record, and none of those that should go with it.
    fn spoil(machine: &mut Machine, dice: &mut Dice) {
        let core = dice.below(machine.cpu.cores.len().max(1));
        let node = dice.below(2);
        match dice.below(13) {
            0 => machine.cpu.cores[core].cpus = dice.cpus().unwrap(),
            1 => machine.cpu.cores[core].node = u16::try_from(dice.below(4)).ok(),
            2 => machine.cpu.cores[core].cpus = machine.cpu.cores[dice.below(8)].cpus.clone(),
            3 => machine.nodes[node].cpus = dice.cpus(),
            4 => machine.nodes[node].id = u16::try_from(dice.below(4)).unwrap(),
            5 => machine.nodes[node].memory = Some(ByteSize((dice.below(400) as u64) << 30)),
            6 => machine.memory.total = Some(ByteSize((dice.below(900) as u64) << 30)),
            7 => machine.cpu.l3[dice.below(8)].cpus = dice.cpus().unwrap(),
            8 => machine.cpu.online = dice.cpus(),
            9 => machine.cpu.allowed = dice.cpus(),
            10 => machine.gpus[1].uuid = machine.gpus[0].uuid.clone(),
            11 => machine.gpus[node].uuid.0 = ["", "1", "a,b", "GPU-6"][dice.below(4)].to_owned(),
            _ => {
                let mount = dice.below(machine.mounts.len());
                machine.mounts[mount].point = ["/", "relative", "/mnt/nvme"][dice.below(3)].into();
                machine.mounts[mount].read_only = dice.below(2) == 0;
            }
        }
    }

    #[test]
    fn this_machine_has_a_plan_for_sectors_of_test_networks() {
        let (plan, config, _) = planned(&Machine::read(&Roots::host()), &["2KiB"]).unwrap();
        assert!(plan.pc1 >= 1 && config.threads().len() == plan.sectors as usize);
    }

    #[test]
    fn a_machine_that_is_too_small_is_told_what_it_lacks() {
        let mut small = lab();
        small.memory.total = Some("64GiB".parse().unwrap());
        insta::assert_snapshot!(
            planned(&small, &["32GiB"]).unwrap_err(),
            @"not one sector fits: its stages need 192GiB of memory even in turn, and the machine has 64GiB; add 128GiB of memory, raise the limit of the control group, plan for smaller sectors, or plan with what stages were measured to take"
        );
    }

    #[test]
    fn a_name_of_a_machine_ends_no_comment() {
        let mut odd = lab();
        odd.hostname = Some("x\n[worker]\nname = \"y\"".to_owned());
        odd.mounts.iter_mut().filter(|m| m.disk.is_some()).for_each(|m| m.point = "/mnt/a\"b\nc".into());
        let (_, config, _) = planned(&odd, &["32GiB"]).unwrap();
        assert_eq!(config.worker.name, None);
        assert!(config.threads().iter().all(|t| t.location.starts_with("/mnt/a\"b\nc")));
    }

    #[test]
    fn measurements_are_taken() {
        let (plan, ..) = planned(&lab(), &["32GiB", "--time", "pc1=90min", "--memory", "pc1=60GiB"]).unwrap();
        assert_eq!(plan.figures.cost(Step::Pc1).time.as_secs(), 5400);
        assert!(WorkerArgs::try_parse_from(["w", "plan", "--sector-size", "32GiB", "--time", "pc3=1s"]).is_err());
        assert!(WorkerArgs::try_parse_from(["w", "plan"]).is_err());
    }
}
