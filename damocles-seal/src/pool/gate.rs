//! The step between getting a slot and using it.

use super::spec::SlotSpec;
use async_trait::async_trait;
use damocles_core::{
    Context,
    pool::{Job, PoolError},
};
use std::fmt;

/// Claims what a slot has for itself, e.g. its GPUs, against other programs on this host.
#[async_trait]
pub trait Gate: fmt::Debug + Send + Sync + 'static {
    /// Waits until everything that `slot` has for itself is this program's. Its time limit has not begun. Whoever holds
    /// what is waited for can be told as [`damocles_core::JobEvent::Queued`] through `cx`.
    ///
    /// `waits` is called when it has to wait, and again whenever something may have changed in what
    /// [`Self::held_elsewhere`] answers. The future is dropped when `cx.cancel` fires, and once `waits` was called also
    /// when the job is to have another slot, or another job this one.
    ///
    /// # Errors
    ///
    /// It cannot be claimed: the job fails with this.
    async fn enter(
        &self,
        slot: &SlotSpec,
        job: &Job,
        cx: &Context,
        waits: &(dyn Fn() + Send + Sync),
    ) -> Result<Box<dyn Pass>, PoolError>;

    /// Who else seems to hold what `slot` has for itself, in an operator's words. Another slot is taken first, if one
    /// fits. It may read a file, and is asked without any lock held; that it changes need not be told: [`Gate::enter`]
    /// decides.
    fn held_elsewhere(&self, _slot: &SlotSpec) -> Option<String> {
        None
    }
}

/// Claims that are held. They are given back when this is dropped: when the job is over and the slot's process, if that
/// has to end, is gone. That may be on any thread, which must not be blocked for long.
pub trait Pass: fmt::Debug + Send + 'static {}

impl<T: fmt::Debug + Send + 'static> Pass for T {}
