//! What an import tells.

use crate::output::Render;
use serde::Serialize;
use std::{fmt::Write as _, path::Path};

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// A file of this version, and how it differs from what it was made of.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    version: u32,
    /// The text of the file. Empty, and not printed, if it was written elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// What is not as it was, in the order of the old file.
    pub notes: Vec<Note>,
}

/// One key that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Its line in the old file, from 1.
    pub line: Option<usize>,
    /// The key.
    pub key: String,
    /// What became of it.
    pub what: What,
    /// Why.
    pub why: String,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It says the same in other words.
    Changed,
    /// It was left out.
    Dropped,
    /// The old program did not know it either.
    Ignored,
    /// It was kept, and should be looked at.
    Warning,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Dropped => "dropped",
            Self::Ignored => "ignored",
            Self::Warning => "warning",
        }
    }
}

impl Imported {
    pub(super) fn new(file: String, notes: Vec<Note>) -> Self {
        Self { version: VERSION, file, notes }
    }

    /// The notes, one a line, with their place in `old`.
    pub fn listing(&self, old: &Path) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let line = note.line.map(|line| format!("{line}:")).unwrap_or_default();
            let _ = writeln!(text, "{}:{line} {}: `{}`: {}", old.display(), note.what.name(), note.key, note.why);
        }
        text
    }
}

impl Render for Imported {
    fn text(&self, _color: bool) -> String {
        self.file.clone()
    }
}
