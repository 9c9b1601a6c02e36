//! A table that is being read, and what of it is left.

use toml::{Table, Value};

/// A table of an old file with its place in it.
#[derive(Debug)]
pub(super) struct Part {
    path: String,
    table: Table,
}

impl Part {
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self { path: path.to_owned(), table }
    }

    /// The place of a key.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.table.get(key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.table.insert(key.to_owned(), value);
    }

    /// What was not taken.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }
}
