//! Reading on after a mistake: what cannot be used is told and left out.

use super::{ConfigError, Place, Places, Retired, Source, lower_first};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, ops::Range};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

impl Source {
    /// Reads into `T` what can be read of a text that may be no TOML. Keys that `T` does not have are no matter.
    pub(in crate::config) fn salvage<T: DeserializeOwned>(&self) -> Option<T> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        T::deserialize(toml::de::Deserializer::from(table)).ok()
    }

    /// Reads as much of the text into `T` as can be used, and tells all that cannot. `None` where the rest is no `T`.
    pub fn parse_all<T: DeserializeOwned>(&self, retired: &[Retired]) -> (Option<T>, Vec<ConfigError>) {
        let places = match Places::of(&self.text) {
            Ok(places) => places,
            Err(e) => return (None, vec![self.error(e.span(), lower_first(e.message()))]),
        };
        let mut gone = Gone::default();
        let mut errors = Vec::new();
        for place in &places.0 {
            if let Some(retired) = retired.iter().find(|r| place.is_at(r.path)) {
                errors.push(self.retired(place, retired));
                gone.add(place);
            }
        }
        // Each turn leaves a place out that was there before.
        for _ in 0..=places.0.len() {
            let Ok(table) = gone.without(&self.text) else { break };
            let error = match T::deserialize(toml::de::Deserializer::from(table)) {
                Ok(read) => return (Some(read), errors),
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
        (None, errors)
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
        insta::assert_snapshot!(errors.iter().map(|e| format!("{e}\n")).collect::<String>());
    }
}
