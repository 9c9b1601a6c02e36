//! A runner of tests: libtest prints on standard output, which belongs to the protocol when this program is a child.

use std::{future::Future, panic, pin::Pin, process::ExitCode};

/// One test.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Names each test after its function.
macro_rules! cases {
    ($($name:path),* $(,)?) => {
        [$($crate::runner::Case { name: stringify!($name), run: || Box::pin($name()) }),*]
    };
}
pub(crate) use cases;

/// Runs the tests whose names contain one of the arguments, as libtest does.
pub(crate) fn run(cases: &[Case], args: &[String]) -> ExitCode {
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    if flag("--ignored") {
        println!("no test is ignored");
        return ExitCode::SUCCESS;
    }
    let takes_value =
        |at: usize| at > 0 && ["--test-threads", "--skip", "--format", "--color"].contains(&&*args[at - 1]);
    let words = args.iter().enumerate().filter(|(at, arg)| !arg.starts_with('-') && !takes_value(*at));
    let filters: Vec<&String> = words.map(|(_, arg)| arg).collect();
    let chosen = |case: &&Case| {
        let fits = |filter: &&String| if flag("--exact") { case.name == **filter } else { case.name.contains(*filter) };
        filters.is_empty() || filters.iter().any(fits)
    };
    let mut failed = Vec::new();
    let mut passed = 0;
    for case in cases.iter().filter(chosen) {
        if flag("--list") {
            println!("{}: test", case.name);
            continue;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ok = panic::catch_unwind(|| runtime.block_on((case.run)())).is_ok();
        println!("test {} ... {}", case.name, if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed.push(case.name) }
    }
    if !flag("--list") {
        println!("\ntest result: {passed} passed, {} failed: {failed:?}", failed.len());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
