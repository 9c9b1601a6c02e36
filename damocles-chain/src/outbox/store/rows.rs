//! Rows of the tables.

use super::value_of;
use crate::{
    actor::decode_return,
    lotus_json::{SignedMessage, signed_message_cid},
    outbox::{MessageVersion, OutboxEntry, OutboxState, Replacement, VersionPurpose},
};
use cid::Cid;
use damocles_core::{
    BoxError, Epoch, TokenAmount,
    chain::{Call, CallKind, Receipt, SubmitKey},
};
use sqlx::{Row as _, any::AnyRow};

/// What a message that was signed for a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What the call asks for.
    Call,
    /// It fills the nonce of a call that was cancelled.
    Cancel,
}

impl Purpose {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Cancel => "cancel",
        }
    }

    /// Rows of old outboxes say nothing.
    fn of(text: Option<String>) -> Result<Self, BoxError> {
        match text.as_deref() {
            None | Some("call") => Ok(Self::Call),
            Some("cancel") => Ok(Self::Cancel),
            Some(other) => Err(format!("unknown purpose `{other}`").into()),
        }
    }
}

/// One message that was signed for a call.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) purpose: Purpose,
    pub(crate) signed: SignedMessage,
    pub(crate) cid: Cid,
    /// The epoch of the head then; none in rows of old outboxes.
    pub(crate) signed_at: Option<i64>,
}

impl Version {
    pub(crate) fn new(purpose: Purpose, signed: SignedMessage, signed_at: i64) -> Self {
        Self { purpose, cid: signed_message_cid(&signed), signed, signed_at: Some(signed_at) }
    }

    pub(super) fn of(row: &AnyRow) -> Result<Self, BoxError> {
        Ok(Self {
            purpose: Purpose::of(row.try_get("purpose")?)?,
            signed: value_of(&row.try_get::<String, _>("signed")?)?,
            cid: Cid::try_from(row.try_get::<String, _>("cid")?.as_str())?,
            signed_at: row.try_get("signed_at")?,
        })
    }

    fn shown(&self) -> MessageVersion {
        let message = &self.signed.message;
        let amount =
            |a: &fvm_shared::econ::TokenAmount| TokenAmount::from_atto(i128::try_from(a.atto()).unwrap_or(i128::MAX));
        MessageVersion {
            cid: self.cid.to_string(),
            purpose: match self.purpose {
                Purpose::Call => VersionPurpose::Call,
                Purpose::Cancel => VersionPurpose::Cancel,
            },
            fee_cap: amount(&message.gas_fee_cap),
            premium: amount(&message.gas_premium),
            gas_limit: message.gas_limit,
            epoch: self.signed_at.map(Epoch),
        }
    }
}

/// A call in the outbox.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: SubmitKey,
    pub(crate) call: Call,
    pub(crate) state: OutboxState,
    /// Who sends it, chosen when it was recorded.
    pub(crate) lane: Option<String>,
    /// Who sent it, once it has a nonce.
    pub(crate) sender: Option<String>,
    pub(crate) nonce: Option<u64>,
    /// The newest message.
    pub(crate) version: Option<Version>,
    /// The older ones, the oldest first; empty where they were not asked for.
    pub(crate) older: Vec<Version>,
    pub(crate) receipt: Option<Receipt>,
    /// The epoch at which a message of it was last seen on chain.
    pub(crate) landed: Option<i64>,
    /// The tipset that holds it, as text.
    pub(crate) tipset: Option<String>,
    pub(crate) landed_as: Purpose,
    pub(crate) cancel: bool,
    pub(crate) error: Option<String>,
}

impl Row {
    pub(super) fn of(row: &AnyRow) -> Result<Self, BoxError> {
        let text = |column: &str| row.try_get::<Option<String>, _>(column);
        let state: String = row.try_get("state")?;
        let known = OutboxState::ALL.into_iter().find(|s| s.text() == state);
        let version = if text("signed")?.is_some() { Some(Version::of(row)?) } else { None };
        Ok(Self {
            key: SubmitKey(row.try_get("submit_key")?),
            call: value_of(&row.try_get::<String, _>("call")?)?,
            state: known.ok_or_else(|| format!("unknown state `{state}`"))?,
            lane: text("lane")?,
            sender: text("sender")?,
            nonce: row.try_get::<Option<i64>, _>("nonce")?.map(u64::try_from).transpose()?,
            version,
            older: Vec::new(),
            receipt: text("receipt")?.map(|r| value_of(&r)).transpose()?,
            landed: row.try_get("landed")?,
            tipset: text("tipset")?,
            landed_as: Purpose::of(text("landed_as")?)?,
            cancel: row.try_get::<i64, _>("cancel")? != 0,
            error: text("error")?,
        })
    }

    pub(crate) fn entry(&self) -> OutboxEntry {
        let on_chain = self.tipset.is_some() || self.state == OutboxState::Settled;
        let receipt = self.receipt.clone().filter(|_| on_chain && self.landed_as == Purpose::Call);
        OutboxEntry {
            key: self.key.clone(),
            kind: self.call.kind(),
            state: self.state,
            sender: self.sender.clone(),
            nonce: self.nonce,
            cid: self.version.as_ref().map(|v| v.cid.to_string()),
            versions: self.older.iter().chain(&self.version).map(Version::shown).collect(),
            landed: self.landed.map(Epoch),
            exit_code: receipt.as_ref().map(|r| r.exit_code),
            returned: receipt
                .as_ref()
                .filter(|r| r.is_success())
                .and_then(|r| decode_return(&self.call, &r.returned).ok()),
            receipt,
            cancelled: self.cancel,
            error: self.error.clone(),
        }
    }
}

/// A call that waits for its nonce.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) key: SubmitKey,
    pub(crate) call: Call,
    pub(crate) error: Option<String>,
    /// The epoch since which it waits for a lower base fee.
    pub(crate) waits_since: Option<i64>,
}

impl Recorded {
    pub(super) fn of(row: &AnyRow) -> Result<Self, BoxError> {
        Ok(Self {
            key: SubmitKey(row.try_get("submit_key")?),
            call: value_of(&row.try_get::<String, _>("call")?)?,
            error: row.try_get("error")?,
            waits_since: row.try_get("waits_since")?,
        })
    }
}

/// Calls that wait for their nonces, and after which of them there are more.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Recorded>,
    pub(crate) next: Option<i64>,
}

/// A call with a nonce that is not known to be on chain.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) key: SubmitKey,
    /// Missing if only the call is damaged: the nonce has to be filled all the same.
    pub(crate) call: Option<Call>,
    pub(crate) error: Option<String>,
    /// The newest message.
    pub(crate) version: Version,
    /// The older ones, the oldest first.
    pub(crate) older: Vec<Version>,
    /// When it was last seen on chain.
    pub(crate) landed: Option<i64>,
    pub(crate) cancel: bool,
    pub(crate) asked: Option<Replacement>,
}

impl InFlight {
    pub(super) fn of(row: &AnyRow) -> Result<Self, BoxError> {
        let call = row.try_get::<String, _>("call").map_err(BoxError::from).and_then(|text| value_of(&text));
        Ok(Self {
            key: SubmitKey(row.try_get("submit_key")?),
            call: call.ok(),
            error: row.try_get("error")?,
            version: Version::of(row)?,
            older: Vec::new(),
            landed: row.try_get("landed")?,
            cancel: row.try_get::<i64, _>("cancel")? != 0,
            asked: row.try_get::<Option<String>, _>("asked")?.map(|t| value_of(&t)).transpose()?,
        })
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.version.signed.message.sequence
    }

    /// Its class, if that can be read.
    pub(crate) fn kind(&self) -> Option<CallKind> {
        self.call.as_ref().map(Call::kind)
    }

    /// All messages, the newest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.version).chain(self.older.iter().rev())
    }
}

/// A message that gets recorded for a call.
#[derive(Clone, Debug)]
pub(crate) struct Signing {
    pub(crate) key: SubmitKey,
    pub(crate) version: Version,
}

/// A message that was seen on chain.
#[derive(Clone, Debug)]
pub(crate) struct Landing {
    pub(crate) key: SubmitKey,
    pub(crate) epoch: i64,
    pub(crate) tipset: String,
    pub(crate) landed_as: Purpose,
    pub(crate) receipt: Receipt,
}
