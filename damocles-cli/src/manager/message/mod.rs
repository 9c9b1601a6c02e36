//! `message`: what this manager has sent.

pub mod args;
mod recover;

use super::{
    act,
    desk::{Desk, When},
    look::gas_price,
    outbox::{Entry, Outbox},
};
use crate::{
    config::manager::Home,
    exit::{Exit, Failure},
    output::{Printer, Render, table},
};
use anyhow::anyhow;
use args::{CancelArgs, ListArgs, MessageArgs, MessageCommand, ReplaceArgs};
use damocles_chain::{OutboxState, Replacement, VersionPurpose, venus::VenusState};
use damocles_core::{
    Context,
    chain::{ExitCode, MessageId},
};
use serde::Serialize;
use std::fmt::Write as _;

/// Does what the arguments say.
///
/// # Errors
///
/// What the command could not do.
pub(super) async fn run(command: &MessageCommand, home: &Home, printer: Printer, cx: &Context) -> Result<(), Failure> {
    match command {
        MessageCommand::Replace(args) => args.consent.possible()?,
        MessageCommand::Cancel(args) => args.consent.possible()?,
        MessageCommand::Recover(args) => args.consent.possible()?,
        _ => {}
    }
    let desk = Desk::open(home, printer, cx).await?;
    if let MessageCommand::Recover(args) = command {
        return recover::run(&desk, args).await;
    }
    let outbox = match command {
        MessageCommand::List(_) | MessageCommand::Show(_) => Outbox::look(&desk.config, home).await?,
        _ => Outbox::open(&desk.config, home).await?,
    };
    match command {
        MessageCommand::List(args) => list(&desk, &outbox, *args).await,
        MessageCommand::Show(args) => show(&desk, &outbox, args).await,
        MessageCommand::Wait(args) => wait(&desk, &outbox, args).await,
        MessageCommand::Replace(args) => replace(&desk, &outbox, args).await,
        MessageCommand::Cancel(args) => cancel(&desk, &outbox, args).await,
        MessageCommand::Recover(_) => Ok(()),
    }
}

/// The entry that a key or the CID of one of its messages names.
async fn find(outbox: &Outbox, args: &MessageArgs) -> Result<Entry, Failure> {
    let all = outbox.entries().await?;
    let is_meant = |Entry { message: entry, messager }: &Entry| {
        entry.key.0 == args.id
            || messager.as_ref().is_some_and(|at| at.uid == args.id)
            || entry.cid.as_deref() == Some(&args.id)
            || entry.versions.iter().any(|version| version.cid == args.id)
    };
    let found = all.into_iter().find(is_meant).ok_or_else(|| {
        Failure::new(Exit::Failed, anyhow!("no message of this manager has the key or CID `{}`", args.id))
            .hint("`message list --all` shows them")
    })?;
    outbox.entry(&id_of(&found)).await
}

fn id_of(entry: &Entry) -> MessageId {
    MessageId::new(entry.message.key.0.clone())
}

#[derive(Debug, Serialize)]
struct Listed {
    messages: Vec<Entry>,
}

impl Render for Listed {
    fn text(&self, color: bool) -> String {
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rows = self.messages.iter().map(|entry| {
            let m = &entry.message;
            [
                m.key.to_string(),
                m.kind.to_string(),
                state(entry).to_owned(),
                dash(m.sender.as_ref().map(|s| shortened(s))),
                dash(m.nonce.map(|n| n.to_string())),
                m.versions.len().to_string(),
                dash(m.landed.map(|e| e.to_string())),
                dash(m.error.clone()),
            ]
        });
        table(&["KEY", "CLASS", "STATE", "SENDER", "NONCE", "SENT", "LANDED", "TROUBLE"], rows, color)
    }
}

/// How far a message is, in one word.
fn state(Entry { message: entry, messager }: &Entry) -> &'static str {
    match entry.state {
        OutboxState::Recorded => "recorded",
        OutboxState::Signed if entry.landed.is_some() => "landed",
        OutboxState::Signed if entry.cancelled => "cancelling",
        OutboxState::Signed if messager.as_ref().is_some_and(|at| at.state == VenusState::Taken) => "at the messager",
        OutboxState::Signed => "sent",
        OutboxState::Settled => "final",
        OutboxState::Dropped => "dropped",
        _ => "unknown",
    }
}

/// A key's address is long; its beginning and end tell it from others.
pub(super) fn shortened(address: &str) -> String {
    match (address.get(..8), address.get(address.len().saturating_sub(6)..)) {
        (Some(first), Some(last)) if address.len() > 20 => format!("{first}...{last}"),
        _ => address.to_owned(),
    }
}

async fn list(desk: &Desk<'_>, outbox: &Outbox, args: ListArgs) -> Result<(), Failure> {
    let over = |m: &Entry| matches!(m.message.state, OutboxState::Settled | OutboxState::Dropped);
    let mut messages = outbox.entries().await?;
    messages.retain(|message| args.all || !over(message));
    desk.printer.data(&Listed { messages })
}

#[derive(Debug, Serialize)]
struct Shown {
    standing: &'static str,
    landed_at: Option<When>,
    #[serde(flatten)]
    entry: Entry,
}

impl Render for Shown {
    fn text(&self, color: bool) -> String {
        let m = &self.entry.message;
        let mut text = format!("key      {}\nclass    {}\nstate    {}", m.key, m.kind, self.standing);
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n{name:<9}{value}");
            }
        };
        line("name", self.entry.messager.as_ref().map(|at| at.uid.clone()));
        line("sender", m.sender.clone());
        line("nonce", m.nonce.map(|nonce| nonce.to_string()));
        line("landed", self.landed_at.as_ref().map(ToString::to_string));
        line("exit", m.exit_code.map(|code| ExitCode(code).to_string()));
        line("returned", m.returned.as_ref().and_then(|returned| serde_json::to_string(returned).ok()));
        line("trouble", m.error.clone());
        if !m.versions.is_empty() {
            let rows = m.versions.iter().map(|v| {
                let what = if v.purpose == VersionPurpose::Cancel { "cancels" } else { "does it" };
                [
                    what.to_owned(),
                    v.epoch.map_or_else(|| "-".to_owned(), |e| e.to_string()),
                    gas_price(v.fee_cap),
                    gas_price(v.premium),
                    v.gas_limit.to_string(),
                    v.cid.clone(),
                ]
            });
            text.push_str("\n\n");
            text.push_str(&table(&["SIGNED", "EPOCH", "FEE CAP", "PREMIUM", "GAS LIMIT", "CID"], rows, color));
        }
        text
    }
}

fn shown(desk: &Desk<'_>, entry: Entry) -> Shown {
    Shown { standing: state(&entry), landed_at: entry.message.landed.map(|epoch| desk.when(epoch)), entry }
}

async fn show(desk: &Desk<'_>, outbox: &Outbox, args: &MessageArgs) -> Result<(), Failure> {
    let message = find(outbox, args).await?;
    desk.printer.data(&shown(desk, message))
}

async fn wait(desk: &Desk<'_>, outbox: &Outbox, args: &MessageArgs) -> Result<(), Failure> {
    let id = id_of(&find(outbox, args).await?);
    let receipt = outbox.landed(&id, &desk.cx).await?;
    let message = outbox.entry(&id).await?;
    desk.printer.data(&shown(desk, message))?;
    if receipt.is_success() { Ok(()) } else { Err(act::refusal(&format!("do `{id}`"), &receipt)) }
}

async fn replace(desk: &Desk<'_>, outbox: &Outbox, args: &ReplaceArgs) -> Result<(), Failure> {
    let before = find(outbox, &args.message).await?;
    let id = id_of(&before);
    let said = |amount: Option<_>| amount.map_or_else(|| "by policy".to_owned(), gas_price);
    let now =
        before.message.versions.last().map(|v| format!(", now {} and {}", gas_price(v.fee_cap), gas_price(v.premium)));
    let plan = format!(
        "This will replace the message of `{id}` by one that does the same.\n  fee cap  {}\n  premium  {}{}",
        said(args.fee_cap),
        said(args.premium),
        now.unwrap_or_default()
    );
    args.consent.ask(desk.printer, &plan)?;
    let by = Replacement { fee_cap: args.fee_cap, premium: args.premium, gas_limit: args.gas_limit };
    let message = outbox.replace(&id, by, &desk.cx).await?;
    later(desk, outbox);
    desk.printer.data(&shown(desk, message))
}

async fn cancel(desk: &Desk<'_>, outbox: &Outbox, args: &CancelArgs) -> Result<(), Failure> {
    let before = find(outbox, &args.message).await?;
    let id = id_of(&before);
    let plan = match before.message.nonce {
        _ if before.messager.as_ref().is_some_and(|at| at.state != VenusState::Recorded) => format!(
            "This will give `{id}` up: the messager is told to.\n  \
             note     what it has signed may still land; `message wait {id}` says"
        ),
        None => format!("This will give `{id}` up. Nothing of it was sent."),
        Some(nonce) => format!(
            "This will give `{id}` up: its nonce {nonce} is filled with a message that does nothing.\n  \
             note     the chain decides which of the two lands; `message wait {id}` says"
        ),
    };
    args.consent.ask(desk.printer, &plan)?;
    let message = outbox.cancel(&id, &desk.cx).await?;
    later(desk, outbox);
    desk.printer.data(&shown(desk, message))
}

/// Says when a daemon does what it was asked for.
fn later(desk: &Desk<'_>, outbox: &Outbox) {
    if outbox.is_daemons() && desk.config.venus.is_none() {
        desk.printer.note("the daemon does it at the next head; `message show` tells");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::outbox::AtMessager, *};
    use damocles_core::{
        Epoch,
        chain::{CallKind, SubmitKey},
    };

    fn entry(state: OutboxState) -> Entry {
        serde_json::from_value(serde_json::json!({
            "key": SubmitKey("withdraw/1000/5/1".to_owned()), "kind": CallKind::Other, "state": state, "sender": null,
            "nonce": null, "cid": null, "error": null
        }))
        .unwrap()
    }

    #[test]
    fn states_are_words() {
        assert_eq!(state(&entry(OutboxState::Recorded)), "recorded");
        let mut sent = entry(OutboxState::Signed);
        assert_eq!(state(&sent), "sent");
        sent.messager = Some(AtMessager { uid: "damocles-1".to_owned(), state: VenusState::Sent });
        assert_eq!(state(&sent), "sent");
        sent.messager = Some(AtMessager { uid: "damocles-1".to_owned(), state: VenusState::Taken });
        assert_eq!(state(&sent), "at the messager");
        sent.message.cancelled = true;
        assert_eq!(state(&sent), "cancelling");
        sent.message.landed = Some(Epoch(7));
        assert_eq!(state(&sent), "landed");
        assert_eq!(shortened("t1fib3pv7jua2ockdugtz7viz3cyy6lkhh7rfx3sa"), "t1fib3pv...rfx3sa");
        assert_eq!(shortened("t01000"), "t01000");
    }
}
