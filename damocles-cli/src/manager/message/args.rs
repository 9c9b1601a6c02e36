//! The arguments of `message`, as data.

use super::super::confirm::Agreed;
use clap::{Args, Subcommand, ValueEnum};
use damocles_chain::OutboxState;
use damocles_core::{Address, TokenAmount};

/// Commands on messages.
#[derive(Clone, Debug, Subcommand)]
pub enum MessageCommand {
    /// The messages that are on their way, oldest first
    List(ListArgs),
    /// One message, with everything that was signed for it
    Show(MessageArgs),
    /// Wait until a message has landed; the exit code is 1 if the actor refused it
    Wait(MessageArgs),
    /// Send the same message again at a higher price
    Replace(ReplaceArgs),
    /// Give a message up
    Cancel(CancelArgs),
    /// Have the messager send again what it had signed and given up: what failed, and what was cancelled
    Recover(RecoverArgs),
}

/// Which messages.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Those that are over too
    #[arg(long, conflicts_with = "state")]
    pub all: bool,
    /// Only those that are this far
    #[arg(long, value_enum, value_name = "STATE")]
    pub state: Option<ListedState>,
    /// Only those of this sender, by the address of its key
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<Address>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListedState {
    /// Without a nonce yet
    Recorded,
    /// Signed, and on chain not for good yet
    Sent,
    /// On chain for good
    Final,
    /// Given up
    Dropped,
}

impl From<ListedState> for OutboxState {
    fn from(state: ListedState) -> Self {
        match state {
            ListedState::Recorded => Self::Recorded,
            ListedState::Sent => Self::Signed,
            ListedState::Final => Self::Settled,
            ListedState::Dropped => Self::Dropped,
        }
    }
}

/// Which message.
#[derive(Clone, Debug, Args)]
pub struct MessageArgs {
    /// Its key, or the CID of one of its versions
    #[arg(value_name = "KEY")]
    pub id: String,
}

/// What the new message pays.
#[derive(Clone, Debug, Args)]
pub struct ReplaceArgs {
    /// Which message.
    #[command(flatten)]
    pub message: MessageArgs,
    /// The most that is paid for a unit of gas, with its unit, e.g. `2 nanoFIL` or `200 attoFIL` [default: what the policy
    /// of its class says]
    #[arg(long, value_name = "PRICE", value_parser = parse_gas_price)]
    pub fee_cap: Option<TokenAmount>,
    /// What the block's maker gets for a unit of gas, with its unit [default: what the policy of its class says]
    #[arg(long, value_name = "PRICE", value_parser = parse_gas_price)]
    pub premium: Option<TokenAmount>,
    /// Its gas limit [default: that of the present message]
    #[arg(long, value_name = "GAS")]
    pub gas_limit: Option<u64>,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Agreed,
}

/// Which message is given up.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// Which message.
    #[command(flatten)]
    pub message: MessageArgs,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Agreed,
}

/// Whose messages are sent again.
#[derive(Clone, Debug, Args)]
pub struct RecoverArgs {
    /// Their senders [default: all senders of manager.toml]
    #[arg(value_name = "ADDR")]
    pub senders: Vec<Address>,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Agreed,
}

/// The price of a unit of gas. Its unit has to be named: without one, what was meant for nanoFIL would be FIL.
fn parse_gas_price(text: &str) -> Result<TokenAmount, String> {
    let bad = || "write a price with its unit: `2 nanoFIL`, `200 attoFIL` or `0.000000002 FIL`".to_owned();
    let text = text.trim();
    let amount = if let Some(nano) = text.strip_suffix("nanoFIL") {
        let (whole, fraction) = nano.trim().split_once('.').unwrap_or((nano.trim(), ""));
        let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        let atto: i128 = format!("{whole}{fraction:0<9}").parse().map_err(|_| bad())?;
        TokenAmount::from_atto(atto)
    } else if text.ends_with("FIL") {
        text.parse().map_err(|_| bad())?
    } else {
        return Err(bad());
    };
    if amount < TokenAmount::ZERO { Err(bad()) } else { Ok(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_of_gas_has_a_unit() {
        for (text, atto) in [
            ("2 nanoFIL", 2_000_000_000),
            ("1.5nanoFIL", 1_500_000_000),
            ("200 attoFIL", 200),
            ("0.000000002 FIL", 2_000_000_000),
        ] {
            assert_eq!(parse_gas_price(text), Ok(TokenAmount::from_atto(atto)), "{text}");
        }
        for bad in [
            "200",
            "",
            "nanoFIL",
            "-1 nanoFIL",
            "-1 FIL",
            "1.0000000001 nanoFIL",
            "1e3 nanoFIL",
            "x FIL",
            "1..2 nanoFIL",
        ] {
            assert!(parse_gas_price(bad).is_err_and(|said| said.contains("unit")), "{bad}");
        }
    }
}
