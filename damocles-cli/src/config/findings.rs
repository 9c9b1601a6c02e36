//! Everything that is wrong with one file, not only the first thing.

use super::{ConfigError, Source};
use std::fmt;

/// What was found in one file so far.
#[derive(Debug)]
pub struct Findings<'s> {
    source: &'s Source,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl<'s> Findings<'s> {
    /// Nothing yet.
    pub fn new(source: &'s Source) -> Self {
        Self { source, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The value at `path` cannot be used; `hint` says what to write instead, and is empty where the message does.
    pub fn error(&mut self, path: &str, message: impl fmt::Display, hint: impl Into<String>) {
        let error = self.place(path, message, hint.into());
        self.errors.push(error);
    }

    /// The value at `path` can be used, and is probably not what is meant.
    pub fn warn(&mut self, path: &str, message: impl fmt::Display, hint: impl Into<String>) {
        let warning = self.place(path, message, hint.into());
        self.warnings.push(warning);
    }

    fn place(&self, path: &str, message: impl fmt::Display, hint: String) -> ConfigError {
        let error = self.source.error_at(path, message);
        if hint.is_empty() { error } else { error.hint_with(hint) }
    }

    /// Adds what reading the text found.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = ConfigError>) {
        self.errors.extend(errors);
    }

    /// Whether nothing was found that keeps the file from being used.
    pub fn is_usable(&self) -> bool {
        self.errors.is_empty()
    }

    /// Errors and warnings, each in the order of the text.
    pub fn into_parts(mut self) -> (Vec<ConfigError>, Vec<ConfigError>) {
        // Those of other files come last, each file's together.
        let own = self.source.file();
        let place = |error: &ConfigError| ((error.file() != own).then(|| error.file().to_owned()), error.position());
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
        (self.errors, self.warnings)
    }

    /// # Errors
    ///
    /// The first error that was found.
    pub fn first(self) -> Result<(), ConfigError> {
        self.errors.into_iter().next().map_or(Ok(()), Err)
    }
}
