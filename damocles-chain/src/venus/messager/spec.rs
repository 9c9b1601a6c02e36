//! What the messager is told about the price of a message.

use crate::lotus_json::form;
use fvm_shared::econ::TokenAmount;
use serde::{Deserialize, Serialize};

/// How a message is to be priced. Zero anywhere means what the messager is set to for the sender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SendSpec {
    /// The epoch from which on it is not sent any more, unless it was before; zero for never.
    pub expire_epoch: i64,
    /// The gas limit as a multiple of the estimate.
    pub gas_over_estimation: f64,
    /// The most that its gas may cost.
    #[serde(serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub max_fee: TokenAmount,
    /// The premium as a multiple of the estimate.
    pub gas_over_premium: f64,
}

/// How a message that is not on chain yet is to be priced anew. It keeps its nonce and everything it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Replacement {
    /// The message.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whether the messager is to estimate the price.
    #[serde(default)]
    pub auto: bool,
    /// The most that its gas may cost, if the price is estimated; zero for what the sender is set to.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub max_fee: TokenAmount,
    /// The gas limit, if the price is given; zero for the one it has.
    #[serde(default)]
    pub gas_limit: i64,
    /// The premium, if the price is given.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub gas_premium: TokenAmount,
    /// The fee cap, if the price is given.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub gas_feecap: TokenAmount,
    /// The premium as a multiple of the estimate, if the price is estimated.
    #[serde(default)]
    pub gas_over_premium: f64,
}

impl Replacement {
    /// At a price that the messager estimates, beyond which it does not go; zero for the sender's own limit.
    pub fn estimated(id: impl Into<String>, max_fee: TokenAmount) -> Self {
        Self {
            id: id.into(),
            auto: true,
            max_fee,
            gas_limit: 0,
            gas_premium: TokenAmount::default(),
            gas_feecap: TokenAmount::default(),
            gas_over_premium: 0.0,
        }
    }

    /// At this price.
    pub fn priced(id: impl Into<String>, gas_premium: TokenAmount, gas_feecap: TokenAmount) -> Self {
        Self { auto: false, gas_premium, gas_feecap, ..Self::estimated(id, TokenAmount::default()) }
    }
}
