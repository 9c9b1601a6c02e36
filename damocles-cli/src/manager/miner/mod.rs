//! `miner`: looking at miner actors, and changing them.

pub mod args;
pub(super) mod create;
mod keys;
mod money;
mod peers;
mod proving;
mod show;

pub use create::{Created, create};

use super::desk::Desk;
use crate::{config::manager::Home, exit::Failure, output::Printer};
use args::MinerCommand;
use damocles_core::Context;

/// Does what the arguments say.
///
/// # Errors
///
/// What the command could not do.
pub(super) async fn run(command: &MinerCommand, home: &Home, printer: Printer, cx: &Context) -> Result<(), Failure> {
    let consent = match command {
        MinerCommand::Withdraw(args) => Some(args.act.consent),
        MinerCommand::RepayDebt(args) => Some(args.act.consent),
        MinerCommand::Create(args) => Some(args.consent),
        MinerCommand::Compact(args) => Some(args.act.consent),
        _ => None,
    };
    // What nobody can agree to is refused before anything is asked of anybody.
    consent.map_or(Ok(()), super::confirm::Consent::possible)?;
    if let MinerCommand::Create(args) = command {
        let made = create::run(args, home, printer, cx).await?;
        return made.map_or(Ok(()), |made| printer.data(&made));
    }
    let desk = Desk::open(home, printer, cx).await?;
    match command {
        MinerCommand::Create(_) => Ok(()),
        MinerCommand::Info(args) => show::info(&desk, *args).await,
        MinerCommand::Power(args) => show::power(&desk, *args).await,
        MinerCommand::Balance(args) => show::balance(&desk, *args).await,
        MinerCommand::Deadlines(args) => proving::deadlines(&desk, *args).await,
        MinerCommand::Partitions(args) => proving::partitions(&desk, *args).await,
        MinerCommand::Sectors(args) => proving::sectors(&desk, args).await,
        MinerCommand::Faults(args) => proving::faults(&desk, *args).await,
        MinerCommand::Withdraw(args) => money::withdraw(&desk, args).await,
        MinerCommand::RepayDebt(args) => money::repay(&desk, *args).await,
        MinerCommand::Control(command) => keys::control(&desk, command).await,
        MinerCommand::Owner(command) => keys::owner(&desk, command).await,
        MinerCommand::Worker(command) => keys::worker(&desk, command).await,
        MinerCommand::Beneficiary(command) => keys::beneficiary(&desk, command).await,
        MinerCommand::PeerId(args) => peers::peer_id(&desk, args).await,
        MinerCommand::Multiaddrs(args) => peers::multiaddrs(&desk, args).await,
        MinerCommand::Compact(args) => proving::compact(&desk, args).await,
    }
}
