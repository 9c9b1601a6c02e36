//! What goes over a gateway's channel.

use crate::lotus_json::form;
use serde::{Deserialize, Serialize};

/// A request; its payload is JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestEvent {
    /// What its answer has to name.
    pub(crate) id: String,
    /// What is asked.
    pub(crate) method: String,
    #[serde(default, with = "form")]
    pub(crate) payload: Vec<u8>,
}

/// An answer: a payload or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ResponseEvent {
    pub(crate) id: String,
    #[serde(default, with = "form")]
    pub(crate) payload: Vec<u8>,
    /// Empty for none.
    #[serde(default)]
    pub(crate) error: String,
}

/// The payload of the first event of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ConnectedCompleted {
    pub(crate) channel_id: String,
}

/// The method of the first event, which is not answered.
pub(crate) const INIT_CONNECT: &str = "InitConnect";
