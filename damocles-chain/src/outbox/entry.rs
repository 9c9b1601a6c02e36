//! What operators see of the outbox.

use damocles_core::{
    Address, Epoch, TokenAmount,
    chain::{CallKind, Receipt, Returned, SubmitKey},
};
use serde::{Deserialize, Serialize};

/// How far a call in the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutboxState {
    /// Recorded, without nonce.
    Recorded,
    /// Signed with a nonce: it is pushed until it is on chain.
    Signed,
    /// On chain for good.
    Settled,
    /// Given up: before it had a nonce, or by a cancellation that is on chain for good.
    Dropped,
}

impl OutboxState {
    pub(super) const ALL: [Self; 4] = [Self::Recorded, Self::Signed, Self::Settled, Self::Dropped];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Signed => "signed",
            Self::Settled => "settled",
            Self::Dropped => "dropped",
        }
    }
}

/// Which calls are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxFilter {
    /// Those in one of these states; any if there is none.
    pub states: Vec<OutboxState>,
    /// Those of this sender: who signed it, or in whose lane it waits.
    pub from: Option<Address>,
    /// At most so many, the newest; all of them without.
    pub limit: Option<u32>,
}

impl OutboxFilter {
    /// What is left of a list of calls, oldest first, that no database has filtered.
    #[must_use]
    pub fn of<T>(&self, all: Vec<T>, entry: impl Fn(&T) -> &OutboxEntry) -> Vec<T> {
        // Both spellings of an address are one.
        let tail = |text: &str| text.get(1..).map(str::to_owned);
        let from = self.from.as_ref().map(|from| tail(from.as_str()));
        let fits = |shown: &OutboxEntry| {
            let of_it = from.as_ref().is_none_or(|from| shown.sender.as_deref().map(tail).as_ref() == Some(from));
            of_it && (self.states.is_empty() || self.states.contains(&shown.state))
        };
        let mut left: Vec<T> = all.into_iter().filter(|item| fits(entry(item))).collect();
        let most = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        left.drain(..left.len().saturating_sub(most));
        left
    }
}

/// A call in the outbox, as shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Its key.
    pub key: SubmitKey,
    /// Its class.
    pub kind: CallKind,
    /// How far it is.
    pub state: OutboxState,
    /// Who sends it, once signed.
    pub sender: Option<String>,
    /// Its nonce, once signed.
    pub nonce: Option<u64>,
    /// The CID of its newest message, once signed.
    pub cid: Option<String>,
    /// Every message that was signed for it, the newest last: any of them may land, and one of them at most.
    #[serde(default)]
    pub versions: Vec<MessageVersion>,
    /// The epoch at which one of them was last seen on chain.
    #[serde(default)]
    pub landed: Option<Epoch>,
    /// The actor's exit code there.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// What the chain made of it there.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// What the actor returned there, sector by sector for a batch.
    #[serde(default)]
    pub returned: Option<Returned>,
    /// Whether it is to be, or was, cancelled.
    #[serde(default)]
    pub cancelled: bool,
    /// Its trouble: why it does not move, or why it was dropped.
    pub error: Option<String>,
}

/// One message that was signed for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageVersion {
    /// The CID by which the chain knows it.
    pub cid: String,
    /// What it does.
    pub purpose: VersionPurpose,
    /// The most that it pays for one unit of gas.
    pub fee_cap: TokenAmount,
    /// What it pays to the block's maker for one unit of gas.
    pub premium: TokenAmount,
    /// Its gas limit.
    pub gas_limit: u64,
    /// The epoch of the head at which it was signed and pushed first; none in rows of old outboxes.
    pub epoch: Option<Epoch>,
}

/// What a message that was signed for a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VersionPurpose {
    /// What the call asks for.
    Call,
    /// Nothing: it fills the nonce of a call that was cancelled.
    Cancel,
}

/// How a message is to be replaced by hand. What is not said follows the policy of its class, and what is said goes
/// beyond its ceilings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replacement {
    /// The fee cap for one unit of gas.
    pub fee_cap: Option<TokenAmount>,
    /// The premium for one unit of gas.
    pub premium: Option<TokenAmount>,
    /// The gas limit.
    pub gas_limit: Option<u64>,
}
