//! Money in and out.

use super::{
    super::{
        act::{self, Act},
        desk::Desk,
        outbox::Asked,
    },
    args::{RepayArgs, WithdrawArgs},
};
use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use damocles_chain::MinerDetail;
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, RepayDebt, WithdrawBalance},
};

/// Takes money out.
pub(super) async fn withdraw(desk: &Desk<'_>, args: &WithdrawArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let (name, miner) = (desk.name(id), desk.node.miner(&desk.head, id).await?);
    let from = match &args.from {
        Some(from) => from.clone(),
        None => desk.node.account_key(&desk.head, &miner.owner).await?,
    };
    let to = desk.spell(&miner.beneficiary);
    let stem = format!("withdraw/{id}/{}/{}", named(args.amount), plain(&from));
    let act_of = |amount: TokenAmount, remarks| Act {
        what: format!("withdraw {amount} from {name} to its beneficiary {to}"),
        stem: stem.clone(),
        call: Call::WithdrawBalance(WithdrawBalance { miner: id, amount, from: Some(from.clone()) }),
        remarks,
        then: None,
    };
    if !args.act.consent.simulate
        && let Some(ended) = unfinished(desk, args.amount, act_of).await?
    {
        return Ok(ended);
    }
    let funds = desk.node.funds(&desk.head, id).await?;
    let left = quota_left(desk, &miner)?;
    let amount = args.amount.unwrap_or_else(|| left.map_or(funds.available, |left| left.min(funds.available)));
    let refused =
        |what: String| Err(Failure::new(Exit::Failed, anyhow!(what)).hint("`miner balance` shows where its money is"));
    if funds.available <= TokenAmount::ZERO || amount <= TokenAmount::ZERO {
        return refused(format!("{name} has nothing that can be withdrawn"));
    }
    if amount > funds.available {
        return refused(format!("{name} can pay out {} at most, not {amount}", funds.available));
    }
    let mut remarks = vec![format!("{} will be left of what is available", funds.available - amount)];
    if let Some(left) = left.filter(|left| *left < amount) {
        remarks.push(format!("the beneficiary may receive {left} more: that is paid, and not the rest"));
    }
    if funds.fee_debt > TokenAmount::ZERO {
        remarks.push(format!("the debt of {} is burnt too; what is available is without it", funds.fee_debt));
    }
    let act = act_of(amount, remarks);
    let asked = Asked::new(act.stem.clone(), args.amount.is_none(), act.what.clone(), act.call.clone())?;
    act::run_as(desk, &miner, act, &asked, args.act.consent).await
}

/// What a beneficiary that is not the owner may still receive.
fn quota_left(desk: &Desk<'_>, miner: &MinerDetail) -> Result<Option<TokenAmount>, Failure> {
    let Some(term) = &miner.term else { return Ok(None) };
    let left = term.quota - term.used;
    if left > TokenAmount::ZERO && term.expiration > desk.head.epoch {
        return Ok(Some(left));
    }
    let error = anyhow!(
        "the term of the beneficiary {} is over: {} of {} were paid, and it ends at epoch {}",
        desk.spell(&miner.beneficiary),
        term.used,
        term.quota,
        desk.when(term.expiration)
    );
    Err(Failure::new(Exit::Failed, error).hint("`miner beneficiary propose` names another one, or ends the term"))
}

/// The amount as keys have it.
fn named(amount: Option<TokenAmount>) -> String {
    amount.map_or_else(|| "all".to_owned(), |amount| amount.atto().to_string())
}

/// Tells how an earlier command that asked for the same ended, before anything is refused that it changed.
async fn unfinished(
    desk: &Desk<'_>,
    amount: Option<TokenAmount>,
    act_of: impl Fn(TokenAmount, Vec<String>) -> Act,
) -> Result<Option<()>, Failure> {
    let Act { stem, call, what, then, .. } = act_of(amount.unwrap_or_default(), Vec::new());
    let asked = Asked::new(stem, amount.is_none(), what, call)?;
    let Some(found) = act::earlier(desk, &asked).await? else { return Ok(None) };
    let ended = act::take_up(desk, &asked, found).await?;
    act::tell(desk, ended, asked.call(), then).await.map(Some)
}

/// Pays the debt.
pub(super) async fn repay(desk: &Desk<'_>, args: RepayArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let (name, miner) = (desk.name(id), desk.node.miner(&desk.head, id).await?);
    if args.amount.is_some_and(|amount| amount <= TokenAmount::ZERO) {
        return Err(
            Failure::usage("nothing would be sent along").hint("give an amount above zero, or none for the debt")
        );
    }
    let stem = format!("repaydebt/{id}/{}", named(args.amount));
    let act_of = |amount: TokenAmount, remarks| Act {
        what: format!(
            "send {amount} along to {name} and repay what it owes from its vesting funds, its balance and {amount}"
        ),
        stem: stem.clone(),
        call: Call::RepayDebt(RepayDebt { miner: id, amount }),
        remarks,
        then: None,
    };
    if !args.act.consent.simulate
        && let Some(ended) = unfinished(desk, args.amount, act_of).await?
    {
        return Ok(ended);
    }
    let debt = desk.node.funds(&desk.head, id).await?.fee_debt;
    if debt <= TokenAmount::ZERO {
        return Err(Failure::new(Exit::Failed, anyhow!("{name} owes nothing")));
    }
    let amount = args.amount.unwrap_or(debt);
    let mut remarks = vec![
        format!("it owes {debt}"),
        "vesting funds pay first; what the debt does not take stays with the miner".to_owned(),
    ];
    if amount > debt {
        remarks.push(format!("{} more than it owes are sent along", amount - debt));
    }
    let act = act_of(amount, remarks);
    let asked = Asked::new(act.stem.clone(), args.amount.is_none(), act.what.clone(), act.call.clone())?;
    act::run_as(desk, &miner, act, &asked, args.act.consent).await
}

/// An address without its network, so that both spellings make one key.
pub(super) fn plain(address: &Address) -> &str {
    address.as_str().get(1..).unwrap_or_default()
}
