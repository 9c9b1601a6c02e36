//! `chain`: the chain as the node shows it.

use super::{
    desk::{Desk, When, parse_miner, time_text},
    funds::{self, FundsArgs},
    nodes,
};
use crate::{
    config::manager::Home,
    exit::Failure,
    output::{Printer, Render, table},
};
use clap::{Args, Subcommand, ValueEnum};
use damocles_chain::{BlockDetail, TipsetDetail};
use damocles_core::{
    ActorId, Context, Epoch, TokenAmount,
    chain::{RandomnessKind, TipsetKey},
};
use serde::Serialize;
use std::fmt::Write as _;

/// Commands on the chain.
#[derive(Clone, Debug, Subcommand)]
pub enum ChainCommand {
    /// The head and the network
    Head,
    /// Each node of manager.toml, and whether it is relied on
    Nodes,
    /// What the running daemon asked the nodes so far
    Metrics,
    /// A tipset, by epoch
    Tipset(TipsetArgs),
    /// The price of gas, of the last tipsets
    BaseFee(BaseFeeArgs),
    /// What the senders of messages have, what they spent of late, and how long the rest lasts
    Funds(FundsArgs),
    /// Randomness as the protocol draws it
    Randomness(RandomnessArgs),
}

/// Which tipset.
#[derive(Clone, Copy, Debug, Args)]
pub struct TipsetArgs {
    /// Its epoch; for a null round, the tipset before it is shown [default: the head]
    #[arg(value_parser = epoch)]
    pub epoch: Option<Epoch>,
}

/// Of how many tipsets.
#[derive(Clone, Copy, Debug, Args)]
pub struct BaseFeeArgs {
    /// So many tipsets, the newest first
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=900))]
    pub last: u16,
}

/// Which randomness.
#[derive(Clone, Copy, Debug, Args)]
pub struct RandomnessArgs {
    /// What it is for
    #[arg(value_enum)]
    pub kind: Kind,
    /// The epoch that it is drawn for [default: the head's]
    #[arg(value_parser = epoch)]
    pub epoch: Option<Epoch>,
    /// The miner that it is drawn for [default: the only one of manager.toml]
    #[arg(long, value_name = "MINER", value_parser = parse_miner)]
    pub miner: Option<ActorId>,
}

/// What randomness is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The ticket of a replica
    Ticket,
    /// The seed of a prove-commit
    Seed,
    /// The challenge of a window PoSt
    WindowPost,
    /// The challenge of a winning PoSt
    WinningPost,
    /// The chain commitment of a window PoSt
    ChainCommit,
}

impl From<Kind> for RandomnessKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ticket => Self::SealTicket,
            Kind::Seed => Self::InteractiveSeed,
            Kind::WindowPost => Self::WindowPoStChallenge,
            Kind::WinningPost => Self::WinningPoStChallenge,
            Kind::ChainCommit => Self::PoStChainCommit,
        }
    }
}

fn epoch(text: &str) -> Result<Epoch, String> {
    text.parse().ok().filter(|epoch| *epoch >= 0).map(Epoch).ok_or_else(|| "write an epoch, a number".to_owned())
}

/// Does what the arguments say.
///
/// # Errors
///
/// The node does not answer.
pub(super) async fn run(command: &ChainCommand, home: &Home, printer: Printer, cx: &Context) -> Result<(), Failure> {
    // Nodes that are all away are to be seen as well.
    match command {
        ChainCommand::Nodes => return nodes::show(home, printer).await,
        ChainCommand::Metrics => return nodes::metrics(home, printer).await,
        _ => {}
    }
    let desk = Desk::open(home, printer, cx).await?;
    match command {
        ChainCommand::Nodes | ChainCommand::Metrics => Ok(()),
        ChainCommand::Head => head(&desk).await,
        ChainCommand::Tipset(args) => tipset(&desk, *args).await,
        ChainCommand::BaseFee(args) => base_fee(&desk, *args).await,
        ChainCommand::Funds(args) => funds::show(&desk, args).await,
        ChainCommand::Randomness(args) => randomness(&desk, *args).await,
    }
}

#[derive(Debug, Serialize)]
struct Head {
    network: String,
    network_version: u32,
    node: String,
    endpoint: String,
    epoch: Epoch,
    time: String,
    base_fee: TokenAmount,
    key: TipsetKey,
}

impl Render for Head {
    fn text(&self, _: bool) -> String {
        format!(
            "network   {} (version {})\nnode      {} at {}\nepoch     {} ({})\nbase fee  {}\ntipset    {}",
            self.network,
            self.network_version,
            self.node,
            self.endpoint,
            self.epoch,
            self.time,
            gas_price(self.base_fee),
            self.key
        )
    }
}

/// The price of a unit of gas, which is far below a FIL.
pub(super) fn gas_price(amount: TokenAmount) -> String {
    let (nano, rest) = (amount.atto() / 1_000_000_000, amount.atto() % 1_000_000_000);
    match (nano, rest) {
        (0, rest) => format!("{rest} attoFIL"),
        (nano, 0) => format!("{nano} nanoFIL"),
        (nano, rest) => format!("{nano}.{} nanoFIL", format!("{rest:09}").trim_end_matches('0')),
    }
}

async fn head(desk: &Desk<'_>) -> Result<(), Failure> {
    let network = desk.node.network(&desk.head).await?;
    let version = desk.node.version().await?;
    let tipset = desk.node.tipset(Some(&desk.head.key)).await?;
    desk.printer.data(&Head {
        network: desk.network.name().to_owned(),
        network_version: network.version,
        node: version.version,
        endpoint: desk.node.endpoint(),
        epoch: tipset.epoch,
        time: time_text(tipset.time),
        base_fee: tipset.base_fee,
        key: desk.head.key.clone(),
    })
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    tipset: TipsetDetail,
}

impl Render for Shown {
    fn text(&self, color: bool) -> String {
        let t = &self.tipset;
        let mut text = format!("epoch     {} ({})\nbase fee  {}\n", t.epoch, time_text(t.time), gas_price(t.base_fee));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "parents   {}\n", t.parents);
        let row = |block: &BlockDetail| [block.miner.to_string(), block.cid.clone()];
        text.push_str(&table(&["MINER", "BLOCK"], t.blocks.iter().map(row), color));
        text
    }
}

async fn tipset(desk: &Desk<'_>, args: TipsetArgs) -> Result<(), Failure> {
    let wanted = match args.epoch {
        Some(epoch) => desk.node.tipset_at(&desk.head, epoch).await?,
        None => desk.head.clone(),
    };
    let mut tipset = desk.node.tipset(Some(&wanted.key)).await?;
    for block in &mut tipset.blocks {
        block.miner = desk.spell(&block.miner);
    }
    if args.epoch.is_some_and(|epoch| epoch != tipset.epoch) {
        desk.printer.note("that epoch has no block; this is the tipset before it");
    }
    desk.printer.data(&Shown { tipset })
}

#[derive(Debug, Serialize)]
struct BaseFees {
    base_fees: Vec<Price>,
    lowest: TokenAmount,
    median: TokenAmount,
    highest: TokenAmount,
}

impl BaseFees {
    /// Of one price at least.
    fn of(base_fees: Vec<Price>) -> Self {
        let mut fees: Vec<TokenAmount> = base_fees.iter().map(|price| price.base_fee).collect();
        fees.sort_unstable();
        let at = |place: usize| fees.get(place).copied().unwrap_or_default();
        let (lowest, median, highest) = (at(0), at(fees.len() / 2), at(fees.len().saturating_sub(1)));
        Self { base_fees, lowest, median, highest }
    }
}

#[derive(Debug, Serialize)]
struct Price {
    #[serde(flatten)]
    when: When,
    base_fee: TokenAmount,
}

impl Render for BaseFees {
    fn text(&self, color: bool) -> String {
        let rows = self.base_fees.iter().map(|p| [p.when.to_string(), gas_price(p.base_fee)]);
        let table = table(&["EPOCH", "BASE FEE"], rows, color);
        let [lowest, median, highest] = [self.lowest, self.median, self.highest].map(gas_price);
        format!("{table}\n\nlowest {lowest}, median {median}, highest {highest} of {} tipsets", self.base_fees.len())
    }
}

async fn base_fee(desk: &Desk<'_>, args: BaseFeeArgs) -> Result<(), Failure> {
    let mut base_fees = Vec::new();
    let mut key = desk.head.key.clone();
    while base_fees.len() < usize::from(args.last) {
        let tipset = desk.node.tipset(Some(&key)).await?;
        base_fees.push(Price {
            when: When { epoch: tipset.epoch, time: time_text(tipset.time) },
            base_fee: tipset.base_fee,
        });
        if tipset.epoch.0 <= 0 || tipset.parents.0.is_empty() {
            break;
        }
        key = tipset.parents;
    }
    desk.printer.data(&BaseFees::of(base_fees))
}

#[derive(Debug, Serialize)]
struct Drawn {
    #[serde(flatten)]
    when: When,
    randomness: String,
}

impl Render for Drawn {
    fn text(&self, _: bool) -> String {
        self.randomness.clone()
    }
}

async fn randomness(desk: &Desk<'_>, args: RandomnessArgs) -> Result<(), Failure> {
    let epoch = args.epoch.unwrap_or(desk.head.epoch);
    let miner = desk.miner(args.miner)?;
    let drawn = desk.node.randomness(&desk.head, args.kind.into(), epoch, miner).await?;
    desk.printer.data(&Drawn { when: desk.when(epoch), randomness: hex::encode(drawn.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_fees_have_a_middle() {
        let price = |atto| Price {
            when: When { epoch: Epoch(1), time: String::new() },
            base_fee: TokenAmount::from_atto(atto),
        };
        let fees = BaseFees::of([300, 100, 200].map(price).into());
        assert_eq!([fees.lowest, fees.median, fees.highest].map(TokenAmount::atto), [100, 200, 300]);
        assert_eq!(fees.base_fees[0].base_fee.atto(), 300, "they stay in their order");
        let one = BaseFees::of(vec![price(7)]);
        assert_eq!([one.lowest, one.median, one.highest].map(TokenAmount::atto), [7; 3]);
    }

    #[test]
    fn prices_of_gas_are_short() {
        for (atto, text) in [(100, "100 attoFIL"), (2_000_000_000, "2 nanoFIL"), (1_500_000_000, "1.5 nanoFIL")] {
            assert_eq!(gas_price(TokenAmount::from_atto(atto)), text);
        }
    }
}
