//! Worker files of damocles-worker 0.13 and of venus-worker, as ours.
//!
//! Those programs ignored every key that they did not know. Here each is listed, with the key that was probably meant.

mod draft;
mod hardware;
mod note;
mod part;
mod places;
mod processors;

use super::{ConfigError, HumanDuration, Source, nearest::nearest};
use draft::Draft;
use part::Part;
use std::collections::BTreeMap;
use toml::{Table, Value};

pub use note::{Imported, Note, What};

/// What those programs read at the top of their file.
const TOP: [&str; 17] = [
    "worker",
    "metrics",
    "sector_manager",
    "sealing",
    "sealing_thread",
    "attached",
    "processors",
    "instance",
    "worker_server",
    "sealer_rpc",
    "piece_store",
    "store",
    "limit",
    "remote",
    "remote_store",
    "static_tree_d",
    "attached_selection",
];

/// Makes a worker file of this version.
///
/// # Errors
///
/// The text is no TOML.
pub fn import(source: &Source) -> Result<Imported, ConfigError> {
    // A file that is no TOML is told as any other of ours.
    let old: Table = source.parse(&[])?;
    let mut import = Import {
        lines: source.keys().into_iter().map(|(path, (line, _))| (path, line)).collect(),
        notes: Vec::new(),
        out: Draft::default(),
    };
    let mut top = Part::new("", old);
    import.worker(&mut top);
    import.manager(&mut top);
    import.metrics(&mut top);
    if let Some(mut sealing) = import.table(&mut top, "sealing") {
        import.out.sealing = import.sealing(&mut sealing);
        import.rest(sealing, &SEALING);
    }
    if !import.out.sealing.contains_key("enable_deals") {
        import.out.sealing.insert("enable_deals".to_owned(), false.into());
        import.changed("sealing.enable_deals", "is written out: it was false where it was absent, and is true here");
    }
    import.threads(&mut top);
    import.attached(&mut top);
    import.processors(&mut top);
    import.rest(top, &TOP);
    Ok(import.done())
}

/// One import.
#[derive(Debug)]
struct Import {
    /// The line of each key.
    lines: BTreeMap<String, usize>,
    notes: Vec<Note>,
    out: Draft,
}

/// Keys of `[sealing]` that mean the same here.
const SAME: [&str; 10] = [
    "allowed_miners",
    "allowed_sizes",
    "enable_deals",
    "max_retries",
    "seal_interval",
    "recover_interval",
    "rpc_polling_interval",
    "disable_cc",
    "max_deals",
    "min_deal_space",
];

/// All keys of `[sealing]` that those programs read.
const SEALING: [&str; 13] = [
    "allowed_miners",
    "allowed_sizes",
    "enable_deals",
    "max_retries",
    "seal_interval",
    "recover_interval",
    "rpc_polling_interval",
    "disable_cc",
    "max_deals",
    "min_deal_space",
    "ignore_proof_check",
    "request_task_max_retries",
    "verify_after_pc2",
];

impl Import {
    fn note(&mut self, path: &str, what: What, why: impl Into<String>) {
        let line = self.lines.get(path).copied();
        self.notes.push(Note { line, key: path.to_owned(), what, why: why.into() });
    }

    fn dropped(&mut self, path: &str, why: impl Into<String>) {
        self.note(path, What::Dropped, why);
    }

    fn changed(&mut self, path: &str, why: impl Into<String>) {
        self.note(path, What::Changed, why);
    }

    /// Leaves a key out, if it is there.
    fn drop_key(&mut self, part: &mut Part, key: &str, why: &str) {
        if part.take(key).is_some() {
            self.dropped(&part.at(key), why);
        }
    }

    /// The table at a key; something else there was ignored.
    fn table(&mut self, part: &mut Part, key: &str) -> Option<Part> {
        let path = part.at(key);
        match part.take(key)? {
            Value::Table(table) => Some(Part::new(&path, table)),
            _ => {
                self.note(&path, What::Ignored, "is no table");
                None
            }
        }
    }

    /// The tables of an array at a key, or the one table that stands there.
    fn tables(&mut self, part: &mut Part, key: &str) -> Vec<Part> {
        let path = part.at(key);
        let elements = match part.take(key) {
            None => return Vec::new(),
            Some(Value::Table(table)) => return vec![Part::new(&path, table)],
            Some(Value::Array(elements)) => elements,
            Some(other) => vec![other],
        };
        let mut parts = Vec::new();
        for (i, element) in elements.into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            match element {
                Value::Table(table) => parts.push(Part::new(&path, table)),
                _ => self.note(&path, What::Ignored, "is no table"),
            }
        }
        parts
    }

    /// What is left of a table was ignored by those programs too.
    fn rest(&mut self, part: Part, known: &[&str]) {
        for key in part.keys() {
            let near = nearest(&key, known).map(|near| format!("; the nearest key is `{}`", part.at(near)));
            let why = format!("the old program did not know this key and ignored it{}", near.unwrap_or_default());
            self.note(&part.at(&key), What::Ignored, why);
        }
    }

    fn done(mut self) -> Imported {
        self.notes.sort_by_key(|note| note.line);
        Imported::new(self.out.text(&self.notes), self.notes)
    }

    fn worker(&mut self, top: &mut Part) {
        let server = "the control RPC is a Unix socket now, `<run dir>/<worker name>.sock`, see `worker.run_dir`";
        let part = self.table(top, "worker");
        let mut part = part.unwrap_or_else(|| Part::new("worker", Table::new()));
        if let Some(name) = part.take("name") {
            self.name(&part.at("name"), name);
        }
        if let Some(mut part) = self.table(top, "instance") {
            if let Some(name) = part.take("name") {
                self.older_name(&part.at("name"), name);
            }
            self.rest(part, &["name"]);
        }
        self.drop_key(top, "worker_server", server);
        self.drop_key(&mut part, "rpc_server", server);
        if let Some(every) = part.take("ping_interval") {
            self.out.worker.insert("ping_interval".to_owned(), every);
        }
        for (old, new) in [("ScanPersistStores", "scan_persist_stores"), ("scan_persist_stores", "scan_persist_stores")]
        {
            if let Some(patterns) = part.take(old) {
                if old != new {
                    self.changed(&part.at(old), format!("is `worker.{new}` now"));
                }
                self.out.worker.insert(new.to_owned(), patterns);
            }
        }
        let one = part.take("local_pieces_dir");
        if let Some(dirs) = part.take("local_pieces_dirs") {
            self.out.worker.insert("local_pieces_dirs".to_owned(), dirs);
            if one.is_some() {
                self.dropped(&part.at("local_pieces_dir"), "`local_pieces_dirs` is there, which the old program took");
            }
        } else if let Some(dir) = one {
            self.changed(&part.at("local_pieces_dir"), "is `worker.local_pieces_dirs` now");
            self.out.worker.insert("local_pieces_dirs".to_owned(), Value::Array(vec![dir]));
        }
        self.rest(
            part,
            &["name", "rpc_server", "ping_interval", "local_pieces_dirs", "local_pieces_dir", "scan_persist_stores"],
        );
    }

    fn older_name(&mut self, path: &str, name: Value) {
        if self.out.worker.contains_key("name") {
            self.dropped(path, "`worker.name` is there, which the later versions of the old program took");
        } else {
            self.changed(path, "is `worker.name` now");
            self.name(path, name);
        }
    }

    /// Any text was a name; ours is a file's too.
    fn name(&mut self, path: &str, name: Value) {
        let Value::String(old) = &name else {
            self.note(path, What::Ignored, "is no text");
            return;
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let new: String = old.chars().map(plain).skip_while(|c| *c == '.').take(64).collect();
        if new.is_empty() {
            self.dropped(path, "cannot name a worker: the machine's name is taken");
            return;
        }
        if new != *old {
            self.changed(path, format!("the control socket is called so too: `{new}` is the name now"));
        }
        self.out.worker.insert("name".to_owned(), new.into());
    }

    fn metrics(&mut self, top: &mut Part) {
        let Some(mut part) = self.table(top, "metrics") else { return };
        for key in ["enable", "http_listen"] {
            if let Some(value) = part.take(key) {
                self.out.metrics.insert(key.to_owned(), value);
            }
        }
        let served = self.out.metrics.get("enable").and_then(Value::as_bool) == Some(true);
        if served && !self.out.metrics.contains_key("http_listen") {
            self.changed(
                part.path(),
                "were at port 9000 of all addresses where `http_listen` was not written: it is now",
            );
            self.out.metrics.insert("http_listen".to_owned(), "0.0.0.0:9000".into());
        }
        self.rest(part, &["enable", "http_listen"]);
    }

    fn manager(&mut self, top: &mut Part) {
        if let Some(mut part) = self.table(top, "sector_manager") {
            if let Some(mut client) = self.table(&mut part, "rpc_client") {
                self.address(&mut client);
            }
            self.token(&mut part, "piece_token");
            self.rest(part, &["rpc_client", "piece_token"]);
        }
        if self.out.manager.contains_key("rpc_client") {
            let why = "[sector_manager] is there, which the later versions of the old program took";
            self.drop_key(top, "sealer_rpc", why);
        } else if let Some(mut part) = self.table(top, "sealer_rpc") {
            self.changed("sealer_rpc", "is [sector_manager] now");
            self.address(&mut part);
        }
        if let Some(mut part) = self.table(top, "piece_store") {
            self.drop_key(&mut part, "url", "pieces come from the manager");
            self.token(&mut part, "token");
            self.rest(part, &["url", "token"]);
        }
    }

    fn token(&mut self, part: &mut Part, key: &str) {
        let Some(token) = part.take(key) else { return };
        if token.as_str().is_some_and(|token| token.trim().is_empty()) {
            self.dropped(&part.at(key), "is empty");
            return;
        }
        if self.out.manager.contains_key("token") {
            let why =
                "another token is `sector_manager.token` already, and the manager is sent one: look which is right";
            self.dropped(&part.at(key), why);
            return;
        }
        let why = "is `sector_manager.token` now: a token that stands in the file; better write it to a file that only \
                   the worker's user can read, and name that as `sector_manager.token_file`";
        self.note(&part.at(key), What::Warning, why);
        self.out.manager.insert("token".to_owned(), token);
    }

    fn address(&mut self, part: &mut Part) {
        let unused = "the old program read it and never used it; `sector_manager.token` is what is sent";
        self.drop_key(part, "headers", unused);
        for key in ["addr", "url"] {
            let Some(value) = part.take(key) else { continue };
            if self.out.manager.contains_key("rpc_client") {
                self.dropped(&part.at(key), "the manager has an address already");
                continue;
            }
            let Value::String(old) = &value else {
                self.note(&part.at(key), What::Ignored, "is no text");
                continue;
            };
            let new = over_http(old);
            if new != *old {
                self.changed(&part.at(key), "the manager is spoken to over HTTP");
            }
            let mut client = Table::new();
            client.insert("addr".to_owned(), new.into());
            self.out.manager.insert("rpc_client".to_owned(), client.into());
        }
        let part = std::mem::replace(part, Part::new("", Table::new()));
        self.rest(part, &["addr", "url", "headers"]);
    }

    /// What ours refuses, as it was meant: an empty list was no limit, and no time at all a very short one.
    fn least(&mut self, part: &mut Part) {
        for key in ["allowed_miners", "allowed_sizes"] {
            if part.get(key).and_then(Value::as_array).is_none_or(|list| !list.is_empty()) {
                continue;
            }
            let _ = part.take(key);
            if self.out.sealing.contains_key(key) {
                let why = format!(
                    "was left out: an empty list took all here, and now `sealing.{key}` holds for this \
                                   thread too; write all of them"
                );
                self.note(&part.at(key), What::Warning, why);
            } else {
                self.dropped(&part.at(key), "an empty list allows all, as none does");
            }
        }
        for key in ["recover_interval", "rpc_polling_interval"] {
            let time = part.get(key).cloned().and_then(|value| value.try_into::<HumanDuration>().ok());
            if time.is_some_and(|time| time.0.is_zero()) {
                self.changed(&part.at(key), "the shortest time is `1s` here");
                part.put(key, "1s".into());
            }
        }
    }

    fn sealing(&mut self, part: &mut Part) -> Table {
        self.least(part);
        if matches!(part.get("max_deals"), Some(Value::Integer(0))) {
            self.drop_key(part, "max_deals", "0 was no limit");
        }
        for (key, why) in [
            ("ignore_proof_check", "a sector is done when its proof has landed and not before"),
            ("request_task_max_retries", "an idle thread waits for work"),
            ("verify_after_pc2", "every proof is verified before it is sent"),
        ] {
            self.drop_key(part, key, why);
        }
        SAME.iter().filter_map(|key| Some(((*key).to_owned(), part.take(key)?))).collect()
    }
}

/// The manager speaks HTTP alone.
fn over_http(address: &str) -> String {
    for (old, new) in [("ws://", "http://"), ("wss://", "https://")] {
        if let Some(rest) = address.strip_prefix(old) {
            return format!("{new}{rest}");
        }
    }
    for (old, new) in [("/ws", "/http"), ("/wss", "/https")] {
        if let Some(rest) = address.strip_suffix(old).filter(|rest| rest.starts_with('/')) {
            return format!("{rest}{new}");
        }
    }
    address.to_owned()
}

#[cfg(test)]
mod tests;
