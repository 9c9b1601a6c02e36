//! What a worker's file claims of a machine.

use super::sdr::{self, Multicore};
use crate::config::{Findings, SlotSpec, WorkerConfig, worker::SealingSettings};
use damocles_core::{ByteSize, SectorSize};
use damocles_seal::machine::{
    Machine,
    figures::{Figures, Step},
    legal::{SDR_PRODUCERS, SlotClaim, StoreClaim, Violation},
};
use std::path::{Component, Path, PathBuf};

/// The claims of one file.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) slots: Vec<SlotClaim>,
    /// Those with a path from the root on; they are named by their place in the file.
    pub(super) stores: Vec<StoreClaim>,
    pub(super) shared: ByteSize,
    /// What the largest and the smallest sectors cost that the threads are for, if the file tells.
    pub(super) figures: Option<(Figures, Figures)>,
    relative: Vec<String>,
}

pub(super) fn of(config: &WorkerConfig, machine: &Machine) -> Claimed {
    let extremes = sizes(&config.threads()).map(|(largest, smallest)| (Figures::of(largest), Figures::of(smallest)));
    let figures = extremes.as_ref().map(|(largest, _)| largest);
    let slots = config.slots().iter().map(|slot| claim(config, machine, figures, slot)).collect();
    let threads = config.sealing_thread.iter().enumerate().map(|(i, thread)| StoreClaim {
        name: format!("sealing_thread[{i}]"),
        location: thread.location.clone(),
        writable: true,
        on: thread.disk.clone(),
        space: figures.map(|figures| figures.scratch),
    });
    let attached = config.attached.iter().enumerate().map(|(i, store)| StoreClaim {
        name: format!("attached[{i}]"),
        location: store.location.clone(),
        writable: !store.readonly,
        on: store.disk.clone(),
        space: None,
    });
    let (stores, relative): (Vec<_>, Vec<_>) = threads.chain(attached).partition(|s| s.location.is_absolute());
    Claimed {
        slots,
        stores,
        shared: figures.map(|figures| figures.parent_cache).unwrap_or_default(),
        figures: extremes,
        relative: relative.into_iter().map(|store| store.name).collect(),
    }
}

/// The largest and the smallest sectors that the threads are for, if the file tells.
fn sizes(threads: &[SealingSettings]) -> Option<(SectorSize, SectorSize)> {
    let any = threads.iter().any(|thread| thread.allowed_sizes.is_empty());
    let sizes = || threads.iter().flat_map(|thread| thread.allowed_sizes.iter().copied());
    Some((sizes().max()?, sizes().min()?)).filter(|_| !any)
}

fn claim(config: &WorkerConfig, machine: &Machine, figures: Option<&Figures>, slot: &SlotSpec) -> SlotClaim {
    let mut claim = SlotClaim::new(slot.name.clone(), slot.kind.task_kind());
    claim.cpus.clone_from(&slot.cpuset);
    claim.mems.clone_from(&slot.mems);
    claim.gpus = gpus(slot);
    claim.exclusive = slot.exclusive;
    claim.concurrent = slot.concurrent.get();
    // A limit holds for each child.
    claim.memory = slot.memory.map(|limit| ByteSize(limit.0.saturating_mul(u64::from(slot.concurrent.get()))));
    claim.task_memory = figures.and_then(|figures| Some(figures.cost(slot.kind.name().parse::<Step>().ok()?).memory));
    // A slot that the daemon would refuse is told once.
    if sdr::multicore(slot) == Multicore::Asked && sdr::refused(machine, slot).is_none() {
        claim.multicore_sdr = Some(sdr::producers(machine, slot).unwrap_or(SDR_PRODUCERS));
    }
    let locks = slot.locks.iter().filter(|lock| config.processors.ext_locks.get(*lock) == Some(&1));
    claim.locks = locks.cloned().collect();
    claim
}

/// The cards that a slot names, itself or by the variable that CUDA reads.
fn gpus(slot: &SlotSpec) -> Vec<String> {
    if !slot.gpus.is_empty() {
        return slot.gpus.clone();
    }
    let visible = slot.envs.get("CUDA_VISIBLE_DEVICES").map(String::as_str).unwrap_or_default();
    // CUDA reads up to the first that is none: `-1` hides all.
    let named = visible.split(',').map(str::trim).take_while(|name| !name.is_empty() && *name != "-1");
    named.map(ToOwned::to_owned).collect()
}

impl Claimed {
    /// The slots with what they are limited to, and nothing else of memory.
    pub(super) fn limits_only(&self) -> Vec<SlotClaim> {
        self.slots.iter().cloned().map(|slot| SlotClaim { task_memory: None, ..slot }).collect()
    }

    /// Stores whose path depends on where the worker is started, by their place in the file.
    pub(super) fn relative(&self) -> &[String] {
        &self.relative
    }

    /// The stores by where their paths lead. A link can be followed on the machine itself alone; a path that goes up
    /// again may lead anywhere else, and that is told.
    pub(super) fn placed(&self, here: bool, found: &mut Findings<'_>) -> Vec<StoreClaim> {
        let mut stores = self.stores.clone();
        if here {
            stores.iter_mut().for_each(|store| store.location = led_to(&store.location));
            return stores;
        }
        stores.retain(|store| {
            let goes_up = store.location.components().any(|part| part == Component::ParentDir);
            if goes_up {
                let hint = "write the path without `..`, or check it on the machine itself";
                found.error(&format!("{}.location", store.name), "a record cannot tell where `..` leads", hint);
            }
            !goes_up
        });
        stores
    }

    pub(super) fn error(&self, config: &WorkerConfig, violation: &Violation, found: &mut Findings<'_>) {
        found.error(&place(config, violation), told(config, violation, found), violation.remedy.clone());
    }

    pub(super) fn warn(&self, config: &WorkerConfig, violation: &Violation, found: &mut Findings<'_>) {
        found.warn(&place(config, violation), told(config, violation, found), violation.remedy.clone());
    }
}

/// The path without links, as far as it is there.
fn led_to(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        let (Ok(real), Ok(rest)) = (fs_err::canonicalize(above), path.strip_prefix(above)) else { continue };
        // What is not there has no links: one step up is one part less.
        return rest.components().fold(real, |mut at, part| {
            if part == Component::ParentDir {
                at.pop();
            } else {
                at.push(part);
            }
            at
        });
    }
    path.to_owned()
}

/// What is wrong, with slots and stores numbered as in the text: elements before them may have been left out.
fn told(config: &WorkerConfig, violation: &Violation, found: &Findings<'_>) -> Violation {
    let slots = config.slots();
    let of = violation.of.iter().map(|name| match slots.iter().find(|slot| slot.name == *name) {
        Some(slot) => found.written(&slot.path).replace("processors.", "").replace('[', "-").replace(']', ""),
        None => found.written(name),
    });
    Violation { of: of.collect(), ..violation.clone() }
}

/// Where what was broken is written: the last of those that broke it together, because the file was right before it.
fn place(config: &WorkerConfig, violation: &Violation) -> String {
    let slots = config.slots();
    let place = violation.of.last().map(|name| match slots.iter().find(|slot| slot.name == *name) {
        Some(slot) => slot.path.clone(),
        None => format!("{name}.location"),
    });
    place.unwrap_or_else(|| "processors".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_where_its_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::os::unix::fs::symlink(root.join("real/deep"), root.join("link")).unwrap();
        for (path, leads_to) in [
            ("link", "real/deep"),
            ("link/a/b", "real/deep/a/b"),
            ("link/../x", "real/x"),
            ("real/none/../x", "real/x"),
            ("none", "none"),
        ] {
            let led = led_to(&root.join(path));
            assert_eq!(led.as_os_str(), root.join(leads_to).as_os_str(), "{path}");
        }
    }
}
