//! What an operator sees of stores.

use super::{PersistStores, Seen, Slot, Space};
use crate::store::StoreErrorKind;
use damocles_core::{ByteSize, Context};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

/// A store as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    /// Its name; none while it has never been attached and none was given.
    pub name: Option<String>,
    /// Where it is.
    pub location: PathBuf,
    /// Whether it is attached.
    pub attached: bool,
    /// Whether it is only read.
    pub read_only: bool,
    /// How it is.
    pub state: StoreState,
    /// Why it is not used now.
    pub reason: Option<String>,
    /// What its file system had when it was looked at last, if it still answers.
    pub space: Option<Space>,
}

/// How a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// It can be used.
    Attached,
    /// It is not there.
    NotMounted,
    /// It does not answer, or failed a short time ago.
    Suspect,
    /// Less is free than the low mark of the ledger.
    Full,
    /// It is there and cannot be used.
    Unusable,
}

impl StoreState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Attached, Self::NotMounted, Self::Suspect, Self::Full, Self::Unusable];

    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::NotMounted => "not_mounted",
            Self::Suspect => "suspect",
            Self::Full => "full",
            Self::Unusable => "unusable",
        }
    }
}

impl PersistStores {
    /// All of them as an operator sees them, by what was seen last. Does not wait for a disk.
    pub fn status(&self) -> Vec<StoreStatus> {
        let now = Instant::now();
        let slots = self.0.slots.lock();
        let low = self.0.settings.ledger.marks().percents().0;
        let status = |slot: &Slot| {
            let (state, reason) = slot.state(now, low);
            StoreStatus {
                name: slot.store.as_ref().map(|s| s.name().to_owned()).or_else(|| slot.wanted.attach.name.clone()),
                location: slot.wanted.attach.location.clone(),
                attached: slot.store.is_some(),
                read_only: slot.is_read_only(),
                state,
                reason,
                space: slot.seen.filter(|_| slot.unusable.is_none()).map(|seen| seen.space),
            }
        };
        slots.iter().filter(|slot| slot.counts()).map(status).collect()
    }

    /// Looks anew at all stores that nobody has looked at for that long, all at the same time and none for longer than the
    /// limit.
    pub async fn refresh(&self, older_than: Duration, cx: &Context) {
        let now = Instant::now();
        let old = |slot: &Slot| slot.seen.is_none_or(|seen| now.saturating_duration_since(seen.at) >= older_than);
        let old: Vec<usize> = {
            let slots = self.0.slots.lock();
            slots.iter().enumerate().filter(|(_, slot)| old(slot)).map(|(index, _)| index).collect()
        };
        futures::future::join_all(old.into_iter().map(|index| self.look_at(index, None, false, cx))).await;
    }
}

impl Slot {
    /// How it is, and why it is not used.
    fn state(&self, now: Instant, low_mark: u8) -> (StoreState, Option<String>) {
        if let Some(unusable) = &self.unusable {
            let state = match unusable.kind {
                StoreErrorKind::Silent | StoreErrorKind::Io => StoreState::Suspect,
                StoreErrorKind::Missing | StoreErrorKind::NotAStore | StoreErrorKind::NotMounted => {
                    StoreState::NotMounted
                }
                _ => StoreState::Unusable,
            };
            return (state, Some(unusable.reason.clone()));
        }
        if let Some((_, why)) = self.aside.as_ref().filter(|(until, _)| *until > now) {
            return (StoreState::Suspect, Some(why.clone()));
        }
        let read_only = self.is_read_only();
        match (&self.store, self.seen) {
            (None, _) => (StoreState::NotMounted, Some(StoreErrorKind::NotMounted.to_string())),
            (_, Some(seen)) if seen.mounted_read_only && !read_only => {
                (StoreState::Unusable, Some("its file system is mounted read-only".to_owned()))
            }
            (_, Some(Seen { space, .. })) if space.free < space.percent(low_mark) && !read_only => {
                let why = format!("{} of {} are free", ByteSize(space.free), ByteSize(space.total));
                (StoreState::Full, Some(why))
            }
            _ => (StoreState::Attached, None),
        }
    }
}
