//! Reading challenges: the disk's half of a proof.

use super::{
    WindowScheduler,
    hunt::{Culprits, SINGLE},
    work::{Share, is_of_child},
};
use damocles_core::{
    Context, PartitionIndex, PoStProofType, SectorId, SectorNumber, SectorSet,
    chain::{PartitionSectors, TipsetRef},
    post::{ChallengeRead, Duty, PoStError, PoStErrorKind, ReadChallenges, Replica},
    verify::{ProvenSector, Randomness},
};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;

/// How many locations are asked for at a time.
const PARALLEL_LOOKUPS: usize = 32;

/// What a list may take: the rest is for finding whom a reader hangs of, and for the proof.
const LIST: Share = Share::new(1, 3);

/// What reading each sector of a list gave.
pub(super) type Answers = BTreeMap<SectorNumber, Result<Vec<u8>, String>>;

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
        if !candidates.lost.is_empty() {
            self.note(cx, skipping(duty, candidates.lost.iter().map(|n| (n, "no store is known to hold it"))));
        }
        let mut task = ReadChallenges { miner: duty.miner, proof_type, randomness, replicas: candidates.replicas };
        let mut bad = self.silent(duty, &task, cx).await?;
        loop {
            if !bad.is_empty() {
                self.note(cx, skipping(duty, bad.iter().map(|(n, reason)| (*n, reason.as_str()))));
                task.replicas.retain(|r| !bad.contains_key(&r.sector.number));
            }
            if task.replicas.is_empty() {
                return Ok(None);
            }
            bad = match self.read_list(duty, &task, LIST, cx).await? {
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
        }
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
        let read = self.read_list(duty, &task, SINGLE, cx).await??;
        Ok(read.into_values().try_for_each(|vanilla| vanilla.map(drop)))
    }

    /// Reads a list. The inner error says that the reader died or hung, which one sector of the list may be the cause of.
    pub(super) async fn read_list(
        &self,
        duty: &Duty,
        task: &ReadChallenges,
        share: Share,
        cx: &Context,
    ) -> Result<Result<Answers, PoStError>, PoStError> {
        match self.work(duty, task, PoStErrorKind::Read, share, cx).await {
            Ok(answers) => self.matched(duty, task, answers).map(Ok),
            Err(broken) if broken.kind() == PoStErrorKind::Read && is_of_child(&broken) => Ok(Err(broken)),
            Err(error) => Err(error),
        }
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
}

/// The sectors that do not read well.
pub(super) fn reasons(read: &Answers) -> Culprits {
    read.iter().filter_map(|(n, vanilla)| vanilla.as_ref().err().map(|e| (*n, e.clone()))).collect()
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
