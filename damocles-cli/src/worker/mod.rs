//! `damocles-worker`: seals sectors for a manager.

pub mod args;
mod board;
mod cgroup;
pub mod config;
pub mod control;
mod daemon;
pub mod explain;
mod hot;
pub mod hwinfo;
pub mod info;
mod jobs;
mod keys;
mod legacy;
mod list;
mod metrics;
pub mod plan;
mod rpc;
pub mod sealcalc;
mod store;
mod threads;

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
        WorkerCommand::Info(file) => frame::runtime()?.block_on(list::info(&file.config, printer))?,
        WorkerCommand::Explain(args) => frame::runtime()?.block_on(list::explain(&args, printer))?,
        WorkerCommand::Pause(args) => frame::runtime()?.block_on(threads::pause(&args, printer))?,
        WorkerCommand::Resume(args) => frame::runtime()?.block_on(threads::resume(&args, printer))?,
        WorkerCommand::Drain(args) => frame::runtime()?.block_on(threads::drain(&args, printer))?,
        WorkerCommand::Abort(args) => frame::runtime()?.block_on(threads::abort(&args, printer))?,
        WorkerCommand::Reload(file) => frame::runtime()?.block_on(threads::reload(&file.config, printer))?,
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
