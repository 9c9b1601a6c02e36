//! The worker daemon and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    damocles_cli::worker::main(std::env::args_os())
}
