//! `[stores]`: how stores are used.

use super::WorkerConfig;
use crate::config::{Findings, HumanDuration, ProcessorKind};
use damocles_core::ByteSize;
use damocles_seal::store::Marks;
use serde::Deserialize;
use std::num::NonZeroU64;

/// A copy that may take less than this a second would stand still for longer than a store may.
const LEAST_BANDWIDTH: ByteSize = ByteSize(1 << 20);

/// `[stores]`: how stores are used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoresSection {
    /// The bytes a second that all copies to persist stores may take together.
    pub bandwidth: Option<ByteSize>,
    /// The percent of a file system below which no sector is begun on it.
    pub low_mark: Option<u8>,
    /// The percent from which on sectors are begun again.
    pub high_mark: Option<u8>,
    /// For how long a copy may stand still before its store is looked at.
    pub stall_limit: Option<HumanDuration>,
}

impl StoresSection {
    /// When a file system counts as nearly full; none if the marks are in the wrong order.
    pub fn marks(&self) -> Option<Marks> {
        let (low, high) = Marks::default().percents();
        let low = self.low_mark.unwrap_or_else(|| self.high_mark.map_or(low, |high| low.min(high)));
        Marks::new(low, self.high_mark.unwrap_or_else(|| high.max(low)))
    }
}

impl WorkerConfig {
    /// How many copies to persist stores run at a time at most.
    fn copies_at_once(&self) -> u32 {
        let kind = ProcessorKind::Transfer;
        let slots = self.slots().into_iter().filter(|slot| slot.kind == kind);
        let slots = slots.map(|slot| slot.concurrent.get()).fold(0, u32::saturating_add);
        self.processors.limitation.concurrent.get(&kind).map_or(slots, |limit| slots.min(*limit)).max(1)
    }

    /// What one copy may take of a bandwidth that all copies share: together they never take more.
    pub fn share_of(&self, bandwidth: Option<ByteSize>) -> Option<NonZeroU64> {
        bandwidth.and_then(|all| NonZeroU64::new((all.0 / u64::from(self.copies_at_once())).max(1)))
    }

    pub(super) fn check_stores(&self, found: &mut Findings<'_>) {
        if self.stores.marks().is_none() {
            let hint = "write percents with `low_mark` at most as large as `high_mark`";
            found.error("stores", "the marks are in no order, or above 100", hint);
        }
        if self.stores.stall_limit.is_some_and(|limit| limit.0.is_zero()) {
            found.error("stores.stall_limit", "no time at all", "remove it for the default");
        }
        let own = self.attached.iter().enumerate().map(|(i, store)| (format!("attached[{i}]"), store.bandwidth));
        for (path, bandwidth) in own.chain([("stores".to_owned(), self.stores.bandwidth)]) {
            if let Some(bandwidth) = bandwidth
                && bandwidth.0 / u64::from(self.copies_at_once()) < LEAST_BANDWIDTH.0
            {
                let message = format_args!("{bandwidth} a second is less than {LEAST_BANDWIDTH} for each copy");
                let hint = "write more, or set `processors.limitation.concurrent.transfer`; remove it for no limit";
                found.error(&format!("{path}.bandwidth"), message, hint);
            }
        }
    }
}
