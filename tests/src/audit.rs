//! What must be true of a life whatever was killed in it.

use crate::lab::{Lab, Parent};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;
use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};
use std::{collections::BTreeMap, path::Path};

/// `PreCommitSectorBatch2` and `ProveCommitSectors3`.
const COMMITS: [(u64, &str); 2] = [(28, "pre-commit"), (34, "prove-commit")];
const SUBMIT_WINDOWED_POST: u64 = 5;

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The sector's number.
    pub sector: u64,
    /// What happened.
    pub kind: String,
    /// To which stage.
    pub stage: Option<String>,
}

/// The journal of a sealing store, as another program reads it.
#[derive(Clone, Debug, Default)]
pub struct Journal(pub Vec<Line>);

impl Journal {
    /// Reads it; it is empty if it is not there yet.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut connection = options.connect().await.with_context(|| format!("open `{}`", path.display()))?;
        let rows = sqlx::query("SELECT number, kind, stage FROM entry ORDER BY number, seq").fetch_all(&mut connection);
        let rows = match rows.await {
            Ok(rows) => rows,
            // It was made a moment ago.
            Err(error) if error.to_string().contains("no such table") => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read `{}`", path.display())),
        };
        let line = |row: &sqlx::sqlite::SqliteRow| {
            let sector = u64::try_from(row.try_get::<i64, _>(0)?)?;
            anyhow::Ok(Line { sector, kind: row.try_get(1)?, stage: row.try_get(2)? })
        };
        Ok(Self(rows.iter().map(line).collect::<Result<_, _>>()?))
    }

    /// How many sectors came to their end.
    pub fn ended(&self) -> u64 {
        self.count(|l| l.kind == "ended")
    }

    /// How many entries are so.
    pub fn count(&self, wish: impl Fn(&Line) -> bool) -> u64 {
        u64::try_from(self.0.iter().filter(|l| wish(l)).count()).unwrap_or(u64::MAX)
    }

    /// Whether a stage of a sector has ended.
    pub fn done(&self, sector: u64, stage: &str) -> bool {
        self.count(|l| l.sector == sector && l.kind == "done" && l.stage.as_deref() == Some(stage)) > 0
    }

    /// How often each stage of each sector started.
    pub fn starts(&self) -> BTreeMap<(u64, String), u64> {
        let mut starts = BTreeMap::new();
        for line in self.0.iter().filter(|l| l.kind == "started") {
            *starts.entry((line.sector, line.stage.clone().unwrap_or_default())).or_default() += 1;
        }
        starts
    }

    /// The stages that started and have not ended, at most one a sector.
    pub fn under_way(&self) -> Vec<(u64, String)> {
        let mut open = BTreeMap::new();
        for line in &self.0 {
            match (line.kind.as_str(), &line.stage) {
                ("started", Some(stage)) => drop(open.insert(line.sector, stage.clone())),
                ("done" | "rewound" | "ended", _) => drop(open.remove(&line.sector)),
                _ => {}
            }
        }
        open.into_iter().collect()
    }
}

/// How many kills hit a stage while it ran.
#[derive(Clone, Debug, Default)]
pub struct Hits(BTreeMap<(u64, String), u64>);

impl Hits {
    /// One more kill of the worker, at a time when the journal says this.
    pub fn add(&mut self, journal: &Journal) {
        for stage in journal.under_way() {
            *self.0.entry(stage).or_default() += 1;
        }
    }

    /// One more kill of somebody whom the worker asks: it is no reason to do the work of children again.
    pub fn add_absence(&mut self, journal: &Journal) {
        for stage in journal.under_way().into_iter().filter(|(_, stage)| !is_alone(stage)) {
            *self.0.entry(stage).or_default() += 1;
        }
    }

    /// One more death of a child that did a task of this kind, for the sector that the worker is at.
    pub fn add_death(&mut self, journal: &Journal, kind: &str) {
        let stages = stages_of(kind);
        // The worker may have noted more since.
        let last = journal
            .0
            .iter()
            .rev()
            .find(|l| l.kind == "started" && l.stage.as_deref().is_some_and(|s| stages.contains(&s)));
        if let Some(Line { sector, stage: Some(stage), .. }) = last {
            *self.0.entry((*sector, stage.clone())).or_default() += 1;
        }
    }

    fn of(&self, stage: &(u64, String)) -> u64 {
        self.0.get(stage).copied().unwrap_or(0)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    method: u64,
    exit_code: i64,
    sectors: Vec<u64>,
}

/// Checks a lab whose sectors have all ended: each is active and proven, its messages landed once, each start of a
/// stage is in the journal, and no stage ran more often than kills explain.
///
/// # Errors
///
/// Something of that is not so.
pub async fn check(lab: &Lab) -> anyhow::Result<()> {
    check_messages(lab).await?;
    let journal = lab.journal().await?;
    let starts = journal.starts();
    for (stage, &runs) in &starts {
        let hits = lab.hits.of(stage);
        ensure!(runs <= 1 + hits, "{stage:?} ran {runs} times, hit by {hits} kills\n{}", history(&journal, stage.0));
    }
    for line in journal.0.iter().filter(|l| l.kind == "done") {
        let stage = (line.sector, line.stage.clone().unwrap_or_default());
        ensure!(starts.contains_key(&stage), "{stage:?} has ended and its start is not in the journal");
    }
    let diary = lab.diary_lines(Parent::Worker);
    for kind in ["add_pieces", "tree_d", "pc1", "pc2", "c1", "c2", "transfer"] {
        let stages = stages_of(kind);
        let runs = u64::try_from(diary.iter().filter(|l| *l == kind).count())?;
        let known: u64 = starts.iter().filter(|((_, s), _)| stages.contains(&s.as_str())).map(|(_, n)| n).sum();
        ensure!(runs <= known, "children ran {kind} {runs} times, the journal knows of {known}");
    }
    Ok(())
}

/// Whether a stage asks nobody but its children.
fn is_alone(stage: &str) -> bool {
    ["tree_d", "pc1", "pc2", "c1"].contains(&stage)
}

/// The stages that have tasks of a kind.
fn stages_of(kind: &str) -> Vec<&str> {
    match kind {
        // A replica that is gone from the persist store is copied again before it is committed to.
        "transfer" => vec!["persist", "prove_commit"],
        kind => vec![kind],
    }
}

/// The exit codes of all window PoSts that landed: one that was sent twice is refused the second time.
///
/// # Errors
///
/// The chain does not answer.
pub async fn landed_posts(lab: &Lab) -> anyhow::Result<Vec<i64>> {
    let posts = messages(lab).await?.into_iter().filter(|m| m.method == SUBMIT_WINDOWED_POST);
    Ok(posts.map(|m| m.exit_code).collect())
}

async fn messages(lab: &Lab) -> anyhow::Result<Vec<Message>> {
    Ok(serde_json::from_value(lab.ask("Devnet.Messages", json!([format!("t0{}", lab.miner)])).await?)?)
}

/// Checks that one pre-commit and one prove-commit of each sector landed, and well.
///
/// # Errors
///
/// That is not so.
pub async fn check_messages(lab: &Lab) -> anyhow::Result<()> {
    let sectors: Vec<u64> = lab.sectors().iter().map(|s| s.number.0).collect();
    let messages = messages(lab).await?;
    for &sector in &sectors {
        for (method, name) in COMMITS {
            let codes: Vec<_> = messages
                .iter()
                .filter(|m| m.method == method && m.sectors.contains(&sector))
                .map(|m| m.exit_code)
                .collect();
            ensure!(codes == [0], "sector {sector}: {name} messages landed with exit codes {codes:?}");
        }
    }
    Ok(())
}

/// The journal of a sector in one line, for messages.
pub fn history(journal: &Journal, sector: u64) -> String {
    let lines = journal.0.iter().filter(|l| l.sector == sector);
    lines.map(|l| format!("{} {}", l.kind, l.stage.as_deref().unwrap_or(""))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_under_way_until_it_ends() {
        let line = |kind: &str, stage: &str| Line { sector: 1, kind: kind.to_owned(), stage: Some(stage.to_owned()) };
        let mut journal = Journal(vec![line("started", "pc1"), line("done", "pc1"), line("started", "pc2")]);
        assert_eq!(journal.under_way(), [(1, "pc2".to_owned())]);
        let mut hits = Hits::default();
        hits.add(&journal);
        assert_eq!(hits.of(&(1, "pc2".to_owned())), 1);
        assert_eq!(hits.of(&(1, "pc1".to_owned())), 0);
        hits.add_absence(&journal);
        assert_eq!(hits.of(&(1, "pc2".to_owned())), 1, "it asks nobody");
        journal.0.push(line("opened", ""));
        journal.0.push(line("started", "pc2"));
        journal.0.push(line("done", "pc2"));
        assert!(journal.under_way().is_empty());
        assert_eq!(journal.starts().get(&(1, "pc2".to_owned())), Some(&2));
    }
}
