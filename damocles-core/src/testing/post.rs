//! A scheduler that proves nothing.

use crate::{
    ActorId, Context, DeadlineIndex, Error, PartitionIndex,
    chain::{ChainClient, DeadlineState, TipsetRef},
    post::{Duty, DutyKind, Fulfilled, PoStError, PoStErrorKind, PoStScheduler, ProvingView},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;

/// Plans a proof for what the current deadline holds, and fulfils duties by writing them down.
#[derive(Debug)]
pub struct FakePoStScheduler {
    chain: Arc<dyn ChainClient>,
    fulfilled: Mutex<Vec<Duty>>,
}

impl FakePoStScheduler {
    /// A scheduler that reads `chain`.
    pub fn new(chain: Arc<dyn ChainClient>) -> Self {
        Self { chain, fulfilled: Mutex::default() }
    }

    /// The duties that were fulfilled, each once.
    pub fn fulfilled(&self) -> Vec<Duty> {
        self.fulfilled.lock().clone()
    }
}

fn to_prove(
    index: DeadlineIndex,
    current: DeadlineIndex,
    state: &DeadlineState,
) -> Vec<(PartitionIndex, crate::SectorSet)> {
    if index != current {
        return Vec::new();
    }
    let numbered = (0..).map(PartitionIndex).zip(&state.partitions);
    let open = numbered.filter(|(i, _)| !state.proven.contains(&i.0));
    open.map(|(i, p)| (i, p.to_prove())).filter(|(_, s)| !s.is_empty()).collect()
}

#[async_trait]
impl PoStScheduler for FakePoStScheduler {
    fn plan(&self, view: &ProvingView) -> Vec<Duty> {
        let mut duties = Vec::new();
        for (index, state) in &view.deadlines {
            let partitions = to_prove(*index, view.current.index, state);
            if !partitions.is_empty() {
                duties.push(Duty {
                    miner: view.miner,
                    deadline: view.current.clone(),
                    what: DutyKind::Prove { partitions },
                    due: view.current.close - 1,
                });
            }
        }
        duties
    }

    async fn view(&self, miner: ActorId, at: &TipsetRef) -> Result<ProvingView, PoStError> {
        let failed = |e| Error::new(PoStErrorKind::Chain, "take view").with("miner", miner).because(e);
        let current = self.chain.deadline(at, miner).await.map_err(failed)?;
        let state = self.chain.partitions(at, miner, current.index).await.map_err(failed)?;
        Ok(ProvingView { at: at.clone(), miner, deadlines: vec![(current.index, state)], current })
    }

    async fn fulfil(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        if cx.cancel.is_cancelled() {
            return Err(Error::new(PoStErrorKind::Cancelled, "fulfil duty").with("miner", duty.miner));
        }
        let head = self.chain.head().await.map_err(|e| Error::new(PoStErrorKind::Chain, "fulfil duty").because(e))?;
        if head.epoch > duty.due {
            return Err(Error::new(PoStErrorKind::Overdue, "fulfil duty").with("due", duty.due));
        }
        let mut done = self.fulfilled.lock();
        if !done.contains(duty) {
            done.push(duty.clone());
        }
        Ok(Fulfilled::default())
    }
}
