//! Everything in a worker's file that cannot be had: on this machine, on a recorded one, or anywhere.

mod claims;
mod files;
pub(crate) mod sdr;
mod store_files;

use super::{ConfigError, Findings, Source, WorkerConfig};
use crate::output::Render;
use damocles_seal::{
    machine::{
        Machine,
        legal::{self, ViolationKind},
    },
    placement::missing_features,
};
use serde::Serialize;
use std::{error::Error as _, fmt::Write as _, path::PathBuf};

pub(crate) use store_files::store_file;

/// What a file is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Site<'m> {
    /// The machine; without one only what the file itself can tell is told.
    pub machine: Option<&'m Machine>,
    /// Whether the worker will run here: programs and stores are looked for, and this build has to have what is asked.
    pub here: bool,
}

impl<'m> Site<'m> {
    /// No machine at all.
    pub const NONE: Self = Self { machine: None, here: false };

    /// A machine that is known by its record alone.
    pub const fn recorded(machine: &'m Machine) -> Self {
        Self { machine: Some(machine), here: false }
    }

    /// The machine that this program runs on.
    pub const fn here(machine: &'m Machine) -> Self {
        Self { machine: Some(machine), here: true }
    }
}

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// What was found in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    version: u32,
    /// The file.
    pub file: PathBuf,
    /// What keeps it from being used, in the order of the text.
    pub errors: Vec<Finding>,
    /// What is probably not what is meant.
    pub warnings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file that it is in: the one that was checked, or the `config.toml` of a store.
    pub file: PathBuf,
    /// The line, from 1, if it has a place.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl From<&ConfigError> for Finding {
    fn from(error: &ConfigError) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self {
            file: error.file().to_owned(),
            line: error.position().map(|(line, _)| line),
            column: error.position().map(|(_, column)| column),
            message: format!("{}{cause}", error.message()),
            remedy: error.hint().map(ToOwned::to_owned),
        }
    }
}

impl Report {
    /// Whether nothing keeps the file from being used.
    pub fn is_usable(&self) -> bool {
        self.errors.is_empty()
    }

    /// The errors, as people read them.
    pub fn errors_text(&self) -> String {
        self.errors.iter().map(|error| error.lines("error")).collect()
    }

    /// The warnings, as people read them.
    pub fn warnings_text(&self) -> String {
        self.warnings.iter().map(|warning| warning.lines("warning")).collect()
    }
}

impl Finding {
    /// Place, `word`, what is wrong and what to do, as people read it.
    pub(crate) fn lines(&self, word: &str) -> String {
        let mut text = format!("{}:", self.file.display());
        if let (Some(line), Some(column)) = (self.line, self.column) {
            let _ = write!(text, "{line}:{column}:");
        }
        let _ = writeln!(text, " {word}: {}", self.message);
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "  remedy: {remedy}");
        }
        text
    }
}

impl Render for Report {
    fn text(&self, _color: bool) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let sum = format!("{}, {}", count(self.errors.len(), "error"), count(self.warnings.len(), "warning"));
        format!("{}{}{sum}", self.errors_text(), self.warnings_text())
    }
}

/// Checks a text to its end. The configuration is there if there is no error.
pub fn check(source: &Source, site: Site<'_>) -> (Option<WorkerConfig>, Report) {
    let (mut config, mut found) = WorkerConfig::parse_all(source);
    if let Some(config) = &mut config {
        unsupported(config, &mut found);
        if site.here {
            store_files::read(config, &mut found);
        }
        site_rules(config, site, &mut found);
    }
    let usable = found.is_usable();
    let (errors, warnings) = found.into_parts();
    let findings = |of: Vec<ConfigError>| {
        // One mistake in what several slots share is one finding.
        let mut all: Vec<Finding> = of.iter().map(Finding::from).collect();
        all.dedup();
        all
    };
    let report = Report {
        version: VERSION,
        file: source.file().to_owned(),
        errors: findings(errors),
        warnings: findings(warnings),
    };
    (config.filter(|_| usable), report)
}

/// Settings that are understood and that this version cannot do are refused, not passed over.
fn unsupported(config: &WorkerConfig, found: &mut Findings<'_>) {
    let chosen = "remove it: the manager gives each new sector the pieces that wait";
    let mut sections = vec![("sealing".to_owned(), &config.sealing)];
    let threads = config.sealing_thread.iter().enumerate();
    sections.extend(threads.map(|(i, thread)| (format!("sealing_thread[{i}].sealing"), &thread.sealing)));
    for (path, sealing) in sections {
        let refusals = [
            ("enable_deals", sealing.enable_deals == Some(false), "remove it and queue no pieces at the manager"),
            ("disable_cc", sealing.disable_cc == Some(true), chosen),
            ("max_deals", sealing.max_deals.is_some(), chosen),
            ("min_deal_space", sealing.min_deal_space.is_some(), chosen),
        ];
        for (key, _, instead) in refusals.into_iter().filter(|(_, asked, _)| *asked) {
            found.error(&format!("{path}.{key}"), "this version cannot honour it", instead);
        }
    }
    if !config.processors.static_tree_d.is_empty() {
        let instead = "remove it: tree D is built for every sector";
        found.error("processors.static_tree_d", "this version cannot honour it", instead);
    }
}

fn site_rules(config: &WorkerConfig, site: Site<'_>, found: &mut Findings<'_>) {
    let writable = config.attached.iter().any(|attached| !attached.readonly);
    if !writable && config.worker.scan_persist_stores.is_empty() {
        let hint = "add [[attached]] with `name` and `location`, or `worker.scan_persist_stores`";
        found.warn("attached", "there is no store that finished sectors could go to", hint);
    }
    features(config, site, found);
    let nowhere = Machine::default();
    let machine = site.machine.unwrap_or(&nowhere);
    let claims = claims::of(config, machine);
    for violation in legal::check_slots(machine, &claims.slots) {
        // Without a machine nothing is known but what slots take from each other.
        if site.machine.is_some() || violation.kind == ViolationKind::Overlap {
            claims.error(config, &violation, found);
        }
    }
    if let Some(machine) = site.machine {
        memory(config, machine, &claims, found);
        stores(config, machine, site.here, &claims, found);
    }
    if site.here {
        files::check(config, machine, found);
    }
}

/// What the slots of this very program ask for and this build does not have.
fn features(config: &WorkerConfig, site: Site<'_>, found: &mut Findings<'_>) {
    for slot in config.slots().iter().filter(|slot| slot.bin.is_none()) {
        let gpus: Vec<_> = slot.gpus.iter().cloned().map(damocles_core::GpuId).collect();
        for missing in missing_features(&slot.envs, &gpus) {
            if site.here {
                found.error(&slot.path, &missing, missing.hint());
            } else {
                found.warn(&slot.path, format_args!("{missing}; the worker needs a build that has it"), missing.hint());
            }
        }
    }
}

/// What limits add up to is wrong if it is not there; what tasks are known to need may be less on better hardware.
fn memory(config: &WorkerConfig, machine: &Machine, claims: &claims::Claimed, found: &mut Findings<'_>) {
    let limits = legal::check_memory(machine, &claims.limits_only(), damocles_core::ByteSize(0));
    if limits.is_empty() {
        for violation in legal::check_memory(machine, &claims.slots, claims.shared) {
            claims.warn(config, &violation, found);
        }
    }
    for violation in limits {
        claims.error(config, &violation, found);
    }
}

fn stores(config: &WorkerConfig, machine: &Machine, here: bool, claims: &claims::Claimed, found: &mut Findings<'_>) {
    for store in claims.relative() {
        let hint = "write the path from the root on";
        found.warn(&format!("{store}.location"), "means another directory wherever the worker is started", hint);
    }
    for violation in legal::check_stores(machine, &claims.stores) {
        let on_disk = |name: &String| claims.stores.iter().any(|store| store.name == *name && store.location.exists());
        match violation.kind {
            ViolationKind::Space => claims.warn(config, &violation, found),
            // A file system that the record leaves out can hold files too: what is there is there.
            ViolationKind::NoFileSystem if here && violation.of.iter().all(on_disk) => {}
            _ => claims.error(config, &violation, found),
        }
    }
}

#[cfg(test)]
mod tests;
