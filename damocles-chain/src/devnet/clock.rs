//! The devnet's clock: while it runs there is an epoch per tick, whether the machine keeps up or not; none while it is
//! paused or down.

use super::{
    error::{DevnetError, DevnetErrorKind},
    node::Devnet,
};
use damocles_core::CancellationToken;
use futures::FutureExt as _;
use std::{sync::Arc, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The most epochs that one turn catches up with.
const MAX_EPOCHS: u64 = 256;
/// The most tipsets that one turn makes of them; the epochs before are null rounds.
const MAX_TIPSETS: u64 = 16;

impl Devnet {
    /// Mines until cancelled: the head's height is what it was, and an epoch for each that went by while the clock was not
    /// paused and the chain did not grow on command. What a busy machine missed is made up for in turns: the last epochs that were missed get a tipset each, and
    /// those before are null rounds, as on a network whose miners were away.
    ///
    /// # Errors
    ///
    /// If a tipset cannot be recorded.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), DevnetError> {
        let mut pace = self.pace.subscribe();
        let duration = *pace.borrow_and_update();
        let mut ticks = clock(duration).await;
        loop {
            let changed = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                changed = pace.changed() => changed.is_ok(),
                _ = ticks.tick() => false,
            };
            if changed {
                let duration = *pace.borrow_and_update();
                ticks = clock(duration).await;
                continue;
            }
            let mut epochs = 1;
            while epochs < MAX_EPOCHS && ticks.tick().now_or_never().is_some() {
                epochs += 1;
            }
            if self.is_paused() {
                continue;
            }
            let devnet = Arc::clone(&self);
            tokio::task::spawn_blocking(move || devnet.pass(epochs, MAX_TIPSETS))
                .await
                .map_err(|e| DevnetError::new(DevnetErrorKind::State, "mine a tipset").because(e))??;
        }
    }

    /// Forgets the time that went by until now: what the chain did on command in it was not missed.
    pub(super) fn start_clock_anew(&self) {
        self.pace.send_modify(|_| {});
    }

    /// Changes how long an epoch takes from now on.
    pub fn set_epoch_duration(&self, duration: Duration) {
        self.pace.send_replace(duration.max(SHORTEST));
    }

    /// How long an epoch takes.
    pub fn epoch_duration(&self) -> Duration {
        *self.pace.borrow()
    }
}

/// A shorter epoch than this is no clock any more.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// Ticks that none of is lost: what was missed comes at once.
async fn clock(duration: Duration) -> Interval {
    let mut ticks = interval(duration.max(SHORTEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // The first tick is at once.
    ticks.tick().await;
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::{DevnetConfig, FIRST_HEIGHT};
    use damocles_core::testing::FakeVerifier;

    #[test]
    fn what_was_missed_is_made_up_for() {
        let devnet = Devnet::in_memory(DevnetConfig::default(), Arc::new(FakeVerifier)).unwrap();
        devnet.pass(3, MAX_TIPSETS).unwrap();
        assert_eq!(devnet.height(), FIRST_HEIGHT + 3);
        devnet.pass(100, MAX_TIPSETS).unwrap();
        assert_eq!(devnet.height(), FIRST_HEIGHT + 103);
        let heights: Vec<i64> = devnet.chain.read().tipsets().map(|t| t.height).filter(|h| *h > FIRST_HEIGHT).collect();
        let expected: Vec<i64> = (1..=3).chain(88..=103).map(|n| FIRST_HEIGHT + n).collect();
        assert_eq!(heights, expected, "the last sixteen have a tipset each");
        devnet.pause();
        devnet.pass(5, MAX_TIPSETS).unwrap();
        assert_eq!(devnet.height(), FIRST_HEIGHT + 103);
    }

    /// The clock runs on while nothing can be mined, and the chain is where the clock is as soon as it can.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_busy_machine_loses_no_epoch() {
        let config = DevnetConfig { epoch_duration: Duration::from_millis(10), ..DevnetConfig::default() };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let cancel = CancellationToken::new();
        let mut ticks = clock(Duration::from_millis(10)).await;
        let running = tokio::spawn(Arc::clone(&devnet).run(cancel.clone()));
        let busy = {
            let devnet = Arc::clone(&devnet);
            tokio::task::spawn_blocking(move || {
                let _growing = devnet.growing.lock();
                std::thread::sleep(Duration::from_millis(300));
            })
        };
        let mut heads = devnet.heads.subscribe();
        busy.await.unwrap();
        let mut passed = 0;
        while passed < 40 {
            ticks.tick().await;
            passed += 1;
        }
        // The clock started a little after ours, so that it is at most an epoch behind or in the middle of a turn.
        while devnet.height() < FIRST_HEIGHT + passed - 2 {
            heads.recv().await.unwrap();
        }
        cancel.cancel();
        running.await.unwrap().unwrap();
    }
}
