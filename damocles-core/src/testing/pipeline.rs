//! A pipeline that follows a script.

use crate::{
    Context, Error, Fence, SectorId,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind, SealingPipeline, SectorProgress, StageId, Step},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Moves every sector through the same list of stage names, doing nothing in them.
#[derive(Debug)]
pub struct ScriptedPipeline {
    stages: Vec<StageId>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<SectorId, SectorLease>,
    done: BTreeMap<SectorId, usize>,
    fences: BTreeMap<SectorId, Fence>,
    failing: Vec<(StageId, SealErrorKind)>,
}

impl ScriptedPipeline {
    /// A pipeline of these stages.
    pub fn new(stages: impl IntoIterator<Item = StageId>) -> Self {
        Self { stages: stages.into_iter().collect(), state: Mutex::default() }
    }

    /// Makes the next run of `stage` fail.
    #[must_use]
    pub fn fails_once(self, stage: StageId, kind: SealErrorKind) -> Self {
        self.state.lock().failing.push((stage, kind));
        self
    }
}

fn unknown(op: &'static str, id: SectorId) -> SealError {
    Error::new(SealErrorKind::UnknownSector, op).with("sector", id)
}

#[async_trait]
impl SealingPipeline for ScriptedPipeline {
    async fn open(&self, lease: SectorLease) -> Result<SectorId, SealError> {
        let mut state = self.state.lock();
        let id = lease.sector;
        if state.fences.get(&id).is_some_and(|fence| *fence > lease.fence) {
            return Err(Error::new(SealErrorKind::Fenced, "open sector").with("sector", id));
        }
        state.fences.insert(id, lease.fence);
        state.open.insert(id, lease);
        state.done.entry(id).or_default();
        Ok(id)
    }

    async fn step(&self, id: SectorId, cx: &Context) -> Result<Step, SealError> {
        let mut state = self.state.lock();
        if !state.open.contains_key(&id) {
            return Err(unknown("step sector", id));
        }
        if cx.cancel.is_cancelled() {
            return Err(Error::new(SealErrorKind::Cancelled, "step sector").with("sector", id));
        }
        let done = state.done.get(&id).copied().unwrap_or(0);
        let Some(stage) = self.stages.get(done).cloned() else {
            return Ok(Step::Finished);
        };
        if let Some(at) = state.failing.iter().position(|(s, _)| *s == stage) {
            let (_, kind) = state.failing.remove(at);
            return Err(Error::new(kind, "step sector").with("sector", id).with("stage", &stage));
        }
        state.done.insert(id, done + 1);
        Ok(Step::Advanced { stage })
    }

    async fn rewind(&self, id: SectorId, stage: &StageId) -> Result<(), SealError> {
        let mut state = self.state.lock();
        if !state.open.contains_key(&id) {
            return Err(unknown("rewind sector", id));
        }
        let at = self.stages.iter().position(|s| s == stage).ok_or_else(|| unknown("rewind sector", id))?;
        let done = state.done.entry(id).or_default();
        *done = at.min(*done);
        Ok(())
    }

    async fn close(&self, id: SectorId) -> Result<SectorLease, SealError> {
        self.state.lock().open.remove(&id).ok_or_else(|| unknown("close sector", id))
    }

    async fn progress(&self) -> Result<Vec<SectorProgress>, SealError> {
        let state = self.state.lock();
        let progress = state.open.values().map(|lease| {
            let done = state.done.get(&lease.sector).copied().unwrap_or(0);
            SectorProgress {
                lease: lease.clone(),
                done: self.stages.iter().take(done).cloned().collect(),
                next: self.stages.get(done).cloned(),
            }
        });
        Ok(progress.collect())
    }
}
