//! From a signed message to one that is final on chain.

use super::{FINALITY, Found, Outbox, Push, Search, Stage, Unfinished, receipt_of, run::Step};
use crate::lotus_json::{SignedMessage, signed_message_cid, text_of};
use cid::Cid;
use damocles_core::{
    MessageEvent,
    chain::{ChainError, ChainErrorKind, SubmitKey, TipsetRef},
};
use parking_lot::Mutex;
use std::collections::HashMap;

/// A node forgets its pool when it restarts, so a message that does not land is pushed again after so many epochs.
const PUSH_AGAIN: i64 = 5;

/// When messages are looked at again; what is lost with the process is only done again.
#[derive(Debug, Default)]
pub(super) struct Looks {
    looks: Mutex<HashMap<SubmitKey, Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    last: i64,
    next: i64,
    landed: Option<i64>,
}

impl Looks {
    /// A tipset is gone: what landed there or later is looked at again.
    pub(super) fn reverted(&self, epoch: i64) {
        self.looks.lock().retain(|_, look| look.landed.is_none_or(|landed| landed < epoch));
    }

    fn rests(&self, key: &SubmitKey, head: i64) -> bool {
        self.looks.lock().get(key).is_some_and(|look| (look.last..look.next).contains(&head))
    }

    /// Whether it was pushed by this process.
    fn knows(&self, key: &SubmitKey) -> bool {
        self.looks.lock().contains_key(key)
    }

    fn pushed(&self, key: &SubmitKey, head: i64) {
        let look = Look { last: head, next: head.saturating_add(PUSH_AGAIN), landed: None };
        self.looks.lock().insert(key.clone(), look);
    }

    /// The deeper a message lies, the less often it is looked at, and once more when it is final.
    fn landed(&self, key: &SubmitKey, head: i64, landed: i64) {
        let depth = head.saturating_sub(landed).max(PUSH_AGAIN);
        let next = head.saturating_add(depth).min(landed.saturating_add(FINALITY));
        self.looks.lock().insert(key.clone(), Look { last: head, next, landed: Some(landed) });
    }

    fn forget(&self, key: &SubmitKey) {
        self.looks.lock().remove(key);
    }
}

impl Outbox {
    /// Pushes a signed message until it is on chain, and watches it there until it is final.
    pub(super) async fn deliver(&self, head: &TipsetRef, row: &Unfinished) -> Result<Step, ChainError> {
        let Stage::Signed { signed, landed, .. } = &row.stage else { return Ok(Step::Rests) };
        if self.looks.rests(&row.key, head.epoch.0) {
            return Ok(Step::Rests);
        }
        let cid = signed_message_cid(signed);
        // What was never seen on chain is handed in first: the same bytes twice are one message, a pool answers faster
        // than a search, and a nonce that is never filled stops all that follow.
        if landed.is_none() {
            let again = self.looks.knows(&row.key);
            if self.push(head, &row.key, signed).await? == Push::Accepted {
                if again {
                    self.check_gap(head, signed).await?;
                }
                return Ok(Step::Moved);
            }
        }
        let searched = self.node.search(head, signed, &cid).await.inspect_err(|_| self.looks.forget(&row.key))?;
        if let Search::Landed(found) = &searched {
            self.note_landed(head, row, *landed, found).await?;
            return Ok(Step::Moved);
        }
        // What was seen on chain and is not there may have been reverted.
        if landed.is_some() && self.push(head, &row.key, signed).await? == Push::Accepted {
            return Ok(Step::Moved);
        }
        // The nonce is used on chain and the message was not found: another message has it, or its tipset came just
        // now. Only when that is final the call may have another nonce.
        let used = self.node.nonce_before(head, FINALITY, &signed.message.from).await?;
        if used.is_some_and(|nonce| nonce > signed.message.sequence) {
            self.replace(head, row, signed, &cid, *landed).await?;
        }
        Ok(Step::Moved)
    }

    pub(super) async fn push(
        &self,
        head: &TipsetRef,
        key: &SubmitKey,
        signed: &SignedMessage,
    ) -> Result<Push, ChainError> {
        let pushed = self.node.push(signed).await?;
        self.looks.pushed(key, head.epoch.0);
        if pushed == Push::Accepted {
            self.emit(key, MessageEvent::Pushed { cid: signed_message_cid(signed).to_string() });
        }
        Ok(pushed)
    }

    async fn note_landed(
        &self,
        head: &TipsetRef,
        row: &Unfinished,
        before: Option<i64>,
        found: &Found,
    ) -> Result<(), ChainError> {
        if before != Some(found.epoch) {
            self.store.landed(&row.key, found.epoch).await?;
        }
        if before.is_none() {
            self.emit(&row.key, MessageEvent::Landed { exit_code: found.exit_code });
        }
        if head.epoch.0.saturating_sub(found.epoch) >= FINALITY {
            let said = self.said(found).await;
            self.store.settle(&row.key, &receipt_of(row.kind(), found, said)).await?;
            self.looks.forget(&row.key);
        } else {
            self.looks.landed(&row.key, head.epoch.0, found.epoch);
        }
        Ok(())
    }

    /// Takes back a nonce that another message has used for good.
    async fn replace(
        &self,
        head: &TipsetRef,
        row: &Unfinished,
        signed: &SignedMessage,
        cid: &Cid,
        landed: Option<i64>,
    ) -> Result<(), ChainError> {
        // The search may have met another node, or a tipset that came meanwhile.
        let searched = self.node.search(head, signed, cid).await.inspect_err(|_| self.looks.forget(&row.key))?;
        let lost = |hint: &'static str| {
            ChainError::new(ChainErrorKind::NotFound, "look for message")
                .with("message", cid)
                .with("sender", text_of(&signed.message.from))
                .with("nonce", signed.message.sequence)
                .hint_with(hint)
        };
        if let Search::Landed(_) = searched {
            return Ok(());
        }
        if let Some(epoch) = landed {
            return Err(lost("it was on chain once and is not sent again: use a node with a longer history")
                .with("landed", epoch));
        }
        // A node that was restored from a snapshot has forgotten what landed before that. The message is only known
        // to be another one if the nonce was used in a part of the chain that the node has.
        if searched == Search::Unknown {
            let before = self.node.nonce_before(head, 2 * FINALITY, &signed.message.from).await?;
            if before.is_some_and(|nonce| nonce > signed.message.sequence) {
                return Err(lost("the nonce was used before the node's history begins: use a node with a longer one"));
            }
        }
        let reason = format!("nonce {} was used by another message", signed.message.sequence);
        self.store.unsign(&row.key, &reason).await?;
        self.looks.forget(&row.key);
        self.wake(&signed.message.from);
        Ok(())
    }

    /// Refuses to be content with a message that waits in the pool behind nonces that nobody fills.
    async fn check_gap(&self, head: &TipsetRef, signed: &SignedMessage) -> Result<(), ChainError> {
        let (sender, nonce) = (&signed.message.from, signed.message.sequence);
        let account = self.node.account(head, sender).await?;
        // Behind another message of ours it waits for that one.
        let ours = self.store.signed_from(sender, account.nonce).await?;
        if account.nonce >= nonce || ours.range(..nonce).next().is_some() {
            return Ok(());
        }
        let pooled = self.node.pooled(sender).await?;
        let Some(missing) = (account.nonce..nonce).find(|n| !pooled.contains(n)) else { return Ok(()) };
        Err(ChainError::new(ChainErrorKind::NotFound, "wait for nonces before the message's")
            .with("sender", text_of(sender))
            .with("nonce", nonce)
            .with("missing", missing)
            .with("account nonce", account.nonce)
            .hint_with("send messages with the missing nonces from the sender: nothing that follows them lands before"))
    }
}
