//! What a key may sign.

use super::{args::PolicyArgs, command::Desk};
use crate::{
    exit::{Exit, Failure},
    frame,
    output::Render,
};
use damocles_chain::wallet::{Policy, Wallet};
use damocles_core::{Address, Context, TokenAmount};
use serde::Serialize;
use std::{collections::BTreeSet, fmt::Display};

/// Shows or sets it.
pub(super) fn run(desk: &Desk<'_>, args: &PolicyArgs) -> Result<(), Failure> {
    let wallet = desk.unlocked()?;
    let present = shown(&wallet, &args.address)?.policy;
    let cleared = args.any_method || args.any_receiver || args.no_daily || args.no_purposes;
    let changes = args.messages
        || args.anything
        || cleared
        || args.daily.is_some()
        || !(args.methods.is_empty() && args.receivers.is_empty() && args.purposes.is_empty());
    if changes {
        let new = asked(args, present.as_ref())?;
        if is_wider(present.as_ref(), new.as_ref()) {
            let (now, then) = (text_of(present.as_ref()), text_of(new.as_ref()));
            let plan = format!("This will let {} sign {then}.\n  now      {now}", args.address);
            frame::runtime()?.block_on(args.consent.ask(desk.printer, &plan, &Context::detached()))?;
        }
        wallet.set_policy(&args.address, new)?;
    }
    desk.printer.data(&shown(&wallet, &args.address)?)
}

/// The present policy with what the arguments name in the place of what it says of that.
fn asked(args: &PolicyArgs, present: Option<&Policy>) -> Result<Option<Policy>, Failure> {
    if args.anything {
        return Ok(None);
    }
    let mut policy = Policy::messages();
    let kept = |is_cleared: bool| present.filter(|_| !is_cleared && !args.messages);
    let methods = kept(args.any_method).and_then(Policy::methods).filter(|_| args.methods.is_empty());
    for method in methods.into_iter().flatten().chain(&args.methods) {
        policy = policy.with_method(*method);
    }
    let receivers = kept(args.any_receiver).and_then(Policy::receivers).filter(|_| args.receivers.is_empty());
    for receiver in receivers.into_iter().flatten().chain(&args.receivers) {
        policy = policy.with_receiver(receiver)?;
    }
    let purposes = kept(args.no_purposes).map(Policy::purposes).filter(|_| args.purposes.is_empty());
    for purpose in purposes.into_iter().flatten().chain(&args.purposes) {
        policy = policy.with_purpose(purpose.clone());
    }
    match args.daily.or_else(|| present.and_then(Policy::daily).filter(|_| !args.no_daily)) {
        Some(most) => Ok(Some(policy.with_daily(most)?)),
        None => Ok(Some(policy)),
    }
}

/// Whether a key may sign something by the new policy that it may not by the present one.
fn is_wider(present: Option<&Policy>, new: Option<&Policy>) -> bool {
    fn beyond<T: Ord>(present: Option<&BTreeSet<T>>, new: Option<&BTreeSet<T>>) -> bool {
        present.is_some_and(|present| new.is_none_or(|new| !new.is_subset(present)))
    }
    let Some(present) = present else { return false };
    let Some(new) = new else { return true };
    beyond(present.methods(), new.methods())
        || beyond(present.receivers(), new.receivers())
        || !new.purposes().is_subset(present.purposes())
        || present.daily().is_some_and(|most| new.daily().is_none_or(|new| new > most))
}

#[derive(Debug, Serialize)]
struct Shown {
    address: Address,
    policy: Option<Policy>,
    spent_today: TokenAmount,
}

fn shown(wallet: &Wallet, address: &Address) -> Result<Shown, Failure> {
    let spent_today = wallet.spent_today(address)?;
    let same = |key: &Address| key.as_str().get(1..) == address.as_str().get(1..);
    let key = wallet.keys()?.into_iter().find(|key| same(&key.address));
    let key = key.ok_or_else(|| Failure::new(Exit::Failed, anyhow::anyhow!("the key of {address} is gone")))?;
    Ok(Shown { address: key.address, policy: key.policy, spent_today })
}

impl Render for Shown {
    fn text(&self, _: bool) -> String {
        let limited = self.policy.as_ref().is_some_and(|p| p.daily().is_some());
        let spent = if limited { format!("\nsigned away today: {}", self.spent_today) } else { String::new() };
        format!("{} may sign {}{spent}", self.address, text_of(self.policy.as_ref()))
    }
}

/// A policy in one line.
pub(super) fn text_of(policy: Option<&Policy>) -> String {
    let Some(policy) = policy else { return "anything".to_owned() };
    let mut text = match policy.methods() {
        Some(methods) => joined(methods),
        None => "any message".to_owned(),
    };
    if let Some(receivers) = policy.receivers() {
        text = format!("{text} to {}", joined(receivers));
    }
    if let Some(most) = policy.daily() {
        text = format!("{text}, {most} a day");
    }
    if !policy.purposes().is_empty() {
        text = format!("{text}; and {}", joined(policy.purposes()));
    }
    text
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_chain::signer::Purpose;

    #[test]
    fn policies_in_words() {
        assert_eq!(text_of(None), "anything");
        assert_eq!(text_of(Some(&Policy::messages())), "any message");
        let policy = Policy::messages()
            .with_method("SubmitWindowedPoSt".parse().unwrap())
            .with_method("DeclareFaultsRecovered".parse().unwrap())
            .with_receiver(&"f01000".parse().unwrap())
            .unwrap()
            .with_daily(TokenAmount::from_fil(5))
            .unwrap()
            .with_purpose(Purpose::BLOCK);
        let text = "SubmitWindowedPoSt, DeclareFaultsRecovered to t01000, 5 FIL a day; and block";
        assert_eq!(text_of(Some(&policy)), text);
    }
}
