//! A scheduler that only says what it would do.

use crate::{Options, plan, plan::partitions_of, take_view, view::ask};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Context, Error, Event,
    chain::{ChainClient, TipsetRef},
    post::{Duty, DutyKind, Fulfilled, PoStError, PoStErrorKind, PoStScheduler, ProvingView},
};
use std::{fmt::Write, sync::Arc};

/// Plans like [`WindowScheduler`](crate::WindowScheduler) and says what it would send. It reads the chain, proves
/// nothing, records nothing and sends nothing.
#[derive(Debug)]
pub struct DryRun {
    chain: Arc<dyn ChainClient>,
    options: Options,
}

impl DryRun {
    /// A scheduler that reads `chain`.
    pub fn new(chain: Arc<dyn ChainClient>, options: Options) -> Self {
        Self { chain, options }
    }

    /// What a duty amounts to, in one line.
    pub fn describe(duty: &Duty) -> String {
        let mut text = match duty.what {
            DutyKind::Prove { .. } => "would prove".to_owned(),
            _ => "would check and declare recovered".to_owned(),
        };
        let sectors: usize = partitions_of(&duty.what).iter().map(|(_, sectors)| sectors.len()).sum();
        let _ =
            write!(text, " {sectors} sectors of miner {} in deadline {}, partitions", duty.miner, duty.deadline.index);
        for (index, _) in partitions_of(&duty.what) {
            let _ = write!(text, " {index}");
        }
        let _ = write!(text, ", until epoch {}", duty.due);
        text
    }
}

#[async_trait]
impl PoStScheduler for DryRun {
    fn plan(&self, view: &ProvingView) -> Vec<Duty> {
        plan(view, &self.options)
    }

    async fn view(&self, miner: ActorId, at: &TipsetRef) -> Result<ProvingView, PoStError> {
        take_view(&*self.chain, miner, at, &self.options).await
    }

    async fn fulfil(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        let failed = |kind| Error::new(kind, "describe duty").with("miner", duty.miner).with("due", duty.due);
        let head = ask("read head", self.options.chain_timeout, self.chain.head());
        let head = cx.cancel.run_until_cancelled(head).await.ok_or_else(|| failed(PoStErrorKind::Cancelled))??;
        if head.epoch > duty.due {
            return Err(failed(PoStErrorKind::Overdue).with("epoch", head.epoch));
        }
        cx.emit(Event::Note { from: "post".to_owned(), text: Self::describe(duty) });
        Ok(Fulfilled::default())
    }
}
