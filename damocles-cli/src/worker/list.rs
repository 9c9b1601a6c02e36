//! `damocles-worker list`, `info` and `explain`: questions to the control socket.

use super::{args::ExplainArgs, control::WorkerStatus, explain::Explanation, info::WorkerInfo};
use crate::{
    config::{Source, WorkerConfig, worker::WorkerSection},
    exit::Failure,
    output::{self, Printer},
    server::{UnixClient, default_run_dir, socket_path},
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The control socket of the worker that a configuration file describes.
///
/// # Errors
///
/// The file names no run directory, and the session has none.
pub fn control_socket(config: &WorkerConfig) -> Result<PathBuf, Failure> {
    socket_of(&config.worker)
}

fn socket_of(worker: &WorkerSection) -> Result<PathBuf, Failure> {
    let dir = worker.run_dir.clone().or_else(default_run_dir);
    let dir = dir.ok_or_else(|| {
        Failure::usage("no run directory for the control socket")
            .hint("set XDG_RUNTIME_DIR, or `worker.run_dir` in the file")
    })?;
    Ok(socket_path(&dir, &worker.name()))
}

/// A running worker is reached by what its file says of the socket, also while the rest of the file cannot be used.
pub(super) fn client(file: &Path) -> Result<UnixClient, Failure> {
    let source = Source::read(file)?;
    let worker = match WorkerConfig::parse(&source) {
        Ok(config) => config.worker,
        Err(error) => match WorkerSection::salvaged(&source) {
            // Where no worker runs, the mistake is all that there is to tell.
            Some(worker) if socket_of(&worker).is_ok_and(|socket| socket.exists()) => {
                output::line(format_args!("warning: {error}"));
                worker
            }
            _ => return Err(error.into()),
        },
    };
    Ok(UnixClient::new(&socket_of(&worker)?)?)
}

pub(super) async fn list(file: &Path, printer: Printer) -> Result<(), Failure> {
    let status: WorkerStatus = client(file)?.call("Worker.List", json!([])).await?;
    printer.data(&status)
}

pub(super) async fn info(file: &Path, printer: Printer) -> Result<(), Failure> {
    let info: WorkerInfo = client(file)?.call("Worker.Info", json!([])).await?;
    printer.data(&info)
}

pub(super) async fn explain(args: &ExplainArgs, printer: Printer) -> Result<(), Failure> {
    let mut told: Explanation = client(&args.config.config)?.call("Worker.Explain", json!([])).await?;
    let all = told.threads.len();
    told.threads.retain(|why| {
        args.index.is_none_or(|index| why.index == index) && (args.sector.is_none() || why.sector == args.sector)
    });
    if told.threads.is_empty() && all > 0 {
        let error = match args.sector {
            Some(sector) => format!("no sealing thread of this worker has sector {sector}"),
            None => "there is no such sealing thread".to_owned(),
        };
        return Err(Failure::usage(error).hint("`damocles-worker list` shows the threads and their sectors"));
    }
    printer.data(&told)
}
