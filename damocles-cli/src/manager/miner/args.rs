//! The arguments of `miner`, as data.

use super::super::{confirm::Consent, desk::parse_miner};
use clap::{Args, Subcommand};
use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, PartitionIndex, SectorNumber, SectorSize, TokenAmount,
    chain::{Multiaddr, PeerId},
};

/// Commands on miners.
#[derive(Clone, Debug, Subcommand)]
pub enum MinerCommand {
    /// Make a miner on chain and write it into manager.toml
    Create(CreateMinerArgs),
    /// Who owns, works for and profits from a miner, and what is about to change
    Info(MinerArgs),
    /// The power of a miner and of the network
    Power(MinerArgs),
    /// The deadlines of a proving period and what is in them
    Deadlines(MinerArgs),
    /// The partitions of one deadline, or of all
    Partitions(PartitionsArgs),
    /// The sectors that the chain knows
    Sectors(SectorsArgs),
    /// The sectors that are faulty or recovering
    Faults(MinerArgs),
    /// Where a miner's money is
    Balance(MinerArgs),
    /// Take money out; it goes to the beneficiary
    Withdraw(WithdrawArgs),
    /// Pay what a miner owes
    RepayDebt(RepayArgs),
    /// Control addresses
    #[command(subcommand)]
    Control(ControlCommand),
    /// Hand a miner to another owner, in two steps
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Change the worker, in two steps
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Change who receives withdrawals, in two steps or three
    #[command(subcommand)]
    Beneficiary(BeneficiaryCommand),
    /// Show or set the libp2p identity
    PeerId(PeerIdArgs),
    /// Show or set where a miner is found
    Multiaddrs(MultiaddrsArgs),
    /// Remove terminated sectors from partitions
    Compact(CompactArgs),
}

/// Which miner.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct MinerArgs {
    /// The miner, e.g. t01000 [default: the only one of manager.toml]
    #[arg(long, value_name = "MINER", value_parser = parse_miner)]
    pub miner: Option<ActorId>,
}

/// Which miner, and whether it is done without asking.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ActArgs {
    /// Which miner.
    #[command(flatten)]
    pub miner: MinerArgs,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Consent,
}

/// What kind of miner.
#[derive(Clone, Debug, Args)]
pub struct CreateMinerArgs {
    /// The size of its sectors
    #[arg(long, default_value = "2KiB", value_name = "SIZE")]
    pub sector_size: SectorSize,
    /// Give out at most so many sectors
    #[arg(long, value_name = "N")]
    pub max_sectors: Option<u64>,
    /// Its owner [default: the wallet's only secp256k1 key]
    #[arg(long, value_name = "ADDR")]
    pub owner: Option<Address>,
    /// Its worker, a BLS account [default: the wallet's only BLS key]
    #[arg(long, value_name = "ADDR")]
    pub worker: Option<Address>,
    /// Who sends the message and pays the deposit [default: `senders.create_miner`, else the owner]
    #[arg(long, value_name = "ADDR")]
    pub from: Option<Address>,
    /// Its libp2p identity
    #[arg(long, value_name = "ID")]
    pub peer: Option<PeerId>,
    /// Where it is found, once for each address
    #[arg(long = "multiaddr", value_name = "ADDR")]
    pub multiaddrs: Vec<Multiaddr>,
    /// Whether it is asked.
    #[command(flatten)]
    pub consent: Consent,
}

impl CreateMinerArgs {
    /// A miner with every default, agreed to.
    pub fn agreed(sector_size: SectorSize, max_sectors: Option<u64>) -> Self {
        Self {
            sector_size,
            max_sectors,
            owner: None,
            worker: None,
            from: None,
            peer: None,
            multiaddrs: Vec::new(),
            consent: Consent::GIVEN,
        }
    }
}

/// Which partitions.
#[derive(Clone, Copy, Debug, Args)]
pub struct PartitionsArgs {
    /// Which miner.
    #[command(flatten)]
    pub miner: MinerArgs,
    /// Only this deadline
    #[arg(long, value_name = "N", value_parser = deadline)]
    pub deadline: Option<DeadlineIndex>,
}

fn deadline(text: &str) -> Result<DeadlineIndex, String> {
    text.parse().ok().filter(|n| *n < 48).map(DeadlineIndex).ok_or_else(|| "deadlines are 0 to 47".to_owned())
}

fn partition(text: &str) -> Result<PartitionIndex, String> {
    text.parse().map(PartitionIndex).map_err(|_| "write a number".to_owned())
}

fn sector(text: &str) -> Result<SectorNumber, String> {
    text.parse().map(SectorNumber).map_err(|_| "write a number".to_owned())
}

fn epoch(text: &str) -> Result<Epoch, String> {
    text.parse().map(Epoch).map_err(|_| "write an epoch, a number".to_owned())
}

/// Which sectors.
#[derive(Clone, Debug, Args)]
pub struct SectorsArgs {
    /// Which miner.
    #[command(flatten)]
    pub miner: MinerArgs,
    /// Only these numbers
    #[arg(value_name = "NUMBER", value_parser = sector)]
    pub numbers: Vec<SectorNumber>,
}

/// How much is taken out.
#[derive(Clone, Debug, Args)]
pub struct WithdrawArgs {
    /// How much, e.g. `1.5` or `1.5FIL` [default: all that is available]
    pub amount: Option<TokenAmount>,
    /// Who sends it: the owner or the beneficiary [default: the owner]
    #[arg(long, value_name = "ADDR")]
    pub from: Option<Address>,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// How much is paid.
#[derive(Clone, Copy, Debug, Args)]
pub struct RepayArgs {
    /// How much is sent along [default: the whole debt]
    pub amount: Option<TokenAmount>,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Commands on control addresses.
#[derive(Clone, Debug, Subcommand)]
pub enum ControlCommand {
    /// Owner, worker and control addresses with what they own
    List(MinerArgs),
    /// Set the control addresses; those that are not named are removed
    Set(ControlSetArgs),
}

/// Which control addresses.
#[derive(Clone, Debug, Args)]
pub struct ControlSetArgs {
    /// All control addresses from now on, at most 10
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<Address>,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Commands on the owner.
#[derive(Clone, Debug, Subcommand)]
pub enum OwnerCommand {
    /// First step, by the present owner
    Propose(ProposeArgs),
    /// Second step, by the proposed owner
    Confirm(ActArgs),
}

/// Commands on the worker.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkerCommand {
    /// First step, by the owner
    Propose(ProposeArgs),
    /// Second step, by the owner, 900 epochs later
    Confirm(ActArgs),
}

/// Who is proposed.
#[derive(Clone, Debug, Args)]
pub struct ProposeArgs {
    /// The new address
    pub address: Address,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Commands on the beneficiary.
#[derive(Clone, Debug, Subcommand)]
pub enum BeneficiaryCommand {
    /// First step, by the owner; naming the owner ends the present term
    Propose(BeneficiaryArgs),
    /// Agree to a proposal, as the proposed or the present beneficiary
    Confirm(BeneficiaryConfirmArgs),
}

/// The terms of a beneficiary.
#[derive(Clone, Debug, Args)]
pub struct BeneficiaryArgs {
    /// The new beneficiary
    pub address: Address,
    /// What it may receive in all
    #[arg(long, value_name = "FIL", default_value = "0")]
    pub quota: TokenAmount,
    /// The epoch at which its term ends
    #[arg(long, value_name = "EPOCH", value_parser = epoch, default_value = "0")]
    pub expiration: Epoch,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Who agrees.
#[derive(Clone, Debug, Args)]
pub struct BeneficiaryConfirmArgs {
    /// Who agrees [default: the proposed beneficiary until it has, then the present one]
    #[arg(long, value_name = "ADDR")]
    pub from: Option<Address>,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Which identity.
#[derive(Clone, Debug, Args)]
pub struct PeerIdArgs {
    /// The new identity; without it, the present one is shown
    pub peer_id: Option<PeerId>,
    /// Remove it
    #[arg(long, conflicts_with = "peer_id")]
    pub clear: bool,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Which addresses.
#[derive(Clone, Debug, Args)]
pub struct MultiaddrsArgs {
    /// All addresses from now on; without any, the present ones are shown
    pub addresses: Vec<Multiaddr>,
    /// Remove all
    #[arg(long, conflicts_with = "addresses")]
    pub clear: bool,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}

/// Which partitions are compacted.
#[derive(Clone, Debug, Args)]
pub struct CompactArgs {
    /// The deadline; it must not be open, nor in its dispute window
    #[arg(long, value_name = "N", value_parser = deadline)]
    pub deadline: DeadlineIndex,
    /// The partitions [default: all that have terminated sectors]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = partition)]
    pub partitions: Vec<PartitionIndex>,
    /// Which miner, and whether it is asked.
    #[command(flatten)]
    pub act: ActArgs,
}
