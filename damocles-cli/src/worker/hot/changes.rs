//! What is otherwise than before, in words.

use crate::config::{HumanDuration, ProcessorKind, Processors, worker::SealingSettings};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

/// What the threads do otherwise, each change once with the threads that it is for.
pub(super) fn changes(before: &[SealingSettings], after: &[SealingSettings]) -> Vec<String> {
    let mut changes: Vec<(String, Vec<String>)> = Vec::new();
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        for ((key, from), (_, to)) in before.shown().into_iter().zip(after.shown()).filter(|(from, to)| from != to) {
            let change = format!("{key}: {from} -> {to}");
            match changes.iter_mut().find(|(known, _)| *known == change) {
                Some((_, threads)) => threads.push(index.to_string()),
                None => changes.push((change, vec![index.to_string()])),
            }
        }
    }
    let all = after.len();
    let text = |(change, threads): (String, Vec<String>)| match threads.len() {
        1 => format!("{change} (thread {})", threads.concat()),
        count if count == all => format!("{change} (all threads)"),
        _ => format!("{change} (threads {})", threads.join(", ")),
    };
    changes.into_iter().map(text).collect()
}

/// What of the limits is otherwise.
pub(super) fn limits_changed(before: &Processors, after: &Processors) -> Vec<String> {
    let (old, new) = (&before.limitation, &after.limitation);
    let kind = |kind: &ProcessorKind| kind.name().to_owned();
    let time = |gap: &HumanDuration| gap.to_string();
    let mut changed = entries("processors.limitation.concurrent", (&old.concurrent, &new.concurrent), kind, shown);
    changed.extend(entries("processors.limitation.staggered", (&old.staggered, &new.staggered), kind, time));
    changed.extend(entries("processors.ext_locks", (&before.ext_locks, &after.ext_locks), shown, shown));
    changed
}

fn shown(what: &impl Display) -> String {
    what.to_string()
}

fn entries<K: Ord, V: PartialEq>(
    table: &str,
    (before, after): (&BTreeMap<K, V>, &BTreeMap<K, V>),
    key: impl Fn(&K) -> String,
    value: impl Fn(&V) -> String,
) -> Vec<String> {
    let value = |of: Option<&V>| of.map_or_else(|| "none".to_owned(), &value);
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let pairs = keys.into_iter().map(|name| (name, before.get(name), after.get(name)));
    let changed = pairs.filter(|(_, before, after)| before != after);
    changed.map(|(name, old, new)| format!("{table}.{}: {} -> {}", key(name), value(old), value(new))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, WorkerConfig};

    fn config(rest: &str) -> WorkerConfig {
        let threads = "[[sealing_thread]]\nlocation = \"/a\"\n[[sealing_thread]]\nlocation = \"/b\"\nsealing.max_retries = 9\n\
                       [[sealing_thread]]\nlocation = \"/c\"\n";
        let text = format!("[sector_manager]\nrpc_client.addr = \"http://m:1\"\n{rest}\n{threads}");
        WorkerConfig::parse(&Source::of("worker.toml", text)).unwrap()
    }

    #[test]
    fn each_change_is_told_once_with_its_threads() {
        let told = |rest: &str| changes(&config("").threads(), &config(rest).threads());
        assert_eq!(told(""), [""; 0]);
        assert_eq!(told("[sealing]\nmax_retries = 5"), [""; 0], "that is the default");
        assert_eq!(
            told(
                "[sealing]\nmax_retries = 7\nseal_interval = \"1h\"\nallowed_miners = [1000, 1001]\nauto_resume = \"0s\""
            ),
            [
                "allowed_miners: all -> 1000, 1001 (all threads)",
                "max_retries: 5 -> 7 (threads 0, 2)",
                "seal_interval: 30s -> 1h (all threads)",
                "auto_resume: 1h -> never (all threads)",
            ]
        );
    }

    #[test]
    fn limits_are_told_by_their_keys() {
        let told = |before: &str, after: &str| {
            limits_changed(&config(before).processors, &config(after).processors).join("\n")
        };
        let limits = "[processors.limitation.concurrent]\npc1 = 2\n[processors.limitation.staggered]\npc1 = \"1m\"\n\
                      [processors.ext_locks]\ngpu = 1\n";
        assert_eq!(told(limits, limits), "");
        let changed = "processors.limitation.concurrent.pc1: 2 -> 3\nprocessors.limitation.concurrent.pc2: none -> 1\n\
                       processors.limitation.staggered.pc1: 1m -> none\nprocessors.ext_locks.gpu: 1 -> none";
        assert_eq!(told(limits, "[processors.limitation.concurrent]\npc1 = 3\npc2 = 1\n"), changed);
    }
}
