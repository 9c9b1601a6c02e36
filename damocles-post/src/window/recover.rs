//! Declaring faulty sectors recovered.

use super::{
    WindowScheduler,
    hunt::{PROBES, StoreDirs, store_of},
    read::Candidates,
    work::is_late,
};
use crate::{plan::to_recover, record::Intent};
use damocles_core::{
    Context, PartitionIndex, SectorNumber, SectorSet,
    chain::{DeadlineState, DeclareFaultsRecovered, PartitionSectors, PartitionState, RandomnessKind},
    post::{Duty, Fulfilled, PoStError, PoStErrorKind, Replica},
};
use futures::{StreamExt, stream};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What reading a sector alone said about it, if anything.
type Checked = Result<Result<(), String>, PoStError>;

impl WindowScheduler {
    /// Reads each faulty sector alone, with a fresh challenge. Those that read well are declared; a reader that fails
    /// says nothing about its sector, which then waits for the next check.
    pub(super) async fn make_recovery(
        &self,
        duty: &Duty,
        partitions: &[(PartitionIndex, SectorSet)],
        cx: &Context,
    ) -> Result<Result<Intent, Fulfilled>, PoStError> {
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        if head.epoch >= duty.due {
            return Err(self.overdue(duty, head.epoch));
        }
        let state = self.deadline_state(duty, &head, cx).await?;
        let faulty = still_faulty(partitions, &state);
        if faulty.is_empty() {
            return Ok(Err(Fulfilled::default()));
        }
        let miner = self.ask("read miner", cx, self.deps.chain.miner(&head, duty.miner)).await?;
        // Any challenge will do; that of the head cannot have been prepared for.
        let kind = RandomnessKind::WindowPoStChallenge;
        let draw = self.deps.chain.randomness(&head, kind, head.epoch, duty.miner);
        let randomness = self.ask("draw randomness", cx, draw).await?;
        let candidates = self.candidates(duty, &faulty, &head, cx).await?;

        // How many reads of a store in a row did not end.
        let silent: BTreeMap<StoreDirs, AtomicUsize> =
            candidates.replicas.iter().map(|r| (store_of(r), AtomicUsize::new(0))).collect();
        let checks = stream::iter(candidates.replicas).map(|replica: Replica| {
            let (number, store) = (replica.sector.number, store_of(&replica));
            let silent = silent.get(&store);
            async move {
                if self.is_silent(&store) || silent.is_some_and(|n| n.load(Relaxed) >= PROBES) {
                    let error = self.failed(PoStErrorKind::Read, "read sector", duty).with("sector", number);
                    return (number, Err(error.because("its store does not answer")));
                }
                let read = self.read_one(duty, miner.window_post_proof, randomness, replica, cx).await;
                if let Some(silent) = silent {
                    let count = if read.is_ok() { 0 } else { silent.load(Relaxed) + 1 };
                    silent.store(count, Relaxed);
                }
                if read.as_ref().is_err_and(is_late) && self.is_stuck() {
                    self.silent.lock().insert(store);
                }
                (number, read)
            }
        });
        let checked: Vec<(SectorNumber, Checked)> = checks.buffer_unordered(self.parallel()).collect().await;

        let (mut good, mut answered, mut failure) = (SectorSet::new(), !candidates.lost.is_empty(), None);
        for (number, result) in checked {
            match result {
                Ok(Ok(())) => {
                    good.insert(number);
                    answered = true;
                }
                Ok(Err(reason)) => {
                    self.note(cx, format!("miner {}: sector {number} is still bad: {reason}", duty.miner));
                    answered = true;
                }
                Err(e) if matches!(e.kind(), PoStErrorKind::Cancelled | PoStErrorKind::Overdue) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        if let (false, Some(failure)) = (answered, failure) {
            return Err(failure);
        }
        let all: SectorSet = faulty.iter().flat_map(|(_, sectors)| sectors.iter()).collect();
        let skipped = Candidates::partition_sectors(duty, &faulty, &all.minus(&good));
        if good.is_empty() {
            return Ok(Err(Fulfilled { receipts: Vec::new(), skipped }));
        }
        let recoveries = Candidates::partition_sectors(duty, &faulty, &good);
        let declaration = DeclareFaultsRecovered { miner: duty.miner, recoveries };
        Ok(Ok(Intent::Recovery { declaration, skipped }))
    }
}

fn still_faulty(partitions: &[(PartitionIndex, SectorSet)], state: &DeadlineState) -> Vec<(PartitionIndex, SectorSet)> {
    let asked = |index: PartitionIndex| {
        partitions.iter().filter(|(i, _)| *i == index).flat_map(|(_, s)| s.iter()).collect::<SectorSet>()
    };
    let now = to_recover(state).into_iter().map(|(index, sectors)| (index, sectors.intersect(&asked(index))));
    now.filter(|(_, sectors)| !sectors.is_empty()).collect()
}

/// Whether every sector of a declaration can still be declared.
pub(super) fn is_wanted(declaration: &DeclareFaultsRecovered, state: &DeadlineState) -> bool {
    each(declaration, state, |part, held| part.sectors.minus(&held.faulty.minus(&held.recovering)).is_empty())
}

/// Whether the chain shows every sector of a declaration as recovering or recovered.
pub(super) fn is_shown(declaration: &DeclareFaultsRecovered, state: &DeadlineState) -> bool {
    each(declaration, state, |part, held| part.sectors.intersect(&held.faulty).minus(&held.recovering).is_empty())
}

fn each(
    declaration: &DeclareFaultsRecovered,
    state: &DeadlineState,
    holds: impl Fn(&PartitionSectors, &PartitionState) -> bool,
) -> bool {
    declaration.recoveries.iter().all(|part| {
        let index = usize::try_from(part.partition.0).unwrap_or(usize::MAX);
        state.partitions.get(index).is_some_and(|held| holds(part, held))
    })
}
