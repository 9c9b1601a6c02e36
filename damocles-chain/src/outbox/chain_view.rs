//! The base fee, with a short history.

use super::Outbox;
use damocles_core::{Epoch, TokenAmount, chain::TipsetRef};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tracing::debug;

/// Epochs whose base fees are kept: a day's.
const KEPT: usize = 2880;

/// The base fee of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFee {
    /// The epoch.
    pub epoch: Epoch,
    /// For one unit of gas.
    pub fee: TokenAmount,
}

/// The base fees of the last heads, by epoch.
#[derive(Debug, Default)]
pub(super) struct BaseFees(Mutex<BTreeMap<i64, TokenAmount>>);

impl BaseFees {
    /// Takes that of a new head: what was above it was reverted.
    fn take(&self, epoch: i64, fee: TokenAmount) {
        let mut fees = self.0.lock();
        fees.split_off(&epoch);
        fees.insert(epoch, fee);
        while fees.len() > KEPT {
            fees.pop_first();
        }
    }

    fn all(&self) -> Vec<BaseFee> {
        self.0.lock().iter().map(|(epoch, fee)| BaseFee { epoch: Epoch(*epoch), fee: *fee }).collect()
    }
}

impl Outbox {
    /// The base fees of the heads that were seen, the oldest first.
    pub(crate) fn base_fees(&self) -> Vec<BaseFee> {
        self.base_fees.all()
    }

    /// Keeps what is known of the chain current for ever.
    pub(super) async fn follow_base_fee(&self, mut newest: watch::Receiver<Option<TipsetRef>>) {
        while newest.changed().await.is_ok() {
            let head = newest.borrow_and_update().clone();
            let Some(head) = head else { continue };
            match self.node.base_fee(&head).await {
                Ok(fee) => {
                    let atto = i128::try_from(fee.atto()).unwrap_or(i128::MAX);
                    self.base_fees.take(head.epoch.0, TokenAmount::from_atto(atto));
                }
                Err(e) => debug!(error = e.chain(), "the base fee of a head is not known"),
            }
            self.look_at_funds(&head).await;
        }
    }
}
