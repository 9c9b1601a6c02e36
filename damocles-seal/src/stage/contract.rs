//! What a stage is.

use crate::journal::SectorRecord;
use async_trait::async_trait;
use damocles_core::{
    Context, Error,
    pipeline::{SealError, SealErrorKind, StageId, Wake},
};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What a stage says when it is done for now.
#[derive(Debug)]
pub enum StageOutcome {
    /// The stage has ended with this output.
    Done(Value),
    /// Nothing to do before then.
    Wait(Wake),
    /// What an earlier stage left is of no use any more: go back to it.
    Rewind {
        /// The stage to repeat.
        to: StageId,
        /// Why. Too many rewinds to the same stage end with this error.
        reason: SealError,
    },
}

impl StageOutcome {
    /// The stage has ended with this output.
    ///
    /// # Errors
    ///
    /// The output cannot be expressed as JSON, e.g. because a path is not UTF-8.
    pub fn done(output: &impl Serialize) -> Result<Self, SealError> {
        serde_json::to_value(output).map(Self::Done).map_err(|e| {
            Error::new(SealErrorKind::Stage, "encode output").recover_by(damocles_core::Recovery::Park).because(e)
        })
    }
}

/// One stage of a plan.
///
/// # Contract
///
/// - `run` may be called again after it succeeded: a crash may have come before its output was recorded. It trusts no
///   file that no recorded stage left.
/// - `run` reads the record and never writes it: the outcome is the only effect that the pipeline sees.
/// - Files that its output names are synced before it returns.
/// - When `cx.cancel` fires, `run` winds down and fails with
///   [`SealErrorKind::Cancelled`](damocles_core::pipeline::SealErrorKind::Cancelled); work that is finished by then is kept.
/// - A stage that has to wait for others says so with [`StageOutcome::Wait`] instead of waiting.
#[async_trait]
pub trait Stage: fmt::Debug + Send + Sync + 'static {
    /// The name, unique in a plan.
    fn id(&self) -> StageId;

    /// The version of its output's form: an output of a newer version is refused.
    fn version(&self) -> u32 {
        1
    }

    /// Does the work, or says when to ask again.
    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError>;
}
