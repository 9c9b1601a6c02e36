//! `damocles-worker`: seals sectors for a manager.

pub mod args;
mod cgroup;
pub mod config;
pub mod control;
mod daemon;
pub mod hwinfo;
mod list;
pub mod plan;
pub mod sealcalc;
mod store;

use crate::{
    children,
    exit::{Exit, Failure},
    frame,
    output::Printer,
};
use args::{WorkerArgs, WorkerCommand};
use std::{ffi::OsString, process::ExitCode};

pub use daemon::daemon;
pub use list::control_socket;

/// The program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    frame::run(args, |args: &WorkerArgs| &args.global, dispatch)
}

fn dispatch(args: WorkerArgs, printer: Printer) -> Result<Exit, Failure> {
    match args.command {
        WorkerCommand::List(file) => frame::runtime()?.block_on(list::list(&file.config, printer))?,
        WorkerCommand::Pause(thread) => frame::runtime()?.block_on(list::pause(&thread, printer))?,
        WorkerCommand::Resume(thread) => frame::runtime()?.block_on(list::resume(&thread, printer))?,
        WorkerCommand::Store(command) => store::init(command, printer)?,
        WorkerCommand::Cgroup(command) => cgroup::run(command, printer)?,
        WorkerCommand::Daemon(args) => daemon(args, printer)?,
        WorkerCommand::Config(command) => return config::run(command, printer),
        WorkerCommand::Hwinfo(args) => hwinfo::hwinfo(&args, printer)?,
        WorkerCommand::Plan(args) => plan::print(&args, printer)?,
        WorkerCommand::Sealcalc(args) => sealcalc::print(&args, printer)?,
        WorkerCommand::Processor(args) => children::serve(args)?,
    }
    Ok(Exit::Ok)
}
