//! What has to be there on the machine that the worker runs on: programs, stores, the token.

use crate::{
    config::{Findings, WorkerConfig},
    exit::Failure,
    manager::wallet::password::private_text,
};
use damocles_seal::{
    machine::Machine,
    store::{PersistStore, SealingStore, StaticTrees, StoreError},
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

pub(super) fn check(config: &WorkerConfig, machine: &Machine, found: &mut Findings<'_>) {
    for slot in config.slots() {
        if let Some(bin) = &slot.bin
            && let Err(why) = program(bin)
        {
            let hint = "install it, or remove `bin` to run this program";
            found.error(&format!("{}.bin", slot.path), format_args!("`{}` {why}", bin.display()), hint);
        }
    }
    for (i, thread) in config.sealing_thread.iter().enumerate() {
        if let Err(error) = SealingStore::look_as(&thread.location, &config.name()) {
            let hint = "is the disk mounted? `damocles-worker store sealing-init -l DIR` makes a sealing store";
            store(&format!("sealing_thread[{i}].location"), &error, hint, found);
        }
    }
    for (i, attached) in config.attached.iter().enumerate() {
        // For reading: a check makes nothing.
        if let Err(error) = PersistStore::open(&attached.location, attached.name.as_deref(), true) {
            let hint = "is the disk mounted? `damocles-worker store file-init -l DIR` makes a persist store";
            store(&format!("attached[{i}].location"), &error, hint, found);
        }
    }
    token(config, found);
    if let Some(file) = config.worker.control_token_file.as_deref().filter(|file| !is_pipe(file))
        && let Err(failure) = control_token(file)
    {
        let hint = failure.hint.as_deref().unwrap_or("write a token of at least 16 characters there").to_owned();
        found.error("worker.control_token_file", format_args!("{:#}", failure.error), hint);
    }
    for (i, dir) in config.worker.local_pieces_dirs.iter().enumerate().filter(|(_, dir)| !dir.is_dir()) {
        let message = format_args!("`{}` is no directory", dir.display());
        found.warn(&format!("worker.local_pieces_dirs[{i}]"), message, "make it, or remove it");
    }
    trees(config, found);
    groups(config, machine, found);
}

/// Ready-made trees are looked at, as far as that takes no time.
fn trees(config: &WorkerConfig, found: &mut Findings<'_>) {
    for (size, file) in &config.processors.static_tree_d {
        let path = format!("processors.static_tree_d.{size}");
        if file.is_relative() {
            let hint = "write the path from the root on";
            found.warn(&path, "means another file wherever the worker is started", hint);
        }
        if let Err(error) = StaticTrees::check(*size, file) {
            let hint = "name the tree over a sector of zeros of this size, such as `sc-02-data-tree-d.dat` of a sector without \
                        deals, or remove the key: the tree is built then";
            found.error(&path, error.chain(), hint);
        }
    }
}

/// The token for the manager, as the daemon will read and send it.
fn token(config: &WorkerConfig, found: &mut Findings<'_>) {
    let manager = &config.sector_manager;
    let (path, hint) = match (&manager.token_file, &manager.token_env) {
        (Some(file), _) if is_pipe(file) => return,
        (Some(_), _) => {
            ("sector_manager.token_file", "write the token there, readable by the worker's user alone".to_owned())
        }
        (None, Some(name)) => {
            let hint =
                format!("set `{name}` where the daemon is started, and for this check too, or write `token_file`");
            ("sector_manager.token_env", hint)
        }
        (None, None) => ("sector_manager.token", "write the token in one line of plain characters".to_owned()),
    };
    match config.token() {
        Err(error) => found.error(path, error, hint),
        Ok(Some(token)) if !is_token(token.reveal().trim()) => found.error(path, "is no token that can be sent", hint),
        Ok(_) => {}
    }
}

/// Whether it can stand in the header of a request.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

/// A pipe is read once, and by the daemon.
fn is_pipe(file: &Path) -> bool {
    fs_err::metadata(file).is_ok_and(|facts| !facts.is_file() && !facts.is_dir())
}

/// The token of those who give orders over TCP.
///
/// # Errors
///
/// The file cannot be read, others can read it, or it holds nothing that is long enough.
pub(crate) fn control_token(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let token = Zeroizing::new(private_text(file)?.trim().to_owned());
    if token.len() < 16 {
        return Err(Failure::usage(format_args!("`{}` holds no token of at least 16 characters", file.display()))
            .hint(format!("write one with `openssl rand -hex 32 > {}`", file.display())));
    }
    Ok(token)
}

fn store(path: &str, error: &StoreError, hint: &str, found: &mut Findings<'_>) {
    found.error(path, error.chain(), error.hint().unwrap_or(hint));
}

/// Whether a child can be started from this: a path, or a name that is looked up in `PATH`.
fn program(bin: &Path) -> Result<(), &'static str> {
    if bin.components().count() > 1 || bin.is_absolute() {
        return executable(bin);
    }
    let found = search_path().into_iter().any(|dir| executable(&dir.join(bin)).is_ok());
    if found { Ok(()) } else { Err("is in no directory of PATH") }
}

#[expect(clippy::disallowed_methods, reason = "children are looked up in the program's own PATH")]
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn executable(file: &Path) -> Result<(), &'static str> {
    match file.metadata() {
        Err(_) => Err("is not there"),
        Ok(facts) if !facts.is_file() => Err("is no file"),
        Ok(facts) if facts.permissions().mode() & 0o111 == 0 => Err("is not executable"),
        Ok(_) => Ok(()),
    }
}

/// Limits need control groups that this user may make.
fn groups(config: &WorkerConfig, machine: &Machine, found: &mut Findings<'_>) {
    let able = |name: &str| {
        let old = machine.cgroups.v1.iter().any(|controller| controller.name == name && controller.writable);
        let new = machine.cgroups.v2.as_ref().is_some_and(|v2| v2.writable && v2.controllers.iter().any(|c| c == name));
        old || new
    };
    for slot in config.slots() {
        for (key, controller, asked) in
            [("memory", "memory", slot.memory.is_some()), ("cpu_weight", "cpu", slot.cpu_weight.is_some())]
        {
            if asked && !able(controller) {
                let message = format_args!("this user cannot make control groups with the controller `{controller}`");
                let hint = "run `damocles-worker cgroup setup --user USER` as root, and start the worker as it says";
                found.warn(&format!("{}.cgroup.{key}", slot.path), message, hint);
            }
        }
    }
}
