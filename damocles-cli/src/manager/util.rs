//! `util`: commands under the names that the incumbent gives them.

use super::{
    args::WorkerCommand,
    confirm::Consent,
    desk::{Desk, parse_miner},
    miner::{args::CreateMinerArgs, create},
    workers,
};
use crate::{
    config::manager::Home,
    exit::Failure,
    output::{Printer, Render},
};
use clap::{Args, Subcommand};
use damocles_chain::MinerDetail;
use damocles_core::{
    ActorId, Address, Context, SectorSize,
    chain::{Multiaddr, PeerId},
};
use serde::Serialize;
use std::fmt::Write as _;

/// Commands of the incumbent.
#[derive(Clone, Debug, Subcommand)]
pub enum UtilCommand {
    /// Miner actors
    #[command(subcommand)]
    Miner(UtilMinerCommand),
    /// Workers of this manager, see `worker`
    #[command(subcommand)]
    Worker(WorkerCommand),
}

/// Commands of the incumbent on miners.
#[derive(Clone, Debug, Subcommand)]
pub enum UtilMinerCommand {
    /// Make a miner, see `miner create`
    Create(UtilCreateArgs),
    /// What a miner is, see `miner info`
    Info(UtilInfoArgs),
}

/// Which miner.
#[derive(Clone, Copy, Debug, Args)]
pub struct UtilInfoArgs {
    /// The miner, e.g. t01000
    #[arg(value_parser = parse_miner)]
    pub miner: ActorId,
}

/// What kind of miner.
#[derive(Clone, Debug, Args)]
pub struct UtilCreateArgs {
    /// Who sends the message and pays the deposit
    #[arg(long, value_name = "ADDR")]
    pub from: Address,
    /// Its owner [default: the sender]
    #[arg(long, value_name = "ADDR")]
    pub owner: Option<Address>,
    /// Its worker [default: the owner]
    #[arg(long, value_name = "ADDR")]
    pub worker: Option<Address>,
    /// The size of its sectors
    #[arg(long, value_name = "SIZE")]
    pub sector_size: SectorSize,
    /// Its libp2p identity
    #[arg(long, value_name = "ID")]
    pub peer: Option<PeerId>,
    /// Where it is found, once for each address
    #[arg(long, value_name = "ADDR")]
    pub multiaddr: Vec<Multiaddr>,
    /// Makes messages that are otherwise the same different ones
    #[arg(long, value_name = "TEXT")]
    pub exid: Option<String>,
    /// Taken for its sake only: the node's own word on the deposit is sent along
    #[arg(long, value_name = "FACTOR", default_value_t = 1.01, value_parser = factor)]
    pub deposit_margin_factor: f64,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Consent,
}

fn factor(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|factor: &f64| factor.is_finite() && *factor >= 1.0)
        .ok_or_else(|| "write 1 or more".to_owned())
}

/// Does what the arguments say.
///
/// # Errors
///
/// What the command could not do.
pub(super) async fn run(command: &UtilCommand, home: &Home, printer: Printer, cx: &Context) -> Result<(), Failure> {
    let command = match command {
        UtilCommand::Worker(command) => return workers::run(command, home, printer).await,
        UtilCommand::Miner(command) => command,
    };
    match command {
        UtilMinerCommand::Info(args) => {
            let desk = Desk::open(home, printer, cx).await?;
            let miner = desk.node.miner(&desk.head, args.miner).await?;
            printer.data(&Info { text: info_text(&desk, &miner), miner })
        }
        UtilMinerCommand::Create(args) => {
            args.consent.possible()?;
            let owner = args.owner.clone().unwrap_or_else(|| args.from.clone());
            let ours = CreateMinerArgs {
                sector_size: args.sector_size,
                max_sectors: None,
                worker: Some(args.worker.clone().unwrap_or_else(|| owner.clone())),
                owner: Some(owner),
                from: Some(args.from.clone()),
                peer: args.peer.clone(),
                multiaddrs: args.multiaddr.clone(),
                consent: args.consent,
            };
            let made = create::make(&ours, home, printer, cx, args.exid.as_deref()).await?;
            let shown = |made: create::Made| Made { miner: made.miner, robust: made.robust, message: made.message };
            made.map_or(Ok(()), |made| printer.data(&shown(made)))
        }
    }
}

#[derive(Debug, Serialize)]
struct Made {
    miner: ActorId,
    robust: Option<Address>,
    message: String,
}

impl Render for Made {
    fn text(&self, _: bool) -> String {
        match &self.robust {
            Some(robust) => format!("miner actor: t0{} ({robust})", self.miner),
            None => format!("miner actor: t0{}", self.miner),
        }
    }
}

#[derive(Debug, Serialize)]
struct Info {
    #[serde(skip)]
    text: String,
    #[serde(flatten)]
    miner: MinerDetail,
}

impl Render for Info {
    fn text(&self, _: bool) -> String {
        self.text.clone()
    }
}

/// The lines of the incumbent, its spelling included.
fn info_text(desk: &Desk<'_>, miner: &MinerDetail) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    let spell = |address: &Address| desk.spell(address).to_string();
    line("Miner", desk.name(miner.miner).to_string());
    line("Owner", spell(&miner.owner));
    line("Worker", spell(&miner.worker));
    line("NewWorker", miner.new_worker.as_ref().map_or_else(|| "<empty>".to_owned(), |(new, _)| spell(new)));
    line(&format!("Controls({})", miner.control.len()), String::new());
    for control in &miner.control {
        line("\t", spell(control));
    }
    line("Beneficiary", spell(&miner.beneficiary));
    if let Some(term) = &miner.term {
        line("Beneficiary Quota", term.quota.to_string());
        line("Beneficiary Used Quota", term.used.to_string());
        line("Beneficiary Expiration", term.expiration.to_string());
    }
    if let Some(new) = &miner.pending_beneficiary {
        line("Pending Beneficiary Term", String::new());
        line("New Beneficiary", spell(&new.beneficiary));
        line("New Quota", new.quota.to_string());
        line("New Expiration", new.expiration.to_string());
        line("Approved By Beneficiary", new.approved_by_present.to_string());
        line("Approved By Nominee", new.approved_by_proposed.to_string());
    }
    line("WokerChangeEpoch", miner.new_worker.as_ref().map_or(-1, |(_, epoch)| epoch.0).to_string());
    line("PeerID", miner.peer_id.clone().unwrap_or_default());
    line(&format!("Multiaddrs({})", miner.multiaddrs.len()), String::new());
    for address in &miner.multiaddrs {
        line("\t", address.clone());
    }
    line("SectorSize", format!("{} ({})", miner.sector_size, miner.sector_size.bytes()));
    line("WindowPoStPartitionSectors", miner.partition_sectors.to_string());
    text
}
