//! One attempt at a duty.

use damocles_core::{
    Epoch,
    chain::{Call, DeclareFaultsRecovered, MessageId, PartitionSectors, PoStPartition, Receipt, SubmitKey},
    verify::PoStStatement,
};
use serde::{Deserialize, Serialize};

/// One attempt at a duty: what was to be sent, and what became of it. At most one message belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Names the duty.
    pub duty: String,
    /// 1 for the first attempt at it.
    pub number: u32,
    /// The key of its message.
    pub key: SubmitKey,
    /// When the deadline opens.
    pub opens: Epoch,
    /// What is to be sent.
    pub intent: Intent,
    /// What is sent: from here on never anything else.
    pub call: Option<Call>,
    /// The chain client's name for the message, once it was handed over.
    pub message: Option<MessageId>,
    /// How it ended.
    pub end: Option<AttemptEnd>,
}

impl Attempt {
    pub(super) fn apply(&mut self, event: AttemptEvent) {
        match event {
            AttemptEvent::Submitting { call } => self.call = Some(call),
            AttemptEvent::Handed { message } => self.message = Some(message),
            AttemptEvent::Landed { receipt } => self.end = Some(AttemptEnd::Landed(receipt)),
            AttemptEvent::Reverted => self.end = None,
            AttemptEvent::GivenUp { reason } => self.end = Some(AttemptEnd::GivenUp { reason }),
        }
    }

    /// The receipt of a message that the actor accepted.
    pub fn success(&self) -> Option<&Receipt> {
        match &self.end {
            Some(AttemptEnd::Landed(receipt)) if receipt.is_success() => Some(receipt),
            _ => None,
        }
    }
}

/// What an attempt is to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Intent {
    /// A proof.
    Proof(ProofIntent),
    /// A declaration of recoveries.
    Recovery {
        /// What is declared.
        declaration: DeclareFaultsRecovered,
        /// Sectors that did not read well, so that they are not declared.
        skipped: Vec<PartitionSectors>,
    },
}

impl Intent {
    /// What is left out.
    pub fn skipped(&self) -> &[PartitionSectors] {
        match self {
            Self::Proof(proof) => &proof.skipped,
            Self::Recovery { skipped, .. } => skipped,
        }
    }
}

/// A verified proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofIntent {
    /// What it proves.
    pub statement: PoStStatement,
    /// The partitions of the message.
    pub partitions: Vec<PoStPartition>,
    /// All that was left out, partitions without one good sector included.
    pub skipped: Vec<PartitionSectors>,
    /// The proof, in hex.
    pub proof: String,
}

/// Something that became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptEvent {
    /// The call is settled and goes to the chain client now.
    Submitting {
        /// The call.
        call: Call,
    },
    /// The chain client has it.
    Handed {
        /// Its name for the message.
        message: MessageId,
    },
    /// It landed.
    Landed {
        /// What the chain made of it.
        receipt: Receipt,
    },
    /// What had landed is no longer on the chain.
    Reverted,
    /// No more is done about it.
    GivenUp {
        /// Why.
        reason: String,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// Its message landed, perhaps with an exit code.
    Landed(Receipt),
    /// Nothing more is done about it: it was outdated or dropped.
    GivenUp {
        /// Why.
        reason: String,
    },
}
