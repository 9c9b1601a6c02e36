//! The arguments of `message`, as data.

use super::super::confirm::Agreed;
use clap::{Args, Subcommand};
use damocles_core::{Address, TokenAmount};

/// Commands on messages.
#[derive(Clone, Debug, Subcommand)]
pub enum MessageCommand {
    /// All messages that are on their way
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
#[derive(Clone, Copy, Debug, Args)]
pub struct ListArgs {
    /// Those that are over too
    #[arg(long)]
    pub all: bool,
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
    /// The most that is paid for a unit of gas, e.g. `200 attoFIL` [default: what the policy of its class says]
    #[arg(long, value_name = "FIL")]
    pub fee_cap: Option<TokenAmount>,
    /// What the block's maker gets for a unit of gas [default: what the policy of its class says]
    #[arg(long, value_name = "FIL")]
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
