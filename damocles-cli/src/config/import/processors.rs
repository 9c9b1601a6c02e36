//! `[processors]` of both forms.

use super::{Import, Part, What, draft::DraftSlot, hardware::number};
use crate::config::{HumanDuration, ProcessorKind, retired};
use damocles_core::SectorSize;
use damocles_seal::pool::has_v1;
use std::time::Duration;
use toml::{Table, Value};

/// Stages that had processors of their own.
const STAGES: [ProcessorKind; 6] = [
    ProcessorKind::AddPieces,
    ProcessorKind::TreeD,
    ProcessorKind::Pc1,
    ProcessorKind::Pc2,
    ProcessorKind::C2,
    ProcessorKind::Transfer,
];

/// Stages of plans that this version has not, and of other programs.
const OTHERS: [&str; 7] =
    ["snap_encode", "snap_prove", "synth_proof", "unseal", "window_post", "winning_post", "sealing_daemons"];

/// What a slot could say.
const SLOT: [&str; 14] = [
    "bin",
    "args",
    "stable_wait",
    "cgroup",
    "envs",
    "inherit_envs",
    "numa_preferred",
    "concurrent",
    "locks",
    "auto_restart",
    "weight",
    "external",
    "subs",
    "hugepage",
];

impl Import {
    pub(super) fn processors(&mut self, top: &mut Part) {
        if let Some(trees) = self.table(top, "static_tree_d") {
            self.changed(trees.path(), "is [processors.static_tree_d] now");
            self.static_trees(trees);
        }
        let limit = self.table(top, "limit");
        let mut part = self.table(top, "processors").unwrap_or_else(|| Part::new("processors", Table::new()));
        if let Some(trees) = self.table(&mut part, "static_tree_d") {
            self.static_trees(trees);
        }
        self.drop_key(&mut part, "ext_stages", "a slot serves every task of its [[processors.<stage>]]");
        self.limitation(limit, &mut part);
        if let Some(mut locks) = self.table(&mut part, "ext_locks") {
            for name in locks.keys() {
                match locks.take(&name) {
                    Some(Value::Integer(0)) => {
                        self.dropped(&locks.at(&name), "a lock that nobody can hold blocks for ever");
                    }
                    Some(count) => drop(self.out.locks.insert(name, count)),
                    None => {}
                }
            }
        }
        for kind in STAGES {
            self.stage(&mut part, kind);
        }
        for name in OTHERS {
            let why = retired::PROCESSORS.iter().find(|retired| retired.path == format!("processors.{name}"));
            self.drop_key(&mut part, name, why.map_or("the manager proves", |retired| retired.instead));
        }
        self.in_process();
        self.shared_cpus();
        let known: Vec<&str> = STAGES.iter().map(|kind| kind.name()).chain(OTHERS).collect();
        let tables = ["limitation", "limit", "ext_locks", "static_tree_d", "ext_stages"];
        self.rest(part, &known.into_iter().chain(tables).collect::<Vec<_>>());
    }

    fn static_trees(&mut self, mut trees: Part) {
        for key in trees.keys() {
            let Some(file) = trees.take(&key) else { continue };
            match key.parse::<SectorSize>() {
                Ok(size) if file.is_str() => drop(self.out.trees.insert(size.to_string(), file)),
                _ => self.dropped(&trees.at(&key), "names no sector size and a file"),
            }
        }
    }

    fn limitation(&mut self, older: Option<Part>, part: &mut Part) {
        let mut limitation = self.table(part, "limitation").unwrap_or_else(|| Part::new("", Table::new()));
        let today = self.table(&mut limitation, "concurrent");
        let middle = self.table(part, "limit");
        for limits in [&older, &middle].into_iter().flatten() {
            let why = "is [processors.limitation.concurrent] now";
            if today.is_some() {
                self.dropped(limits.path(), "`processors.limitation.concurrent` is there, which the old program took");
            } else {
                self.changed(limits.path(), why);
            }
        }
        if let Some(mut limits) = today.or(middle).or(older) {
            for (kind, value) in self.by_stage(&mut limits) {
                match value {
                    Value::Integer(0) => self.dropped(&limits.at(kind.name()), "0 blocks for ever"),
                    value => drop(self.out.limits.insert(kind.name().to_owned(), value)),
                }
            }
        }
        if let Some(mut gaps) = self.table(&mut limitation, "staggered") {
            for (kind, value) in self.by_stage(&mut gaps) {
                let short = value.clone().try_into::<HumanDuration>().is_ok_and(|gap| gap.0 < Duration::from_secs(1));
                if short {
                    self.dropped(&gaps.at(kind.name()), "the old program ignored gaps of less than a second");
                } else {
                    self.out.staggered.insert(kind.name().to_owned(), value);
                }
            }
        }
        self.rest(limitation, &["concurrent", "staggered"]);
    }

    /// Values by stage, of stages that this version has.
    fn by_stage(&mut self, part: &mut Part) -> Vec<(ProcessorKind, Value)> {
        let found = ProcessorKind::SEALING.iter().filter_map(|kind| Some((*kind, part.take(kind.name())?))).collect();
        for name in OTHERS {
            self.drop_key(part, name, "this version's worker has no such stage");
        }
        let known: Vec<&str> = ProcessorKind::SEALING.iter().map(|kind| kind.name()).chain(OTHERS).collect();
        let left = std::mem::replace(part, Part::new(part.path(), Table::new()));
        self.rest(left, &known);
        found
    }

    fn stage(&mut self, part: &mut Part, kind: ProcessorKind) {
        // The older form is one table: with `external` its `subs` are children, or it is one itself.
        if !matches!(part.get(kind.name()), Some(Value::Table(_))) {
            let slots = self.tables(part, kind.name());
            self.slots(slots, kind);
            return;
        }
        let Some(mut stage) = self.table(part, kind.name()) else { return };
        let external = stage.take("external");
        let mut subs = self.tables(&mut stage, "subs");
        if !matches!(external, Some(Value::Boolean(true))) {
            let why = "without `external = true` the old program did this stage itself, and none of this was used";
            self.dropped(stage.path(), why);
            return;
        }
        self.changed(&stage.at("external"), "each [[processors.<stage>]] entry is one child");
        if subs.is_empty() {
            self.slots(vec![stage], kind);
            return;
        }
        let locks = stage.take("locks");
        for sub in &mut subs {
            // What stands above the children holds for all that say nothing else.
            if let (None, Some(locks)) = (sub.get("locks"), &locks) {
                sub.put("locks", locks.clone());
            }
        }
        self.slots(subs, kind);
        self.rest(stage, &["external", "subs", "locks"]);
    }

    fn slots(&mut self, parts: Vec<Part>, kind: ProcessorKind) {
        let share = self.share(&parts, kind);
        for part in parts {
            self.slot(part, kind, share);
        }
    }

    fn slot(&mut self, mut part: Part, kind: ProcessorKind, share: usize) {
        let path = part.path().to_owned();
        let mut slot = Table::new();
        self.program(&mut part, kind, &mut slot);
        for key in ["stable_wait", "inherit_envs", "auto_restart"] {
            if let Some(value) = part.take(key) {
                slot.insert(key.to_owned(), value);
            }
        }
        if let Some(node) = part.take("numa_preferred") {
            self.changed(&part.at("numa_preferred"), "the child gets memory of this node alone, and not only first");
            slot.insert("numa_preferred".to_owned(), node);
        }
        let concurrent = part.take("concurrent");
        self.drop_key(&mut part, "weight", "the least loaded child is taken");
        if let Some(mut cgroup) = self.table(&mut part, "cgroup") {
            self.cpus(&mut cgroup, &mut slot);
            self.group(&mut cgroup);
            self.rest(cgroup, &["cpuset", "group_name"]);
        }
        if let Some(mut envs) = self.table(&mut part, "envs") {
            for name in ["HUGEPAGE_FILES_PATH", "HUGEPAGE_FILES_PATH_PATTERN"] {
                self.drop_key(&mut envs, name, "hugepage files are of the old program's own proofs library");
            }
            self.gpus(&mut envs, &mut slot);
            let kept: Table =
                envs.keys().into_iter().filter_map(|name| Some((name.clone(), envs.take(&name)?))).collect();
            if !kept.is_empty() {
                slot.insert("envs".to_owned(), kept.into());
            }
        }
        self.locks(&mut part, &mut slot);
        match concurrent {
            Some(Value::Integer(0)) => self.dropped(&part.at("concurrent"), "0 blocks for ever"),
            Some(count) => drop(slot.insert("concurrent".to_owned(), count)),
            None => self.unlimited(&path, kind, &mut slot, share),
        }
        self.rest(part, &SLOT);
        self.out.slots.push(DraftSlot { kind: kind.name(), path, table: slot });
    }

    fn program(&mut self, part: &mut Part, kind: ProcessorKind, slot: &mut Table) {
        let args = part.take("args");
        let Some(bin) = part.take("bin") else {
            if let Some(args) = args {
                let why = if args.to_string().contains("hugepage") {
                    "hugepage files are of the old program's own proofs library"
                } else {
                    "they were for the old program itself: ours is started with its own"
                };
                self.dropped(&part.at("args"), why);
            }
            return;
        };
        if !has_v1(&kind.task_kind()) {
            self.dropped(&part.at("bin"), "the old protocol does this stage in other steps: this program does it");
            return;
        }
        self.changed(&part.at("bin"), "is spoken with as the old program did: `protocol = \"v1\"`");
        slot.insert("bin".to_owned(), bin);
        if let Some(args) = args {
            slot.insert("args".to_owned(), args);
        }
        slot.insert("protocol".to_owned(), "v1".into());
    }

    fn locks(&mut self, part: &mut Part, slot: &mut Table) {
        let Some(locks) = part.take("locks") else { return };
        let Value::Array(named) = locks else {
            self.note(&part.at("locks"), What::Ignored, "is no list");
            return;
        };
        let mut kept = Vec::new();
        for (i, lock) in named.into_iter().enumerate() {
            let known = lock.as_str().is_some_and(|name| self.out.locks.contains_key(name));
            let why = match (known, kept.contains(&lock)) {
                (true, false) => {
                    kept.push(lock);
                    continue;
                }
                (true, true) => "a task takes each lock once",
                (false, _) => "[processors.ext_locks] does not name it: the old program took none",
            };
            self.dropped(&format!("{}[{i}]", part.at("locks")), why);
        }
        if !kept.is_empty() {
            slot.insert("locks".to_owned(), kept.into());
        }
    }

    /// Stages that the old program did inside itself, each thread for itself: as many children do them.
    fn in_process(&mut self) {
        for kind in ProcessorKind::SEALING {
            if self.out.slots.iter().any(|slot| slot.kind == kind.name()) {
                continue;
            }
            let at_once = self.at_once(kind);
            if at_once > 1 {
                let why = format!("was done in the old program itself, by every thread: {at_once} children do it now");
                let path = format!("processors.{}", kind.name());
                self.changed(&path, why);
                let table = Table::from_iter([("concurrent".to_owned(), number(at_once))]);
                self.out.slots.push(DraftSlot { kind: kind.name(), path, table });
            }
        }
    }
}
