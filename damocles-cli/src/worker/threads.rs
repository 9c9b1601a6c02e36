//! `damocles-worker pause`, `resume`, `drain`, `abort` and `reload`: orders to a running worker.

use super::{
    args::{AbortArgs, DrainArgs, PauseArgs, ResumeArgs},
    control::Answer,
    list::client,
};
use crate::{exit::Failure, output::Printer};
use nix::unistd::{User, getuid};
use serde_json::{Value, json};
use std::path::Path;

async fn order(file: &Path, method: &str, params: Value, printer: Printer) -> Result<(), Failure> {
    let answer: Answer = client(file)?.call(method, params).await?;
    if printer.is_json() {
        return printer.data(&answer);
    }
    printer.note(answer.message);
    Ok(())
}

/// Whoever runs this program.
fn operator() -> String {
    let uid = getuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

pub(super) async fn pause(args: &PauseArgs, printer: Printer) -> Result<(), Failure> {
    let params = json!({ "index": args.thread.index, "now": args.now, "by": operator() });
    order(&args.thread.config.config, "Worker.Pause", params, printer).await
}

pub(super) async fn resume(args: &ResumeArgs, printer: Printer) -> Result<(), Failure> {
    let params = json!({ "index": args.thread.index, "state": args.state });
    order(&args.thread.config.config, "Worker.Resume", params, printer).await
}

pub(super) async fn drain(args: &DrainArgs, printer: Printer) -> Result<(), Failure> {
    let params = json!({ "index": args.index, "sector": args.sector });
    order(&args.config.config, "Worker.Drain", params, printer).await
}

pub(super) async fn reload(file: &Path, printer: Printer) -> Result<(), Failure> {
    order(file, "Worker.Reload", json!([]), printer).await
}

pub(super) async fn abort(args: &AbortArgs, printer: Printer) -> Result<(), Failure> {
    if !args.really_do_it {
        return Err(Failure::usage("an aborted sector cannot be taken up again")
            .hint("`damocles-worker list` shows which it is; say --really-do-it to give it up"));
    }
    let params = json!({ "index": args.thread.index, "reason": args.reason });
    order(&args.thread.config.config, "Worker.Abort", params, printer).await
}
