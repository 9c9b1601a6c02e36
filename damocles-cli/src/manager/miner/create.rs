//! `miner create`.

use super::{
    super::{
        act::{self, Act, Before, Ended},
        desk::Desk,
        init::write_text,
        outbox::{Asked, Standing},
        signer,
    },
    args::CreateMinerArgs,
    money::plain,
};
use crate::{
    config::{
        ManagerConfig, Source,
        manager::{Home, MinerSection},
    },
    exit::{Exit, Failure},
    output::{Printer, Render},
};
use anyhow::anyhow;
use damocles_chain::{decode_return, signer::KeyKind};
use damocles_core::{
    ActorId, Address, Context,
    chain::{Call, CreateMiner, Returned},
};
use serde::{Deserialize, Serialize};

/// A miner that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The miner.
    pub miner: ActorId,
    /// The message that made it.
    pub message: String,
    /// Whether an earlier command had sent that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier: bool,
}

impl Render for Created {
    fn text(&self, _: bool) -> String {
        format!("miner   t0{}\nmessage {}", self.miner, self.message)
    }
}

/// Makes a miner that was agreed to and writes it into the configuration.
///
/// # Errors
///
/// The message cannot be sent, the actor refuses it, or it was only to be tried out.
pub async fn create(args: &CreateMinerArgs, home: &Home, cx: &Context) -> Result<Created, Failure> {
    let made = run(args, home, Printer::new(false, true), cx).await?;
    made.ok_or_else(|| Failure::usage("the miner was only to be tried out"))
}

/// Makes a miner and writes it into the configuration. Repeated after a crash, it finds the first one by its key. None
/// if it was only tried out.
///
/// # Errors
///
/// It was not agreed to, the message cannot be sent, or the actor refuses it.
pub(in crate::manager) async fn run(
    args: &CreateMinerArgs,
    home: &Home,
    printer: Printer,
    cx: &Context,
) -> Result<Option<Created>, Failure> {
    args.consent.possible()?;
    let made = make(args, home, printer, cx, None).await?;
    Ok(made.map(|made| Created { miner: made.miner, message: made.message, earlier: made.earlier }))
}

/// A miner that was made, with the address that a reorg does not change.
#[derive(Debug)]
pub(in crate::manager) struct Made {
    pub(in crate::manager) miner: ActorId,
    pub(in crate::manager) robust: Option<Address>,
    pub(in crate::manager) message: String,
    earlier: bool,
}

/// As [`run`]; `exid` makes calls that are otherwise the same different ones.
pub(in crate::manager) async fn make(
    args: &CreateMinerArgs,
    home: &Home,
    printer: Printer,
    cx: &Context,
    exid: Option<&str>,
) -> Result<Option<Made>, Failure> {
    let mut config = ManagerConfig::load(home.config())?;
    if let Some(from) = &args.from {
        config.senders.create_miner = Some(from.clone().into());
    }
    let desk = Desk::with(config, home, printer, cx).await?;
    let standing = Standing::of(&desk).await?;
    if let Some(from) = &args.from {
        only_by(&standing, from)?;
    }
    let (owner, worker) = parties(args, &desk, standing.network.is_some()).await?;
    let mut call = CreateMiner::new(owner.clone(), worker.clone(), args.sector_size);
    call.peer_id.clone_from(&args.peer);
    call.multiaddrs.clone_from(&args.multiaddrs);
    let act = Act {
        what: format!(
            "make a miner with sectors of {}, owned by {} and worked for by {}",
            args.sector_size,
            desk.spell(&owner),
            desk.spell(&worker)
        ),
        stem: match exid {
            Some(exid) => format!("createminer/{}/{exid}", plain(&owner)),
            None => format!("createminer/{}", plain(&owner)),
        },
        call: Call::CreateMiner(call),
        remarks: vec!["the value is a deposit (FIP-0077), which is released to the miner over time".to_owned()],
        then: None,
    };
    let asked = Asked::new(act.stem.clone(), false, act.what.clone(), act.call.clone())?;
    if args.consent.simulate {
        act::simulate(&desk, None, &act, &asked).await?;
        return Ok(None);
    }
    let ended = match act::earlier(&desk, &asked).await? {
        Some(found) => act::take_up(&desk, &asked, found).await?,
        None => act::send(&desk, None, &act, &asked, args.consent).await?,
    };
    let Some(miner) = ended.receipt.created.filter(|_| ended.receipt.is_success()) else {
        let failure = act::refusal(&act.what, &ended.receipt);
        act::tell(&desk, ended, &act.call, None).await?;
        return Err(failure);
    };
    let Ended { outbox, receipt, key, earlier, .. } = ended;
    if earlier == Some(Before::Landed) {
        printer.note("an earlier command made this miner, and nothing was sent now; the same command makes one more");
    }
    // Only what stands in the file is known: a crash before that must find this miner again.
    write_down(&desk.config, home, miner, args.max_sectors)?;
    outbox.told(&key).await?;
    let robust = match decode_return(&act.call, &receipt.returned) {
        Ok(Returned::Miner { robust, .. }) => Some(robust),
        _ => None,
    };
    Ok(Some(Made { miner, robust, message: receipt.message, earlier: earlier.is_some() }))
}

/// A daemon sends with its own senders, whatever this command would like.
fn only_by(standing: &Standing, from: &Address) -> Result<(), Failure> {
    let named = standing.senders.create_miner.as_ref();
    if named.is_some_and(|named| named.all().iter().all(|address| plain(address) == plain(from))) {
        return Ok(());
    }
    let error = anyhow!("the daemon that runs on this home does not send this as {from}");
    Err(Failure::new(Exit::Usage, error)
        .hint("write `senders.create_miner` into manager.toml and start it again, or stop it first"))
}

async fn parties(args: &CreateMinerArgs, desk: &Desk<'_>, has_daemon: bool) -> Result<(Address, Address), Failure> {
    if let (Some(owner), Some(worker)) = (&args.owner, &args.worker) {
        return Ok((owner.clone(), worker.clone()));
    }
    if has_daemon && desk.config.wallet.kind == crate::config::manager::WalletKind::File {
        return Err(Failure::usage("whose the miner is to be is not said, and the daemon has the wallet")
            .hint("name --owner and --worker"));
    }
    if desk.config.venus.is_some() {
        return Err(Failure::usage("whose the miner is to be is not said, and the messager has the keys")
            .hint("name --owner and --worker"));
    }
    let signer = signer::open(&desk.config, desk.home)?;
    let owner = match &args.owner {
        Some(owner) => owner.clone(),
        None => signer::only_key(signer.as_ref(), KeyKind::Secp256k1, "--owner").await?,
    };
    let worker = match &args.worker {
        Some(worker) => worker.clone(),
        None => signer::only_key(signer.as_ref(), KeyKind::Bls, "--worker").await?,
    };
    Ok((owner, worker))
}

fn write_down(config: &ManagerConfig, home: &Home, miner: ActorId, max_sectors: Option<u64>) -> Result<(), Failure> {
    let mut section = MinerSection::new(miner);
    section.max_sectors = max_sectors;
    section.lifetime_days = config.miners.first().map_or(section.lifetime_days, |first| first.lifetime_days);
    // The file as it is now: whatever an operator wrote there stays.
    let source = Source::read(home.config())?;
    if ManagerConfig::parse(&source)?.miners.iter().any(|known| known.actor == miner) {
        return Ok(());
    }
    let by_hand = |error| {
        let hint = format!("the miner is made; add it to the file by hand: {}", section.to_toml().replace('\n', " "));
        Failure::from(error).hint(hint)
    };
    let text = ManagerConfig::with_miner(&source, &section).map_err(by_hand)?;
    write_text(home, &text).map_err(|e| e.context(format_args!("write miner t0{miner} into manager.toml")))
}
