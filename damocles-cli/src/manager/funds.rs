//! `chain funds`: what the senders of messages have, and how long it lasts.

use super::{
    chain,
    desk::{Desk, When},
    message::shortened,
    outbox::{Entry, Shelf},
    signer::Keys,
};
use crate::{
    exit::Failure,
    output::{Render, table},
};
use clap::Args;
use damocles_chain::{OutboxState, Spending};
use damocles_core::{Address, Epoch, TokenAmount};
use serde::Serialize;

/// Whose, and how far back.
#[derive(Clone, Debug, Args)]
pub struct FundsArgs {
    /// Whose [default: all senders of manager.toml]
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<Address>,
    /// Look back on so many epochs, or on as many of them as the node still knows
    #[arg(long, default_value_t = 2880, value_name = "EPOCHS", value_parser = clap::value_parser!(i64).range(1..=20_160))]
    pub over: i64,
}

#[derive(Debug, Serialize)]
struct Funds {
    senders: Vec<Sender>,
}

#[derive(Debug, Serialize)]
struct Sender {
    #[serde(flatten)]
    spending: Spending,
    /// Its messages that were signed and have not landed; none where another process has the messages.
    on_their_way: Option<usize>,
    /// What their gas may cost at most.
    gas: TokenAmount,
    /// For how many epochs what is free of that lasts; none where nothing was spent.
    runway: Option<i64>,
    lasts_until: Option<When>,
}

impl Render for Funds {
    fn text(&self, color: bool) -> String {
        let dash = || "-".to_owned();
        let rows = self.senders.iter().map(|sender| {
            let Spending { account, balance, spent, watched } = &sender.spending;
            [
                shortened(account.as_str()),
                balance.to_string(),
                sender.on_their_way.map_or_else(dash, |count| count.to_string()),
                sender.gas.to_string(),
                format!("{spent} in {watched} epochs"),
                sender.lasts_until.as_ref().map_or_else(dash, ToString::to_string),
            ]
        });
        table(&["SENDER", "BALANCE", "ON THEIR WAY", "GAS AT MOST", "SPENT", "LASTS UNTIL"], rows, color)
    }
}

/// Shows it.
///
/// # Errors
///
/// The node does not answer, or no sender is known.
pub(super) async fn show(desk: &Desk<'_>, args: &FundsArgs) -> Result<(), Failure> {
    let mut accounts = args.addresses.clone();
    if accounts.is_empty() {
        let keys =
            if desk.config.senders.default.is_some() { Keys::none() } else { Keys::to_send(&desk.config, desk.home)? };
        accounts = chain::senders(&desk.config, &keys).await?.everybody();
    }
    // A chain that is younger than that is looked back on as a whole.
    let over = args.over.min(desk.head.epoch.0);
    let spending = desk.node.spending(&desk.head, &accounts, over).await?;
    // A command that waits for its message has them, and is no reason not to know what there is.
    let messages = match Shelf::open(&desk.config, desk.home).await {
        Ok(shelf) => shelf.entries().await.ok(),
        Err(_) => None,
    };
    let mut senders = Vec::new();
    for spending in spending {
        let theirs = messages.as_deref().map(|all| on_their_way(all, &spending.account));
        let gas = theirs.iter().flatten().fold(TokenAmount::ZERO, |sum, entry| sum + gas_of(entry));
        let runway = spending.runway(gas);
        senders.push(Sender {
            on_their_way: theirs.map(|all| all.len()),
            gas,
            runway,
            lasts_until: runway.map(|epochs| desk.when(Epoch(desk.head.epoch.0.saturating_add(epochs)))),
            spending: Spending { account: desk.spell(&spending.account), ..spending },
        });
    }
    desk.printer.data(&Funds { senders })
}

/// The messages of a sender that were signed and have not landed.
fn on_their_way<'a>(all: &'a [Entry], sender: &Address) -> Vec<&'a Entry> {
    // The same address on whichever network.
    let plain = |text: &str| text.get(1..).unwrap_or_default().to_owned();
    let is_its = |entry: &&Entry| {
        let message = &entry.message;
        let sent = message.state == OutboxState::Signed && message.landed.is_none();
        sent && message.sender.as_deref().map(plain) == Some(plain(sender.as_str()))
    };
    all.iter().filter(is_its).collect()
}

/// What the gas of a message may cost. Of one that a messager sends, only the messager knows.
fn gas_of(entry: &Entry) -> TokenAmount {
    let newest = entry.message.versions.last();
    newest.map_or(TokenAmount::ZERO, |version| {
        TokenAmount::from_atto(version.fee_cap.atto().saturating_mul(i128::from(version.gas_limit)))
    })
}
