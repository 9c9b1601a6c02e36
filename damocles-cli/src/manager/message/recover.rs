//! `message recover`: what a messager had given up.

use super::{
    super::{chain, desk::Desk, outbox::Shelf, signer::Keys},
    args::RecoverArgs,
};
use crate::{
    exit::Failure,
    output::{Render, table},
};
use damocles_chain::venus::messager::MessagerClient;
use damocles_core::Address;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
struct Recovered {
    messages: Vec<Message>,
}

#[derive(Debug, Serialize)]
struct Message {
    sender: Address,
    /// Its name at the messager.
    name: String,
    /// Its key, if it is one of this manager's.
    key: Option<String>,
}

impl Render for Recovered {
    fn text(&self, color: bool) -> String {
        if self.messages.is_empty() {
            return "the messager had given up no signed message of these senders".to_owned();
        }
        let rows = self.messages.iter().map(|message| {
            let key = message.key.clone().unwrap_or_else(|| "-".to_owned());
            [message.sender.to_string(), message.name.clone(), key]
        });
        table(&["SENDER", "NAME", "KEY"], rows, color)
    }
}

/// Has the messager take up again what it had given up of some senders.
///
/// # Errors
///
/// No messager sends for this manager, it was not agreed to, or the messager does not answer or refuses.
pub(super) async fn run(desk: &Desk<'_>, args: &RecoverArgs) -> Result<(), Failure> {
    let Some(section) = &desk.config.venus else {
        return Err(Failure::usage("no messager sends for this manager, so that none has given anything up")
            .hint("its own messages are sent until they land; `message replace` makes one dearer"));
    };
    let named = chain::senders(&desk.config, &Keys::to_send(&desk.config, desk.home)?).await?;
    let senders = if args.senders.is_empty() { named.everybody() } else { args.senders.clone() };
    let messager = MessagerClient::new(chain::cluster(&desk.config, section, desk.home, named)?.messager)?;
    let names: Vec<_> = senders.iter().map(|sender| desk.spell(sender).to_string()).collect();
    let plan = format!(
        "This will have the messager at {} send again what it had signed and given up of {}.\n  \
         note     it is sent as it was signed; what was cancelled is sent as well",
        messager.endpoint(),
        names.join(", ")
    );
    args.consent.ask(desk.printer, &plan, &desk.cx).await?;
    let mut taken_up = Vec::new();
    for sender in senders {
        let found = messager.recover_failed(&sender).await.map_err(|e| {
            Failure::from(e).hint("it wants a token with permission `admin` for this").context("ask the messager")
        })?;
        taken_up.extend(found.into_iter().map(|name| (desk.spell(&sender), name)));
    }
    // What was done is told whether or not the keys can be looked up.
    let keys = keys(desk).await.unwrap_or_default();
    let messages = taken_up.into_iter().map(|(sender, name)| Message { sender, key: keys.get(&name).cloned(), name });
    desk.printer.data(&Recovered { messages: messages.collect() })
}

/// The keys of this manager's messages by their names at the messager.
async fn keys(desk: &Desk<'_>) -> Result<BTreeMap<String, String>, Failure> {
    let all = Shelf::open(&desk.config, desk.home).await?.entries().await?;
    Ok(all.into_iter().filter_map(|entry| Some((entry.messager?.uid, entry.message.key.0))).collect())
}
