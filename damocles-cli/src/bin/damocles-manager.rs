//! The manager daemon and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    damocles_cli::manager::main(std::env::args_os())
}
