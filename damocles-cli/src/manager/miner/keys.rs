//! Who owns, works for and profits from a miner.

use super::{
    super::{
        act::{self, Act},
        desk::Desk,
    },
    args::{
        ActArgs, BeneficiaryArgs, BeneficiaryCommand, BeneficiaryConfirmArgs, ControlCommand, ControlSetArgs,
        MinerArgs, OwnerCommand, ProposeArgs, WorkerCommand,
    },
    money::plain,
};
use crate::{
    exit::{Exit, Failure},
    output::{Render, table},
};
use anyhow::anyhow;
use damocles_chain::MinerDetail;
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, ChangeBeneficiary, ChangeOwner, ChangeWorker, ConfirmChangeWorker},
};
use serde::Serialize;

fn refused(what: String, hint: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, anyhow!(what)).hint(hint)
}

async fn detail(desk: &Desk<'_>, args: MinerArgs) -> Result<MinerDetail, Failure> {
    Ok(desk.node.miner(&desk.head, desk.miner(args.miner)?).await?)
}

async fn key_of(desk: &Desk<'_>, address: &Address) -> Result<Address, Failure> {
    Ok(desk.node.account_key(&desk.head, address).await?)
}

/// `miner control`.
pub(super) async fn control(desk: &Desk<'_>, command: &ControlCommand) -> Result<(), Failure> {
    match command {
        ControlCommand::List(args) => list(desk, *args).await,
        ControlCommand::Set(args) => set(desk, args).await,
    }
}

#[derive(Debug, Serialize)]
struct Addresses {
    addresses: Vec<RoleOf>,
}

#[derive(Debug, Serialize)]
struct RoleOf {
    role: &'static str,
    id: Address,
    key: Address,
    balance: TokenAmount,
}

impl Render for Addresses {
    fn text(&self, color: bool) -> String {
        let rows = self
            .addresses
            .iter()
            .map(|a| [a.role.to_owned(), a.id.to_string(), a.key.to_string(), a.balance.to_string()]);
        table(&["ROLE", "ID", "KEY", "BALANCE"], rows, color)
    }
}

async fn list(desk: &Desk<'_>, args: MinerArgs) -> Result<(), Failure> {
    let miner = detail(desk, args).await?;
    let mut roles = vec![("owner", &miner.owner), ("worker", &miner.worker)];
    roles.extend(miner.new_worker.as_ref().map(|(new, _)| ("new worker", new)));
    roles.extend(miner.control.iter().map(|address| ("control", address)));
    roles.extend((miner.beneficiary != miner.owner).then_some(("beneficiary", &miner.beneficiary)));
    let mut addresses = Vec::new();
    for (role, id) in roles {
        // An owner may be a multisig, which has no key.
        let key = key_of(desk, id).await.unwrap_or_else(|_| id.clone());
        let balance = desk.node.balance(id).await?;
        addresses.push(RoleOf { role, id: desk.spell(id), key: desk.spell(&key), balance });
    }
    desk.printer.data(&Addresses { addresses })
}

async fn set(desk: &Desk<'_>, args: &ControlSetArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.act.miner).await?;
    let mut ids = Vec::new();
    for address in &args.addresses {
        ids.push(Address::from_actor(desk.id_of(address).await?));
    }
    let name = desk.name(miner.miner);
    let now: Vec<_> = ids.iter().map(|id| desk.spell(id).to_string()).collect();
    let removed = miner.control.iter().filter(|old| !ids.iter().any(|id| id.actor_id() == old.actor_id()));
    let removed: Vec<_> = removed.map(|old| format!("{} is removed", desk.spell(old))).collect();
    let act = Act {
        what: if now.is_empty() {
            format!("remove all control addresses of {name}")
        } else {
            format!("make {} the control addresses of {name}", now.join(", "))
        },
        stem: format!("control/{}/{}", miner.miner, ids.iter().map(plain).collect::<Vec<_>>().join("+")),
        call: Call::ChangeWorker(ChangeWorker {
            miner: miner.miner,
            worker: miner.worker.clone(),
            control: ids,
            from: Some(key_of(desk, &miner.owner).await?),
        }),
        remarks: removed,
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}

/// `miner worker`.
pub(super) async fn worker(desk: &Desk<'_>, command: &WorkerCommand) -> Result<(), Failure> {
    match command {
        WorkerCommand::Propose(args) => propose_worker(desk, args).await,
        WorkerCommand::Confirm(args) => confirm_worker(desk, *args).await,
    }
}

/// Epochs between a proposal of a worker and its confirmation: the finality of the chain.
const WORKER_DELAY: i64 = 900;

async fn propose_worker(desk: &Desk<'_>, args: &ProposeArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.act.miner).await?;
    let name = desk.name(miner.miner);
    if let Some((pending, epoch)) = &miner.new_worker {
        let what = format!("{name} is about to get the worker {} already", desk.spell(pending));
        let hint = format!("`miner worker confirm` ends that from epoch {} on", desk.when(*epoch));
        return Err(refused(what, hint));
    }
    let id = desk.id_of(&args.address).await?;
    if miner.worker.actor_id() == Some(id) {
        return Err(refused(format!("{} is the worker of {name} already", args.address), "name another account"));
    }
    let about = desk.when(desk.head.epoch + WORKER_DELAY);
    let act = Act {
        what: format!("propose {} as the new worker of {name}", desk.spell(&args.address)),
        stem: format!("worker/{}/{id}", miner.miner),
        call: Call::ChangeWorker(ChangeWorker {
            miner: miner.miner,
            worker: Address::from_actor(id),
            control: miner.control.clone(),
            from: Some(key_of(desk, &miner.owner).await?),
        }),
        remarks: vec![format!("{} stays the worker until then", desk.spell(&miner.worker))],
        then: Some(format!(
            "run `miner worker confirm --miner {name}` from about epoch {about} on; nothing changes before"
        )),
    };
    act::run(desk, &miner, act, args.act.consent).await
}

async fn confirm_worker(desk: &Desk<'_>, args: ActArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.miner).await?;
    let name = desk.name(miner.miner);
    let Some((new, epoch)) = &miner.new_worker else {
        return Err(refused(format!("no change of the worker of {name} was proposed"), "`miner worker propose` does"));
    };
    if *epoch > desk.head.epoch {
        let what = format!("the new worker of {name} can be confirmed from epoch {} on", desk.when(*epoch));
        let failure = refused(what, format!("the head is at {}; run this again then", desk.when(desk.head.epoch)));
        return Err(Failure { exit: Exit::Retryable, ..failure });
    }
    let act = Act {
        what: format!("make {} the worker of {name}", desk.spell(new)),
        stem: format!("worker-confirm/{}/{}/{epoch}", miner.miner, plain(new)),
        call: Call::ConfirmChangeWorker(ConfirmChangeWorker {
            miner: miner.miner,
            from: Some(key_of(desk, &miner.owner).await?),
        }),
        remarks: vec![format!("{} is no longer the worker then", desk.spell(&miner.worker))],
        then: Some("name the new worker in [senders] of manager.toml and start the daemon again".to_owned()),
    };
    act::run(desk, &miner, act, args.consent).await
}

/// `miner owner`.
pub(super) async fn owner(desk: &Desk<'_>, command: &OwnerCommand) -> Result<(), Failure> {
    match command {
        OwnerCommand::Propose(args) => propose_owner(desk, args).await,
        OwnerCommand::Confirm(args) => confirm_owner(desk, *args).await,
    }
}

async fn propose_owner(desk: &Desk<'_>, args: &ProposeArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.act.miner).await?;
    let name = desk.name(miner.miner);
    let id = desk.id_of(&args.address).await?;
    let back = miner.owner.actor_id() == Some(id);
    if back && miner.pending_owner.is_none() {
        return Err(refused(format!("{} is the owner of {name} already", args.address), "name another account"));
    }
    let act = Act {
        what: if back {
            format!("take back the proposal of a new owner of {name}")
        } else {
            format!("propose {} as the new owner of {name}", desk.spell(&args.address))
        },
        stem: format!("owner/{}/{id}", miner.miner),
        call: Call::ChangeOwner(ChangeOwner {
            miner: miner.miner,
            owner: Address::from_actor(id),
            from: Some(key_of(desk, &miner.owner).await?),
        }),
        remarks: vec!["whoever owns a miner can take all of its money".to_owned()],
        then: (!back).then(|| {
            format!(
                "run `miner owner confirm --miner {name}` at any time, where the key of {} is; nothing changes before",
                desk.spell(&args.address)
            )
        }),
    };
    act::run(desk, &miner, act, args.act.consent).await
}

async fn confirm_owner(desk: &Desk<'_>, args: ActArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.miner).await?;
    let name = desk.name(miner.miner);
    let Some(new) = &miner.pending_owner else {
        return Err(refused(format!("no new owner of {name} was proposed"), "`miner owner propose` does"));
    };
    let act = Act {
        what: format!("make {} the owner of {name}", desk.spell(new)),
        stem: format!("owner-confirm/{}/{}", miner.miner, plain(new)),
        call: Call::ChangeOwner(ChangeOwner {
            miner: miner.miner,
            owner: new.clone(),
            from: Some(key_of(desk, new).await?),
        }),
        remarks: vec![format!("{} can do nothing with {name} afterwards", desk.spell(&miner.owner))],
        then: None,
    };
    act::run(desk, &miner, act, args.consent).await
}

/// `miner beneficiary`.
pub(super) async fn beneficiary(desk: &Desk<'_>, command: &BeneficiaryCommand) -> Result<(), Failure> {
    match command {
        BeneficiaryCommand::Propose(args) => propose_beneficiary(desk, args).await,
        BeneficiaryCommand::Confirm(args) => confirm_beneficiary(desk, args).await,
    }
}

async fn propose_beneficiary(desk: &Desk<'_>, args: &BeneficiaryArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.act.miner).await?;
    let name = desk.name(miner.miner);
    let id = desk.id_of(&args.address).await?;
    let back = miner.owner.actor_id() == Some(id);
    if !back && (args.quota <= TokenAmount::ZERO || args.expiration <= desk.head.epoch) {
        return Err(Failure::usage("a beneficiary has a quota, and a term that ends later than now")
            .hint("give --quota FIL and --expiration EPOCH"));
    }
    if back && (args.quota != TokenAmount::ZERO || args.expiration.0 != 0) {
        return Err(Failure::usage("the owner has neither quota nor term").hint("leave out --quota and --expiration"));
    }
    let mut who = Vec::new();
    if !back {
        who.push(desk.spell(&args.address).to_string());
    }
    if miner.beneficiary != miner.owner {
        who.push(desk.spell(&miner.beneficiary).to_string());
    }
    let terms = if back { String::new() } else { format!(" for {} until {}", args.quota, desk.when(args.expiration)) };
    let act = Act {
        what: format!("propose {} as the beneficiary of {name}{terms}", desk.spell(&args.address)),
        stem: format!("beneficiary/{}/{id}/{}/{}", miner.miner, args.quota.atto(), args.expiration),
        call: Call::ChangeBeneficiary(ChangeBeneficiary {
            miner: miner.miner,
            beneficiary: Address::from_actor(id),
            quota: args.quota,
            expiration: args.expiration,
            from: Some(key_of(desk, &miner.owner).await?),
        }),
        remarks: vec!["withdrawals go to the beneficiary, whoever asks for them".to_owned()],
        then: (!who.is_empty()).then(|| {
            let who = who.join(" and ");
            format!("run `miner beneficiary confirm --miner {name}` where the key of {who} is, at any time; nothing changes before")
        }),
    };
    act::run(desk, &miner, act, args.act.consent).await
}

async fn confirm_beneficiary(desk: &Desk<'_>, args: &BeneficiaryConfirmArgs) -> Result<(), Failure> {
    let miner = detail(desk, args.act.miner).await?;
    let name = desk.name(miner.miner);
    let Some(pending) = &miner.pending_beneficiary else {
        return Err(refused(format!("no new beneficiary of {name} was proposed"), "`miner beneficiary propose` does"));
    };
    let from = match &args.from {
        Some(from) => from.clone(),
        None if !pending.approved_by_proposed => pending.beneficiary.clone(),
        None => miner.beneficiary.clone(),
    };
    let from = key_of(desk, &from).await?;
    let act = Act {
        what: format!(
            "agree, as {}, to {} as the beneficiary of {name} for {} until {}",
            desk.spell(&from),
            desk.spell(&pending.beneficiary),
            pending.quota,
            desk.when(pending.expiration)
        ),
        stem: format!(
            "beneficiary-confirm/{}/{}/{}/{}/{}",
            miner.miner,
            plain(&pending.beneficiary),
            pending.quota.atto(),
            pending.expiration,
            plain(&from)
        ),
        call: Call::ChangeBeneficiary(ChangeBeneficiary {
            miner: miner.miner,
            beneficiary: pending.beneficiary.clone(),
            quota: pending.quota,
            expiration: pending.expiration,
            from: Some(from),
        }),
        remarks: Vec::new(),
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}
