//! What one thread does, put together from all that says something about it.

use super::{PlanName, SealingSection, SealingThread};
use crate::config::HumanDuration;
use damocles_core::{ActorId, ByteSize, SectorSize};
use std::{fmt::Display, path::PathBuf, time::Duration};

/// What one thread seals, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SealingSettings {
    /// The sealing store.
    pub location: PathBuf,
    /// What becomes of its sectors.
    pub plan: PlanName,
    /// Only sectors of these miners; all if it is empty.
    pub allowed_miners: Vec<ActorId>,
    /// Only sectors of these sizes; all if it is empty.
    pub allowed_sizes: Vec<SectorSize>,
    /// Whether deals are asked for.
    pub enable_deals: bool,
    /// Whether a sector without deals waits for some.
    pub disable_cc: bool,
    /// At most so many deals a sector.
    pub max_deals: Option<usize>,
    /// At least so many bytes of deals a sector.
    pub min_deal_space: Option<ByteSize>,
    /// How often in a row a step may fail before its sector is parked.
    pub max_retries: u32,
    /// The pause between two sectors of a thread.
    pub seal_interval: Duration,
    /// The pause before a failed step is tried again.
    pub recover_interval: Duration,
    /// The longest time between two questions about the state of the chain.
    pub rpc_polling_interval: Duration,
    /// After how long a parked sector goes on by itself, if its error may pass.
    pub auto_resume: Option<Duration>,
}

impl SealingSection {
    /// What is said here, and below where nothing is.
    fn over(&self, below: &Self) -> Self {
        Self {
            allowed_miners: self.allowed_miners.clone().or_else(|| below.allowed_miners.clone()),
            allowed_sizes: self.allowed_sizes.clone().or_else(|| below.allowed_sizes.clone()),
            enable_deals: self.enable_deals.or(below.enable_deals),
            disable_cc: self.disable_cc.or(below.disable_cc),
            max_deals: self.max_deals.or(below.max_deals),
            min_deal_space: self.min_deal_space.or(below.min_deal_space),
            max_retries: self.max_retries.or(below.max_retries),
            seal_interval: self.seal_interval.or(below.seal_interval),
            recover_interval: self.recover_interval.or(below.recover_interval),
            rpc_polling_interval: self.rpc_polling_interval.or(below.rpc_polling_interval),
            auto_resume: self.auto_resume.or(below.auto_resume),
        }
    }
}

impl SealingThread {
    pub(super) fn resolve(&self, common: &SealingSection) -> SealingSettings {
        let said = self.store.sealing.over(&self.sealing).over(common);
        let time = |said: Option<HumanDuration>, seconds| said.unwrap_or(HumanDuration::secs(seconds)).0;
        SealingSettings {
            location: self.location.clone(),
            plan: self.store.plan.unwrap_or(self.plan),
            allowed_miners: said.allowed_miners.unwrap_or_default(),
            allowed_sizes: said.allowed_sizes.unwrap_or_default(),
            enable_deals: said.enable_deals.unwrap_or(true),
            disable_cc: said.disable_cc.unwrap_or(false),
            max_deals: said.max_deals,
            min_deal_space: said.min_deal_space,
            max_retries: said.max_retries.unwrap_or(5),
            seal_interval: time(said.seal_interval, 30),
            recover_interval: time(said.recover_interval, 60),
            rpc_polling_interval: time(said.rpc_polling_interval, 180),
            auto_resume: Some(time(said.auto_resume, 3600)).filter(|time| !time.is_zero()),
        }
    }
}

impl SealingSettings {
    /// What a running thread takes over, by the keys of the file and as people read it.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        fn list<T: Display>(of: &[T]) -> String {
            let all: Vec<_> = of.iter().map(ToString::to_string).collect();
            if all.is_empty() { "all".to_owned() } else { all.join(", ") }
        }
        let time = |time: Duration| HumanDuration(time).to_string();
        let count = |count: Option<String>| count.unwrap_or_else(|| "none".to_owned());
        let Self {
            location: _,
            plan: _,
            allowed_miners,
            allowed_sizes,
            enable_deals,
            disable_cc,
            max_deals,
            min_deal_space,
            max_retries,
            seal_interval,
            recover_interval,
            rpc_polling_interval,
            auto_resume,
        } = self;
        vec![
            ("allowed_miners", list(allowed_miners)),
            ("allowed_sizes", list(allowed_sizes)),
            ("enable_deals", enable_deals.to_string()),
            ("disable_cc", disable_cc.to_string()),
            ("max_deals", count(max_deals.map(|n| n.to_string()))),
            ("min_deal_space", count(min_deal_space.map(|n| n.to_string()))),
            ("max_retries", max_retries.to_string()),
            ("seal_interval", time(*seal_interval)),
            ("recover_interval", time(*recover_interval)),
            ("rpc_polling_interval", time(*rpc_polling_interval)),
            ("auto_resume", auto_resume.map_or_else(|| "never".to_owned(), time)),
        ]
    }
}
