//! What operators do with messages on their way.

use super::LotusClient;
use crate::{
    lotus_json::to_core,
    outbox::{BaseFee, OutboxEntry, Replacement, SenderFunds},
};
use damocles_core::{
    Address,
    chain::{Call, ChainError, ChainErrorKind, ExitCode, MessageId, SubmitKey, TipsetRef},
};
use serde::{Deserialize, Serialize};

impl LotusClient {
    /// One call in the outbox, with every message that was signed for it.
    ///
    /// # Errors
    ///
    /// There is none of that name, or the database cannot be read.
    pub async fn outbox_entry(&self, id: &MessageId) -> Result<OutboxEntry, ChainError> {
        self.outbox.entry(id).await
    }

    /// Asks for a message to be replaced by one that does the same at another price, now and whatever its age. It is
    /// recorded, and done as soon as the outbox runs.
    ///
    /// # Errors
    ///
    /// There is no such message on its way, or the fees are such that no node would take it.
    pub async fn replace_message(&self, id: &MessageId, fees: Replacement) -> Result<OutboxEntry, ChainError> {
        self.outbox.ask_to_replace(id, fees).await
    }

    /// Asks for a call to be given up. One without nonce is dropped at once. The nonce of a signed one is filled with a
    /// message that does nothing, and which of the two lands is decided by the chain: the call is dropped when the other
    /// one is final.
    ///
    /// # Errors
    ///
    /// There is no such call on its way.
    pub async fn cancel_message(&self, id: &MessageId) -> Result<OutboxEntry, ChainError> {
        self.outbox.ask_to_cancel(id).await
    }

    /// Who sends the call of a key, or would if it were submitted now: of several senders each key has one, and keeps it.
    ///
    /// # Errors
    ///
    /// Nobody here can send it, or the database cannot be read.
    pub async fn sender_of(&self, key: &SubmitKey, call: &Call) -> Result<Address, ChainError> {
        self.outbox.sender_of(key, call).await.map(|sender| to_core(&sender))
    }

    /// What a call would do if its sender sent it at a head. It is sent nowhere.
    ///
    /// # Errors
    ///
    /// The call cannot be written, has no sender here, or the node cannot try it out.
    pub async fn simulate(&self, at: &TipsetRef, call: &Call) -> Result<Simulation, ChainError> {
        let simulated = self.outbox.simulate(at, call).await?.ok_or_else(|| {
            ChainError::new(ChainErrorKind::Rejected, "simulate").hint_with("the node does not offer `StateCall`")
        })?;
        Ok(Simulation {
            exit_code: ExitCode(simulated.exit_code),
            returned: simulated.returned,
            gas_used: simulated.gas_used,
            error: (!simulated.error.is_empty()).then_some(simulated.error),
        })
    }

    /// The base fees of the heads that were seen since this client runs, of a day at most, the oldest first.
    pub fn base_fees(&self) -> Vec<BaseFee> {
        self.outbox.base_fees()
    }

    /// What every sender has at a head, and how long it lasts.
    ///
    /// # Errors
    ///
    /// The node does not answer, or the database cannot be read.
    pub async fn funds(&self, at: &TipsetRef) -> Result<Vec<SenderFunds>, ChainError> {
        self.outbox.funds(at).await
    }
}

/// What a call would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {
    /// The actor's exit code.
    pub exit_code: ExitCode,
    /// What it would return.
    #[serde(with = "hex")]
    pub returned: Vec<u8>,
    /// The gas that it would use.
    pub gas_used: i64,
    /// What the actor says if it refuses.
    pub error: Option<String>,
}
