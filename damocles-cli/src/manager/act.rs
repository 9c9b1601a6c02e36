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
use damocles_chain::{Estimate, MinerDetail};
use damocles_core::{
    Address, TokenAmount,
    chain::{Call, MessageId, Receipt, SenderRole},
};
use serde::Serialize;
use std::fmt::Write as _;

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

/// Who sends, and what it costs.
#[derive(Debug)]
struct Plan {
    from: Address,
    estimate: Estimate,
}

impl Plan {
    fn text(&self, desk: &Desk<'_>, act: &Act, balance: TokenAmount) -> String {
        let Estimate { value, max_fee, gas_limit, fee_cap } = &self.estimate;
        let from = desk.spell(&self.from);
        let to = match (&act.call, act.call.miner()) {
            (_, Some(miner)) => desk.name(miner).to_string(),
            (Call::Send(transfer), _) => desk.spell(&transfer.to).to_string(),
            _ => "the power actor".to_owned(),
        };
        let mut text = format!(
            "This will {}.\n  network  {}\n  from     {from} (has {balance})\n  to       {to}\n  value    {value}\n  \
             fee      at most {max_fee} ({gas_limit} gas at {} each)",
            act.what,
            desk.network,
            gas_price(*fee_cap)
        );
        for remark in &act.remarks {
            let _ = write!(text, "\n  note     {remark}");
        }
        if let Some(then) = &act.then {
            let _ = write!(text, "\n  then     {then}");
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
    let estimate = desk
        .node
        .estimate(&desk.head, &from, value, &act.call)
        .await
        .map_err(|e| Failure::from(e).context(format!("{} (tried out at the node; nothing was sent)", act.what)))?;
    let balance = desk.node.balance(&from).await?;
    let plan = Plan { from, estimate };
    consent.ask(desk.printer, &plan.text(desk, act, balance))?;
    let begun = outbox.begin(&act.stem, &act.call).await?;
    if begun.again {
        desk.printer.note(format_args!("an earlier command had begun this; waiting for its message {}", begun.id));
    } else {
        desk.printer.note(format_args!("waiting for message {}", begun.id));
    }
    let receipt = outbox.landed(&begun.id, &desk.cx).await?;
    Ok((plan.from, receipt, begun.id))
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
