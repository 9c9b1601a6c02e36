//! The devnet's clock: one tipset per epoch while it runs, none while it is paused or down.

use super::{
    error::{DevnetError, DevnetErrorKind},
    node::Devnet,
};
use damocles_core::CancellationToken;
use std::sync::Arc;
use tokio::time::{MissedTickBehavior, interval};

impl Devnet {
    /// Mines a tipset per epoch until cancelled. Epochs that a busy machine misses are not made up for.
    ///
    /// # Errors
    ///
    /// If a tipset cannot be recorded.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), DevnetError> {
        let mut ticks = interval(self.config.epoch_duration.max(std::time::Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once.
        ticks.tick().await;
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.is_paused() {
                continue;
            }
            let devnet = Arc::clone(&self);
            tokio::task::spawn_blocking(move || devnet.mine_unless_paused())
                .await
                .map_err(|e| DevnetError::new(DevnetErrorKind::State, "mine a tipset").because(e))??;
        }
        Ok(())
    }
}
