//! The new file.

use super::Note;
use std::fmt::Write as _;
use toml::{Table, Value};

/// The sections of the new file in their order.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) worker: Table,
    pub(super) metrics: Table,
    pub(super) manager: Table,
    pub(super) sealing: Table,
    pub(super) threads: Vec<Table>,
    /// Threads that this version has no plan for.
    pub(super) left_out: Vec<String>,
    pub(super) attached: Vec<Table>,
    pub(super) isolation: Table,
    pub(super) limits: Table,
    pub(super) staggered: Table,
    pub(super) locks: Table,
    pub(super) trees: Table,
    pub(super) slots: Vec<DraftSlot>,
}

/// A slot of the new file.
#[derive(Debug)]
pub(super) struct DraftSlot {
    /// The stage.
    pub(super) kind: &'static str,
    /// Where the old file has it.
    pub(super) path: String,
    pub(super) table: Table,
}

impl Draft {
    pub(super) fn text(&self, notes: &[Note]) -> String {
        let mut text = String::from("# Imported. Look at it with `damocles-worker config check`.\n");
        if !notes.is_empty() {
            let _ = writeln!(text, "# {} keys are not as they were; the import listed them.", notes.len());
        }
        for (header, table) in [
            ("worker", &self.worker),
            ("metrics", &self.metrics),
            ("sector_manager", &self.manager),
            ("sealing", &self.sealing),
        ] {
            section(&mut text, &format!("[{header}]"), table);
        }
        for thread in &self.threads {
            section(&mut text, "[[sealing_thread]]", thread);
        }
        for comment in &self.left_out {
            let plain: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = write!(text, "\n# {plain}\n");
        }
        for attached in &self.attached {
            section(&mut text, "[[attached]]", attached);
        }
        for (header, table) in [
            ("isolation", &self.isolation),
            ("limitation.concurrent", &self.limits),
            ("limitation.staggered", &self.staggered),
            ("ext_locks", &self.locks),
            ("static_tree_d", &self.trees),
        ] {
            section(&mut text, &format!("[processors.{header}]"), table);
        }
        for slot in &self.slots {
            let _ = write!(text, "\n[[processors.{}]]\n", slot.kind);
            keys(&mut text, "", &slot.table);
        }
        text
    }
}

fn section(text: &mut String, header: &str, table: &Table) {
    if !table.is_empty() {
        let _ = write!(text, "\n{header}\n");
        keys(text, "", table);
    }
}

/// Keys with their values; a table in a table is written with dots, but one whose keys are free to choose.
fn keys(text: &mut String, above: &str, table: &Table) {
    for (key, value) in table {
        // A key is written as TOML wants it: bare where it can be.
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let name = if bare { key.clone() } else { Value::from(key.as_str()).to_string() };
        match value {
            Value::Table(inner) if key != "envs" => keys(text, &format!("{above}{name}."), inner),
            value => {
                let _ = writeln!(text, "{above}{name} = {value}");
            }
        }
    }
}
