//! What the messager knows of a message.

use super::SendSpec;
use crate::lotus_json::{Lotus, MessageReceipt, SignedMessage, form};
use cid::Cid;
use fvm_shared::{crypto::signature::Signature, message::Message};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};
use std::fmt;

/// How far the messager is with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
#[non_exhaustive]
pub enum MessagerState {
    /// It does not say.
    Unknown,
    /// Taken, without nonce and signature.
    UnFill,
    /// Signed with a nonce: it is sent until it is on chain.
    Fill,
    /// On chain.
    OnChain,
    /// Expired, or marked bad by an operator: it is not sent any more. What was sent before may still land.
    Failed,
    /// Another message than this one is on chain with its nonce; it may do the same.
    NonceConflict,
    /// A state of another version.
    Other(i64),
}

impl From<i64> for MessagerState {
    fn from(number: i64) -> Self {
        match number {
            0 => Self::Unknown,
            1 => Self::UnFill,
            2 => Self::Fill,
            3 => Self::OnChain,
            4 => Self::Failed,
            5 => Self::NonceConflict,
            other => Self::Other(other),
        }
    }
}

impl From<MessagerState> for i64 {
    fn from(state: MessagerState) -> Self {
        match state {
            MessagerState::Unknown => 0,
            MessagerState::UnFill => 1,
            MessagerState::Fill => 2,
            MessagerState::OnChain => 3,
            MessagerState::Failed => 4,
            MessagerState::NonceConflict => 5,
            MessagerState::Other(other) => other,
        }
    }
}

impl fmt::Display for MessagerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::UnFill => f.write_str("not filled"),
            Self::Fill => f.write_str("filled"),
            Self::OnChain => f.write_str("on chain"),
            Self::Failed => f.write_str("failed"),
            Self::NonceConflict => f.write_str("nonce conflict"),
            Self::Other(other) => write!(f, "state {other}"),
        }
    }
}

/// A message at the messager. In JSON the message's own fields stand beside the others.
#[derive(Clone, Debug, PartialEq)]
pub struct MessagerRecord {
    /// The message: nonce and price are zero until it is filled.
    pub message: Message,
    /// What the messager adds.
    pub status: MessagerStatus,
}

/// What the messager adds to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessagerStatus {
    /// The name that it was pushed under.
    #[serde(rename = "ID")]
    pub id: String,
    /// The CID of the message, once filled.
    #[serde(default, with = "form")]
    pub unsigned_cid: Option<Cid>,
    /// The CID of the signed message, once filled.
    #[serde(default, with = "form")]
    pub signed_cid: Option<Cid>,
    /// The signature, once filled.
    #[serde(default, with = "form")]
    pub signature: Option<Signature>,
    /// The height of the tipset that holds it; zero until then.
    #[serde(default)]
    pub height: i64,
    /// How many epochs the head is above that.
    #[serde(default)]
    pub confidence: i64,
    /// The receipt of the message on chain with its nonce: after a conflict that of another message.
    #[serde(default)]
    pub receipt: Option<MessageReceipt>,
    /// The tipset that holds it.
    #[serde(default, with = "form")]
    pub tip_set_key: Vec<Cid>,
    /// How it was to be priced.
    #[serde(default)]
    pub meta: Option<SendSpec>,
    /// Whose it is.
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    pub wallet_name: String,
    /// How far it is.
    pub state: MessagerState,
    /// Why it is no farther.
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    pub error_msg: String,
    /// When it came.
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    pub created_at: String,
    /// When it last changed.
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    pub updated_at: String,
}

impl MessagerRecord {
    /// The signed message, once filled.
    pub fn signed(&self) -> Option<SignedMessage> {
        let signature = self.status.signature.clone().filter(|signature| !signature.bytes.is_empty())?;
        Some(SignedMessage { message: self.message.clone(), signature })
    }

    /// Why it is no farther, if the messager says.
    pub fn reason(&self) -> Option<String> {
        const SHOWN: usize = 500;
        let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
        if !self.status.error_msg.is_empty() {
            return Some(shown(&self.status.error_msg));
        }
        // Older versions put the words where the actor's answer belongs.
        let on_chain = matches!(self.status.state, MessagerState::OnChain | MessagerState::NonceConflict);
        let receipt = self.status.receipt.as_ref().filter(|receipt| !on_chain && !receipt.r#return.is_empty())?;
        Some(shown(&String::from_utf8_lossy(&receipt.r#return)))
    }
}

impl Serialize for MessagerRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = |value: serde_json::Result<Value>| match value.map_err(ser::Error::custom)? {
            Value::Object(object) => Ok(object),
            _ => Err(ser::Error::custom("a message is an object")),
        };
        let mut all: Map<String, Value> = object(serde_json::to_value(Lotus(self.message.clone())))?;
        all.remove("CID");
        all.extend(object(serde_json::to_value(&self.status))?);
        all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MessagerRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Value::deserialize(deserializer)?;
        let Lotus(message) = Lotus::<Message>::deserialize(&all).map_err(de::Error::custom)?;
        let status = MessagerStatus::deserialize(&all).map_err(de::Error::custom)?;
        Ok(Self { message, status })
    }
}
