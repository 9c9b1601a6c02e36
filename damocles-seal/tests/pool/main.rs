//! The pools against good and bad children. The program is its own child.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "children print, and so does the runner")]
#![expect(clippy::disallowed_methods, reason = "a child may end as it likes")]

mod cases;
mod child;
mod runner;
mod scheduling;
#[cfg(feature = "proofs")]
mod sealing;
mod sharing;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("child") => child::main(&args[1..]),
        Some("rival") => sharing::rival(&args[1], &args[2], &args[3]),
        Some("parent") => cases::parent(&args[1]),
        _ => {
            let mut all = cases::all();
            all.extend(scheduling::all());
            all.extend(sharing::all());
            #[cfg(feature = "proofs")]
            all.extend(sealing::all());
            runner::run(&all, &args)
        }
    }
}
