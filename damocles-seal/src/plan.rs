//! The list of stages that a sector goes through.

use crate::{
    journal::SectorRecord,
    stage::{
        AddPiecesStage, C1Stage, C2Stage, CleanUpStage, Pc1Stage, Pc2Stage, PersistStage, PiecesStage,
        PreCommitLandedStage, PreCommitStage, ProveCommitLandedStage, ProveCommitStage, SeedStage, Stage, StageDeps,
        TicketStage, TreeDStage,
    },
};
use damocles_core::pipeline::StageId;
use std::sync::Arc;

/// Stages in order, each of another name.
#[derive(Clone, Debug)]
pub struct Plan(Vec<Arc<dyn Stage>>);

/// Why a list of stages is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is nothing in it.
    #[error("a plan needs at least one stage")]
    Empty,
    /// Outputs are found by name, so that a name must be unique.
    #[error("two stages are named {0}")]
    Twice(StageId),
    /// A place in the plan is named by a stage that is not in it.
    #[error("no stage is named {0}")]
    Unknown(StageId),
}

impl Plan {
    /// A plan of these stages.
    ///
    /// # Errors
    ///
    /// There are none, or two have the same name.
    pub fn new(stages: Vec<Arc<dyn Stage>>) -> Result<Self, PlanError> {
        if stages.is_empty() {
            return Err(PlanError::Empty);
        }
        for (i, stage) in stages.iter().enumerate() {
            if stages.iter().skip(i + 1).any(|s| s.id() == stage.id()) {
                return Err(PlanError::Twice(stage.id()));
            }
        }
        Ok(Self(stages))
    }

    /// The stages of interactive PoRep. The replica is persisted while the seed is awaited: the pre-commit has landed by
    /// then, and the proof is not sent before.
    pub fn interactive(deps: StageDeps) -> Self {
        let deps = &Arc::new(deps);
        Self(vec![
            Arc::new(PiecesStage(Arc::clone(deps))),
            Arc::new(AddPiecesStage(Arc::clone(deps))),
            Arc::new(TreeDStage(Arc::clone(deps))),
            Arc::new(TicketStage(Arc::clone(deps))),
            Arc::new(Pc1Stage(Arc::clone(deps))),
            Arc::new(Pc2Stage(Arc::clone(deps))),
            Arc::new(PreCommitStage(Arc::clone(deps))),
            Arc::new(PreCommitLandedStage(Arc::clone(deps))),
            Arc::new(PersistStage(Arc::clone(deps))),
            Arc::new(SeedStage(Arc::clone(deps))),
            Arc::new(C1Stage(Arc::clone(deps))),
            Arc::new(C2Stage(Arc::clone(deps))),
            Arc::new(ProveCommitStage(Arc::clone(deps))),
            Arc::new(ProveCommitLandedStage(Arc::clone(deps))),
            Arc::new(CleanUpStage(Arc::clone(deps))),
        ])
    }

    /// The same plan with `stage` right after the one named `after`.
    ///
    /// # Errors
    ///
    /// No stage is named `after`, or one has the new stage's name already.
    pub fn with_after(self, after: &StageId, stage: Arc<dyn Stage>) -> Result<Self, PlanError> {
        let mut stages = self.0;
        let at = stages.iter().position(|s| s.id() == *after).ok_or_else(|| PlanError::Unknown(after.clone()))?;
        stages.insert(at + 1, stage);
        Self::new(stages)
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Arc<dyn Stage>] {
        &self.0
    }

    /// The first stage that has not ended.
    pub fn next(&self, record: &SectorRecord) -> Option<&Arc<dyn Stage>> {
        self.0.iter().find(|s| record.fact(&s.id()).is_none())
    }

    /// The stages from `to` on that have ended: what a rewind drops. None if no stage is named so.
    pub(crate) fn dropped(&self, record: &SectorRecord, to: &StageId) -> Option<Vec<StageId>> {
        let at = self.0.iter().position(|s| s.id() == *to)?;
        Some(self.0.iter().skip(at).map(|s| s.id()).filter(|s| record.fact(s).is_some()).collect())
    }
}
