//! What libraries report. Information flows out through events and never back.

use crate::{
    Address, JobId, Recovery, SectorId, TokenAmount,
    chain::SubmitKey,
    pipeline::{StageId, Wake},
    pool::TaskKind,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that happened; the only thing libraries ever report with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "subject")]
#[non_exhaustive]
pub enum Event {
    /// A job in a processor pool moved on.
    Job {
        /// The job.
        job: JobId,
        /// Its kind.
        kind: TaskKind,
        /// The sector that it is for, if it is for one.
        sector: Option<SectorId>,
        /// What happened.
        what: JobEvent,
    },
    /// A sector moved through its plan.
    Stage {
        /// The sector.
        sector: SectorId,
        /// The stage.
        stage: StageId,
        /// What happened.
        what: StageEvent,
    },
    /// A message moved towards the chain.
    Message {
        /// The idempotency key.
        key: SubmitKey,
        /// What happened.
        what: MessageEvent,
    },
    /// What a sender of messages has.
    Funds {
        /// The sender.
        sender: Address,
        /// What happened.
        what: FundsEvent,
    },
    /// Anything an operator should read that has no shape of its own.
    Note {
        /// Which part speaks.
        from: String,
        /// What it says.
        text: String,
    },
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobEvent {
    /// It waits for a slot, for this reason.
    Queued {
        /// Why no slot took it.
        reason: String,
    },
    /// A slot took it.
    Started {
        /// The slot.
        slot: String,
    },
    /// It moved on.
    Progress {
        /// Work done so far.
        done: u64,
        /// Work in all, if known.
        total: Option<u64>,
    },
    /// It ended.
    Ended {
        /// Whether it succeeded.
        ok: bool,
    },
}

/// What happened to a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StageEvent {
    /// It starts.
    Started,
    /// Its result is recorded.
    Advanced,
    /// It has nothing to do before then.
    Waiting {
        /// When it is asked again.
        until: Wake,
    },
    /// It failed.
    Failed {
        /// The error and its causes.
        error: String,
        /// What is done about it.
        recovery: Recovery,
    },
}

/// What happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageEvent {
    /// It is in the outbox.
    Recorded,
    /// The node took it.
    Pushed {
        /// The message CID.
        cid: String,
    },
    /// It landed with this exit code.
    Landed {
        /// The actor's exit code.
        exit_code: i64,
    },
}

/// What happened to a sender's funds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FundsEvent {
    /// They do not last for long any more: its messages will stand still.
    Low {
        /// What it owns.
        balance: TokenAmount,
        /// What its messages on their way may cost.
        locked: TokenAmount,
        /// For how many epochs the rest lasts, at the rate of late; none where nothing was spent.
        runway: Option<i64>,
    },
    /// They last again.
    Enough {
        /// What it owns.
        balance: TokenAmount,
    },
}

/// Receives events. Must not block.
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl EventSink for NullSink {
    fn emit(&self, _: Event) {}
}
