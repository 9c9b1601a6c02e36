//! The arguments of `damocles-manager`, as data.

use super::{
    confirm::Agreed,
    look::ChainCommand,
    message::args::MessageCommand,
    miner::args::MinerCommand,
    util::UtilCommand,
    wallet::args::{PasswordArgs, WalletArgs},
};
use crate::{
    frame::Global,
    supervised::Supervision,
    worker::args::{DaemonArgs as WorkerDaemonArgs, ProcessorArgs},
};
use clap::{Args, Parser, Subcommand};
use damocles_core::{Address, Network, SectorId, TokenAmount};
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

/// Gives out sectors, lands their messages and keeps them proven
#[derive(Clone, Debug, Parser)]
#[command(name = "damocles-manager", version, subcommand_required = true, arg_required_else_help = true)]
pub struct ManagerArgs {
    /// The manager's directory [default: ~/.damocles-manager]
    #[arg(long, global = true, env = "DAMOCLES_PATH", hide_env_values = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Switches of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: ManagerCommand,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum ManagerCommand {
    /// The manager itself
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// A chain of one machine, for trying things out
    #[command(subcommand)]
    Devnet(DevnetCommand),
    /// Seal and prove two sectors on a devnet, everything included
    Quickstart(QuickstartArgs),
    /// Miner actors
    #[command(subcommand)]
    Miner(MinerCommand),
    /// The chain as the node shows it
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Messages of this manager: waiting, sent, landed
    #[command(subcommand)]
    Message(MessageCommand),
    /// Commands under the names that the incumbent gives them
    #[command(subcommand)]
    Util(UtilCommand),
    /// Pieces that wait for a sector
    #[command(subcommand)]
    Piece(PieceCommand),
    /// Sectors and where they are
    #[command(subcommand)]
    Sectors(SectorsCommand),
    /// Workers of this manager
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Keys in one encrypted file, and signing for other machines
    Wallet(WalletArgs),
    /// Do the tasks of one kind for the daemon that started this process
    #[command(hide = true)]
    Processor(ProcessorArgs),
    /// The worker, for quickstart: one program is all that it needs
    #[command(hide = true)]
    QuickstartWorker(WorkerDaemonArgs),
}

/// Commands on workers.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkerCommand {
    /// The workers that introduced themselves, and when they were heard from last
    List,
    /// Forget a worker that is gone; one that still runs introduces itself again
    Remove(WorkerNameArgs),
}

/// Which worker.
#[derive(Clone, Debug, Args)]
pub struct WorkerNameArgs {
    /// Its name, as `worker list` shows it
    pub name: String,
}

/// Commands on pieces.
#[derive(Clone, Debug, Subcommand)]
pub enum PieceCommand {
    /// Put a file's data into the next sector that asks
    Add(AddPieceArgs),
}

/// Which piece.
#[derive(Clone, Debug, Args)]
pub struct AddPieceArgs {
    /// The file, below the `pieces` of the home or one of `pieces.dirs`; it must stay there until its sector is sealed
    pub file: PathBuf,
}

/// Commands on the manager.
#[derive(Clone, Debug, Subcommand)]
pub enum DaemonCommand {
    /// Make the directory: keys, database, configuration
    Init(InitArgs),
    /// Run until told to stop
    Run(RunArgs),
}

/// How the manager runs.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// How it was started.
    #[command(flatten)]
    pub supervision: Supervision,
}

/// How the directory is made.
#[derive(Clone, Debug, Default, Args)]
pub struct InitArgs {
    /// For a devnet on this machine: keys in plain text
    #[arg(long)]
    pub devnet: bool,
    /// The node's RPC, or several after each other with commas, or a node's directory such as ~/.lotus [default: what
    /// FULLNODE_API_INFO names; with --devnet, port 1234 of this machine]
    // As text: the parser of arguments would repeat what it does not understand, token included.
    #[arg(long, value_name = "NODES")]
    pub chain: Option<String>,
    /// The network that the node must be on, e.g. `mainnet` or `calibration`
    #[arg(long, value_name = "NAME")]
    pub network: Option<Network>,
    /// Where the password of the keys comes from; without any, it is asked for. The daemon will look for it there.
    #[command(flatten)]
    pub password: PasswordArgs,
}

/// Commands on the devnet.
#[derive(Clone, Debug, Subcommand)]
pub enum DevnetCommand {
    /// Run until told to stop
    Run(DevnetArgs),
}

/// What kind of devnet.
#[derive(Clone, Debug, Args)]
pub struct DevnetArgs {
    /// An account of the genesis and its balance in FIL
    #[arg(long, value_name = "ADDR=FIL")]
    pub fund: Vec<Fund>,
    /// The length of an epoch in milliseconds [default: 250]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub epoch_ms: Option<u64>,
    /// The network's name; one that begins with `devnet-fake-` takes fake proofs [default: devnet]
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Where its RPC listens, loopback only
    #[arg(long, default_value = "127.0.0.1:1234", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// A file of parameters, TOML or JSON; what is given beside it counts more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How it was started.
    #[command(flatten)]
    pub supervision: Supervision,
}

/// A funded account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fund {
    /// Whose.
    pub address: Address,
    /// How much.
    pub amount: TokenAmount,
}

impl FromStr for Fund {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, amount) = text.split_once('=').ok_or("write ADDRESS=FIL, e.g. `f3abc=1000`")?;
        let address = address.parse().map_err(|e| format!("{e}"))?;
        let amount = amount.parse().map_err(|e| format!("{e}"))?;
        Ok(Self { address, amount })
    }
}

/// How much quickstart does.
#[derive(Clone, Debug, Args)]
pub struct QuickstartArgs {
    /// How many sectors are sealed; the second has a data piece
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub sectors: u32,
    /// Leave stores, database, keys and configuration in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Commands on sectors.
#[derive(Clone, Debug, Subcommand)]
pub enum SectorsCommand {
    /// All sectors, one line each
    List,
    /// One sector with its whole history
    Show(SectorArgs),
    /// Give a sector up: its data goes to another one, its number is burnt. Refused once its proof may be on chain
    Abort(GiveUpArgs),
    /// End the lease of a store that is lost. A sector without a stored replica is given up by that
    Release(GiveUpArgs),
}

/// Which sector is given up or taken from its worker.
#[derive(Clone, Debug, Args)]
pub struct GiveUpArgs {
    /// Which sector.
    #[command(flatten)]
    pub sector: SectorArgs,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Agreed,
}

/// Which sector.
#[derive(Clone, Debug, Args)]
pub struct SectorArgs {
    /// A sector, e.g. `s-t01000-7`
    pub sector: SectorId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_is_as_documented() {
        let mut command = ManagerArgs::command().term_width(100);
        command.clone().debug_assert();
        command.build();
        insta::assert_snapshot!("manager_help", command.render_long_help());
        for path in [
            &["daemon", "init"][..],
            &["devnet", "run"],
            &["quickstart"],
            &["sectors", "release"],
            &["sectors", "abort"],
            &["miner"],
            &["miner", "create"],
            &["miner", "withdraw"],
            &["miner", "beneficiary", "propose"],
            &["chain"],
            &["message"],
            &["message", "replace"],
            &["util", "miner", "create"],
        ] {
            let found = path.iter().try_fold(&mut command, |c, name| c.find_subcommand_mut(name));
            insta::assert_snapshot!(format!("manager_{}_help", path.join("_")), found.unwrap().render_long_help());
        }
    }

    #[test]
    fn accounts_are_read() {
        let line = ["m", "devnet", "run", "--home", "/d", "--fund", "f3abc=1000", "--fund", "t1xyz=0.5"];
        let args = ManagerArgs::try_parse_from(line).unwrap();
        let ManagerCommand::Devnet(DevnetCommand::Run(run)) = args.command else { panic!("{args:?}") };
        assert_eq!(run.fund.len(), 2);
        assert_eq!(args.home.unwrap(), PathBuf::from("/d"));
        for bad in ["f3abc", "x=1", "f3abc=-", "f3abc="] {
            assert!(bad.parse::<Fund>().is_err(), "{bad}");
        }
        assert!(ManagerArgs::try_parse_from(["m", "sectors", "show", "7"]).is_err());
    }
}
