//! Reading on after a mistake: what cannot be used is told and left out.

use super::{ConfigError, Place, Places, Retired, Source, lower_first};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    iter,
    ops::Range,
    vec,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What cannot be used of a text.
#[derive(Debug, Default)]
pub struct Mistakes {
    /// Each that was found, in no order.
    pub errors: Vec<ConfigError>,
    /// What of arrays is not in what was read.
    pub left_out: LeftOut,
}

impl IntoIterator for Mistakes {
    type Item = ConfigError;
    type IntoIter = vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

/// Elements that were left out of arrays, by the place of the array. Those after them have moved up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<String, BTreeSet<usize>>);

impl LeftOut {
    fn of(paths: &BTreeSet<String>) -> Self {
        let mut left_out = Self::default();
        for path in paths {
            let element = path.strip_suffix(']').and_then(|path| path.rsplit_once('['));
            if let Some((array, Ok(index))) = element.map(|(array, index)| (array, index.parse())) {
                left_out.0.entry(array.to_owned()).or_default().insert(index);
            }
        }
        left_out
    }

    /// The place in the text of what was read as `path`.
    pub fn written(&self, path: &str) -> String {
        let mut written = String::new();
        let mut rest = path;
        while let Some((before, index, after)) = next_index(rest) {
            written.push_str(before);
            let gone = self.0.get(&written).into_iter().flatten();
            let index = gone.fold(index, |at, gone| if *gone <= at { at.saturating_add(1) } else { at });
            let _ = write!(written, "[{index}]");
            rest = after;
        }
        written + rest
    }
}

/// The place that holds another one.
fn above(path: &str) -> Option<&str> {
    path.get(..path.rfind(['.', '['])?)
}

/// A path around its first index.
fn next_index(path: &str) -> Option<(&str, usize, &str)> {
    let (before, rest) = path.split_once('[')?;
    let (index, after) = rest.split_once(']')?;
    Some((before, index.parse().ok()?, after))
}

impl Source {
    /// Reads into `T` what can be read of a text that may be no TOML. Keys that `T` does not have are no matter.
    pub(in crate::config) fn salvage<T: DeserializeOwned>(&self) -> Option<T> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        T::deserialize(toml::de::Deserializer::from(table)).ok()
    }

    /// Reads as much of the text into `T` as can be used, and tells all that cannot. `None` where the rest is no `T`.
    pub fn parse_all<T: DeserializeOwned>(&self, retired: &[Retired]) -> (Option<T>, Mistakes) {
        let mut gone = Gone::default();
        let mut errors = Vec::new();
        let read = self.read_on(retired, &mut gone, &mut errors);
        (read, Mistakes { errors, left_out: LeftOut::of(&gone.paths) })
    }

    fn read_on<T: DeserializeOwned>(
        &self,
        retired: &[Retired],
        gone: &mut Gone,
        errors: &mut Vec<ConfigError>,
    ) -> Option<T> {
        let places = match Places::of(&self.text) {
            Ok(places) => places,
            Err(e) => {
                errors.push(self.error(e.span(), lower_first(e.message())));
                return None;
            }
        };
        for place in &places.0 {
            if retired.iter().any(|r| place.is_at(r.path)) {
                gone.add(place);
            }
        }
        for place in places.0.iter().filter(|place| !gone.holds(&place.path)) {
            errors.extend(retired.iter().find(|r| place.is_at(r.path)).map(|retired| self.retired(place, retired)));
        }
        // Each turn leaves a place out that was there before.
        for _ in 0..=places.0.len() {
            let Ok(table) = gone.without(&self.text) else { break };
            let error = match T::deserialize(toml::de::Deserializer::from(table)) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let place = error.span().and_then(|span| places.with_key(&span).or_else(|| places.with_value(&span)));
            let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let path = place.map_or("", |place| &place.path);
            if !missing.is_some_and(|name| gone.had(path, name)) {
                errors.push(self.explain(&places, &error));
            }
            match place {
                Some(place) => gone.add(place),
                None => break,
            }
        }
        None
    }
}

/// Places that are left out.
#[derive(Debug, Default)]
struct Gone {
    at: BTreeSet<(usize, usize)>,
    paths: BTreeSet<String>,
}

impl Gone {
    fn add(&mut self, place: &Place) {
        self.at.insert((place.key.start, place.key.end));
        self.paths.insert(place.path.clone());
    }

    /// Whether something that a place lies in was left out: elements of an array go with it.
    fn holds(&self, path: &str) -> bool {
        iter::successors(above(path), |path| above(path)).any(|above| self.paths.contains(above))
    }

    /// Whether a key that is missing now was left out for its own mistake.
    fn had(&self, path: &str, name: &str) -> bool {
        self.paths.contains(&if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") })
    }

    fn has(&self, span: &Range<usize>) -> bool {
        self.at.contains(&(span.start, span.end))
    }

    fn without<'t>(&self, text: &'t str) -> Result<Spanned<DeTable<'t>>, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let span = table.span();
        Ok(Spanned::new(span, self.table(table.into_inner())))
    }

    fn table<'t>(&self, table: DeTable<'t>) -> DeTable<'t> {
        let kept = table.into_iter().filter(|(key, _)| !self.has(&key.span()));
        kept.map(|(key, value)| (key, self.value(value))).collect()
    }

    fn value<'t>(&self, value: Spanned<DeValue<'t>>) -> Spanned<DeValue<'t>> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => DeValue::Table(self.table(table)),
            DeValue::Array(array) => {
                let kept = array.into_iter().filter(|element| !self.has(&element.span()));
                DeValue::Array(kept.map(|element| self.value(element)).collect())
            }
            plain => plain,
        };
        Spanned::new(span, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerConfig;

    #[test]
    fn every_mistake_is_told_once() {
        let text = "[worker]\nnmae = 'x'\nping_interval = 7\n[sector_manager]\nrpc_client.addr = 'x'\n\
                    [[sealing_thread]]\nlocation = 3\n[[sealing_thread]]\nplan = 'x'\n[limit]\npc1 = 1\n";
        let retired = [Retired { path: "limit", instead: "write another" }];
        let (read, errors) = Source::of("w.toml", text).parse_all::<WorkerConfig>(&retired);
        assert!(read.is_none(), "an address is needed");
        insta::assert_snapshot!(errors.into_iter().map(|e| format!("{e}\n")).collect::<String>());
    }

    #[test]
    fn what_stands_after_a_mistake_is_told_where_it_stands() {
        let text = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n\
                    [[sealing_thread]]\nlocation = 3\n[[sealing_thread]]\nlocation = \"/a\"\n\
                    [[sealing_thread]]\nlocation = \"/b\"\n[[sealing_thread]]\nlocation = \"/b\"\n\
                    [[attached]]\nlocation = []\n[[attached]]\nlocation = \"/b\"\n\
                    [[processors.pc1]]\nconcurrent = \"x\"\n[[processors.pc1]]\nlocks = [1, \"a\", \"b\"]\n\
                    [processors.ext_locks]\nb = 1\nweight = 1\n";
        let source = Source::of("w.toml", text);
        let (errors, _) = WorkerConfig::parse_all(&source).1.into_parts();
        insta::assert_snapshot!(errors.iter().map(|e| format!("{e}\n")).collect::<String>(), @r#"
        w.toml:4:12: `sealing_thread[0].location`: invalid type: integer `3`, expected path string
        w.toml:10:1: `sealing_thread[3].location`: sealing_thread[2] has the same store
        w.toml:12:12: `attached[0].location`: invalid type: sequence, expected path string
        w.toml:14:1: `attached[1].location`: sealing_thread[2] has the same directory
        w.toml:16:14: `processors.pc1[0].concurrent`: invalid type: string "x", expected u32
        w.toml:18:10: `processors.pc1[1].locks[0]`: invalid type: integer `1`, expected a string
        w.toml:18:13: `processors.pc1[1].locks[1]`: unknown lock `a`
        "#);
    }

    #[test]
    fn a_table_that_is_no_longer_used_is_told_once() {
        let text = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n[[store]]\nlocation = \"/a\"\n\
                    [[store]]\nlocation = \"/b\"\n[[sealing_thread]]\nlocation = \"/a\"\n";
        let source = Source::of("w.toml", text);
        let (errors, _) = WorkerConfig::parse_all(&source).1.into_parts();
        insta::assert_snapshot!(errors.iter().map(|e| format!("{e}\n")).collect::<String>(), @"w.toml:3:3: key `store` is no longer used");
    }

    #[test]
    fn indices_count_what_was_left_out() {
        let gone = ["a[0]", "a[2]", "a[1].b[1]", "c"].map(str::to_owned).into();
        let left_out = LeftOut::of(&gone);
        for (read, written) in [
            ("a[0]", "a[1]"),
            ("a[1].x", "a[3].x"),
            ("a[0].b[0]", "a[1].b[0]"),
            ("a[0].b[1].c", "a[1].b[2].c"),
            ("b[1]", "b[1]"),
            ("x.y[z].a[0]", "x.y[z].a[0]"),
            ("a[18446744073709551615]", "a[18446744073709551615]"),
        ] {
            assert_eq!(left_out.written(read), written, "{read}");
        }
    }
}
