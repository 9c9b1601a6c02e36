//! What every command does that sends a message: say what it will do, ask, send, wait, and say how it ended.

use super::{
    confirm::Consent,
    desk::{Desk, When},
    look::gas_price,
    outbox::{Asked, Begun, Earlier, Most, Outbox, Shelf, Standing},
};
use crate::{
    exit::{Exit, Failure},
    output::Render,
};
use anyhow::anyhow;
use damocles_chain::{Estimate, MinerDetail, OutboxState, Simulation, decode_return};
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, ChainError, MessageId, Receipt, Returned, SenderRole},
};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// What is to be done.
#[derive(Debug)]
pub(super) struct Act {
    /// In words.
    pub(super) what: String,
    /// The call.
    pub(super) call: Call,
    /// How keys of such calls begin: the same for the same call.
    pub(super) stem: String,
    /// What else an operator should know before it is done.
    pub(super) remarks: Vec<String>,
    /// What has to be done afterwards.
    pub(super) then: Option<String>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    what: String,
    key: MessageId,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Address>,
    #[serde(flatten)]
    when: When,
    exit_code: i64,
    /// What a withdrawal paid out: the actor pays what there is of what it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    paid: Option<TokenAmount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier: Option<Before>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

/// How far an earlier command had got that asked for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Before {
    /// It had begun it, and did not see it land.
    Begun,
    /// Its message was on chain already: this command did nothing.
    Landed,
}

impl Render for Done {
    fn text(&self, _: bool) -> String {
        let word = match self.earlier {
            _ if self.exit_code != 0 => "refused",
            Some(Before::Landed) => "earlier",
            _ => "done",
        };
        let mut text = format!("{word:<9}{}", self.what);
        // Writing to a string cannot fail.
        if let Some(paid) = &self.paid {
            let _ = write!(text, "\npaid     {paid}");
        }
        let _ = write!(text, "\nmessage  {}\nepoch    {}", self.message, self.when);
        match self.earlier {
            Some(Before::Landed) => {
                text.push_str("\nnote     an earlier command did this, and nothing was sent now; the same command does it once more");
            }
            Some(Before::Begun) => {
                text.push_str("\nnote     an earlier command had begun this, and nothing else was sent")
            }
            None => {}
        }
        if let Some(then) = &self.then {
            let _ = write!(text, "\nthen     {then}");
        }
        text
    }
}

/// Who sends, what the node predicts, what it costs, and what it may cost at most.
#[derive(Debug, Serialize)]
struct Plan {
    what: String,
    network: String,
    from: Address,
    balance: TokenAmount,
    to: String,
    value: TokenAmount,
    /// None where the node does not say.
    prediction: Option<Simulation>,
    /// None where it would be refused.
    estimate: Option<Estimate>,
    /// What its fee never exceeds.
    most: Most,
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

impl Render for Plan {
    fn text(&self, _: bool) -> String {
        let mut text = format!(
            "This will {}.\n  network  {}\n  from     {} (has {})\n  to       {}\n  value    {}",
            self.what, self.network, self.from, self.balance, self.to, self.value
        );
        let mut line = |name: &str, value: &dyn fmt::Display| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {name:<9}{value}");
        };
        if let Some(Estimate { max_fee, gas_limit, fee_cap, .. }) = &self.estimate {
            let price = gas_price(*fee_cap);
            line("fee", &format_args!("about {max_fee} ({gas_limit} gas at up to {price} each), {}", self.most));
        }
        match &self.prediction {
            Some(would) if would.exit_code.is_success() => {
                line("predict", &format_args!("{}, {} gas", would.exit_code, would.gas_used));
            }
            Some(would) => {
                let said = would.error.as_deref().map(|said| format!("; it says: {said}")).unwrap_or_default();
                line("predict", &format_args!("refused with {}{said}", would.exit_code));
            }
            None => {}
        }
        for note in &self.notes {
            line("note", note);
        }
        if let Some(then) = &self.then {
            line("then", then);
        }
        text
    }
}

/// Does it.
///
/// # Errors
///
/// It was not agreed to, cannot be done as things are, or the actor refused it.
pub(super) async fn run(desk: &Desk<'_>, miner: &MinerDetail, act: Act, consent: Consent) -> Result<(), Failure> {
    let asked = Asked::new(act.stem.clone(), false, act.what.clone(), act.call.clone())?;
    run_as(desk, miner, act, &asked, consent).await
}

/// As [`run`], for a call that an earlier one may count as in another way.
///
/// # Errors
///
/// As [`run`].
pub(super) async fn run_as(
    desk: &Desk<'_>,
    miner: &MinerDetail,
    act: Act,
    asked: &Asked,
    consent: Consent,
) -> Result<(), Failure> {
    consent.possible()?;
    if consent.simulate {
        return simulate(desk, Some(miner), &act, asked).await;
    }
    let ended = match earlier(desk, asked).await? {
        Some(found) => take_up(desk, asked, found).await?,
        None => send(desk, Some(miner), &act, asked, consent).await?,
    };
    tell(desk, ended, asked.call(), act.then).await
}

/// Prints how a call ended, and notes that it was told.
///
/// # Errors
///
/// The actor refused it.
pub(super) async fn tell(desk: &Desk<'_>, ended: Ended, call: &Call, then: Option<String>) -> Result<(), Failure> {
    let Ended { outbox, from, what, receipt, key, earlier } = ended;
    let outcome = if receipt.is_success() { Ok(()) } else { Err(refusal(&what, &receipt)) };
    let paid = match decode_return(call, &receipt.returned) {
        Ok(Returned::Withdrawn(paid)) if receipt.is_success() => Some(paid),
        _ => None,
    };
    let done = Done {
        what,
        key: key.clone(),
        message: receipt.message.clone(),
        from: from.map(|from| desk.spell(&from)),
        when: desk.when(receipt.epoch),
        exit_code: receipt.exit_code,
        paid,
        earlier,
        then: then.filter(|_| receipt.is_success()),
    };
    let printed = desk.printer.last(&done, outcome);
    // Noted after it was printed: a crash in between tells it once more instead of doing it once more.
    outbox.told(&key).await?;
    printed
}

/// What an actor that refused says.
pub(super) fn refusal(what: &str, receipt: &Receipt) -> Failure {
    let said = receipt.error.as_deref().map(|said| format!("; it said: {said}")).unwrap_or_default();
    let error = anyhow!("the actor refused to {what}: {}{said}", receipt.exit());
    Failure::new(Exit::Failed, error).hint(format!("message {} is on chain and cost its fee", receipt.message))
}

/// How a call ended. Once the operator knows, [`Outbox::told`] has to be called: until then a repeated command finds the
/// same message.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outbox: Outbox,
    pub(super) from: Option<Address>,
    pub(super) what: String,
    pub(super) receipt: Receipt,
    pub(super) key: MessageId,
    pub(super) earlier: Option<Before>,
}

/// The call of an earlier command that asked for the same, if nobody was told how it ended.
///
/// # Errors
///
/// The database cannot be read.
pub(super) async fn earlier(desk: &Desk<'_>, asked: &Asked) -> Result<Option<Earlier>, Failure> {
    Shelf::open(&desk.config, desk.home).await?.earlier(asked).await
}

/// Waits for what an earlier command had begun. Nobody is asked, as nothing else is done.
///
/// # Errors
///
/// It will never land.
pub(super) async fn take_up(desk: &Desk<'_>, asked: &Asked, found: Earlier) -> Result<Ended, Failure> {
    let Earlier { entry, what } = found;
    let key = MessageId::new(entry.message.key.0.clone());
    let over = entry.message.landed.is_some() || entry.message.state == OutboxState::Settled;
    let earlier = if over { Before::Landed } else { Before::Begun };
    let what = what.unwrap_or_else(|| asked.what().to_owned());
    desk.printer.note(format_args!("an earlier command had begun to {what}; waiting for its message {key}"));
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    let receipt = outbox.landed(&key, &desk.cx).await?;
    let from = entry.message.sender.as_deref().and_then(|sender| sender.parse().ok());
    Ok(Ended { outbox, from, what, receipt, key, earlier: Some(earlier) })
}

/// Shows the plan, asks, sends and waits. The outbox is taken only after that: whoever thinks about it keeps no daemon from
/// starting.
///
/// # Errors
///
/// It was not agreed to, cannot be done as things are, or will never land.
pub(super) async fn send(
    desk: &Desk<'_>,
    miner: Option<&MinerDetail>,
    act: &Act,
    asked: &Asked,
    consent: Consent,
) -> Result<Ended, Failure> {
    let (plan, estimate) = Box::pin(plan(desk, miner, act, asked)).await?;
    let plan = Plan { estimate: Some(estimate.map_err(|e| refused_there(act, e))?), ..plan };
    consent.agreed.ask(desk.printer, &plan.text(false), &desk.cx).await?;
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    let Begun { id: key, again } = outbox.begin(asked, &plan.from).await?;
    desk.printer.note(format_args!("waiting for message {key}"));
    let receipt = outbox.landed(&key, &desk.cx).await?;
    let earlier = again.then_some(Before::Begun);
    Ok(Ended { outbox, from: Some(plan.from), what: act.what.clone(), receipt, key, earlier })
}

/// Shows the plan and what the node predicts. Nothing is sent, and the outbox is only looked at.
///
/// # Errors
///
/// It cannot be done as things are, or the actor would refuse it. What is shown stands on standard output even then.
pub(super) async fn simulate(
    desk: &Desk<'_>,
    miner: Option<&MinerDetail>,
    act: &Act,
    asked: &Asked,
) -> Result<(), Failure> {
    let (mut plan, estimate) = Box::pin(plan(desk, miner, act, asked)).await?;
    if let Some(found) = earlier(desk, asked).await? {
        let key = &found.entry.message.key;
        plan.notes.push(format!("an earlier command had begun this: the same one waits for its message {key}"));
    }
    let (estimate, refused) = match estimate {
        Ok(estimate) => (Some(estimate), None),
        Err(e) => (None, Some(refused_there(act, e))),
    };
    let plan = Plan { estimate, ..plan };
    desk.printer.data(&plan)?;
    match (&plan.prediction, refused) {
        (Some(would), _) if !would.exit_code.is_success() => {
            let error = anyhow!("the actor would refuse to {}: {}", act.what, would.exit_code);
            Err(Failure::new(Exit::Failed, error).hint("nothing was sent"))
        }
        (_, Some(refused)) => Err(refused),
        _ => Ok(()),
    }
}

fn refused_there(act: &Act, error: ChainError) -> Failure {
    Failure::from(error).context(format!("{} (tried out at the node; nothing was sent)", act.what))
}

/// What would be done, without its price, and that as the node says it on top of what waits to be sent already. Its future
/// is boxed by whoever waits for it: as a part of theirs it nests too deep for the compiler.
async fn plan(
    desk: &Desk<'_>,
    miner: Option<&MinerDetail>,
    act: &Act,
    asked: &Asked,
) -> Result<(Plan, Result<Estimate, ChainError>), Failure> {
    let standing = Standing::of(desk).await?;
    let from = standing.sender(desk, asked).await?;
    if let Some(miner) = miner {
        may_send(desk, miner, &act.call, &from).await?;
    }
    let value = match &act.call {
        Call::RepayDebt(call) => call.amount,
        Call::Send(call) => call.amount,
        Call::CreateMiner(_) => desk.node.creation_deposit(&desk.head).await?,
        _ => TokenAmount::ZERO,
    };
    let to = match (&act.call, act.call.miner()) {
        (_, Some(miner)) => desk.name(miner).to_string(),
        (Call::Send(transfer), _) => desk.spell(&transfer.to).to_string(),
        _ => "the power actor".to_owned(),
    };
    let estimate = desk.node.estimate(&desk.head, &from, value, &act.call).await;
    // A prediction is a help, and no condition.
    let prediction = desk.node.simulate(&desk.head, &from, value, &act.call).await.unwrap_or_default();
    let plan = Plan {
        what: act.what.clone(),
        network: desk.network.to_string(),
        balance: desk.node.balance(&from).await?,
        most: standing.most(desk, &act.call, &from).await?,
        from: desk.spell(&from),
        to,
        value,
        prediction,
        estimate: None,
        notes: act.remarks.clone(),
        then: act.then.clone(),
    };
    Ok((plan, estimate))
}

/// Refuses what the actor would refuse because of who sends it, in words that say who may.
async fn may_send(desk: &Desk<'_>, miner: &MinerDetail, call: &Call, from: &Address) -> Result<(), Failure> {
    let id = Address::from_actor(desk.id_of(from).await?);
    let proposed = miner.pending_beneficiary.as_ref().map(|p| &p.beneficiary);
    let role = call.sender_role();
    let mut allowed = vec![&miner.owner];
    match role {
        SenderRole::Control => {
            allowed.push(&miner.worker);
            allowed.extend(&miner.control);
        }
        SenderRole::OwnerOrBeneficiary => allowed.push(&miner.beneficiary),
        SenderRole::OwnerOrNominee => allowed.extend(&miner.pending_owner),
        SenderRole::OwnerOrParty => {
            allowed.push(&miner.beneficiary);
            allowed.extend(proposed);
        }
        SenderRole::Owner => {}
        _ => return Ok(()),
    }
    if allowed.iter().any(|address| address.actor_id() == id.actor_id()) {
        return Ok(());
    }
    let error = anyhow!("{} ({}) may not do this for {}", desk.spell(from), desk.spell(&id), desk.name(miner.miner));
    let names: Vec<_> = allowed.iter().map(|address| desk.spell(address).to_string()).collect();
    Err(Failure::new(Exit::Usage, error).hint(format!("only {role} may: {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::Epoch;

    #[test]
    fn the_first_word_says_whose_work_it_was_and_how_it_went() {
        let done = Done {
            what: "withdraw 5 FIL".to_owned(),
            key: MessageId::new("withdraw/1000/5/1"),
            message: "bafy".to_owned(),
            from: None,
            when: When { epoch: Epoch(7), time: "then".to_owned() },
            exit_code: 0,
            paid: Some(TokenAmount::from_fil(3)),
            earlier: None,
            then: None,
        };
        assert_eq!(done.text(false), "done     withdraw 5 FIL\npaid     3 FIL\nmessage  bafy\nepoch    7 (then)");
        let landed = Done { earlier: Some(Before::Landed), ..done.clone() };
        let text = landed.text(false);
        assert!(text.starts_with("earlier  ") && text.contains("nothing was sent now"), "{text}");
        assert_eq!(serde_json::to_value(&landed).unwrap().get("earlier").unwrap(), "landed");
        let refused = Done { exit_code: 16, earlier: Some(Before::Begun), ..done };
        let text = refused.text(false);
        assert!(text.starts_with("refused  ") && text.contains("an earlier command had begun"), "{text}");
    }
}
