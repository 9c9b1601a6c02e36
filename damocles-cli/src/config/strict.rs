//! Reading TOML strictly: an unknown key, a wrong type or a retired key is an error that says where it is and which
//! key is meant.

use super::nearest::nearest;
use serde::de::DeserializeOwned;
use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

mod prune;

/// The text of one configuration file.
#[derive(Clone, Debug)]
pub struct Source {
    file: PathBuf,
    text: String,
}

/// A key of an earlier form of a file.
#[derive(Clone, Copy, Debug)]
pub struct Retired {
    /// Where it stood: `*` is any one key, and elements of arrays have no index.
    pub path: &'static str,
    /// What to write instead.
    pub instead: &'static str,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It is not there, cannot be read, or is not UTF-8.
    pub fn read(file: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let file = file.into();
        match fs_err::read_to_string(&file) {
            Ok(text) => Ok(Self { file, text }),
            Err(e) => Err(ConfigError {
                file,
                at: None,
                message: "cannot be read".to_owned(),
                hint: (e.kind() == io::ErrorKind::NotFound).then(|| "check the path of the file".to_owned()),
                source: Some(e),
            }),
        }
    }

    /// A text that came from elsewhere; `file` is what errors call it.
    pub fn of(file: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the whole text into `T`, whose structs all deny unknown fields.
    ///
    /// # Errors
    ///
    /// The first thing in the file that does not belong there.
    pub fn parse<T: DeserializeOwned>(&self, retired: &[Retired]) -> Result<T, ConfigError> {
        let places = Places::of(&self.text).map_err(|e| self.error(e.span(), lower_first(e.message())))?;
        for place in &places.0 {
            if let Some(retired) = retired.iter().find(|r| place.is_at(r.path)) {
                return Err(self.retired(place, retired));
            }
        }
        toml::from_str(&self.text).map_err(|e| self.explain(&places, &e))
    }

    /// An error about the value at `path`, e.g. `sealing_thread[1].plan`, or at what holds it if it is not there.
    pub fn error_at(&self, path: &str, message: impl fmt::Display) -> ConfigError {
        let places = Places::of(&self.text).unwrap_or_default();
        self.error(places.nearest_to(path).map(|p| p.key.clone()), format!("`{path}`: {message}"))
    }

    /// An error about the file as a whole.
    pub fn error_in(&self, message: impl fmt::Display) -> ConfigError {
        self.error(None, message.to_string())
    }

    /// Every key of the text with its line and column, in the order of the text; none if it is no TOML.
    pub fn keys(&self) -> Vec<(String, (usize, usize))> {
        let places = Places::of(&self.text).unwrap_or_default().0.into_iter();
        places.map(|place| (place.path, position(&self.text, place.key.start))).collect()
    }

    fn retired(&self, place: &Place, retired: &Retired) -> ConfigError {
        let message = format!("key `{}` is no longer used", place.path);
        self.error(Some(place.key.clone()), message).hint_with(retired.instead)
    }

    fn error(&self, span: Option<Range<usize>>, message: String) -> ConfigError {
        let at = span.map(|s| position(&self.text, s.start));
        ConfigError { file: self.file.clone(), at, message, hint: None, source: None }
    }

    fn explain(&self, places: &Places, error: &toml::de::Error) -> ConfigError {
        let span = error.span();
        let message = error.message();
        let value = span.as_ref().and_then(|s| places.with_value(s)).map(|p| format!("`{}`: ", p.path));
        let value = value.unwrap_or_default();
        if let Some((name, known)) = unknown_name(message) {
            let what = match span.as_ref().and_then(|s| places.with_key(s)) {
                Some(place) => format!("unknown key `{}`", place.path),
                None => format!("{value}unknown name `{name}`"),
            };
            let error = self.error(span, what);
            return match nearest(name, &known) {
                Some(near) => error.hint_with(format!("did you mean `{near}`?")),
                None if known.is_empty() => error.hint_with("remove it"),
                None => error.hint_with(format!("known here: {}", known.join(", "))),
            };
        }
        let message = message.strip_prefix("missing field ").map(|rest| format!("missing key {rest}"));
        self.error(span, format!("{value}{}", message.unwrap_or_else(|| lower_first(error.message()))))
    }
}

/// Taken apart: the unknown name and the names that are known. The form is serde's own, and a test holds it.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim().chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Line and column, both from 1, of a byte offset; columns count characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (line, column)
}

/// One key of a file, with where it and its value stand.
#[derive(Clone, Debug)]
struct Place {
    path: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Place {
    fn is_at(&self, pattern: &str) -> bool {
        let mut own = self.path.split('.').map(|s| s.split('[').next().unwrap_or(s));
        let mut wanted = pattern.split('.');
        loop {
            match (own.next(), wanted.next()) {
                (None, None) => return true,
                (Some(own), Some(wanted)) if wanted == "*" || own == wanted => {}
                _ => return false,
            }
        }
    }
}

/// Every key of a file in the order of the text.
#[derive(Clone, Debug, Default)]
struct Places(Vec<Place>);

impl Places {
    fn of(text: &str) -> Result<Self, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let mut places = Self::default();
        places.collect("", table.get_ref());
        places.0.sort_by_key(|p| p.key.start);
        Ok(places)
    }

    fn collect(&mut self, above: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
            self.value(path.clone(), key.span(), value.span(), value.get_ref());
        }
    }

    fn value(&mut self, path: String, key: Range<usize>, span: Range<usize>, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.collect(&path, table),
            DeValue::Array(elements) => {
                for (i, element) in elements.iter().enumerate() {
                    self.value(format!("{path}[{i}]"), element.span(), element.span(), element.get_ref());
                }
            }
            _ => {}
        }
        self.0.push(Place { path, key, value: span });
    }

    fn with_key(&self, span: &Range<usize>) -> Option<&Place> {
        self.0.iter().find(|p| p.key == *span)
    }

    fn with_value(&self, span: &Range<usize>) -> Option<&Place> {
        self.0.iter().find(|p| p.value == *span)
    }

    /// The place of `path`, else of the longest part of it that is there.
    fn nearest_to(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.iter().find(|p| p.path == path) {
                return Some(place);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// A configuration file that cannot be used.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    at: Option<(usize, usize)>,
    message: String,
    hint: Option<String>,
    source: Option<io::Error>,
}

impl ConfigError {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Line and column, both from 1, if the error has a place.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.at
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Says what to write instead.
    #[must_use]
    pub fn hint_with(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        #[expect(dead_code, reason = "only its reading is tested")]
        worker: Inner,
        #[serde(default)]
        #[expect(dead_code, reason = "only its reading is tested")]
        attached: Vec<Inner>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        name: Option<String>,
        #[expect(dead_code, reason = "only its reading is tested")]
        location: Option<PathBuf>,
    }

    const RETIRED: &[Retired] = &[Retired { path: "*.weight", instead: "remove it: the least loaded one is taken" }];

    fn refused(text: &str) -> String {
        let error = Source::of("w.toml", text).parse::<File>(RETIRED).unwrap_err();
        format!("{error}\nhint: {}", error.hint().unwrap_or("-"))
    }

    #[test]
    fn errors_say_where_and_what_is_meant() {
        insta::assert_snapshot!(refused("[worker]\n  nmae = 'x'\n"), @r"
        w.toml:2:3: unknown key `worker.nmae`
        hint: did you mean `name`?
        ");
        insta::assert_snapshot!(refused("[[attached]]\nname = 'a'\n[[attached]]\nlocation = 3\n"), @r"
        w.toml:4:12: `attached[1].location`: invalid type: integer `3`, expected path string
        hint: -
        ");
        insta::assert_snapshot!(refused("[worker]\nsomething_else = 1\n"), @r"
        w.toml:2:1: unknown key `worker.something_else`
        hint: known here: name, location
        ");
        insta::assert_snapshot!(refused("[worker]\nname = 'x'\nweight = 2\n"), @r"
        w.toml:3:1: key `worker.weight` is no longer used
        hint: remove it: the least loaded one is taken
        ");
        insta::assert_snapshot!(refused("[worker]\nname = \n"), @r"
        w.toml:2:8: string values must be quoted, expected literal string
        hint: -
        ");
        insta::assert_snapshot!(refused("[worker]\nname = 'x'\nname = 'y'\n"), @r"
        w.toml:3:1: duplicate key
        hint: -
        ");
        insta::assert_snapshot!(refused("[wörker]\n"), @r"
        w.toml:1:3: invalid unquoted key, expected letters, numbers, `-`, `_`
        hint: -
        ");
        insta::assert_snapshot!(refused("attached = 7\n"), @r"
        w.toml:1:12: `attached`: invalid type: integer `7`, expected a sequence
        hint: -
        ");
    }

    #[test]
    fn later_checks_find_their_line() {
        let source = Source::of("w.toml", "[[attached]]\nname = 'a'\n\n[[attached]]\nname = 'a'\n");
        assert_eq!(source.error_at("attached[1].name", "taken").to_string(), "w.toml:5:1: `attached[1].name`: taken");
        assert_eq!(source.error_at("attached[1].location", "x").position(), Some((4, 1)));
        assert_eq!(source.error_at("nothing.here", "x").position(), None);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::read("/nonexistent/w.toml").unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/w.toml: cannot be read");
        assert!(error.hint().is_some());
    }
}
