//! What is otherwise in a worker's file than before, of that which a running worker cannot take over.

use super::{Source, StoreFile, WorkerConfig, worker::SealingSection};
use serde::Deserialize as _;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// The keys of `after` that hold from the next start on only, as they stand in the file. Another way to write the same
/// is no difference. Both texts are those of the configurations.
pub fn cold(before: (&Source, &WorkerConfig), after: (&Source, &WorkerConfig)) -> Vec<String> {
    let fixed = fixed(before.1.clone());
    if fixed == self::fixed(after.1.clone()) {
        return Vec::new();
    }
    let read = |source: &Source| toml::from_str::<Table>(source.text()).map(Value::Table);
    let (Ok(old), Ok(new)) = (read(before.0), read(after.0)) else { return vec![UNKNOWN.to_owned()] };
    let mut places = Vec::new();
    differing(Some(&old), Some(&new), &Vec::new(), &mut places);
    let is_cold = |place: &Difference<'_>| {
        let mut file = old.clone();
        put(&mut file, &place.path, place.after);
        // What cannot stand alone belongs to another difference, and is one itself.
        WorkerConfig::deserialize(file).map_or(true, |with| self::fixed(with) != fixed)
    };
    let named: Vec<String> = places.iter().filter(|place| is_cold(place)).map(Difference::name).collect();
    if named.is_empty() { vec![UNKNOWN.to_owned()] } else { named }
}

/// Where no single key makes the difference.
const UNKNOWN: &str = "something in the file";

/// All but what a running worker takes over: this says which keys that are.
fn fixed(mut config: WorkerConfig) -> WorkerConfig {
    config.sealing = SealingSection::default();
    for thread in &mut config.sealing_thread {
        thread.sealing = SealingSection::default();
        thread.store = StoreFile::default();
    }
    config.processors.limitation.concurrent.clear();
    config.processors.limitation.staggered.clear();
    config.processors.ext_locks.clear();
    config
}

#[derive(Clone, Debug)]
enum Part {
    Key(String),
    Number(usize),
}

/// A value that is another than before, or is not in one of the files.
#[derive(Debug)]
struct Difference<'v> {
    path: Vec<Part>,
    after: Option<&'v Value>,
}

impl Difference<'_> {
    fn name(&self) -> String {
        let mut name = String::new();
        for part in &self.path {
            match part {
                Part::Key(key) if name.is_empty() => name.clone_from(key),
                Part::Key(key) => name.extend([".", key]),
                Part::Number(number) => name.extend(["[", &number.to_string(), "]"]),
            }
        }
        name
    }
}

fn differing<'v>(before: Option<&'v Value>, after: Option<&'v Value>, path: &[Part], found: &mut Vec<Difference<'v>>) {
    let with = |part: Part| path.iter().cloned().chain([part]).collect::<Vec<_>>();
    // A table that is only in one of the files differs by what is in it.
    if let (Some(Value::Table(_)), None) | (None | Some(Value::Table(_)), Some(Value::Table(_))) = (before, after) {
        let table = |value: Option<&'v Value>| value.and_then(Value::as_table);
        let keys = |table: Option<&'v Table>| table.into_iter().flat_map(Table::keys).collect::<BTreeSet<_>>();
        let (old, new) = (table(before), table(after));
        for key in keys(old).union(&keys(new)) {
            let part = with(Part::Key((*key).clone()));
            differing(old.and_then(|t| t.get(*key)), new.and_then(|t| t.get(*key)), &part, found);
        }
        return;
    }
    let tables = |value: Option<&'v Value>| value.and_then(Value::as_array).filter(|of| of.iter().any(Value::is_table));
    let (old, new) = (tables(before), tables(after));
    if old.is_some() || new.is_some() {
        let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.map_or(&[][..], Vec::as_slice));
        for number in 0..old.len().max(new.len()) {
            let part = with(Part::Number(number));
            match (old.get(number), new.get(number)) {
                (Some(old), Some(new)) => differing(Some(old), Some(new), &part, found),
                // An element is there as a whole or not at all.
                (_, after) => found.push(Difference { path: part, after }),
            }
        }
    } else if before != after {
        found.push(Difference { path: path.to_vec(), after });
    }
}

/// Puts a value where the path leads, or takes away what is there.
fn put(file: &mut Value, path: &[Part], value: Option<&Value>) {
    let Some((part, rest)) = path.split_first() else { return };
    match (part, file) {
        (Part::Key(key), Value::Table(table)) => match (rest.is_empty(), value) {
            (true, Some(value)) => drop(table.insert(key.clone(), value.clone())),
            (true, None) => drop(table.remove(key)),
            (false, _) => {
                let empty = match rest.first() {
                    Some(Part::Number(_)) => Value::Array(Vec::new()),
                    _ => Value::Table(Table::new()),
                };
                put(table.entry(key.clone()).or_insert(empty), rest, value);
            }
        },
        (Part::Number(number), Value::Array(array)) => match (rest.is_empty(), value) {
            (true, Some(value)) => array.push(value.clone()),
            (true, None) if *number < array.len() => drop(array.remove(*number)),
            (true, None) => {}
            (false, _) => {
                if let Some(element) = array.get_mut(*number) {
                    put(element, rest, value);
                }
            }
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\ntoken = \"a-secret\"\n\
                        [[sealing_thread]]\nlocation = \"/mnt/a\"\n[[sealing_thread]]\nlocation = \"/mnt/b\"\n\
                        [processors.ext_locks]\ngpu = 1\n[[processors.pc1]]\nconcurrent = 1\n";

    fn differences(change: impl Fn(&str) -> String) -> Vec<String> {
        let read = |text: &str| {
            let source = Source::of("worker.toml", text);
            let config = WorkerConfig::parse(&source).unwrap_or_else(|e| panic!("{e}\n{text}"));
            (source, config)
        };
        let ((old, before), (new, after)) = (read(BASE), read(&change(BASE)));
        cold((&old, &before), (&new, &after))
    }

    #[test]
    fn what_a_running_worker_takes_over_is_no_difference() {
        for (from, to) in [
            ("[[processors.pc1]]", "[sealing]\nmax_retries = 9\nallowed_sizes = [\"2KiB\"]\n[[processors.pc1]]"),
            ("location = \"/mnt/b\"", "location = \"/mnt/b\"\nsealing.seal_interval = \"1s\""),
            ("gpu = 1", "gpu = 2\nother = 1"),
            ("[[processors.pc1]]", "[processors.limitation.concurrent]\npc1 = 3\n[[processors.pc1]]"),
            ("[[processors.pc1]]", "[processors.limitation.staggered]\npc1 = \"3s\"\n[[processors.pc1]]"),
            // The same in other words.
            ("location = \"/mnt/b\"", "location = \"/mnt/b\"\nplan = \"sealer\""),
            ("[sector_manager]", "[metrics]\nenable = false\n[sector_manager]"),
            ("rpc_client.addr = \"http://m:1\"", "rpc_client = { addr = 'http://m:1' } # a remark"),
        ] {
            assert_eq!(differences(|base| base.replace(from, to)), [""; 0], "{to}");
        }
    }

    #[test]
    fn every_other_key_is_named() {
        let one = |from: &str, to: &str| differences(|base| base.replace(from, to)).join(", ");
        assert_eq!(one("http://m:1", "http://m:2"), "sector_manager.rpc_client.addr");
        assert_eq!(one("a-secret", "another"), "sector_manager.token");
        assert_eq!(one("/mnt/b", "/mnt/c"), "sealing_thread[1].location");
        assert_eq!(
            one("concurrent = 1", "concurrent = 2\ncgroup.cpuset = \"0\""),
            "processors.pc1[0].cgroup.cpuset, processors.pc1[0].concurrent"
        );
        assert_eq!(one("[sector_manager]", "[worker]\nname = \"x\"\n[sector_manager]"), "worker.name");
        assert_eq!(
            one("[processors.ext_locks]", "[[attached]]\nlocation = \"/mnt/p\"\n[processors.ext_locks]"),
            "attached[0]"
        );
        assert_eq!(
            one("[[processors.pc1]]", "[processors.limitation.timeout]\npc1 = \"9h\"\n[[processors.pc1]]"),
            "processors.limitation.timeout.pc1"
        );
        assert_eq!(one("[[sealing_thread]]\nlocation = \"/mnt/b\"\n", ""), "sealing_thread[1]");
        let both = differences(|base| {
            base.replace("gpu = 1", "gpu = 7")
                .replace("[[processors.pc1]]", "[sealing]\nmax_retries = 1\n[[processors.pc1]]\nbin = \"/x\"")
        });
        assert_eq!(both, ["processors.pc1[0].bin"]);
        let port = "[worker]\ncontrol_listen = \"127.0.0.1:1\"\ncontrol_token_file = \"/t\"\n[sector_manager]";
        assert_eq!(one("[sector_manager]", port), "worker.control_listen, worker.control_token_file");
    }
}
