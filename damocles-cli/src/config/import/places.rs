//! Sealing threads and stores.

use super::{Import, Part, SEALING};
use crate::config::worker::plain;
use std::{collections::BTreeSet, path::Path};
use toml::{Table, Value};

impl Import {
    pub(super) fn threads(&mut self, top: &mut Part) {
        let older = self.tables(top, "store");
        for part in &older {
            self.changed(part.path(), "is [[sealing_thread]] now");
        }
        let mut seen = BTreeSet::new();
        for mut part in older.into_iter().chain(self.tables(top, "sealing_thread")) {
            let location = part.take("location");
            let plan = part.take("plan").and_then(|plan| plan.as_str().map(ToOwned::to_owned));
            let mut thread = Table::new();
            if let Some(mut sealing) = self.table(&mut part, "sealing") {
                let own = self.sealing(&mut sealing);
                self.rest(sealing, &SEALING);
                if !own.is_empty() {
                    thread.insert("sealing".to_owned(), own.into());
                }
            }
            let path = part.path().to_owned();
            self.rest(part, &["location", "plan", "sealing"]);
            let place = location.as_ref().and_then(Value::as_str).unwrap_or("no location").to_owned();
            match plan.as_deref() {
                None | Some("sealer") => {}
                Some(plan) => {
                    let instead = match plan {
                        "wdpost" => "the manager proves, with the [processors.window_post] of manager.toml",
                        _ => "let the old program go on with this store, beside this worker",
                    };
                    let why = format!("this version has no plan `{plan}`: the thread is left out; {instead}");
                    self.dropped(&format!("{path}.plan"), why);
                    self.out.left_out.push(format!("Left out: the thread of `{place}` with the plan `{plan}`."));
                    continue;
                }
            }
            let Some(location) = location else {
                self.dropped(&path, "it names no `location`: the thread is left out");
                continue;
            };
            if !seen.insert(plain(Path::new(&place))) {
                self.dropped(&path, format!("another thread has `{place}`: the old program skipped this one"));
                continue;
            }
            thread.insert("location".to_owned(), location);
            self.out.threads.push(thread);
        }
    }

    pub(super) fn attached(&mut self, top: &mut Part) {
        for (key, location, name) in
            [("remote", "path", "instance"), ("remote_store", "location", "name"), ("attached", "location", "name")]
        {
            for mut part in self.tables(top, key) {
                let path = part.path().to_owned();
                let mut store = Table::new();
                let taken =
                    [("location", part.take(location)), ("name", part.take(name)), ("readonly", part.take("readonly"))];
                for (key, value) in taken {
                    if let Some(value) = value {
                        store.insert(key.to_owned(), value);
                    }
                }
                self.rest(part, &[location, name, "readonly"]);
                if !store.contains_key("location") {
                    self.dropped(&path, format!("it names no `{location}`: the store is left out"));
                    continue;
                }
                if key != "attached" {
                    self.changed(&path, "is [[attached]] now");
                }
                self.out.attached.push(store);
            }
        }
        self.drop_key(top, "attached_selection", "the manager chooses the store");
    }
}
