//! Both child protocols against children that break them, and the old one with a stranger's processor and our own.
//! The program is its own child.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "children print, and so does the runner")]

mod bad;
mod faults;
mod good;
mod page;
mod payloads;
#[path = "../pool/runner.rs"]
mod runner;
#[cfg(feature = "proofs")]
mod sealing;
mod stranger;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("bad") => bad::main(&args[1..]),
        Some("good") => good::main(),
        #[cfg(feature = "proofs")]
        Some("v1") => sealing::child(&args[1]),
        _ => {
            let mut all = faults::all();
            all.extend(good::all());
            all.extend(page::all());
            all.extend(payloads::all());
            all.extend(stranger::all());
            #[cfg(feature = "proofs")]
            all.extend(sealing::all());
            runner::run(&all, &args)
        }
    }
}
