//! Money in and out.

use super::{
    super::{
        act::{self, Act},
        desk::Desk,
    },
    args::{RepayArgs, WithdrawArgs},
};
use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, RepayDebt, WithdrawBalance},
};

/// Takes money out.
pub(super) async fn withdraw(desk: &Desk<'_>, args: &WithdrawArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let miner = desk.node.miner(&desk.head, id).await?;
    let funds = desk.node.funds(&desk.head, id).await?;
    let amount = args.amount.unwrap_or(funds.available);
    let refused = |what: String| Failure::new(Exit::Failed, anyhow!(what));
    if amount <= TokenAmount::ZERO {
        return Err(refused(format!("{} has nothing that can be withdrawn", desk.name(id)))
            .hint("`miner balance` shows where its money is"));
    }
    if amount > funds.available {
        return Err(refused(format!("{} can pay out {} at most, not {amount}", desk.name(id), funds.available))
            .hint("`miner balance` shows where its money is"));
    }
    if funds.fee_debt > TokenAmount::ZERO {
        return Err(refused(format!("{} owes {}", desk.name(id), funds.fee_debt))
            .hint("`miner repay-debt` pays that; until then nothing can be withdrawn"));
    }
    let from = match &args.from {
        Some(from) => from.clone(),
        None => desk.node.account_key(&desk.head, &miner.owner).await?,
    };
    let to = desk.spell(&miner.beneficiary);
    let act = Act {
        what: format!("withdraw {amount} from {} to its beneficiary {to}", desk.name(id)),
        stem: format!("withdraw/{id}/{}/{}", amount.atto(), plain(&from)),
        call: Call::WithdrawBalance(WithdrawBalance { miner: id, amount, from: Some(from) }),
        remarks: vec![format!("{} will be left of what is available", funds.available - amount)],
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}

/// Pays the debt.
pub(super) async fn repay(desk: &Desk<'_>, args: RepayArgs) -> Result<(), Failure> {
    let id = desk.miner(args.act.miner.miner)?;
    let miner = desk.node.miner(&desk.head, id).await?;
    let debt = desk.node.funds(&desk.head, id).await?.fee_debt;
    if debt == TokenAmount::ZERO {
        return Err(Failure::new(Exit::Failed, anyhow!("{} owes nothing", desk.name(id))));
    }
    let amount = args.amount.unwrap_or(debt);
    let act = Act {
        what: format!("pay {amount} of the {debt} that {} owes", desk.name(id)),
        stem: format!("repaydebt/{id}/{}", amount.atto()),
        call: Call::RepayDebt(RepayDebt { miner: id, amount }),
        remarks: vec!["what the debt does not take stays with the miner".to_owned()],
        then: None,
    };
    act::run(desk, &miner, act, args.act.consent).await
}

/// An address without its network, so that both spellings make one key.
pub(super) fn plain(address: &Address) -> &str {
    address.as_str().get(1..).unwrap_or_default()
}
