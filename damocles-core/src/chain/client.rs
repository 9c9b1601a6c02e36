//! The seam to a chain.

use super::{
    Call, DeadlineInfo, DeadlineState, HeadChange, MessageId, MessageState, MinerInfo, NetworkInfo, OnChain,
    RandomnessKind, Receipt, SectorInfo, SubmitKey, TipsetRef,
};
use crate::{ActorId, Context, DeadlineIndex, Epoch, Error, Kind, Recovery, SectorId, SectorSet, verify::Randomness};
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use std::{fmt, future::Future, pin::Pin};

/// An owned stream.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// What the workspace needs from a chain, and no more.
///
/// # Contract
///
/// - Reads name the tipset at whose state they read; no method means "the current head" silently. State at a tipset
///   is the state that its blocks were built on: what its own messages did shows from the next tipset on.
/// - A message has landed once a tipset follows the one that holds it, whatever confidence is asked for, so that what
///   it did shows in reads at every head from then on, until it is reverted.
/// - `head_changes` yields the current head first, as [`HeadChange::Apply`], as soon as the node tells it. The stream
///   never ends: after a lost connection the client connects again by itself and replays what was missed, each
///   change once. Where more than 900 tipsets were missed, or the node has lost the way to the new head, that is one
///   revert of the old head and one apply of the new.
/// - `submit` records the call durably under its key before anything is sent. With a key that was seen before it
///   returns the first message and sends nothing new, whatever the call says.
/// - A message is named by its key, so that whoever lost the answer can ask for it; `message` fails with
///   [`ChainErrorKind::NotFound`] for a key that was never recorded.
/// - The sender, the value, the nonce, gas and signature are the client's.
/// - A receipt with a non-zero exit code is a value, not an error.
/// - A client never calls a message dropped while it may still land.
#[async_trait]
pub trait ChainClient: fmt::Debug + Send + Sync + 'static {
    /// The current head.
    async fn head(&self) -> Result<TipsetRef, ChainError>;

    /// Changes of the head, from the current one on.
    fn head_changes(&self) -> BoxStream<HeadChange>;

    /// What the network is.
    async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError>;

    /// A miner actor.
    async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError>;

    /// Randomness for `epoch`, drawn as the protocol prescribes. An epoch after `at` is an error.
    async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError>;

    /// Whether a sector is on chain, and how far.
    async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError>;

    /// Proven sectors by number; numbers that are not there are left out.
    async fn sectors(&self, at: &TipsetRef, miner: ActorId, numbers: &SectorSet)
    -> Result<Vec<SectorInfo>, ChainError>;

    /// The deadline that is current for a miner.
    async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError>;

    /// What a deadline holds.
    async fn partitions(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError>;

    /// Records a call and sends it.
    async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError>;

    /// Where a message stands: landed only when its tipset has `confidence` epochs on top, and at least one tipset.
    async fn message(&self, id: &MessageId, confidence: i64) -> Result<MessageState, ChainError>;
}

/// Conveniences for callers of [`ChainClient`].
pub trait ChainClientExt: ChainClient {
    /// Waits, head by head, until a message has landed or was dropped.
    ///
    /// # Errors
    ///
    /// [`ChainErrorKind::Cancelled`] when `cx` is cancelled, [`ChainErrorKind::Dropped`] when the message will never
    /// land; a chain that does not answer is waited for.
    fn landed(
        &self,
        id: &MessageId,
        confidence: i64,
        cx: &Context,
    ) -> impl Future<Output = Result<Receipt, ChainError>> + Send {
        async move {
            let mut heads = self.head_changes();
            while let Some(Some(_)) = cx.cancel.run_until_cancelled(heads.next()).await {
                match self.message(id, confidence).await {
                    Ok(MessageState::Landed(receipt)) => return Ok(receipt),
                    Ok(MessageState::Dropped { reason }) => {
                        return Err(Error::new(ChainErrorKind::Dropped, "wait for message")
                            .with("message", id)
                            .with("reason", reason));
                    }
                    Ok(MessageState::Pending { .. }) => {}
                    Err(e) if matches!(e.recovery(), Recovery::Retry { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            Err(Error::new(ChainErrorKind::Cancelled, "wait for message").with("message", id))
        }
    }

    /// Waits for a head at `epoch` or later. A chain that does not answer is waited for.
    ///
    /// # Errors
    ///
    /// [`ChainErrorKind::Cancelled`] when `cx` is cancelled.
    fn reached(&self, epoch: Epoch, cx: &Context) -> impl Future<Output = Result<TipsetRef, ChainError>> + Send {
        async move {
            let mut heads = self.head_changes();
            while let Some(Some(change)) = cx.cancel.run_until_cancelled(heads.next()).await {
                if let HeadChange::Apply(head) = change
                    && head.epoch >= epoch
                {
                    return Ok(head);
                }
            }
            Err(Error::new(ChainErrorKind::Cancelled, "wait for epoch").with("epoch", epoch))
        }
    }
}

impl<C: ChainClient + ?Sized> ChainClientExt for C {}

/// An error of a [`ChainClient`].
pub type ChainError = Error<ChainErrorKind>;

/// What went wrong with the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainErrorKind {
    /// The node cannot be reached or is syncing.
    Unavailable,
    /// The node refused the request and always will.
    Rejected,
    /// The named tipset, actor or object is not there.
    NotFound,
    /// The answer could not be understood.
    Malformed,
    /// No key for a sender that the call needs.
    NoSender,
    /// The wallet that holds the sender's key does not answer.
    Wallet,
    /// The outbox could not be read or written.
    Outbox,
    /// The message will never land.
    Dropped,
    /// The call was cancelled.
    Cancelled,
}

impl fmt::Display for ChainErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the node is unavailable",
            Self::Rejected => "the node rejected the request",
            Self::NotFound => "not found",
            Self::Malformed => "the node's answer could not be understood",
            Self::NoSender => "no key for the sender",
            Self::Wallet => "the wallet is unavailable",
            Self::Outbox => "the outbox could not be used",
            Self::Dropped => "the message will never land",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Kind for ChainErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            // A node that answers rubbish is a node that is broken for the moment: nothing of ours is wrong.
            Self::Unavailable | Self::NotFound | Self::Malformed | Self::Wallet | Self::Outbox | Self::Cancelled => {
                Recovery::RETRY
            }
            Self::Rejected | Self::NoSender | Self::Dropped => Recovery::Park,
        }
    }
}
