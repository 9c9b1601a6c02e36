//! The contract of [`ChainClient`].

use crate::{
    ActorId, Context, SectorId, SectorNumber, SectorSet,
    chain::{
        Call, ChainClient, ChainClientExt, ChainErrorKind, DeclareFaultsRecovered, HeadChange, MessageId, MessageState,
        OnChain, PartitionSectors, RandomnessKind, Receipt, SubmitKey,
    },
};
use crate::{DeadlineIndex, PartitionIndex};
use futures::StreamExt;

/// Runs the whole contract against a client of a chain that moves by itself, or that `tick` moves, and that has
/// `miner`, for which sector number 999,999 was never used. The client must be able to sign for the miner.
/// `landed` counts the messages that ever landed at it.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(
    chain: &dyn ChainClient,
    miner: ActorId,
    tick: impl Fn() + Send + Sync,
    landed: impl AsyncFn() -> usize,
) {
    reads(chain, miner).await;
    heads(chain, &tick).await;
    let before = landed().await;
    submissions(chain, miner, &tick).await;
    assert_eq!(landed().await - before, 1, "one key lands one message, however often it is submitted");
}

async fn reads(chain: &dyn ChainClient, miner: ActorId) {
    let head = chain.head().await.expect("head");
    let info = chain.miner(&head, miner).await.expect("miner");
    assert_eq!(info.miner, miner);
    let network = chain.network(&head).await.expect("network");
    assert!(!network.name.is_empty() && network.block_delay_secs >= 1);

    let deadline = chain.deadline(&head, miner).await.expect("deadline");
    assert!(deadline.open <= head.epoch && head.epoch < deadline.close, "the current deadline is open: {deadline:?}");
    assert_eq!(deadline.challenge, deadline.open - deadline.challenge_lookback);
    chain.partitions(&head, miner, deadline.index).await.expect("partitions");

    let unused = SectorNumber(999_999);
    assert_eq!(chain.sector(&head, SectorId::new(miner, unused)).await.expect("sector"), OnChain::Absent);
    let found = chain.sectors(&head, miner, &SectorSet::from_iter([unused])).await.expect("sectors");
    assert!(found.is_empty(), "numbers that are not there are left out");

    let kinds = [
        RandomnessKind::SealTicket,
        RandomnessKind::InteractiveSeed,
        RandomnessKind::WindowPoStChallenge,
        RandomnessKind::PoStChainCommit,
    ];
    for kind in kinds {
        let drawn = chain.randomness(&head, kind, head.epoch - 1, miner).await.expect("randomness");
        let again = chain.randomness(&head, kind, head.epoch - 1, miner).await.expect("randomness");
        assert_eq!(drawn, again, "{kind:?} of the past does not change");
        let err = chain.randomness(&head, kind, head.epoch + 1000, miner).await.expect_err("future");
        assert_ne!(err.kind(), ChainErrorKind::Unavailable, "{kind:?}: the future is refused");
    }
}

async fn heads(chain: &dyn ChainClient, tick: &(impl Fn() + Send + Sync)) {
    let mut changes = chain.head_changes();
    let Some(HeadChange::Apply(mut last)) = changes.next().await else {
        panic!("the current head comes first");
    };
    for _ in 0..3 {
        tick();
        match changes.next().await.expect("the stream never ends") {
            HeadChange::Apply(head) => {
                assert!(head.epoch > last.epoch, "applied heads rise");
                last = head;
            }
            HeadChange::Revert(gone) => assert_eq!(gone, last, "what is reverted was applied last"),
        }
    }
}

async fn landed(chain: &dyn ChainClient, id: &MessageId, confidence: i64, tick: &(impl Fn() + Send + Sync)) -> Receipt {
    let cx = Context::detached();
    let landed = chain.landed(id, confidence, &cx);
    tokio::pin!(landed);
    loop {
        tokio::select! {
            receipt = &mut landed => return receipt.expect("a refusing actor is no error"),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => tick(),
        }
    }
}

async fn submissions(chain: &dyn ChainClient, miner: ActorId, tick: &(impl Fn() + Send + Sync)) {
    let part = PartitionSectors {
        deadline: DeadlineIndex(0),
        partition: PartitionIndex(0),
        sectors: SectorSet::from_iter([SectorNumber(999_999)]),
    };
    let call = Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries: vec![part.clone()] });
    let key = SubmitKey(format!("conformance/{miner}/1"));
    let named = MessageId::new(key.0.clone());
    let unknown = chain.message(&named, 0).await.expect_err("a message that was never recorded");
    assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
    let id = chain.submit(&key, &call).await.expect("submit");
    assert_eq!(id, named, "a message is named by its key");
    assert_eq!(chain.submit(&key, &call).await.expect("submit again"), id, "a key names one message");
    let other = Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries: vec![part.clone(), part] });
    assert_eq!(chain.submit(&key, &other).await.expect("another call"), id, "whatever the call says");

    let far = chain.message(&id, 100_000).await.expect("message");
    assert!(
        matches!(far, MessageState::Pending { .. }),
        "a message has not landed before its confidence is reached: {far:?}"
    );
    let first = landed(chain, &id, 0, tick).await;
    let head = chain.head().await.expect("head");
    assert!(head.epoch > first.epoch, "reads at the head show what a landed message did: {head:?}, {first:?}");
    let receipt = landed(chain, &id, 1, tick).await;
    assert_eq!(chain.submit(&key, &call).await.expect("submit after landing"), id);
    assert_eq!(chain.message(&id, 1).await.expect("message"), MessageState::Landed(receipt));
}
