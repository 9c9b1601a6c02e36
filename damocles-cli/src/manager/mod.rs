//! `damocles-manager`: gives out sectors, lands their messages and keeps them proven.

pub mod args;

use crate::{
    exit::{Exit, Failure},
    frame,
    output::Printer,
};
use args::ManagerArgs;
use std::{ffi::OsString, process::ExitCode};

/// The program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    frame::run(args, |args: &ManagerArgs| &args.global, dispatch)
}

fn dispatch(_args: ManagerArgs, _printer: Printer) -> Result<Exit, Failure> {
    Err(Failure::usage("this build does not manage"))
}
