//! What every command does that sends a message: say what it will do, ask, send, wait, and say how it ended.

use super::{
    confirm::Consent,
    desk::{Desk, When},
    look::gas_price,
    outbox::Outbox,
};
use crate::{
    exit::{Exit, Failure},
    output::Render,
};
use anyhow::anyhow;
use damocles_chain::{Estimate, MinerDetail, Simulation};
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, ChainError, MessageId, Receipt, SenderRole},
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
    from: Address,
    #[serde(flatten)]
    when: When,
    exit_code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

impl Render for Done {
    fn text(&self, _: bool) -> String {
        let mut text = format!("done     {}\nmessage  {}\nepoch    {}", self.what, self.message, self.when);
        if let Some(then) = &self.then {
            let _ = write!(text, "\nthen     {then}");
        }
        text
    }
}

/// Who sends, what the node predicts and what it costs.
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
            line("fee", &format_args!("at most {max_fee} ({gas_limit} gas at {price} each)"));
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
    consent.possible()?;
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    if consent.simulate {
        return simulate(desk, &outbox, Some(miner), &act).await;
    }
    let (from, receipt, key) = send(desk, &outbox, Some(miner), &act, consent).await?;
    outbox.told(&key).await?;
    let refused = || refusal(&act.what, &receipt);
    receipt.is_success().then_some(()).ok_or_else(refused)?;
    let done = Done {
        what: act.what.clone(),
        key,
        message: receipt.message.clone(),
        from: desk.spell(&from),
        when: desk.when(receipt.epoch),
        exit_code: receipt.exit_code,
        then: act.then.clone(),
    };
    desk.printer.data(&done)
}

/// What an actor that refused says.
pub(super) fn refusal(what: &str, receipt: &Receipt) -> Failure {
    let said = receipt.error.as_deref().map(|said| format!("; it said: {said}")).unwrap_or_default();
    let error = anyhow!("the actor refused to {what}: {}{said}", receipt.exit());
    Failure::new(Exit::Failed, error).hint(format!("message {} is on chain and cost its fee", receipt.message))
}

/// Shows the plan, asks, sends and waits. Once the operator knows what the chain made of it, [`Outbox::told`] has to be
/// called: until then a repeated command finds the same message.
pub(super) async fn send(
    desk: &Desk<'_>,
    outbox: &Outbox,
    miner: Option<&MinerDetail>,
    act: &Act,
    consent: Consent,
) -> Result<(Address, Receipt, MessageId), Failure> {
    let (plan, estimate) = plan(desk, outbox, miner, act).await?;
    let plan = Plan { estimate: Some(estimate.map_err(|e| refused_there(act, e))?), ..plan };
    consent.agreed.ask(desk.printer, &plan.text(false))?;
    let begun = outbox.begin(&act.stem, &act.call).await?;
    if begun.again {
        desk.printer.note(format_args!("an earlier command had begun this; waiting for its message {}", begun.id));
    } else {
        desk.printer.note(format_args!("waiting for message {}", begun.id));
    }
    let receipt = outbox.landed(&begun.id, &desk.cx).await?;
    Ok((plan.from, receipt, begun.id))
}

/// Shows the plan and what the node predicts. Nothing is sent.
///
/// # Errors
///
/// It cannot be done as things are, or the actor would refuse it. What is shown stands on standard output even then.
pub(super) async fn simulate(
    desk: &Desk<'_>,
    outbox: &Outbox,
    miner: Option<&MinerDetail>,
    act: &Act,
) -> Result<(), Failure> {
    let (plan, estimate) = plan(desk, outbox, miner, act).await?;
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

/// What would be done, without its price, and that as the node says it on top of what waits to be sent already.
async fn plan(
    desk: &Desk<'_>,
    outbox: &Outbox,
    miner: Option<&MinerDetail>,
    act: &Act,
) -> Result<(Plan, Result<Estimate, ChainError>), Failure> {
    let from = outbox.sender(&act.stem, &act.call).await?;
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
