//! Whom a reader died or hung of.

use super::{
    WindowScheduler,
    read::{Answers, reasons},
    work::Share,
};
use damocles_core::{
    Context, Epoch, SectorNumber,
    pool::Task as _,
    post::{Duty, PoStError, PoStErrorKind, ReadChallenges, Replica},
};
use futures::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    slice,
};

/// What one sector may take.
pub(super) const SINGLE: Share = Share::new(1, 32).at_most(4);

/// What a part of a list may take.
const PART: Share = Share::new(1, 16);

/// What a whole hunt may take: the rest is for the proof of what reads well.
const HUNT: Share = Share::new(1, 2);

/// Into how many parts a list is taken apart.
const PARTS: usize = 16;

/// So many sectors in different places of a store speak for the store.
pub(super) const PROBES: usize = 3;

/// Sectors to leave out, and why.
pub(super) type Culprits = BTreeMap<SectorNumber, String>;

/// The directories that a store keeps its replicas in.
pub(super) type StoreDirs = (Option<PathBuf>, Option<PathBuf>);

/// The store of a replica.
pub(super) fn store_of(replica: &Replica) -> StoreDirs {
    let dir = |path: &Path| path.parent().map(Path::to_owned);
    (dir(&replica.paths.sealed), dir(&replica.paths.cache))
}

fn by_store(replicas: &[Replica]) -> BTreeMap<StoreDirs, Vec<Replica>> {
    let mut stores: BTreeMap<_, Vec<Replica>> = BTreeMap::new();
    for replica in replicas {
        stores.entry(store_of(replica)).or_default().push(replica.clone());
    }
    stores
}

fn each(replicas: &[Replica], why: &str) -> Vec<(SectorNumber, String)> {
    replicas.iter().map(|replica| (replica.sector.number, why.to_owned())).collect()
}

impl WindowScheduler {
    /// The sectors of stores that do not answer, found by one small read of each store. It costs little, while a list with
    /// one sector of such a store costs all the time that a list may take. None of a single store: it is read at once.
    pub(super) async fn silent(&self, duty: &Duty, task: &ReadChallenges, cx: &Context) -> Result<Culprits, PoStError> {
        if by_store(&task.replicas).len() < 2 {
            return Ok(Culprits::new());
        }
        let end = self.hunt_end(duty, cx).await?;
        self.probe_all(duty, task, end, cx).await?
    }

    /// The sectors that the reader of a list died or hung of, found by taking the list apart: first by store, then into
    /// ever smaller parts. What could not be read before the time is over is left out too. If all parts read well, or
    /// none does, it is the reader that is broken.
    pub(super) async fn culprits(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        broken: PoStError,
        cx: &Context,
    ) -> Result<Culprits, PoStError> {
        let parts_of = |list: &[Replica], size: usize| list.chunks(size).map(<[Replica]>::to_vec).collect::<Vec<_>>();
        if task.replicas.len() < 2 {
            return Err(broken);
        }
        let end = self.hunt_end(duty, cx).await?;
        let silent = self.probe_all(duty, task, end, cx).await??;
        if !silent.is_empty() {
            return Ok(silent);
        }
        let size = task.replicas.len().div_ceil(PARTS);
        let mut open: Vec<_> = by_store(&task.replicas).values().flat_map(|list| parts_of(list, size)).collect();
        let (mut bad, mut answered) = (Culprits::new(), false);
        while !open.is_empty() {
            let reads = stream::iter(open).map(|replicas: Vec<Replica>| async move {
                (self.read_before(end, duty, task, &replicas, PART, cx).await, replicas)
            });
            let read: Vec<_> = reads.buffer_unordered(self.parallel()).collect().await;
            open = Vec::new();
            for (answers, replicas) in read {
                match (answers?, replicas.as_slice()) {
                    (Some(Ok(answers)), _) => {
                        answered = true;
                        bad.extend(reasons(&answers));
                    }
                    (Some(Err(reader)), [only]) => {
                        bad.insert(only.sector.number, reader.chain());
                    }
                    (Some(Err(_)), list) => open.extend(parts_of(list, list.len().div_ceil(PARTS))),
                    (None, list) => bad.extend(each(list, "no time was left to read it apart from others")),
                }
            }
        }
        if answered && !bad.is_empty() { Ok(bad) } else { Err(broken) }
    }

    /// The sectors of the stores that do not answer. The inner error says that none answers.
    async fn probe_all(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        end: Epoch,
        cx: &Context,
    ) -> Result<Result<Culprits, PoStError>, PoStError> {
        let stores: Vec<_> = by_store(&task.replicas).into_values().collect();
        let (count, mut silent, mut last) = (stores.len(), Vec::new(), None);
        let probes = stream::iter(stores)
            .map(|store: Vec<Replica>| async move { (self.probe(duty, task, &store, end, cx).await, store) });
        let probed: Vec<_> = probes.buffer_unordered(self.parallel()).collect().await;
        for (probed, store) in probed {
            if let Err(reader) = probed? {
                silent.push((store, reader.chain()));
                last = Some(reader);
            }
        }
        Ok(match last {
            Some(reader) if silent.len() == count => Err(reader),
            _ => Ok(silent
                .iter()
                .flat_map(|(store, why)| each(store, &format!("its store does not answer: {why}")))
                .collect()),
        })
    }

    /// Whether a store answers: some of its sectors are read alone until one read ends, well or not.
    async fn probe(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        store: &[Replica],
        end: Epoch,
        cx: &Context,
    ) -> Result<Result<(), PoStError>, PoStError> {
        let last = store.len().saturating_sub(1);
        let mut places = vec![0, last, last / 2];
        places.truncate(PROBES.min(store.len()));
        let dirs = store.first().map(store_of);
        let mut silence = self.failed(PoStErrorKind::Read, "read sector", duty).with("task", ReadChallenges::KIND);
        if dirs.as_ref().is_some_and(|dirs| self.is_silent(dirs)) {
            return Ok(Err(silence.because("a reader is stuck in its store")));
        }
        for replica in places.into_iter().filter_map(|place| store.get(place)) {
            match self.read_before(end, duty, task, slice::from_ref(replica), SINGLE, cx).await? {
                Some(Ok(_)) => return Ok(Ok(())),
                Some(Err(reader)) => silence = reader,
                // Nothing is known against it.
                None => return Ok(Ok(())),
            }
            if self.is_stuck() {
                // Each further probe of a disk that is gone would cost a slot.
                break;
            }
        }
        self.silent.lock().extend(dirs);
        Ok(Err(silence))
    }

    /// Whether the process of a reader does not die, as one that waits for a disk that is gone: its slot has no job and is
    /// not free.
    pub(super) fn is_stuck(&self) -> bool {
        let (pool, kind) = (&self.deps.pool, ReadChallenges::KIND);
        let without_job = pool.slots().iter().filter(|slot| slot.kinds.contains(&kind) && slot.job.is_none()).count();
        without_job > pool.capacity(&kind).free
    }

    /// Whether a store did not answer and may still hold the process that was stuck in it.
    pub(super) fn is_silent(&self, store: &StoreDirs) -> bool {
        if !self.is_stuck() {
            self.silent.lock().clear();
        }
        self.silent.lock().contains(store)
    }

    /// Reads some sectors of a task, unless it is too late to begin. The inner error is the child's.
    async fn read_before(
        &self,
        end: Epoch,
        duty: &Duty,
        task: &ReadChallenges,
        replicas: &[Replica],
        share: Share,
        cx: &Context,
    ) -> Result<Option<Result<Answers, PoStError>>, PoStError> {
        if self.ask("read head", cx, self.deps.chain.head()).await?.epoch >= end {
            return Ok(None);
        }
        let part = ReadChallenges { replicas: replicas.to_vec(), ..task.clone() };
        self.read_list(duty, &part, share, cx).await.map(Some)
    }

    async fn hunt_end(&self, duty: &Duty, cx: &Context) -> Result<Epoch, PoStError> {
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        Ok(HUNT.end(head.epoch, duty.due))
    }

    /// How many readers are kept busy. More than there are slots would only stand in the way of others in the queue.
    pub(super) fn parallel(&self) -> usize {
        let slots = self.deps.pool.capacity(&ReadChallenges::KIND).total;
        self.options.parallel_checks.min(slots).max(1)
    }
}
