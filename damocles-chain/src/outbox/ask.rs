//! What operators ask for.

use super::{
    Outbox, OutboxEntry, OutboxFilter, OutboxState, Replacement, Simulated,
    lane::parse,
    limits::in_chain,
    pricing::{Price, least_premium},
    replace::check_offer,
    store::{CANCELLED, Row, Store},
};
use crate::{actor::encode, lotus_json::text_of};
use damocles_core::{
    Recovery,
    chain::{Call, ChainError, ChainErrorKind, MessageId, SubmitKey, TipsetRef},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use sqlx::AnyPool;

/// Calls in the outbox of a database, in the order of their submission: for whoever looks, and has no key and no node to
/// send by. The tables are made if they are not there.
///
/// # Errors
///
/// The database cannot be used.
pub async fn outbox_entries(database: AnyPool, which: &OutboxFilter) -> Result<Vec<OutboxEntry>, ChainError> {
    Ok(Store::open(database).await?.some(which).await?.iter().map(Row::entry).collect())
}

impl Outbox {
    /// One call, with every message that was signed for it.
    pub(crate) async fn entry(&self, id: &MessageId) -> Result<OutboxEntry, ChainError> {
        Ok(self.row(id).await?.entry())
    }

    /// Who sends the call of a key, or would if it were submitted now.
    pub(crate) async fn sender_of(&self, key: &SubmitKey, call: &Call) -> Result<Address, ChainError> {
        let row = self.store.get(&key.0).await?;
        let signed = row.as_ref().and_then(|row| row.version.as_ref()).map(|version| version.signed.message.from);
        let lane = || row.as_ref().and_then(|row| parse(row.lane.as_deref()?));
        match signed {
            Some(sender) => Ok(sender),
            None => self.choose(key, call, lane()),
        }
    }

    /// Notes that a message is to be replaced.
    pub(crate) async fn ask_to_replace(&self, id: &MessageId, fees: Replacement) -> Result<OutboxEntry, ChainError> {
        let row = self.row(id).await?;
        let version = row.version.as_ref().filter(|_| is_on_its_way(&row)).ok_or_else(|| {
            not_now("replace message", &row).hint_with("only a message that is signed and not on chain can be replaced")
        })?;
        if row.cancel {
            return Err(not_now("replace message", &row).hint_with("it was cancelled"));
        }
        let old = Price::of(&version.signed.message);
        let premium = fees.premium.map_or_else(|| least_premium(&old.premium), in_chain);
        let cap = fees.fee_cap.map_or_else(|| old.cap.clone().max(premium.clone()), in_chain);
        let limit = fees.gas_limit.unwrap_or(old.limit);
        check_offer(&Price { limit, cap, premium }, &old).map_err(|e| e.with("message", id))?;
        self.store.ask(&row.key, Some(fees)).await?;
        self.wake(&version.signed.message.from);
        self.entry(id).await
    }

    /// Gives a call up, as soon as the chain lets it be known to be given up.
    pub(crate) async fn ask_to_cancel(&self, id: &MessageId) -> Result<OutboxEntry, ChainError> {
        let row = self.row(id).await?;
        // It may get its nonce just now, and is then one that has one.
        if self.store.drop_call(&row.key, CANCELLED).await? {
            return self.entry(id).await;
        }
        let row = self.row(id).await?;
        if row.state != OutboxState::Signed {
            return Err(not_now("cancel message", &row).hint_with("it is over already"));
        }
        if row.tipset.is_some() {
            return Err(not_now("cancel message", &row).hint_with("it is on chain: what landed cannot be cancelled"));
        }
        self.store.cancel(&row.key).await?;
        if let Some(version) = &row.version {
            self.wake(&version.signed.message.from);
        }
        self.entry(id).await
    }

    /// Tries a call out as its sender would send it.
    pub(crate) async fn simulate(&self, head: &TipsetRef, call: &Call) -> Result<Option<Simulated>, ChainError> {
        let rejected = |e| ChainError::new(ChainErrorKind::Rejected, "simulate").because(e);
        let encoded = encode(call).map_err(rejected)?;
        // An actor makes no difference between the senders of one role, and a trial has no key.
        let from = self.senders.of(&SubmitKey(String::new()), call, None, |_| true)?;
        let value = self.node.value(head, call).await?;
        let account = self.node.account(head, &from).await?;
        let message = Message {
            version: 0,
            from,
            to: encoded.to,
            sequence: account.nonce,
            value,
            method_num: encoded.method,
            params: encoded.params,
            gas_limit: 0,
            gas_fee_cap: TokenAmount::default(),
            gas_premium: TokenAmount::default(),
        };
        let simulated = self.node.simulate(head, &message).await;
        simulated.map_err(|e| e.with("sender", text_of(&from)))
    }
}

fn is_on_its_way(row: &Row) -> bool {
    row.state == OutboxState::Signed && row.tipset.is_none()
}

fn not_now(op: &'static str, row: &Row) -> ChainError {
    ChainError::new(ChainErrorKind::Rejected, op)
        .recover_by(Recovery::Park)
        .with("message", &row.key)
        .with("state", row.state.text())
}
