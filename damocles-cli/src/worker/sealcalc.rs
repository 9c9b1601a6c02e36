//! `damocles-worker sealcalc`: how many sectors a day a pipeline yields, and what holds it up.

use crate::{
    config::{ProcessorKind, WorkerConfig},
    exit::{Exit, Failure},
    output::{Printer, Render, table},
};
use clap::Args;
use damocles_core::SectorSize;
use damocles_seal::machine::{
    figures::{Figures, Step},
    pipeline::{Pipeline, PipelineError, Report},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// A pipeline. The spellings with underscores are those of `damocles-worker-util sealcalc`.
#[derive(Clone, Debug, Args)]
pub struct SealcalcArgs {
    /// The sectors, for times that are not given [default: those of the worker file, else 32GiB]
    #[arg(long, alias = "sector_size", value_name = "SIZE")]
    pub sector_size: Option<SectorSize>,
    /// Take threads, concurrency, staggering and locks from this worker file
    #[arg(long, alias = "from_config", value_name = "FILE")]
    pub from_config: Option<PathBuf>,
    /// Sectors on their way at a time [default: enough to keep PC1 busy]
    #[arg(long, alias = "sealing_threads", value_name = "N")]
    pub sealing_threads: Option<NonZeroU32>,
    /// Days that are simulated
    #[arg(long, aliases = ["calculate_days", "calculate-days"], default_value = "30", value_name = "N")]
    pub days: NonZeroU32,
    /// The stages.
    #[command(flatten)]
    pub times: Times,
    /// The stages.
    #[command(flatten)]
    pub concurrent: Concurrent,
}

/// Minutes of each stage.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Minutes of each stage [default: those of the sector size]")]
pub struct Times {
    /// Writing unsealed data
    #[arg(long, alias = "add_pieces_mins", value_name = "MIN", value_parser = minutes)]
    pub add_pieces_mins: Option<Duration>,
    /// The tree of the data
    #[arg(long, alias = "tree_d_mins", value_name = "MIN", value_parser = minutes)]
    pub tree_d_mins: Option<Duration>,
    /// Encoding
    #[arg(long, alias = "pc1_mins", value_name = "MIN", value_parser = minutes)]
    pub pc1_mins: Option<Duration>,
    /// The trees of the replica
    #[arg(long, alias = "pc2_mins", value_name = "MIN", value_parser = minutes)]
    pub pc2_mins: Option<Duration>,
    /// Copying into a persist store
    #[arg(long, alias = "transfer_mins", value_name = "MIN", value_parser = minutes)]
    pub transfer_mins: Option<Duration>,
    /// Waiting for the chain's randomness
    #[arg(long, alias = "seed_mins", value_name = "MIN", value_parser = minutes)]
    pub seed_mins: Option<Duration>,
    /// Reading the challenged parts
    #[arg(long, alias = "c1_mins", value_name = "MIN", value_parser = minutes)]
    pub c1_mins: Option<Duration>,
    /// The seal proof
    #[arg(long, alias = "c2_mins", value_name = "MIN", value_parser = minutes)]
    pub c2_mins: Option<Duration>,
}

/// How many sectors may be in each stage at a time.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sectors in each stage at a time [default: those of the worker file, else any number]")]
pub struct Concurrent {
    /// Writing unsealed data
    #[arg(long, alias = "add_pieces_concurrent", value_name = "N")]
    pub add_pieces_concurrent: Option<NonZeroU32>,
    /// The tree of the data
    #[arg(long, alias = "tree_d_concurrent", value_name = "N")]
    pub tree_d_concurrent: Option<NonZeroU32>,
    /// Encoding
    #[arg(long, alias = "pc1_concurrent", value_name = "N")]
    pub pc1_concurrent: Option<NonZeroU32>,
    /// The trees of the replica
    #[arg(long, alias = "pc2_concurrent", value_name = "N")]
    pub pc2_concurrent: Option<NonZeroU32>,
    /// Copying into a persist store
    #[arg(long, alias = "transfer_concurrent", value_name = "N")]
    pub transfer_concurrent: Option<NonZeroU32>,
    /// Reading the challenged parts
    #[arg(long, alias = "c1_concurrent", value_name = "N")]
    pub c1_concurrent: Option<NonZeroU32>,
    /// The seal proof
    #[arg(long, alias = "c2_concurrent", value_name = "N")]
    pub c2_concurrent: Option<NonZeroU32>,
}

/// A time in minutes, with a fraction if need be; also `90s` or `2h`.
fn minutes(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a number of minutes, nor a time such as `90s`");
    match text.trim().parse::<f64>() {
        Ok(minutes) => Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| bad()),
        Err(_) => humantime::parse_duration(text).map_err(|_| bad()),
    }
}

impl Times {
    fn given(&self) -> impl Iterator<Item = (Step, Duration)> {
        let all = [
            (Step::AddPieces, self.add_pieces_mins),
            (Step::TreeD, self.tree_d_mins),
            (Step::Pc1, self.pc1_mins),
            (Step::Pc2, self.pc2_mins),
            (Step::Transfer, self.transfer_mins),
            (Step::WaitSeed, self.seed_mins),
            (Step::C1, self.c1_mins),
            (Step::C2, self.c2_mins),
        ];
        all.into_iter().filter_map(|(step, time)| Some((step, time?)))
    }
}

impl Concurrent {
    fn given(&self) -> impl Iterator<Item = (Step, NonZeroU32)> {
        let all = [
            (Step::AddPieces, self.add_pieces_concurrent),
            (Step::TreeD, self.tree_d_concurrent),
            (Step::Pc1, self.pc1_concurrent),
            (Step::Pc2, self.pc2_concurrent),
            (Step::Transfer, self.transfer_concurrent),
            (Step::C1, self.c1_concurrent),
            (Step::C2, self.c2_concurrent),
        ];
        all.into_iter().filter_map(|(step, count)| Some((step, count?)))
    }
}

const fn step_of(kind: ProcessorKind) -> Option<Step> {
    match kind {
        ProcessorKind::AddPieces => Some(Step::AddPieces),
        ProcessorKind::TreeD => Some(Step::TreeD),
        ProcessorKind::Pc1 => Some(Step::Pc1),
        ProcessorKind::Pc2 => Some(Step::Pc2),
        ProcessorKind::C1 => Some(Step::C1),
        ProcessorKind::C2 => Some(Step::C2),
        ProcessorKind::Transfer => Some(Step::Transfer),
        ProcessorKind::WdpostRead | ProcessorKind::WindowPost => None,
    }
}

/// Puts what a worker file says into a pipeline.
fn configured(pipeline: &mut Pipeline, config: &WorkerConfig) {
    let limits = &config.processors.limitation;
    let slots = config.slots();
    for kind in ProcessorKind::SEALING {
        let Some(step) = step_of(kind) else { continue };
        let own: Vec<_> = slots.iter().filter(|slot| slot.kind == kind).collect();
        let sum = own.iter().fold(0u32, |sum, slot| sum.saturating_add(slot.concurrent.get()));
        let most = limits.concurrent.get(&kind).map_or(sum, |limit| sum.min(*limit));
        if let Some(most) = NonZeroU32::new(most) {
            pipeline.concurrent.insert(step, most);
        }
        if let Some(gap) = limits.staggered.get(&kind) {
            pipeline.staggered.insert(step, gap.0);
        }
        for (lock, count) in &config.processors.ext_locks {
            // A lock that one of several slots does without holds none of its tasks up for long.
            let Some(count) = NonZeroU32::new(*count).filter(|_| own.iter().all(|slot| slot.locks.contains(lock)))
            else {
                continue;
            };
            pipeline.locks.entry(lock.clone()).or_insert_with(|| (count, Vec::new())).1.push(step);
        }
    }
    let threads = u32::try_from(config.sealing_thread.len()).ok().and_then(NonZeroU32::new);
    pipeline.threads = threads.unwrap_or(pipeline.threads);
}

impl SealcalcArgs {
    /// The sectors: those that are asked for, else those that all threads of the file are for.
    fn size(&self, config: Option<&WorkerConfig>) -> Result<SectorSize, Failure> {
        let threads = config.map(WorkerConfig::threads).unwrap_or_default();
        let any = threads.iter().any(|thread| thread.allowed_sizes.is_empty());
        let sizes: BTreeSet<SectorSize> = threads.iter().flat_map(|thread| thread.allowed_sizes.clone()).collect();
        match (self.sector_size, sizes.first()) {
            (Some(size), _) => Ok(size),
            (None, Some(size)) if sizes.len() == 1 && !any => Ok(*size),
            (None, Some(_)) => {
                let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                let said = sizes.join(" and ");
                let more = if any { " and of any other size" } else { "" };
                Err(Failure::usage(format_args!("the file allows sectors of {said}{more}, which take different times"))
                    .hint("say which with `--sector-size`"))
            }
            (None, None) => Ok(SectorSize::GiB32),
        }
    }

    fn pipeline(&self, config: Option<&WorkerConfig>) -> Result<Pipeline, Failure> {
        let figures = Figures::of(self.size(config)?);
        let mut pipeline = Pipeline::of(&figures, NonZeroU32::MIN, self.days);
        if let Some(config) = config {
            configured(&mut pipeline, config);
        }
        pipeline.times.extend(self.times.given());
        pipeline.concurrent.extend(self.concurrent.given());
        if let Some(threads) = self.sealing_threads {
            pipeline.threads = threads;
        } else if config.is_none() {
            pipeline.threads = enough(&pipeline);
        }
        Ok(pipeline)
    }
}

/// Threads that keep PC1 busy: as many as fit into the way of a sector, one and a half times.
fn enough(pipeline: &Pipeline) -> NonZeroU32 {
    let way: Duration = pipeline.times.values().fold(Duration::ZERO, |sum, time| sum.saturating_add(*time));
    let pc1 = pipeline.times.get(&Step::Pc1).map_or(1, Duration::as_millis).max(1);
    let most = pipeline.concurrent.get(&Step::Pc1).map_or(1, |most| u128::from(most.get()));
    let wanted = (most * way.as_millis() * 3).div_ceil(pc1 * 2).clamp(1, 10_000);
    u32::try_from(wanted).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

fn config(file: &Path) -> Result<WorkerConfig, Failure> {
    Ok(WorkerConfig::load(file)?)
}

pub(super) fn print(args: &SealcalcArgs, printer: Printer) -> Result<(), Failure> {
    let config = args.from_config.as_deref().map(config).transpose()?;
    let pipeline = args.pipeline(config.as_ref())?;
    let report = pipeline.simulate().map_err(refused)?;
    printer.data(&Calculated { version: VERSION, pipeline, report })
}

fn refused(error: PipelineError) -> Failure {
    let hint = error.hint();
    Failure::new(Exit::Usage, error).hint(hint)
}

/// What was simulated, and what came of it.
#[derive(Debug, Serialize)]
struct Calculated {
    version: u32,
    pipeline: Pipeline,
    report: Report,
}

impl Render for Calculated {
    fn text(&self, color: bool) -> String {
        let Self { pipeline, report, .. } = self;
        let head = format!(
            "{:.1} sectors a day with {} sealing threads; {} finished in {} days from an empty machine on",
            report.per_day, pipeline.threads, report.finished, pipeline.days
        );
        let used: BTreeMap<&str, f64> = report.resources.iter().map(|r| (r.name.as_str(), r.used)).collect();
        let stages = report.stages.iter().map(|stage| {
            let most = stage.concurrent.map_or_else(|| "any".to_owned(), |most| most.to_string());
            let part = used.get(stage.step.name()).map_or_else(|| "-".to_owned(), |used| percent(*used));
            vec![
                stage.step.to_string(),
                format!("{:.1}", stage.minutes),
                most,
                format!("{:.1}", stage.busy),
                part,
                format!("{:.1}", stage.queue.mean),
                stage.queue.longest.to_string(),
                stage.finished.to_string(),
            ]
        });
        let stages = table(&["STAGE", "MIN", "MOST", "BUSY", "USED", "QUEUE", "LONGEST", "DONE"], stages, color);
        let limits = report.resources.iter().map(|resource| {
            let gain = format!("{:+.1}", resource.one_more - report.per_day);
            vec![resource.name.clone(), resource.count.to_string(), percent(resource.used), gain]
        });
        let limits = table(&["LIMIT", "COUNT", "USED", "ONE MORE GIVES A DAY"], limits, color);
        let bottleneck = match report.bottleneck() {
            Some(most) => format!("bottleneck: {} (one more gives {:.1} sectors a day)", most.name, most.one_more),
            None => "no single addition gives more sectors".to_owned(),
        };
        [head, stages, limits, bottleneck].join("\n\n")
    }
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Source,
        worker::args::{WorkerArgs, WorkerCommand},
    };
    use clap::Parser as _;

    fn args(words: &[&str]) -> SealcalcArgs {
        let parsed = WorkerArgs::try_parse_from(["w", "sealcalc"].iter().chain(words)).unwrap();
        let WorkerCommand::Sealcalc(args) = parsed.command else { panic!("{parsed:?}") };
        *args
    }

    fn told(args: &SealcalcArgs, config: Option<&WorkerConfig>) -> String {
        let pipeline = args.pipeline(config).unwrap();
        let report = pipeline.simulate().unwrap();
        Calculated { version: VERSION, pipeline, report }.text(false)
    }

    #[test]
    fn a_command_line_of_the_incumbent_is_understood() {
        let line = "--tree_d_mins 1 --tree_d_concurrent 2 --pc1_mins 317 --pc1_concurrent 15 --pc2_mins 25 \
                    --pc2_concurrent 2 --c2_mins 25 --c2_concurrent 1 --sealing_threads 24 --seed_mins 80 --calculate_days 10";
        let args = args(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!((args.days.get(), args.sealing_threads.unwrap().get()), (10, 24));
        insta::assert_snapshot!(told(&args, None));
    }

    #[test]
    fn a_worker_file_gives_the_limits() {
        let text = r#"
            [sector_manager]
            rpc_client.addr = "/ip4/127.0.0.1/tcp/1789"
            [[sealing_thread]]
            location = "/mnt/a"
            [[sealing_thread]]
            location = "/mnt/b"
            [processors.limitation.concurrent]
            pc1 = 3
            [processors.limitation.staggered]
            pc1 = "5min"
            [processors.ext_locks]
            gpu0 = 1
            [[processors.pc1]]
            concurrent = 2
            [[processors.pc1]]
            concurrent = 2
            [[processors.pc2]]
            locks = ["gpu0"]
            [[processors.c2]]
            locks = ["gpu0"]
        "#;
        let config = WorkerConfig::parse(&Source::of("w.toml", text)).unwrap();
        let pipeline = args(&["--pc1-mins", "100"]).pipeline(Some(&config)).unwrap();
        assert_eq!((pipeline.threads.get(), pipeline.concurrent[&Step::Pc1].get()), (2, 3));
        assert_eq!(pipeline.staggered[&Step::Pc1], Duration::from_secs(300));
        assert_eq!(pipeline.locks["gpu0"].1, [Step::Pc2, Step::C2]);
        assert_eq!(pipeline.times[&Step::Pc1], Duration::from_secs(6000));
        assert!(told(&args(&[]), Some(&config)).contains("bottleneck: threads"));
    }

    #[test]
    fn a_worker_file_gives_the_size_of_its_sectors() {
        let pc1 = |sealing: &str, words: &[&str]| {
            let least = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n";
            let text = format!("{least}{sealing}\n[[sealing_thread]]\nlocation = \"/mnt/a\"\n");
            let config = WorkerConfig::parse(&Source::of("w.toml", text)).unwrap();
            args(words).pipeline(Some(&config)).map(|pipeline| pipeline.times[&Step::Pc1])
        };
        let of = |size: SectorSize| Figures::of(size).cost(Step::Pc1).time;
        assert_eq!(pc1("[sealing]\nallowed_sizes = [\"64GiB\"]", &[]).unwrap(), of(SectorSize::GiB64));
        assert_eq!(pc1("[sealing]\nallowed_sizes = [\"512MiB\"]", &[]).unwrap(), of(SectorSize::MiB512));
        assert_eq!(pc1("", &[]).unwrap(), of(SectorSize::GiB32));
        let both = "[sealing]\nallowed_sizes = [\"64GiB\", \"32GiB\"]";
        assert_eq!(pc1(both, &["--sector-size", "64GiB"]).unwrap(), of(SectorSize::GiB64));
        let failure = pc1(both, &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.error.to_string().contains("32GiB and 64GiB"), "{}", failure.error);
    }

    #[test]
    fn stages_without_time_are_no_trap() {
        let words =
            ["--c2_mins", "0", "--tree-d-mins", "0", "--pc1-concurrent", "2", "--pc1-mins", "0.5", "--days", "2"];
        assert!(told(&args(&words), None).contains("sectors a day"));
        let zero = "--add-pieces-mins 0 --tree-d-mins 0 --pc1-mins 0 --pc2-mins 0 --transfer-mins 0 --seed-mins 0 --c1-mins 0 \
                    --c2-mins 0";
        let none = args(&zero.split_whitespace().collect::<Vec<_>>());
        assert_eq!(none.pipeline(None).unwrap().simulate(), Err(PipelineError::NoTime));
        for bad in ["--pc1-mins=-1", "--pc1-mins=x", "--pc1-concurrent=0", "--sealing-threads=0", "--days=0"] {
            assert!(WorkerArgs::try_parse_from(["w", "sealcalc", bad]).is_err(), "{bad}");
        }
    }
}
