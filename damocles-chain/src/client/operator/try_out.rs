//! What a call would do and cost.

use super::Operator;
use crate::{
    actor::encode,
    client::{Estimate, Simulation, convert},
    lotus_json::{InvocResult, Lotus, from_core},
    rpc::is_unknown_method,
};
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, ChainError, ChainErrorKind, ExitCode, TipsetRef},
};
use fvm_shared::{bigint::BigInt, econ, message::Message};
use serde_json::{Value, json};

/// A call as a message without nonce and price.
fn message_of(from: &Address, value: TokenAmount, call: &Call) -> Result<Message, ChainError> {
    let rejected = || ChainError::new(ChainErrorKind::Rejected, "try call out");
    let encoded = encode(call).map_err(|e| rejected().because(e))?;
    Ok(Message {
        version: 0,
        from: from_core(from).map_err(|e| rejected().because(e))?,
        to: encoded.to,
        sequence: 0,
        value: econ::TokenAmount::from_atto(BigInt::from(value.atto())),
        method_num: encoded.method,
        params: encoded.params,
        gas_limit: 0,
        gas_fee_cap: econ::TokenAmount::default(),
        gas_premium: econ::TokenAmount::default(),
    })
}

impl Operator {
    /// What a call would cost at the head, tried out by the node: an actor that would refuse it is an error.
    ///
    /// # Errors
    ///
    /// The call cannot be written, the node does not answer, or the actor would refuse it as things are.
    pub async fn estimate(
        &self,
        at: &TipsetRef,
        from: &Address,
        value: TokenAmount,
        call: &Call,
    ) -> Result<Estimate, ChainError> {
        let message = message_of(from, value, call)?;
        let params = json!([Lotus(message), Value::Null, Lotus(at.key.0.clone())]);
        let priced: Message = self.rpc.call_form("GasEstimateMessageGas", params).await?;
        Ok(Estimate {
            value,
            gas_limit: priced.gas_limit,
            fee_cap: convert::amount(&priced.gas_fee_cap)?,
            max_fee: convert::amount(&(priced.gas_fee_cap.clone() * priced.gas_limit))?,
        })
    }

    /// What a call would do at a tipset if it came before everything that waits to be sent; an actor that refuses it is
    /// an answer. None where the node does not try messages out.
    ///
    /// # Errors
    ///
    /// The call cannot be written, or the node does not answer.
    pub async fn simulate(
        &self,
        at: &TipsetRef,
        from: &Address,
        value: TokenAmount,
        call: &Call,
    ) -> Result<Option<Simulation>, ChainError> {
        let message = message_of(from, value, call)?;
        let params = json!([Lotus(message), Lotus(at.key.0.clone())]);
        let result: InvocResult = match self.rpc.call("StateCall", params).await {
            Ok(result) => result,
            Err(e) if is_unknown_method(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(result.msg_rct.map(|receipt| Simulation {
            exit_code: ExitCode(receipt.exit_code),
            returned: receipt.r#return,
            gas_used: receipt.gas_used,
            error: (!result.error.is_empty()).then_some(result.error),
        }))
    }
}
