//! The pools against good and bad children. The program is its own child.

mod cases;
mod child;
mod runner;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("child") => child::main(&args[1..]),
        Some("parent") => cases::parent(&args[1]),
        _ => runner::run(&cases::all(), &args),
    }
}
