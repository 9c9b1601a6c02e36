//! `damocles-worker config ...`: questions about configuration files.

use super::hwinfo;
use crate::{
    config::{
        Source, WorkerConfig,
        check::{self, Site},
        import, reference,
    },
    exit::{Exit, Failure},
    output::{self, Printer, Render},
};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use damocles_seal::machine::{Machine, Roots};
use serde::Serialize;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// Commands on configuration files.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell everything that is wrong with a worker's file: exit code 0 if it can be used, else 2
    Check(CheckArgs),
    /// Write a worker file of this version from one of damocles-worker 0.13 or venus-worker
    Import(ImportArgs),
    /// Print the reference of all keys
    #[command(hide = true)]
    Docs,
}

/// What is checked.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The worker's configuration file
    pub file: PathBuf,
    /// Check against this record, made by `hwinfo --json`, or with `none` against no machine [default: this machine]
    #[arg(long, value_name = "FILE|none")]
    pub machine: Option<PathBuf>,
}

/// What is imported.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The older program's configuration file
    pub file: PathBuf,
    /// Write to this file, which must not be there, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand, printer: Printer) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => check(&args, printer),
        ConfigCommand::Import(args) => import(&args, printer).map(|()| Exit::Ok),
        ConfigCommand::Docs => printer.data(&Reference { text: reference::markdown() }).map(|()| Exit::Ok),
    }
}

fn check(args: &CheckArgs, printer: Printer) -> Result<Exit, Failure> {
    let source = Source::read(args.file.clone())?;
    let none = args.machine.as_deref() == Some(Path::new("none"));
    let machine = if none { None } else { Some(hwinfo::machine(args.machine.as_deref())?) };
    let site = Site { machine: machine.as_ref(), here: args.machine.is_none() };
    let (_, report) = check::check(&source, site);
    printer.data(&report)?;
    Ok(if report.is_usable() { Exit::Ok } else { Exit::Usage })
}

/// Reads a file for a worker on this machine, and what its stores say. All errors are told at once, and warnings go to standard error.
///
/// # Errors
///
/// The file cannot be read, or something keeps it from being used.
pub fn load(file: &Path, printer: Printer) -> Result<(Source, WorkerConfig), Failure> {
    let source = Source::read(file)?;
    let (config, report) = check::check(&source, Site::here(&Machine::read(&Roots::host())));
    for line in report.warnings_text().lines() {
        printer.note(line);
    }
    config.map(|config| (source, config)).ok_or_else(|| {
        let errors = report.errors_text();
        let hint = format!("`damocles-worker config check {}` says this without starting", file.display());
        Failure::new(Exit::Usage, anyhow!("this worker cannot start as it is configured\n{}", errors.trim_end()))
            .hint(hint)
    })
}

fn import(args: &ImportArgs, printer: Printer) -> Result<(), Failure> {
    let source = Source::read(args.file.clone())?;
    let imported = import::import(&source)?;
    let Some(output) = &args.output else {
        // The listing and the file are two things: people get the first on standard error.
        if !printer.is_json() {
            output::line(imported.listing(source.file()).trim_end());
        }
        return printer.data(&imported);
    };
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(output).map_err(|e| {
        let taken = e.kind() == std::io::ErrorKind::AlreadyExists;
        let failure = Failure::new(Exit::Usage, e);
        if taken {
            failure.hint("nothing is ever overwritten: name another file, or move this one away")
        } else {
            failure
        }
    })?;
    file.write_all(imported.file.as_bytes())?;
    file.sync_all()?;
    if printer.is_json() {
        return printer.data(&imported);
    }
    output::line(imported.listing(source.file()).trim_end());
    Ok(())
}

/// The reference, as it is printed.
#[derive(Debug, Serialize)]
struct Reference {
    text: String,
}

impl Render for Reference {
    fn text(&self, _color: bool) -> String {
        self.text.clone()
    }
}
