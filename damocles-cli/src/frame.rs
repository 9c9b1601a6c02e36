//! What both programs do around every command.

use crate::{
    exit::{self, Exit, Failure},
    log,
    output::Printer,
};
use clap::Parser;
use std::{ffi::OsString, io::Write as _, process::ExitCode, time::Duration};

/// The switches that every command of both programs has.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no notes, only data and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What is logged, e.g. `info,damocles_seal=debug` [env: DAMOCLES_LOG, RUST_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Parses the arguments, runs the command, reports its failure, and maps it to an exit code.
pub(crate) fn run<A: Parser>(
    args: impl IntoIterator<Item = OsString>,
    global: impl FnOnce(&A) -> &Global,
    command: impl FnOnce(A, Printer) -> Result<Exit, Failure>,
) -> ExitCode {
    let args = match A::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => return refuse(&e),
    };
    let switches = global(&args).clone();
    let printer = Printer::new(switches.json, switches.quiet);
    let ended = log::init(switches.log.as_deref()).and_then(|()| command(args, printer));
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            exit::report(&failure);
            failure.exit.into()
        }
    }
}

/// Help and versions go to standard output and are no failure; wrong arguments are [`Exit::Usage`].
fn refuse(error: &clap::Error) -> ExitCode {
    let written = error.print().and_then(|()| std::io::stdout().flush());
    match written {
        Err(_) => Exit::Ok.into(),
        Ok(()) if error.use_stderr() => Exit::Usage.into(),
        Ok(()) => Exit::Ok.into(),
    }
}

/// The runtime that a command runs in.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // The TLS library asks for one cryptography provider per process; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::from(e).context("start the runtime"))
}

/// How long what still runs on a thread of its own is waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Runs a daemon. A file system that hangs keeps threads of the runtime for ever, but not the program.
pub(crate) fn run_to_end(daemon: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon);
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}
