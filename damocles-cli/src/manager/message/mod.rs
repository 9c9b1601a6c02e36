//! `message`: what this manager has sent.

pub mod args;
mod recover;
mod replace;

use super::{
    act,
    desk::{Desk, When},
    look::gas_price,
    outbox::{Entry, Outbox, Shelf, Standing},
};
use crate::{
    config::{ManagerConfig, manager::Home},
    exit::Failure,
    output::{Printer, Render, table},
};
use args::{CancelArgs, ListArgs, MessageArgs, MessageCommand, ReplaceArgs};
use damocles_chain::{OutboxFilter, OutboxState, Replacement, VersionPurpose, venus::VenusState};
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
        // What was recorded can be looked at whatever node, keys and daemon do.
        MessageCommand::List(args) => return list(home, printer, args.clone()).await,
        MessageCommand::Show(args) => return show(home, printer, cx, args).await,
        MessageCommand::Wait(_) => {}
        MessageCommand::Replace(args) => args.consent.possible()?,
        MessageCommand::Cancel(args) => args.consent.possible()?,
        MessageCommand::Recover(args) => args.consent.possible()?,
    }
    let desk = Desk::open(home, printer, cx).await?;
    match command {
        MessageCommand::List(_) | MessageCommand::Show(_) => Ok(()),
        MessageCommand::Wait(args) => wait(&desk, args).await,
        MessageCommand::Replace(args) => replace(&desk, args).await,
        MessageCommand::Cancel(args) => cancel(&desk, args).await,
        MessageCommand::Recover(args) => recover::run(&desk, args).await,
    }
}

/// The entry that a key or the CID of one of its messages names.
async fn find(desk: &Desk<'_>, args: &MessageArgs) -> Result<Entry, Failure> {
    Shelf::open(&desk.config, desk.home).await?.named(&args.id).await
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

async fn list(home: &Home, printer: Printer, args: ListArgs) -> Result<(), Failure> {
    let config = ManagerConfig::load(home.config())?;
    let states = match (args.state, args.all) {
        (Some(state), _) => vec![state.into()],
        (None, true) => Vec::new(),
        (None, false) => vec![OutboxState::Recorded, OutboxState::Signed],
    };
    let which = OutboxFilter { states, from: args.from, limit: Some(args.limit) };
    let messages = Shelf::open(&config, home).await?.some(&which).await?;
    if u32::try_from(messages.len()).is_ok_and(|count| count >= args.limit) {
        printer.note(format_args!("the newest {} are listed; --limit says how many", args.limit));
    }
    printer.data(&Listed { messages })
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
        let landed = self.landed_at.as_ref().map(ToString::to_string);
        line("landed", landed.or_else(|| m.landed.map(|epoch| epoch.to_string())));
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

async fn show(home: &Home, printer: Printer, cx: &Context, args: &MessageArgs) -> Result<(), Failure> {
    let config = ManagerConfig::load(home.config())?;
    let entry = Shelf::open(&config, home).await?.named(&args.id).await?;
    let Some(epoch) = entry.message.landed else {
        return printer.data(&Shown { standing: state(&entry), landed_at: None, entry });
    };
    let landed_at = match Desk::with(config, home, printer, cx).await {
        Ok(desk) => Some(desk.when(epoch)),
        Err(failure) => {
            printer.note(format_args!("the time of epoch {epoch} is not known: {}", failure.error));
            None
        }
    };
    printer.data(&Shown { standing: state(&entry), landed_at, entry })
}

async fn wait(desk: &Desk<'_>, args: &MessageArgs) -> Result<(), Failure> {
    let id = id_of(&find(desk, args).await?);
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    let receipt = outbox.landed(&id, &desk.cx).await?;
    let message = outbox.entry(&id).await?;
    let outcome = if receipt.is_success() { Ok(()) } else { Err(act::refusal(&format!("do `{id}`"), &receipt)) };
    let printed = desk.printer.last(&shown(desk, message), outcome);
    // Whoever has seen its end means another one by the same command.
    outbox.told(&id).await?;
    printed
}

async fn replace(desk: &Desk<'_>, args: &ReplaceArgs) -> Result<(), Failure> {
    let before = find(desk, &args.message).await?;
    let id = id_of(&before);
    let standing = Standing::of(desk).await?;
    let plan = replace::plan(desk, args, &before, &standing).await?;
    args.consent.ask(desk.printer, &plan, &desk.cx).await?;
    let by = Replacement { fee_cap: args.fee_cap, premium: args.premium, gas_limit: args.gas_limit };
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    later(desk, &outbox);
    let message = outbox.replace(&id, by, &desk.cx).await?;
    desk.printer.data(&shown(desk, message))
}

async fn cancel(desk: &Desk<'_>, args: &CancelArgs) -> Result<(), Failure> {
    let before = find(desk, &args.message).await?;
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
    args.consent.ask(desk.printer, &plan, &desk.cx).await?;
    let outbox = Outbox::open(&desk.config, desk.home).await?;
    later(desk, &outbox);
    let message = outbox.cancel(&id, &desk.cx).await?;
    desk.printer.data(&shown(desk, message))
}

/// Says when it is done what was asked for.
fn later(desk: &Desk<'_>, outbox: &Outbox) {
    if desk.config.venus.is_some() {
        return;
    }
    desk.printer.note(if outbox.is_daemons() {
        "the daemon does it at the next head; `message show` tells"
    } else {
        "waiting until the new message is signed"
    });
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
