//! What the types of the worker's file alone cannot say.

use super::{SealingSection, WorkerConfig};
use crate::config::{Findings, ProcessorKind};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

impl WorkerConfig {
    pub(super) fn check(&self, found: &mut Findings<'_>) {
        if let Some(name) = &self.worker.name
            && !super::is_file_name(name)
        {
            let hint = "use letters, digits, `-`, `_` and `.`, at most 64";
            found.error("worker.name", format_args!("`{name}` cannot name a worker"), hint);
        }
        if self.worker.ping_interval.is_some_and(|i| i.0.is_zero()) {
            found.error("worker.ping_interval", "no time at all", "");
        }
        if self.worker.control_listen.is_some() != self.worker.control_token_file.is_some() {
            let hint = "write both, or neither: the control socket needs no token";
            found.error("worker", "`control_listen` and `control_token_file` need each other", hint);
        }
        for (i, pattern) in self.worker.scan_persist_stores.iter().enumerate() {
            if let Err(error) = glob::Pattern::new(pattern) {
                found.error(&format!("worker.scan_persist_stores[{i}]"), format_args!("is no pattern: {error}"), "");
            }
        }
        self.check_manager(found);
        if self.sealing_thread.is_empty() {
            let hint = "add [[sealing_thread]] with `location = \"<sealing store>\"`";
            found.error("sealing_thread", "a worker needs at least one", hint);
        }
        self.check_threads(found);
        self.check_attached(found);
        self.processors.check(found, &ProcessorKind::SEALING);
    }

    fn check_manager(&self, found: &mut Findings<'_>) {
        let manager = &self.sector_manager;
        let named = [
            ("token", manager.token.is_some()),
            ("token_file", manager.token_file.is_some()),
            ("token_env", manager.token_env.is_some()),
        ];
        let mut named = named.into_iter().filter(|(_, there)| *there).map(|(key, _)| key);
        if let Some(first) = named.next() {
            for other in named {
                let path = format!("sector_manager.{other}");
                found.error(&path, format_args!("there is a `{first}` too"), "keep one of the two");
            }
        }
        if manager.token.is_some() {
            let hint = "write it to a file that only this user can read, and name that as `token_file`";
            found.warn("sector_manager.token", "a token stands in this file", hint);
        }
        if manager.token_env.as_ref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
            found.error("sector_manager.token_env", "names no variable", "");
        }
        let (addr, path) = (&manager.rpc_client.addr, "sector_manager.rpc_client.addr");
        if addr.is_websocket() {
            found.error(path, "the manager does not speak WebSocket", "write the address with http or https");
        }
        if addr.token().is_some() {
            let hint = "write it as `sector_manager.token` or into a `token_file`";
            found.error(path, "a token stands before the address", hint);
        }
    }

    fn check_threads(&self, found: &mut Findings<'_>) {
        check_sealing(found, "sealing", &self.sealing);
        let mut seen = BTreeMap::new();
        for (i, thread) in self.sealing_thread.iter().enumerate() {
            let path = format!("sealing_thread[{i}].location");
            if thread.location.as_os_str().is_empty() {
                found.error(&path, "names no directory", "");
            } else if let Some(first) = seen.insert(plain(&thread.location), i) {
                let message = format_args!("sealing_thread[{first}] has the same store");
                found.error(&path, message, "give each thread a store of its own");
            }
            check_sealing(found, &format!("sealing_thread[{i}].sealing"), &thread.sealing);
        }
    }

    fn check_attached(&self, found: &mut Findings<'_>) {
        let mut names = BTreeMap::new();
        let mut locations = BTreeMap::new();
        for (i, attached) in self.attached.iter().enumerate() {
            let path = format!("attached[{i}].location");
            if attached.location.as_os_str().is_empty() {
                found.error(&path, "names no directory", "");
                continue;
            }
            let name = attached.name();
            if let Some(first) = names.insert(name.clone(), i) {
                let hint = "give each store the name that the manager knows it by";
                let message = format_args!("attached[{first}] is `{name}` too");
                found.error(&format!("attached[{i}].name"), message, hint);
            }
            if let Some(first) = locations.insert(plain(&attached.location), i) {
                found.error(&path, format_args!("attached[{first}] has the same directory"), "");
            }
            let same = |thread: &super::SealingThread| plain(&thread.location) == plain(&attached.location);
            if let Some(thread) = self.sealing_thread.iter().position(same) {
                found.error(&path, format_args!("sealing_thread[{thread}] has the same directory"), "");
            }
        }
    }
}

pub(in crate::config) fn check_sealing(found: &mut Findings<'_>, path: &str, sealing: &SealingSection) {
    let empty = [
        ("allowed_miners", sealing.allowed_miners.as_ref().is_some_and(Vec::is_empty)),
        ("allowed_sizes", sealing.allowed_sizes.as_ref().is_some_and(Vec::is_empty)),
    ];
    for (key, _) in empty.into_iter().filter(|(_, empty)| *empty) {
        found.error(&format!("{path}.{key}"), "allows nothing", "remove it to allow all");
    }
    let times =
        [("recover_interval", sealing.recover_interval), ("rpc_polling_interval", sealing.rpc_polling_interval)];
    for (key, _) in times.into_iter().filter(|(_, time)| time.is_some_and(|t| t.0.is_zero())) {
        found.error(&format!("{path}.{key}"), "no time at all", "");
    }
}

/// The path without `.` parts and doubled separators, for comparison only.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}
