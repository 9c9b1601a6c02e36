//! The chain as the manager uses it: over nodes and an outbox of its own, or over a node and a messager.

use super::outbox::{AtMessager, Entry};
use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use damocles_chain::{
    LotusClient, OutboxEntry, OutboxState, Replacement, VenusClient,
    rpc::RpcMetrics,
    venus::{Cancelled, Price, VenusEntry, VenusState},
};
use damocles_core::{
    Address, CancellationToken,
    chain::{Call, ChainClient, MessageId, MessageState, SubmitKey},
};
use std::sync::Arc;

/// A chain, with messages of the manager on their way to it.
#[derive(Clone, Debug)]
pub(super) enum ManagerChain {
    /// Over nodes that speak as Lotus does.
    Lotus(Arc<LotusClient>),
    /// Over a Venus cluster.
    Venus(Arc<VenusClient>),
}

impl ManagerChain {
    /// What everything reads and sends by.
    pub(super) fn client(&self) -> Arc<dyn ChainClient> {
        match self {
            Self::Lotus(client) => Arc::<LotusClient>::clone(client),
            Self::Venus(client) => Arc::<VenusClient>::clone(client),
        }
    }

    /// Has messages move until cancelled.
    pub(super) async fn run(&self, cancel: CancellationToken) {
        match self {
            Self::Lotus(client) => client.run(cancel).await,
            Self::Venus(client) => client.run(cancel).await,
        }
    }

    /// What the network is called.
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub(super) async fn network_name(&self) -> Result<String, Failure> {
        let client = self.client();
        let head = client.head().await?;
        Ok(client.network(&head).await?.name)
    }

    /// Who sends the call of a key, or would if it were begun now.
    ///
    /// # Errors
    ///
    /// Nobody here can send it, or the database cannot be read.
    pub(super) async fn sender_of(&self, key: &SubmitKey, call: &Call) -> Result<Address, Failure> {
        Ok(match self {
            Self::Lotus(client) => client.sender_of(key, call).await?,
            Self::Venus(client) => client.sender_of(key, call).await?,
        })
    }

    /// Whether a call that is begun now would be on its way at once. Our own outbox takes all; a messager that is away,
    /// or whose wallets do not have the sender, is better known before anything is recorded.
    ///
    /// # Errors
    ///
    /// It would not.
    pub(super) async fn takes(&self, key: &SubmitKey, call: &Call) -> Result<(), Failure> {
        let Self::Venus(client) = self else { return Ok(()) };
        let sender = client.sender_of(key, call).await?;
        let has = client.messager().wallet_has(&sender).await.map_err(|e| {
            Failure::from(e)
                .context("ask the messager (nothing was sent)")
                .hint("is the messager running, and are `venus.messager` and its token in manager.toml right?")
        })?;
        // Its wallets know keys by their own addresses, and not by the ID of an account.
        if has || sender.actor_id().is_some() {
            return Ok(());
        }
        let error = anyhow!("no wallet of the cluster at {} has the key of {sender}", client.messager().endpoint());
        Err(Failure::new(Exit::Usage, error).hint(
            "connect the wallet that has it to the gateway, and bind the address to this manager's account in sophon-auth",
        ))
    }

    /// All calls.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(super) async fn entries(&self) -> Result<Vec<Entry>, Failure> {
        Ok(match self {
            Self::Lotus(client) => client.outbox().await?.into_iter().map(Entry::of_outbox).collect(),
            Self::Venus(client) => client.entries().await?.into_iter().map(of_venus).collect(),
        })
    }

    /// One call.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub(super) async fn entry(&self, id: &MessageId) -> Result<Entry, Failure> {
        let client = match self {
            Self::Lotus(client) => return Ok(Entry::of_outbox(client.outbox_entry(id).await?)),
            Self::Venus(client) => client,
        };
        let found = client.entries().await?.into_iter().find(|entry| entry.key.0 == id.as_str());
        let mut entry = of_venus(
            found
                .ok_or_else(|| Failure::new(Exit::Failed, anyhow!("no message of this manager has the key `{id}`")))?,
        );
        // A node that is away just now has nothing to add.
        if let Ok(MessageState::Landed(receipt)) = client.message(id, 0).await {
            entry.message.landed = Some(receipt.epoch);
            entry.message.exit_code = Some(receipt.exit_code);
            entry.message.receipt = Some(receipt);
        }
        Ok(entry)
    }

    /// Asks for the message of a call to be replaced by a dearer one.
    ///
    /// # Errors
    ///
    /// There is none on its way, nobody would take the new one, or a messager cannot be asked for that.
    pub(super) async fn replace(&self, id: &MessageId, by: Replacement) -> Result<Entry, Failure> {
        let client = match self {
            Self::Lotus(client) => return Ok(Entry::of_outbox(client.replace_message(id, by).await?)),
            Self::Venus(client) => client,
        };
        let cid = client.replace(id, price(by)?).await?;
        let mut entry = self.entry(id).await?;
        entry.message.cid = Some(cid);
        Ok(entry)
    }

    /// Gives a call up.
    ///
    /// # Errors
    ///
    /// There is none on its way.
    pub(super) async fn cancel(&self, id: &MessageId) -> Result<Entry, Failure> {
        let client = match self {
            Self::Lotus(client) => return Ok(Entry::of_outbox(client.cancel_message(id).await?)),
            Self::Venus(client) => client,
        };
        if client.cancel(id).await? == Cancelled::TooLate {
            return Err(Failure::new(Exit::Failed, anyhow!("message {id} is over")).hint("`message show` tells how"));
        }
        let mut entry = self.entry(id).await?;
        entry.message.cancelled = true;
        Ok(entry)
    }

    /// What the nodes were asked so far.
    ///
    /// # Errors
    ///
    /// It is not counted.
    pub(super) fn metrics(&self) -> Result<RpcMetrics, Failure> {
        match self {
            Self::Lotus(client) => Ok(client.metrics()),
            Self::Venus(_) => {
                let error = anyhow!("requests are not counted on a chain of kind `venus`");
                Err(Failure::new(Exit::Failed, error).hint("ask the node and the messager for their own metrics"))
            }
        }
    }
}

fn price(by: Replacement) -> Result<Price, Failure> {
    let refused = |what: &str, hint: &str| Err(Failure::usage(what).hint(hint));
    match by {
        Replacement { gas_limit: Some(_), .. } => {
            refused("a messager keeps the gas limit of the message that it replaces", "leave --gas-limit away")
        }
        Replacement { fee_cap: None, premium: None, .. } => Ok(Price::Estimated),
        Replacement { fee_cap: Some(fee_cap), premium: Some(premium), .. } => Ok(Price::Given { premium, fee_cap }),
        _ => {
            refused("a messager is told the whole price", "give --fee-cap and --premium, or neither: it estimates them")
        }
    }
}

fn of_venus(entry: VenusEntry) -> Entry {
    let VenusEntry { key, uid, kind, state, sender, nonce, cid, error } = entry;
    let alike = match state {
        VenusState::Settled => OutboxState::Settled,
        VenusState::Dropped => OutboxState::Dropped,
        VenusState::Recorded => OutboxState::Recorded,
        // Handed over: it may land.
        _ => OutboxState::Signed,
    };
    let message = OutboxEntry {
        key,
        kind,
        state: alike,
        sender,
        nonce,
        cid,
        versions: Vec::new(),
        landed: None,
        exit_code: None,
        receipt: None,
        returned: None,
        cancelled: false,
        error,
    };
    Entry { message, messager: Some(AtMessager { uid, state }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::TokenAmount;

    #[test]
    fn a_messager_is_told_a_whole_price_or_none() {
        let amount = Some(TokenAmount::from_atto(7));
        let none = Replacement::default();
        assert_eq!(price(none).unwrap(), Price::Estimated);
        let both = Replacement { fee_cap: amount, premium: amount, ..none };
        assert!(matches!(price(both).unwrap(), Price::Given { .. }));
        for half in [
            Replacement { fee_cap: amount, ..none },
            Replacement { premium: amount, ..none },
            Replacement { gas_limit: Some(7), ..both },
        ] {
            let failure = price(half).unwrap_err();
            assert!(failure.exit == Exit::Usage && failure.hint.is_some(), "{half:?}");
        }
    }
}
