//! Reading challenges: the disk's half of a proof.

use super::WindowScheduler;
use crate::fingerprint::fingerprint;
use damocles_core::{
    Context, JobId, PartitionIndex, PoStProofType, SectorId, SectorNumber, SectorSet,
    chain::{ChainClientExt, PartitionSectors, TipsetRef},
    pool::{Job, PoolError, PoolErrorKind, Task},
    post::{ChallengeRead, Duty, PoStError, PoStErrorKind, ReadChallenges, Replica},
    verify::{ProvenSector, Randomness},
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{collections::BTreeMap, error::Error as _};

/// How many locations are asked for at a time.
const PARALLEL_LOOKUPS: usize = 32;

/// A list may take this part of the time that is left.
const PART_OF_LIST: i64 = 2;

/// A part of a list, on its own, may take this part of the time that is left.
const PART_OF_PART: i64 = 8;

/// Into how many parts a list is taken apart whose reader died or hung.
const PARTS: usize = 16;

type Answers = BTreeMap<SectorNumber, Result<Vec<u8>, String>>;

/// The sectors that a proof could cover.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Those whose files are known, ascending by number.
    pub(super) replicas: Vec<Replica>,
    /// Those whose files are not.
    pub(super) lost: SectorSet,
}

/// Vanilla proofs of sectors that all read well as one list.
#[derive(Debug)]
pub(super) struct Vanilla {
    pub(super) sectors: Vec<ProvenSector>,
    pub(super) proofs: Vec<String>,
}

impl Candidates {
    /// `sectors` by the partition that they are in.
    pub(super) fn partition_sectors(
        duty: &Duty,
        partitions: &[(PartitionIndex, SectorSet)],
        sectors: &SectorSet,
    ) -> Vec<PartitionSectors> {
        let of_partition = |(index, held): &(PartitionIndex, SectorSet)| PartitionSectors {
            deadline: duty.deadline.index,
            partition: *index,
            sectors: held.intersect(sectors),
        };
        partitions.iter().map(of_partition).filter(|part| !part.sectors.is_empty()).collect()
    }
}

impl WindowScheduler {
    /// Looks up what the statement and the reader need of each sector.
    pub(super) async fn candidates(
        &self,
        duty: &Duty,
        partitions: &[(PartitionIndex, SectorSet)],
        at: &TipsetRef,
        cx: &Context,
    ) -> Result<Candidates, PoStError> {
        let numbers: SectorSet = partitions.iter().flat_map(|(_, sectors)| sectors.iter()).collect();
        let infos = self.ask("read sectors", cx, self.deps.chain.sectors(at, duty.miner, &numbers)).await?;
        let infos: BTreeMap<SectorNumber, _> = infos.into_iter().map(|i| (i.number, i.comm_r)).collect();
        let mut sectors = Vec::with_capacity(numbers.len());
        for number in numbers.iter() {
            let comm_r = infos.get(&number).copied().ok_or_else(|| {
                // The partition names it, so the chain has it: this answer is incomplete.
                self.failed(PoStErrorKind::Chain, "read sectors", duty).with("missing", number)
            })?;
            sectors.push(ProvenSector { number, comm_r });
        }
        let miner = duty.miner;
        let lookups = stream::iter(sectors).map(|sector| async move {
            let located = self.deps.replicas.locate(SectorId::new(miner, sector.number)).await;
            located.map(|paths| (sector, paths)).map_err(|e| (sector.number, e))
        });
        let located: Result<Vec<_>, _> = cx
            .cancel
            .run_until_cancelled(lookups.buffered(PARALLEL_LOOKUPS).try_collect())
            .await
            .ok_or_else(|| self.failed(PoStErrorKind::Cancelled, "locate replicas", duty))?;
        let located = located.map_err(|(number, e)| {
            self.failed(PoStErrorKind::Read, "locate replica", duty).with("sector", number).because(e)
        })?;
        let mut candidates = Candidates { replicas: Vec::with_capacity(located.len()), lost: SectorSet::new() };
        for (sector, paths) in located {
            match paths {
                Some(paths) => candidates.replicas.push(Replica { sector, paths }),
                None => {
                    candidates.lost.insert(sector.number);
                }
            }
        }
        Ok(candidates)
    }

    /// Reads until every sector of the list reads well; none if no sector does. A sector that does not is taken out and
    /// the rest is read again, because challenges depend on the whole list. So is one that a reader dies or hangs of.
    pub(super) async fn read_all(
        &self,
        duty: &Duty,
        proof_type: PoStProofType,
        randomness: Randomness,
        candidates: Candidates,
        cx: &Context,
    ) -> Result<Option<Vanilla>, PoStError> {
        let mut replicas = candidates.replicas;
        if !candidates.lost.is_empty() {
            self.note(cx, skipping(duty, candidates.lost.iter().map(|n| (n, "no store is known to hold it"))));
        }
        while !replicas.is_empty() {
            let task = ReadChallenges { miner: duty.miner, proof_type, randomness, replicas };
            let bad = match self.read_list(duty, &task, PART_OF_LIST, cx).await? {
                Err(broken) => self.culprits(duty, &task, broken, cx).await?,
                Ok(mut read) => {
                    let bad = reasons(&read);
                    if bad.is_empty() {
                        let sectors: Vec<_> = task.replicas.iter().map(|r| r.sector).collect();
                        let vanilla = sectors.iter().filter_map(|s| read.remove(&s.number).and_then(Result::ok));
                        return Ok(Some(Vanilla { proofs: vanilla.map(hex::encode).collect(), sectors }));
                    }
                    bad
                }
            };
            self.note(cx, skipping(duty, bad.iter().map(|(n, reason)| (*n, reason.as_str()))));
            replicas = task.replicas;
            replicas.retain(|r| !bad.contains_key(&r.sector.number));
        }
        Ok(None)
    }

    /// Reads one sector alone. The inner error says why it does not read well.
    pub(super) async fn read_one(
        &self,
        duty: &Duty,
        proof_type: PoStProofType,
        randomness: Randomness,
        replica: Replica,
        cx: &Context,
    ) -> Result<Result<(), String>, PoStError> {
        let task = ReadChallenges { miner: duty.miner, proof_type, randomness, replicas: vec![replica] };
        let read = self.read_list(duty, &task, PART_OF_PART, cx).await??;
        Ok(read.into_values().try_for_each(|vanilla| vanilla.map(drop)))
    }

    /// Reads a list for so long that the n-th part of the time until the duty is due is left for it. The inner error says
    /// that the reader died or hung, which one sector of the list may be the cause of.
    async fn read_list(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        n: i64,
        cx: &Context,
    ) -> Result<Result<Answers, PoStError>, PoStError> {
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        let limit = head.epoch + ((duty.due - head.epoch) / n).max(1);
        let inner = cx.child();
        let late = async {
            let least = tokio::time::sleep(self.options.least_read_time);
            tokio::join!(least, self.deps.chain.reached(limit, &inner))
        };
        let work = self.work(duty, task, PoStErrorKind::Read, &inner);
        tokio::pin!(work, late);
        let answers = tokio::select! {
            biased;
            answers = &mut work => answers,
            _ = &mut late => {
                inner.cancel.cancel();
                work.await
            }
        };
        match answers {
            Ok(answers) => self.matched(duty, task, answers).map(Ok),
            Err(broken) if !cx.cancel.is_cancelled() && is_of_reader(&broken) => Ok(Err(broken)),
            Err(error) => Err(error),
        }
    }

    /// The sectors that do not read well alone, found by taking the list apart. If none or all of them do not, it is the
    /// reader that is broken.
    async fn culprits(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        broken: PoStError,
        cx: &Context,
    ) -> Result<BTreeMap<SectorNumber, String>, PoStError> {
        let parts_of = |list: &[Replica]| {
            list.chunks(list.len().div_ceil(PARTS).max(1)).map(<[Replica]>::to_vec).collect::<Vec<_>>()
        };
        let (mut bad, mut answered) = (BTreeMap::new(), false);
        let mut open = if task.replicas.len() > 1 { parts_of(&task.replicas) } else { Vec::new() };
        while let Some(replicas) = open.pop() {
            let part = ReadChallenges { replicas, ..task.clone() };
            match (self.read_list(duty, &part, PART_OF_PART, cx).await?, part.replicas.as_slice()) {
                (Ok(read), _) => {
                    answered = true;
                    bad.extend(reasons(&read));
                }
                (Err(reader), [only]) => {
                    bad.insert(only.sector.number, reader.chain());
                }
                (Err(_), list) => open.extend(parts_of(list)),
            }
        }
        if answered && !bad.is_empty() { Ok(bad) } else { Err(broken) }
    }

    /// Exactly one answer for each replica: anything else is rubbish.
    fn matched(&self, duty: &Duty, task: &ReadChallenges, answers: Vec<ChallengeRead>) -> Result<Answers, PoStError> {
        let count = answers.len();
        let answers: BTreeMap<_, _> = answers
            .into_iter()
            .map(|answer| match answer {
                ChallengeRead::Read { number, vanilla } => (number, Ok(vanilla)),
                ChallengeRead::Bad { number, reason } => (number, Err(reason)),
            })
            .collect();
        let asked: SectorSet = task.replicas.iter().map(|r| r.sector.number).collect();
        let answered: SectorSet = answers.keys().copied().collect();
        if count == asked.len() && answered == asked {
            return Ok(answers);
        }
        Err(self
            .failed(PoStErrorKind::Read, "match answers to sectors", duty)
            .with("sectors", asked.len())
            .with("answers", count))
    }

    /// Runs a task in the pool, at the longest until the duty is due.
    pub(super) async fn work<T: Task>(
        &self,
        duty: &Duty,
        task: &T,
        kind: PoStErrorKind,
        cx: &Context,
    ) -> Result<T::Output, PoStError> {
        let failed = |e: PoolError| {
            // A pool that limits the time of jobs cancels some by itself.
            let cancelled = e.kind() == PoolErrorKind::Cancelled && cx.cancel.is_cancelled();
            let kind = if cancelled { PoStErrorKind::Cancelled } else { kind };
            let recovery = e.recovery();
            self.failed(kind, "run task", duty).with("task", T::KIND).recover_by(recovery).because(e)
        };
        let mut job = Job::of(JobId(0), None, task).map_err(failed)?;
        // The same work is the same job, also after a restart.
        job.id = JobId(fingerprint([T::KIND.as_str().as_bytes(), &job.payload]));
        let inner = cx.child();
        let run = self.deps.pool.run(job, &inner);
        let due = self.deps.chain.reached(duty.due, &inner);
        tokio::pin!(run, due);
        let output = tokio::select! {
            output = &mut run => output,
            Ok(head) = &mut due => {
                // The pool gives its children the time that they need to wind down.
                inner.cancel.cancel();
                let _ = run.await;
                return Err(self.overdue(duty, head.epoch));
            }
        };
        let output = output.map_err(failed)?;
        serde_json::from_slice(&output)
            .map_err(|e| self.failed(kind, "decode output", duty).with("task", T::KIND).because(e))
    }
}

fn reasons(read: &Answers) -> BTreeMap<SectorNumber, String> {
    read.iter().filter_map(|(n, vanilla)| vanilla.as_ref().err().map(|e| (*n, e.clone()))).collect()
}

/// Whether a reader died or was stopped because it took too long.
fn is_of_reader(error: &PoStError) -> bool {
    let pool = error.source().and_then(|e| e.downcast_ref::<PoolError>());
    pool.is_some_and(|e| matches!(e.kind(), PoolErrorKind::Crashed | PoolErrorKind::Cancelled))
}

fn skipping<'a>(duty: &Duty, sectors: impl Iterator<Item = (SectorNumber, &'a str)>) -> String {
    const LISTED: usize = 8;
    let sectors: Vec<_> = sectors.collect();
    let listed: Vec<String> = sectors.iter().take(LISTED).map(|(n, why)| format!("{n} ({why})")).collect();
    let more = sectors.len().saturating_sub(LISTED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (miner, index) = (duty.miner, duty.deadline.index);
    format!("miner {miner}, deadline {index}: left out sectors {}{more}", listed.join(", "))
}
