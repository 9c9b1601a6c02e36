//! What a journal promises, by random histories and by damage.

use crate::world::{SECTOR, World, lease_of};
use damocles_core::{
    Context, Fence, Recovery, RequestId,
    allocator::Outcome,
    pipeline::{SealErrorKind, SealingPipeline, StageId},
    testing::FakeClock,
};
use damocles_seal::journal::{Entry, EntryKind, InMemoryJournal, Journal, NewEntry, Phase, SqliteJournal};
use proptest::prelude::*;
use serde_json::json;
use sqlx::Connection;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

async fn open(path: &Path) -> SqliteJournal {
    SqliteJournal::open(path, Arc::new(FakeClock::default())).await.unwrap()
}

/// What may happen to a journal. An opening is in vain when the disk fails.
#[derive(Clone, Debug)]
enum Op {
    Open { sector: u64, fence: u64 },
    OpenInVain { sector: u64, fence: u64 },
    End { sector: u64, fence: u64 },
    Done { sector: u64, fence: u64, stage: u8, value: u16 },
    Rewind { sector: u64, fence: u64, from: u8 },
    Request(Option<u8>),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let (sector, fence) = (1..3_u64, 0..5_u64);
    prop_oneof![
        2 => (sector.clone(), fence.clone()).prop_map(|(sector, fence)| Op::Open { sector, fence }),
        6 => (sector.clone(), fence.clone(), 0..4_u8, any::<u16>())
            .prop_map(|(sector, fence, stage, value)| Op::Done { sector, fence, stage, value }),
        1 => (sector.clone(), fence.clone()).prop_map(|(sector, fence)| Op::OpenInVain { sector, fence }),
        1 => (sector.clone(), fence.clone()).prop_map(|(sector, fence)| Op::End { sector, fence }),
        2 => (sector, fence, 0..4_u8).prop_map(|(sector, fence, from)| Op::Rewind { sector, fence, from }),
        1 => proptest::option::of(any::<u8>()).prop_map(Op::Request),
        1 => Just(Op::Reopen),
    ]
}

const STAGES: [StageId; 4] = [StageId::new("a"), StageId::new("b"), StageId::new("c"), StageId::new("d")];

/// What a journal must say, computed another way.
#[derive(Debug, Default)]
struct Model {
    fences: BTreeMap<u64, u64>,
    facts: BTreeMap<u64, BTreeMap<u8, u16>>,
    entries: BTreeMap<u64, u64>,
    request: Option<u8>,
    ended: BTreeSet<u64>,
}

impl Model {
    fn accepts(&self, sector: u64, fence: u64) -> Option<SealErrorKind> {
        match self.fences.get(&sector) {
            None => Some(SealErrorKind::UnknownSector),
            Some(recorded) if *recorded > fence => Some(SealErrorKind::Fenced),
            Some(_) => None,
        }
    }

    /// Applies `op` and returns the error that it must give.
    fn apply(&mut self, op: &Op) -> Option<SealErrorKind> {
        match op {
            Op::Open { sector, fence } => {
                if self.accepts(*sector, *fence) == Some(SealErrorKind::Fenced) {
                    return Some(SealErrorKind::Fenced);
                }
                self.fences.insert(*sector, *fence);
                self.ended.remove(sector);
                self.request = None;
                *self.entries.entry(*sector).or_default() += 1;
            }
            Op::OpenInVain { sector, fence } => {
                let fenced = self.accepts(*sector, *fence).filter(|kind| *kind == SealErrorKind::Fenced);
                return fenced.or(Some(SealErrorKind::Journal));
            }
            Op::End { sector, fence } => {
                if let Some(error) = self.accepts(*sector, *fence) {
                    return Some(error);
                }
                self.ended.insert(*sector);
                *self.entries.entry(*sector).or_default() += 1;
            }
            Op::Done { sector, fence, stage, value } => {
                if let Some(error) = self.accepts(*sector, *fence) {
                    return Some(error);
                }
                self.facts.entry(*sector).or_default().insert(*stage, *value);
                *self.entries.entry(*sector).or_default() += 1;
            }
            Op::Rewind { sector, fence, from } => {
                if let Some(error) = self.accepts(*sector, *fence) {
                    return Some(error);
                }
                self.facts.entry(*sector).or_default().retain(|stage, _| stage < from);
                *self.entries.entry(*sector).or_default() += 1;
            }
            Op::Request(request) => self.request = *request,
            Op::Reopen => {}
        }
        None
    }
}

async fn apply(journal: &dyn Journal, op: &Op) -> Option<SealErrorKind> {
    let done = match op {
        Op::Open { sector, fence } | Op::OpenInVain { sector, fence } => journal.open(&lease_of(*sector, *fence)).await,
        Op::End { sector, fence } => {
            let entry = NewEntry::ended(Outcome::Sealed);
            journal.append(lease_of(*sector, 0).sector, Fence(*fence), entry).await.map(drop)
        }
        Op::Done { sector, fence, stage, value } => {
            let entry = NewEntry::done(STAGES[usize::from(*stage)].clone(), 1, json!(value));
            journal.append(lease_of(*sector, 0).sector, Fence(*fence), entry).await.map(drop)
        }
        Op::Rewind { sector, fence, from } => {
            let from = usize::from(*from);
            let entry = NewEntry::rewound(STAGES[from].clone(), &STAGES[from..], "test");
            journal.append(lease_of(*sector, 0).sector, Fence(*fence), entry).await.map(drop)
        }
        Op::Request(request) => {
            let request = request.map(|r| RequestId::new(r.to_string()));
            journal.set_pending_request(request.as_ref()).await
        }
        Op::Reopen => Ok(()),
    };
    done.err().map(|e| e.kind())
}

async fn agrees(journal: &dyn Journal, model: &Model) {
    assert_eq!(journal.pending_request().await.unwrap(), model.request.map(|r| RequestId::new(r.to_string())));
    let active: BTreeMap<u64, u64> =
        journal.active().await.unwrap().iter().map(|s| (s.lease.sector.number.0, s.lease.fence.0)).collect();
    let lives = |(sector, _): &(&u64, &u64)| !model.ended.contains(*sector);
    assert_eq!(active, model.fences.iter().filter(lives).map(|(sector, fence)| (*sector, *fence)).collect());
    for sector in model.fences.keys() {
        let id = lease_of(*sector, 0).sector;
        let record = journal.load(id).await.unwrap();
        let facts: BTreeMap<_, _> = record.facts().iter().map(|f| (f.stage.clone(), f.output.clone())).collect();
        let expected = model.facts.get(sector).into_iter().flatten();
        let expected: BTreeMap<_, _> = expected.map(|(s, v)| (STAGES[usize::from(*s)].clone(), json!(v))).collect();
        assert_eq!(facts, expected);
        let history = journal.history(id).await.unwrap();
        assert_eq!(u64::try_from(history.len()).unwrap(), model.entries[sector], "nothing is ever removed");
        assert!(history.iter().zip(1..).all(|(e, n)| e.seq == n));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn random_histories(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal.db");
            let memory = InMemoryJournal::new();
            let mut sqlite = open(&path).await;
            let mut model = Model::default();
            for op in &ops {
                if matches!(op, Op::Reopen) {
                    drop(sqlite);
                    sqlite = open(&path).await;
                }
                let expected = model.apply(op);
                let in_vain = matches!(op, Op::OpenInVain { .. });
                if in_vain {
                    memory.fail_next(u32::from(expected == Some(SealErrorKind::Journal)));
                    sql(&path, "CREATE TRIGGER full BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'full'); END").await;
                }
                assert_eq!(apply(&sqlite, op).await, expected, "sqlite: {op:?}");
                assert_eq!(apply(&memory, op).await, expected, "memory: {op:?}");
                if in_vain {
                    sql(&path, "DROP TRIGGER full").await;
                }
            }
            agrees(&sqlite, &model).await;
            agrees(&memory, &model).await;
        });
    }
}

pub(crate) async fn sql(path: &Path, statements: &'static str) {
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn two_sectors(path: &Path) {
    let journal = open(path).await;
    for sector in [1, 2] {
        journal.open(&lease_of(sector, 1)).await.unwrap();
        for stage in &STAGES {
            let done = NewEntry::done(stage.clone(), 1, json!({ "len": 2048 }));
            journal.append(lease_of(sector, 1).sector, Fence(1), done).await.unwrap();
        }
    }
    journal.close().await;
}

#[tokio::test]
async fn an_entry_that_is_not_what_was_written_hits_its_sector_only() {
    let damages = [
        r#"UPDATE entry SET output = '{"len":2047}' WHERE number = 1 AND seq = 3"#,
        "UPDATE entry SET output = '{' WHERE number = 1 AND seq = 3",
        "UPDATE entry SET output = CAST(x'ff' AS TEXT) WHERE number = 1 AND seq = 3",
        "UPDATE entry SET kind = 'launched' WHERE number = 1 AND seq = 3",
        "UPDATE entry SET stage = 'c' WHERE number = 1 AND seq = 3",
        "UPDATE entry SET fence = -1 WHERE number = 1 AND seq = 3",
        "UPDATE entry SET version = 99999999999 WHERE number = 1 AND seq = 3",
        "UPDATE entry SET checksum = x'' WHERE number = 1 AND seq = 3",
        "DELETE FROM entry WHERE number = 1 AND seq = 3",
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        two_sectors(&path).await;
        sql(&path, "DROP TRIGGER entry_is_never_changed; DROP TRIGGER entry_is_never_removed").await;
        sql(&path, damage).await;
        let journal = open(&path).await;
        let err = journal.load(lease_of(1, 1).sector).await.unwrap_err();
        assert_eq!((err.kind(), err.recovery()), (SealErrorKind::CorruptJournal, Recovery::Park), "{damage}");
        assert!(err.to_string().contains("journal.db"), "{err}");
        assert_eq!(journal.load(lease_of(2, 1).sector).await.unwrap().facts().len(), 4, "{damage}");
        // That it waits for an operator can still be written down.
        let parked = NewEntry::parked(None, "corrupt", None);
        journal.append(lease_of(1, 1).sector, Fence(1), parked).await.unwrap();
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_parks_its_sector_only() {
    for damage in [
        "UPDATE sector SET proof_type = 77 WHERE number = 1",
        "UPDATE sector SET fence = -1 WHERE number = 1",
        "UPDATE sector SET store = CAST(x'ff' AS TEXT) WHERE number = 1",
        "INSERT INTO entry SELECT miner, number, 6, 'parked', stage, -1, fence, at, output, checksum FROM entry \
         WHERE number = 1 AND seq = 2",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        two_sectors(&path).await;
        sql(&path, damage).await;
        let active = open(&path).await.active().await.unwrap();
        let leases: Vec<_> = active.iter().map(|sector| sector.lease.clone()).collect();
        assert_eq!(leases, [lease_of(1, 1), lease_of(2, 1)], "{damage}");
        assert!(matches!(&active[0].phase, Phase::Parked { error, hint: Some(_), .. } if error.contains("journal.db")));
        assert_eq!(active[1].phase, Phase::Active, "{damage}");
    }
}

#[tokio::test]
async fn entries_cannot_be_changed_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    two_sectors(&path).await;
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    for statement in ["DELETE FROM entry", "UPDATE entry SET seq = 1"] {
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains("never"), "{refused}");
    }
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    two_sectors(&path).await;
    sql(&path, "PRAGMA user_version = 99").await;
    let err = SqliteJournal::open(&path, Arc::new(FakeClock::default())).await.unwrap_err();
    assert_eq!(err.recovery(), Recovery::Park);
    assert!(err.hint().unwrap().contains("newer"));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    std::fs::write(&path, [7; 8192]).unwrap();
    let err = SqliteJournal::open(&path, Arc::new(FakeClock::default())).await.unwrap_err();
    assert_eq!(err.kind(), SealErrorKind::CorruptJournal);
    let missing = SqliteJournal::open(dir.path().join("no/journal.db"), Arc::new(FakeClock::default())).await;
    assert_eq!(missing.unwrap_err().kind(), SealErrorKind::Journal);
}

#[tokio::test]
async fn a_sector_tells_how_it_is() {
    let journal = InMemoryJournal::new();
    let lease = lease_of(1, 3);
    let phase = async || journal.active().await.unwrap().into_iter().next().map(|s| s.phase);
    journal.set_pending_request(Some(&RequestId::new("r"))).await.unwrap();
    journal.open(&lease).await.unwrap();
    assert_eq!(journal.pending_request().await.unwrap(), None, "a sector that is taken on answers the request");
    assert_eq!(phase().await, Some(Phase::Active));
    let append = async |entry| journal.append(lease.sector, Fence(3), entry).await.unwrap();
    append(NewEntry::parked(Some(STAGES[0].clone()), "why", Some("what to do"))).await;
    assert!(matches!(phase().await, Some(Phase::Parked { error, hint: Some(_), .. }) if error == "why"));
    append(NewEntry::resumed()).await;
    assert_eq!(phase().await, Some(Phase::Active));
    append(NewEntry::ending(Outcome::Abandoned, Some("expired"))).await;
    assert!(matches!(phase().await, Some(Phase::Ending { outcome: Outcome::Abandoned, reason: Some(_) })));
    append(NewEntry::ended(Outcome::Abandoned)).await;
    assert_eq!(phase().await, None);
    let kinds: Vec<EntryKind> = journal.history(lease.sector).await.unwrap().iter().map(|e: &Entry| e.kind).collect();
    assert_eq!(kinds.len(), 5, "the history stays: {kinds:?}");
}

#[tokio::test]
async fn a_corrupt_sector_is_listed_and_the_other_one_moves() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&damocles_seal::stage::id::TICKET)).await.unwrap();
    sql(
        &process.store.journal_path(),
        "DROP TRIGGER entry_is_never_changed; UPDATE entry SET output = 'x' WHERE number = 1 AND seq = 3",
    )
    .await;
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!(err.kind(), SealErrorKind::CorruptJournal);
    assert!(err.hint().is_some());
    let other = lease_of(2, 1);
    process.pipeline.open(other.clone()).await.unwrap();
    process.pipeline.step(other.sector, &Context::detached()).await.unwrap();
    assert_eq!(process.pipeline.progress().await.unwrap().len(), 2);
}
