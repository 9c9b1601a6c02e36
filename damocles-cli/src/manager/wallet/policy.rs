//! What a key may sign.

use super::{args::PolicyArgs, command::Desk};
use crate::{
    exit::{Exit, Failure},
    output::Render,
};
use damocles_chain::wallet::{Policy, Wallet};
use damocles_core::{Address, TokenAmount};
use serde::Serialize;
use std::fmt::Display;

/// Shows or sets it.
pub(super) fn run(desk: &Desk<'_>, args: &PolicyArgs) -> Result<(), Failure> {
    let wallet = desk.unlocked()?;
    let changes = args.messages
        || args.anything
        || args.daily.is_some()
        || !(args.methods.is_empty() && args.receivers.is_empty() && args.purposes.is_empty());
    if changes {
        wallet.set_policy(&args.address, asked(args)?)?;
    }
    desk.printer.data(&shown(&wallet, &args.address)?)
}

fn asked(args: &PolicyArgs) -> Result<Option<Policy>, Failure> {
    if args.anything {
        return Ok(None);
    }
    let mut policy = Policy::messages();
    for method in &args.methods {
        policy = policy.with_method(*method);
    }
    for receiver in &args.receivers {
        policy = policy.with_receiver(receiver)?;
    }
    for purpose in &args.purposes {
        policy = policy.with_purpose(purpose.clone());
    }
    match args.daily {
        Some(most) => Ok(Some(policy.with_daily(most)?)),
        None => Ok(Some(policy)),
    }
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
