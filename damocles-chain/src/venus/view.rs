//! What the node and the messager say of a call.

use super::{
    VenusClient,
    messager::{MessagerRecord, MessagerState},
    store::{Row, VenusState},
};
use crate::{
    lotus_json::signed_message_cid,
    outbox::{FINALITY, Found, Node as _, Search, receipt_of},
};
use damocles_core::{
    MessageEvent,
    chain::{ChainError, ChainErrorKind, MessageState, TipsetRef},
};

/// Where the messages of a call are on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// One is.
    Landed(Found),
    /// The nonce of each is on chain with a message that does something else.
    Taken,
    /// None is.
    Nowhere,
}

impl VenusClient {
    /// Asks the messager for a call that it was handed, and notes what is new; none if it has no such message.
    pub(super) async fn refresh(&self, row: &mut Row) -> Result<Option<MessagerRecord>, ChainError> {
        let record = match self.messager.get(&row.uid).await {
            Ok(record) => record,
            Err(e) if e.kind() == ChainErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        self.check_content(row, &record)?;
        if row.state == VenusState::Sent {
            self.store.taken(&row.key).await?;
            row.state = VenusState::Taken;
        }
        if let Some(signed) = record.signed()
            && !row.signed.contains(&signed)
        {
            row.signed.retain(|other| other.message.sequence != signed.message.sequence);
            let cid = signed_message_cid(&signed).to_string();
            row.signed.push(signed);
            self.store.signed(&row.key, &row.signed).await?;
            self.emit(&row.key, MessageEvent::Pushed { cid });
        }
        Ok(Some(record))
    }

    /// Refuses a message that does something else than the call: it came from elsewhere under the call's name.
    fn check_content(&self, row: &Row, record: &MessagerRecord) -> Result<(), ChainError> {
        let theirs = &record.message;
        let same = row.message.as_ref().is_some_and(|ours| {
            (&ours.from, &ours.to, ours.method_num, &ours.params)
                == (&theirs.from, &theirs.to, theirs.method_num, &theirs.params)
        });
        if same {
            return Ok(());
        }
        Err(ChainError::new(ChainErrorKind::Rejected, "read message")
            .with("endpoint", self.messager.endpoint())
            .with("key", &row.key)
            .with("id", &row.uid)
            .hint_with("the messager has another message of this name: two managers with different databases share it"))
    }

    /// Looks for the messages of a call on the chain of `head`.
    pub(super) async fn search(&self, head: &TipsetRef, row: &Row) -> Result<Seen, ChainError> {
        let mut taken = !row.signed.is_empty();
        for signed in row.signed.iter().rev() {
            match self.node.search(head, signed, &signed_message_cid(signed)).await? {
                Search::Landed(found) => return Ok(Seen::Landed(found)),
                Search::Taken => {}
                Search::Absent | Search::Unknown => taken = false,
            }
        }
        Ok(if taken { Seen::Taken } else { Seen::Nowhere })
    }

    /// Whether the nonces of all messages of a call were used up so long ago that this cannot change.
    pub(super) async fn is_overtaken(&self, head: &TipsetRef, row: &Row) -> Result<bool, ChainError> {
        for signed in &row.signed {
            let used = self.node.nonce_before(head, FINALITY, &signed.message.from).await?;
            if used.is_none_or(|next| next <= signed.message.sequence) {
                return Ok(false);
            }
        }
        Ok(!row.signed.is_empty())
    }

    pub(super) async fn said(&self, found: &Found) -> Option<String> {
        if found.exit_code == 0 { None } else { self.node.said(&found.message).await }
    }

    /// Where a call stands on the chain of `head`. What the messager says of the chain is not asked for: its head may
    /// be another, and after a conflict of nonces it shows the receipt of a message that is not ours.
    pub(super) async fn state_of(
        &self,
        head: &TipsetRef,
        mut row: Row,
        confidence: i64,
    ) -> Result<MessageState, ChainError> {
        let deep = |epoch: i64| head.epoch.0.saturating_sub(epoch) >= confidence;
        match (row.state, &row.receipt) {
            (VenusState::Dropped, _) => return Ok(MessageState::Dropped { reason: row.error.unwrap_or_default() }),
            (VenusState::Settled, Some(receipt)) if deep(receipt.epoch.0) => {
                return Ok(MessageState::Landed(receipt.clone()));
            }
            (VenusState::Sent | VenusState::Taken, _) => {}
            _ => return Ok(MessageState::Pending { trouble: row.error }),
        }
        let told = match self.refresh(&mut row).await {
            Ok(Some(record)) => trouble_of(&record),
            Ok(None) if row.state == VenusState::Taken => Some(FORGOTTEN.to_owned()),
            Ok(None) => None,
            Err(e) => Some(e.chain()),
        };
        match self.search(head, &row).await? {
            Seen::Landed(found) if deep(found.epoch) => {
                let said = self.said(&found).await;
                Ok(MessageState::Landed(receipt_of(Some(row.call.kind()), &found, said)))
            }
            Seen::Landed(_) => Ok(MessageState::Pending { trouble: None }),
            _ => Ok(MessageState::Pending { trouble: told.or(row.error) }),
        }
    }
}

/// What is said of a message that the messager had and has no more. It is not handed in again by itself: what the
/// messager signed before may still land.
pub(super) const FORGOTTEN: &str = "the messager has no message of this name any more";

/// What keeps a message from moving, by what the messager says of it.
pub(super) fn trouble_of(record: &MessagerRecord) -> Option<String> {
    let state = record.status.state;
    let reason = record.reason();
    match state {
        MessagerState::UnFill | MessagerState::Fill | MessagerState::OnChain => reason,
        _ => Some(match reason {
            Some(reason) => format!("at the messager: {state}: {reason}"),
            None => format!("at the messager: {state}"),
        }),
    }
}
