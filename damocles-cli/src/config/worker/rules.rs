//! What the types of the worker's file alone cannot say.

use super::{SealingSection, WorkerConfig};
use crate::config::{Findings, ProcessorKind};
use damocles_core::SectorSize;
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
        if self.sector_manager.rpc_client.timeout.is_some_and(|limit| limit.0.is_zero()) {
            found.error("sector_manager.rpc_client.timeout", "no time at all", "");
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
        self.check_stores(found);
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
                let other = found.written(&format!("sealing_thread[{first}]"));
                found.error(&path, format_args!("{other} has the same store"), "give each thread a store of its own");
            }
            check_sealing(found, &format!("sealing_thread[{i}].sealing"), &thread.sealing);
            self.check_deals(found, i, thread);
        }
    }

    /// What the settings of a thread and the common ones make together.
    fn check_deals(&self, found: &mut Findings<'_>, i: usize, thread: &super::SealingThread) {
        let settings = thread.resolve(&self.sealing);
        let path = |own: bool, key: &str| match own {
            true => format!("sealing_thread[{i}].sealing.{key}"),
            false => format!("sealing.{key}"),
        };
        if settings.disable_cc && !settings.enable_deals {
            let path = path(thread.sealing.disable_cc.is_some(), "disable_cc");
            let hint = "set `enable_deals = true` to ask for deals, or `disable_cc = false` to seal without";
            found.error(&path, "with `enable_deals = false` its sectors wait for deals that nobody asks for", hint);
        }
        let largest = settings.allowed_sizes.iter().max().copied().unwrap_or(SectorSize::GiB64);
        if settings.min_deal_space.is_some_and(|least| least.0 > largest.bytes()) {
            let path = path(thread.sealing.min_deal_space.is_some(), "min_deal_space");
            found.error(&path, format_args!("is more than a sector of {largest} holds"), "write a smaller size");
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
                let message = format!("{} is `{name}` too", found.written(&format!("attached[{first}]")));
                found.error(&format!("attached[{i}].name"), message, hint);
            }
            if let Some(first) = locations.insert(plain(&attached.location), i) {
                let other = found.written(&format!("attached[{first}]"));
                found.error(&path, format_args!("{other} has the same directory"), "");
            }
            let same = |thread: &super::SealingThread| plain(&thread.location) == plain(&attached.location);
            if let Some(thread) = self.sealing_thread.iter().position(same) {
                let other = found.written(&format!("sealing_thread[{thread}]"));
                found.error(&path, format_args!("{other} has the same directory"), "");
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
    if sealing.max_deals == Some(0) {
        found.error(&format!("{path}.max_deals"), "takes no deal", "write `enable_deals = false` instead");
    }
    let times =
        [("recover_interval", sealing.recover_interval), ("rpc_polling_interval", sealing.rpc_polling_interval)];
    for (key, _) in times.into_iter().filter(|(_, time)| time.is_some_and(|t| t.0.is_zero())) {
        found.error(&format!("{path}.{key}"), "no time at all", "");
    }
}

/// The path without `.` parts and doubled separators, for comparison only.
pub(in crate::config) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}
