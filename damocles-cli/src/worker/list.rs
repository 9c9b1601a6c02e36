//! `damocles-worker list`, `pause` and `resume`: questions to the control socket.

use super::{args::ThreadArgs, control::WorkerStatus};
use crate::{
    config::WorkerConfig,
    exit::Failure,
    output::Printer,
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
    let dir = config.worker.run_dir.clone().or_else(default_run_dir);
    let dir = dir.ok_or_else(|| {
        Failure::usage("no run directory for the control socket")
            .hint("set XDG_RUNTIME_DIR, or `worker.run_dir` in the file")
    })?;
    Ok(socket_path(&dir, &config.name()))
}

fn client(file: &Path) -> Result<UnixClient, Failure> {
    let config = WorkerConfig::load(file)?;
    Ok(UnixClient::new(&control_socket(&config)?)?)
}

pub(super) async fn list(file: &Path, printer: Printer) -> Result<(), Failure> {
    let status: WorkerStatus = client(file)?.call("Worker.List", json!([])).await?;
    printer.data(&status)
}

pub(super) async fn pause(args: &ThreadArgs, printer: Printer) -> Result<(), Failure> {
    let paused: bool = client(&args.config.config)?.call("Worker.Pause", json!([args.index])).await?;
    printer.note(if paused { "paused" } else { "was paused already" });
    Ok(())
}

pub(super) async fn resume(args: &ThreadArgs, printer: Printer) -> Result<(), Failure> {
    let resumed: bool = client(&args.config.config)?.call("Worker.Resume", json!([args.index])).await?;
    printer.note(if resumed { "resumed" } else { "was not paused" });
    Ok(())
}
