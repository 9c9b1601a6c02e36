//! The arguments of `damocles-worker`, as data.

use super::{config::ConfigCommand, hwinfo::HwinfoArgs, plan::PlanArgs, sealcalc::SealcalcArgs};
use crate::{config::ChildProtocol, frame::Global, supervised::Supervision};
use clap::{ArgGroup, Args, Parser, Subcommand};
use damocles_core::SectorId;
use std::path::PathBuf;

/// Seals sectors on this machine for a manager
#[derive(Clone, Debug, Parser)]
#[command(name = "damocles-worker", version, subcommand_required = true, arg_required_else_help = true)]
pub struct WorkerArgs {
    /// Switches of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: WorkerCommand,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkerCommand {
    /// Seal until told to stop
    Daemon(DaemonArgs),
    /// Prepare directories
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show what each sealing thread of a running worker does
    List(ConfigFile),
    /// Show what a running worker is made of: slots, limits, stores and its manager
    Info(ConfigFile),
    /// Say why a sector or a sealing thread does not work
    Explain(ExplainArgs),
    /// Take no new step in a sealing thread
    Pause(PauseArgs),
    /// Go on in a paused, parked or waiting sealing thread
    Resume(ResumeArgs),
    /// End one sealing thread, or all and the worker with them
    Drain(DrainArgs),
    /// Give the sector of a sealing thread up
    Abort(AbortArgs),
    /// Let a running worker take its configuration file over, as SIGHUP does
    Reload(ConfigFile),
    /// Let a user without privileges bind its worker's children
    #[command(subcommand)]
    Cgroup(CgroupCommand),
    /// Check a configuration file, or make one of an older program's
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show what this machine is made of
    Hwinfo(HwinfoArgs),
    /// Print a worker file for this machine, with the reasons
    Plan(PlanArgs),
    /// Simulate a pipeline: sectors a day, what is used, and what holds it up
    Sealcalc(Box<SealcalcArgs>),
    /// Do the tasks of one kind for the daemon that started this process
    #[command(hide = true)]
    Processor(ProcessorArgs),
}

/// How the worker runs.
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// The configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// How it was started.
    #[command(flatten)]
    pub supervision: Supervision,
}

/// Which configuration file.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The worker's configuration file
    #[arg(short, long, env = "DAMOCLES_WORKER_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: PathBuf,
}

/// Which thread of which worker.
#[derive(Clone, Debug, Args)]
pub struct ThreadArgs {
    /// The worker
    #[command(flatten)]
    pub config: ConfigFile,
    /// The thread's number in `list`
    #[arg(short, long, value_name = "N")]
    pub index: usize,
}

/// Which thread, and how soon.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// The thread
    #[command(flatten)]
    pub thread: ThreadArgs,
    /// Give the running stage up instead of waiting for its end; it is repeated after the resume
    #[arg(long)]
    pub now: bool,
}

/// Which thread, and where it goes on.
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// The thread
    #[command(flatten)]
    pub thread: ThreadArgs,
    /// Go back to this stage of the sector first, e.g. `pc1`; its files stay
    #[arg(short, long, value_name = "STAGE")]
    pub state: Option<String>,
}

/// Which thread, and when it ends.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// The worker
    #[command(flatten)]
    pub config: ConfigFile,
    /// The thread's number in `list`; all threads without it
    #[arg(short, long, value_name = "N")]
    pub index: Option<usize>,
    /// Finish the sector first instead of only the running stage
    #[arg(long)]
    pub sector: bool,
}

/// Which thread, and why.
#[derive(Clone, Debug, Args)]
pub struct AbortArgs {
    /// The thread
    #[command(flatten)]
    pub thread: ThreadArgs,
    /// Why, for the manager's records
    #[arg(short, long, value_name = "TEXT")]
    pub reason: String,
    /// An aborted sector cannot be taken up again
    #[arg(long)]
    pub really_do_it: bool,
}

/// Which sector or thread.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("which").multiple(false)))]
pub struct ExplainArgs {
    /// The worker
    #[command(flatten)]
    pub config: ConfigFile,
    /// The sector, e.g. `s-t01000-7`; all without it
    #[arg(group = "which", value_name = "SECTOR")]
    pub sector: Option<SectorId>,
    /// The thread's number in `list`
    #[arg(short, long, group = "which", value_name = "N")]
    pub index: Option<usize>,
}

/// Commands on stores.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Make directories into sealing stores
    #[command(alias = "seal-init")]
    SealingInit(Locations),
    /// Make directories into persist stores
    FileInit(Locations),
}

/// Which directories.
#[derive(Clone, Debug, Args)]
pub struct Locations {
    /// A directory; made if it is not there
    #[arg(short, long = "loc", required = true, num_args = 1.., value_name = "DIR")]
    pub locations: Vec<PathBuf>,
}

/// Commands on control groups.
#[derive(Clone, Debug, Subcommand)]
pub enum CgroupCommand {
    /// Make control groups that a user may use, in every hierarchy; run it as root after each boot
    Setup(CgroupSetup),
}

/// Whose control groups, and where.
#[derive(Clone, Debug, Args)]
pub struct CgroupSetup {
    /// The user that the worker runs as, by name or number
    #[arg(short, long, value_name = "USER")]
    pub user: String,
    /// The process that will start the worker; with control groups of version 2 it has to be moved
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,
    /// The name of the groups, as in the worker's configuration
    #[arg(long, default_value = "damocles", value_name = "NAME")]
    pub name: String,
    /// Where control groups are mounted
    #[arg(long, default_value = "/sys/fs/cgroup", value_name = "DIR")]
    pub root: PathBuf,
}

/// What a child does. Both programs have this command.
#[derive(Clone, Debug, Args)]
pub struct ProcessorArgs {
    /// The kind of task
    pub kind: String,
    /// Prove only while holding this lock file
    #[arg(long, value_name = "FILE")]
    pub turn_lock: Option<PathBuf>,
    /// How the daemon speaks
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub protocol: ChildProtocol,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_is_as_documented() {
        let mut command = WorkerArgs::command().term_width(100);
        command.clone().debug_assert();
        command.build();
        insta::assert_snapshot!("worker_help", command.render_long_help());
        for name in [
            "daemon", "store", "list", "info", "explain", "pause", "resume", "drain", "abort", "reload", "cgroup",
            "config", "hwinfo", "plan", "sealcalc",
        ] {
            let help = command.find_subcommand_mut(name).unwrap().render_long_help();
            insta::assert_snapshot!(format!("worker_{name}_help"), help);
        }
    }

    #[test]
    fn aliases_and_lists_are_taken() {
        let args = WorkerArgs::try_parse_from(["w", "store", "seal-init", "-l", "/a", "/b", "-l", "/c"]).unwrap();
        let WorkerCommand::Store(StoreCommand::SealingInit(locations)) = args.command else { panic!("{args:?}") };
        assert_eq!(locations.locations.len(), 3);
        assert!(WorkerArgs::try_parse_from(["w", "store", "file-init"]).is_err());
        assert!(WorkerArgs::try_parse_from(["w", "processor", "pc1", "--turn-lock", "/l"]).is_ok());
        let old = WorkerArgs::try_parse_from(["w", "processor", "c2", "--protocol", "v1"]).unwrap();
        let WorkerCommand::Processor(old) = old.command else { panic!("{old:?}") };
        assert_eq!(old.protocol, ChildProtocol::V1);
    }
}
