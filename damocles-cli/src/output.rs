//! The only file that prints: data to standard output, talk to standard error.

use crate::exit::Failure;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use damocles_core::Timestamp;
use serde::Serialize;
use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, UNIX_EPOCH},
};

/// Something that a reading command shows: a JSON document, or text for people.
pub trait Render: Serialize {
    /// The text for people, usually a [`table`].
    fn text(&self, color: bool) -> String;
}

/// Decides what goes where.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    json: bool,
    quiet: bool,
    color: bool,
}

impl Printer {
    /// A printer for this process: colour only on a terminal, and never when `NO_COLOR` is set.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, color: !no_color() && io::stdout().is_terminal() }
    }

    /// Whether data is printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether notes are dropped.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints one document to standard output.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written. When its reader went away, the failure is a silent one that exits with 0.
    pub fn data(&self, data: &impl Render) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(data).map_err(anyhow::Error::from)?
        } else {
            data.text(self.color)
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(text.trim_end().as_bytes()).and_then(|()| out.write_all(b"\n"));
        match written.and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone(e)),
            Err(e) => Err(Failure::from(e).context("write to standard output")),
        }
    }

    /// Prints one document and ends as `outcome` says: what failed is a failure whoever reads of it.
    ///
    /// # Errors
    ///
    /// The outcome's, else as [`Self::data`].
    pub fn last(&self, data: &impl Render, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let printed = self.data(data);
        outcome.and(printed)
    }

    /// Prints one line to standard error, unless notes are dropped.
    pub fn note(&self, note: impl fmt::Display) {
        if !self.quiet {
            line(note);
        }
    }
}

impl Printer {
    /// Prints a question to standard error, whatever the verbosity, and stays on its line.
    ///
    /// # Errors
    ///
    /// Standard error cannot be written: nobody sees the question.
    pub fn prompt(&self, question: &str) -> Result<(), Failure> {
        let mut out = io::stderr().lock();
        Ok(out.write_all(question.as_bytes()).and_then(|()| out.flush())?)
    }
}

/// Whether the user asked for no colour, see <https://no-color.org>.
#[expect(clippy::disallowed_methods, reason = "the program reads its environment")]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
}

/// Writes one line to standard error whatever the verbosity.
pub(crate) fn line(text: impl fmt::Display) {
    // A closed standard error is no reason to stop working.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A time as people and programs read it.
pub(crate) fn time_text(time: Timestamp) -> String {
    // What lies before 1970 or after 9999 is no time of a block, and cannot be written.
    let most = 253_402_300_799_000;
    let millis = u64::try_from(time.0.clamp(0, most)).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

/// A table without frames: aligned columns that also `cut` and `awk` understand.
pub fn table<R: IntoIterator<Item = String>>(
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
    color: bool,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows =
            [vec!["s-t01000-1".to_owned(), "proving".to_owned()], vec!["s-t01000-12".to_owned(), "-".to_owned()]];
        insta::assert_snapshot!(table(&["SECTOR", "STATE"], rows, false), @r"
        SECTOR       STATE
        s-t01000-1   proving
        s-t01000-12  -
        ");
    }
}
