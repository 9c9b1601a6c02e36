//! What a slot of the old program had of the machine: CPUs, cards, and how much of it at a time.

use super::{Import, Part, What};
use crate::config::ProcessorKind;
use damocles_core::CpuSet;
use damocles_seal::placement::needs_multicore_sdr;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// The variable that shows a program its cards.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A count as TOML has it.
pub(super) fn number(count: usize) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

impl Import {
    /// How many tasks of a stage the old program ran at a time: one for each thread, within the limit of the stage. Its
    /// limit of `transfer` was for another task than ours.
    pub(super) fn at_once(&self, kind: ProcessorKind) -> usize {
        let limit = self.out.limits.get(kind.name()).filter(|_| kind != ProcessorKind::Transfer);
        let limit = limit.and_then(Value::as_integer).and_then(|limit| usize::try_from(limit).ok());
        self.out.threads.len().min(limit.unwrap_or(usize::MAX))
    }

    /// How many of them a child without `concurrent` got at most: each went to the child with the most room.
    pub(super) fn share(&self, children: &[Part], kind: ProcessorKind) -> usize {
        let at_once = self.at_once(kind);
        let alike = children.iter().all(|child| child.get("concurrent").is_none());
        if alike { at_once.div_ceil(children.len().max(1)) } else { at_once }
    }

    /// A child without `concurrent` had no limit. Ours would have one task.
    pub(super) fn unlimited(&mut self, path: &str, kind: ProcessorKind, slot: &mut Table, share: usize) {
        let held = |lock: &Value| self.out.locks.get(lock.as_str()?)?.as_integer();
        let locks = slot.get("locks").and_then(Value::as_array).into_iter().flatten();
        let turns = locks.filter_map(held).filter_map(|count| usize::try_from(count).ok()).min();
        let most = share.min(turns.unwrap_or(usize::MAX)).min(groups(kind, slot));
        if most > 1 {
            let why = format!(
                "no `concurrent` was no limit, and is one task here: `concurrent = {most}` is as much as \
                               threads, limits and locks let it have"
            );
            self.changed(path, why);
            slot.insert("concurrent".to_owned(), number(most));
        }
    }

    pub(super) fn cpus(&mut self, cgroup: &mut Part, slot: &mut Table) {
        let Some(cpus) = cgroup.take("cpuset") else { return };
        if cpus.as_str().is_some_and(|cpus| cpus.trim().is_empty()) {
            self.dropped(&cgroup.at("cpuset"), "names no CPU: the child is bound to none");
            return;
        }
        slot.insert("cgroup".to_owned(), Table::from_iter([("cpuset".to_owned(), cpus)]).into());
    }

    /// The name of the groups, which is one for all children.
    pub(super) fn group(&mut self, cgroup: &mut Part) {
        let Some(group) = cgroup.take("group_name") else { return };
        let path = cgroup.at("group_name");
        let Value::String(written) = group else {
            self.note(&path, What::Ignored, "is no text");
            return;
        };
        let parts: Vec<&str> = written.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
        let name = parts.join("/");
        let other = self.out.isolation.get("name").is_some_and(|other| other.as_str() != Some(&name));
        if name.is_empty() || other {
            self.dropped(&path, "all children have one group above theirs: `processors.isolation.name`");
            return;
        }
        let now = if name == written { String::new() } else { format!(", as `{name}`") };
        self.changed(&path, format!("is `processors.isolation.name` now{now}"));
        self.out.isolation.insert("name".to_owned(), name.into());
    }

    /// Cards that a variable showed to the child become cards of its slot: these alone are claimed on the machine.
    pub(super) fn gpus(&mut self, envs: &mut Part, slot: &mut Table) {
        let off = envs.get("BELLMAN_NO_GPU").and_then(Value::as_str).is_some_and(|value| !matches!(value, "" | "0"));
        let Some(cards) = envs.get(VISIBLE).and_then(Value::as_str).and_then(cards).filter(|_| !off) else { return };
        let _ = envs.take(VISIBLE);
        let why = "is `gpus` now: while the child works, no other slot and no other program that claims cards has these; \
                   numbers are those of `damocles-worker hwinfo`";
        self.changed(&envs.at(VISIBLE), why);
        self.drop_key(envs, "NVIDIA_VISIBLE_DEVICES", "`gpus` says which cards the child sees");
        slot.insert("gpus".to_owned(), cards.into());
    }

    /// CPUs that several children had at a time keep being theirs.
    pub(super) fn shared_cpus(&mut self) {
        let claims: Vec<_> =
            self.out.slots.iter().map(|slot| (cpus_of(&slot.table), self.turns(&slot.table))).collect();
        let mut shared = BTreeSet::new();
        for (i, (first, turns)) in claims.iter().enumerate() {
            for (j, (second, other_turns)) in claims.iter().enumerate().skip(i + 1) {
                let (Some(first), Some(second)) = (first, second) else { continue };
                let in_turn = first == second && !turns.is_disjoint(other_turns);
                if first.overlaps(second) && !in_turn {
                    shared.extend([i, j]);
                }
            }
        }
        for i in shared {
            let Some(slot) = self.out.slots.get_mut(i) else { continue };
            if let Some(Value::Table(cgroup)) = slot.table.get_mut("cgroup") {
                cgroup.insert("exclusive".to_owned(), false.into());
            }
            let path = format!("{}.cgroup.cpuset", slot.path);
            let why = "another child has some of these CPUs too, as `cgroup.exclusive = false` lets it: both are slower \
                       while both work; better give each CPUs of its own";
            self.note(&path, What::Warning, why);
        }
    }

    /// The locks that only one task can hold.
    fn turns(&self, slot: &Table) -> BTreeSet<String> {
        let single = |lock: &&Value| {
            let count = lock.as_str().and_then(|name| self.out.locks.get(name));
            count.and_then(Value::as_integer) == Some(1)
        };
        let locks = slot.get("locks").and_then(Value::as_array).into_iter().flatten();
        locks.filter(single).filter_map(|lock| lock.as_str().map(ToOwned::to_owned)).collect()
    }
}

fn cpus_of(slot: &Table) -> Option<CpuSet> {
    slot.get("cgroup")?.get("cpuset")?.as_str()?.parse().ok()
}

/// How many tasks with multicore SDR the slot's CPUs are enough for: two for each.
fn groups(kind: ProcessorKind, slot: &Table) -> usize {
    let envs: BTreeMap<String, String> =
        slot.get("envs").cloned().and_then(|envs| envs.try_into().ok()).unwrap_or_default();
    let divided = kind == ProcessorKind::Pc1 && needs_multicore_sdr(&envs).is_some();
    cpus_of(slot).filter(|_| divided).map_or(usize::MAX, |cpus| (cpus.len() / 2).max(1))
}

/// Cards by number or identifier; `None` if anything else is among them, which hides cards or names parts of one.
fn cards(value: &str) -> Option<Vec<Value>> {
    let mut cards: Vec<Value> = Vec::new();
    for name in value.split(',').map(str::trim) {
        let card = match name.parse::<u32>() {
            Ok(index) => i64::from(index).into(),
            Err(_) if name.starts_with("GPU-") => name.into(),
            Err(_) => return None,
        };
        if cards.contains(&card) {
            return None;
        }
        cards.push(card);
    }
    Some(cards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_cards_are_claimed() {
        let named = |value| cards(value).map(|cards| Value::from(cards).to_string());
        assert_eq!(named("0, GPU-8f6c"), Some("[0, \"GPU-8f6c\"]".to_owned()));
        for none in ["", "-1", "0,-1", "NoDevFiles", "MIG-1", "0,0", "0,"] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
