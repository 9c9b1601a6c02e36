//! `damocles-manager`: gives out sectors, lands their messages and keeps them proven.

mod act;
pub mod args;
mod chain;
mod client;
pub mod confirm;
mod desk;
mod devnet;
pub mod funds;
pub mod init;
pub mod look;
pub mod message;
pub mod miner;
mod nodes;
mod outbox;
pub mod piece;
pub(crate) mod remote;
mod rpc;
mod run;
mod sectors;
mod signer;
mod stores;
pub mod util;
pub mod wallet;
mod workers;

use crate::{
    children,
    config::manager::Home,
    exit::{Exit, Failure},
    frame,
    output::Printer,
    quickstart, signals, worker,
};
use anyhow::Context as _;
use args::{DaemonCommand, DevnetCommand, ManagerArgs, ManagerCommand, PieceCommand};
use damocles_core::Context;
use std::{ffi::OsString, process::ExitCode};

/// The program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    frame::run(args, |args: &ManagerArgs| &args.global, dispatch)
}

fn dispatch(args: ManagerArgs, printer: Printer) -> Result<Exit, Failure> {
    let home = Home::resolve(args.home).ok_or_else(|| Failure::usage("no home directory; name one with --home"))?;
    match args.command {
        ManagerCommand::Daemon(DaemonCommand::Init(args)) => printer.data(&init::init(&args, &home)?)?,
        ManagerCommand::Daemon(DaemonCommand::Run(args)) => run::run(args, &home, printer)?,
        ManagerCommand::Devnet(DevnetCommand::Run(args)) => devnet::run(&args, home.path(), printer)?,
        ManagerCommand::Quickstart(args) => return frame::runtime()?.block_on(quickstart::run(&args, printer)),
        ManagerCommand::Miner(command) => {
            cancellable(async |cx| miner::run(&command, &home, printer, &cx).await)?;
        }
        ManagerCommand::Chain(command) => {
            cancellable(async |cx| look::run(&command, &home, printer, &cx).await)?;
        }
        ManagerCommand::Message(command) => {
            cancellable(async |cx| message::run(&command, &home, printer, &cx).await)?;
        }
        ManagerCommand::Util(command) => cancellable(async |cx| util::run(&command, &home, printer, &cx).await)?,
        ManagerCommand::Piece(PieceCommand::Add(args)) => {
            printer.data(&frame::runtime()?.block_on(piece::add(&args.file, &home))?)?;
        }
        ManagerCommand::Sectors(command) => {
            cancellable(async |cx| sectors::run(&command, &home, printer, &cx).await)?;
        }
        ManagerCommand::Worker(command) => {
            cancellable(async |_| workers::run(&command, &home, printer).await)?;
        }
        ManagerCommand::Wallet(args) => return wallet::run(&args, &home, printer),
        ManagerCommand::Processor(args) => children::serve(args)?,
        ManagerCommand::QuickstartWorker(args) => worker::daemon(args, printer)?,
    }
    Ok(Exit::Ok)
}

/// Runs what may be broken off with a signal.
fn cancellable(work: impl AsyncFnOnce(Context) -> Result<(), Failure>) -> Result<(), Failure> {
    frame::runtime()?.block_on(async {
        let shutdown = signals::install().context("listen for signals")?;
        let cx = Context { cancel: shutdown.drain.clone(), ..Context::detached() };
        // What waits for the node or for an answer ends at the second signal, as nothing of it is half done.
        tokio::select! {
            done = work(cx) => done,
            () = shutdown.stop.cancelled() => Err(Failure::new(Exit::Retryable, anyhow::anyhow!("stopped"))),
        }
    })
}
