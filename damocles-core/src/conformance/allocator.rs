//! The contract of [`SectorAllocator`].

use crate::{
    Fence, RequestId, StoreId,
    allocator::{AllocErrorKind, AllocateRequest, Outcome, SectorAllocator},
};
use std::{collections::BTreeSet, time::Duration};

const TTL: Duration = Duration::from_secs(60);

fn request(id: &str, store: &str) -> AllocateRequest {
    AllocateRequest {
        request: RequestId::new(id),
        store: StoreId::new(store),
        worker: "conformance".to_owned(),
        miners: Vec::new(),
        proof_types: Vec::new(),
        ttl: TTL,
    }
}

/// Runs the whole contract against an allocator that has work for at least eight sectors.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(allocator: &dyn SectorAllocator) {
    numbers_are_never_handed_out_twice(allocator).await;
    a_lost_reply_returns_the_same_sector(allocator).await;
    only_the_holder_takes_up(allocator).await;
    an_old_fence_changes_nothing(allocator).await;
}

async fn numbers_are_never_handed_out_twice(allocator: &dyn SectorAllocator) {
    let mut seen = BTreeSet::new();
    for i in 0..4 {
        let want = request(&format!("unique-{i}"), "store-unique");
        let lease = allocator.allocate(&want).await.expect("allocate").expect("there is work");
        assert!(seen.insert(lease.sector), "{} was handed out twice", lease.sector);
        assert_eq!(lease.store, want.store, "the lease belongs to the store that asked");
    }
    let held = allocator.held_by(&StoreId::new("store-unique")).await.expect("held by");
    assert_eq!(held.iter().map(|l| l.sector).collect::<BTreeSet<_>>(), seen, "held_by lists what was leased");
}

async fn a_lost_reply_returns_the_same_sector(allocator: &dyn SectorAllocator) {
    let want = request("lost", "store-a");
    let first = allocator.allocate(&want).await.expect("allocate").expect("there is work");
    let again = allocator.allocate(&want).await.expect("allocate again").expect("the same sector");
    assert_eq!((first.sector, first.fence), (again.sector, again.fence), "a repeat of a request returns its sector");
    let stranger = AllocateRequest { store: StoreId::new("store-b"), ..want };
    if let Ok(Some(lease)) = allocator.allocate(&stranger).await {
        assert_ne!(lease.sector, first.sector, "another store must not get the sector through the same request id");
    }
}

async fn only_the_holder_takes_up(allocator: &dyn SectorAllocator) {
    let lease = allocator.allocate(&request("take-up", "store-a")).await.expect("allocate").expect("there is work");
    let err = allocator.take_up(&StoreId::new("store-b"), lease.sector, TTL).await.expect_err("another store");
    assert_eq!(err.kind(), AllocErrorKind::HeldElsewhere);
    let higher = allocator.take_up(&lease.store, lease.sector, TTL).await.expect("the holder takes it up");
    assert!(higher.fence > lease.fence, "each lease of a sector has a higher fence");
    assert_eq!(higher.sector, lease.sector);
    allocator.release(&higher, Outcome::Handed).await.expect("release");
    let moved = allocator.take_up(&StoreId::new("store-b"), lease.sector, TTL).await.expect("a handed sector moves");
    assert!(moved.fence > higher.fence);
    let err = allocator.take_up(&lease.store, lease.sector, TTL).await.expect_err("the old holder lost it");
    assert_eq!(err.kind(), AllocErrorKind::HeldElsewhere);
}

async fn an_old_fence_changes_nothing(allocator: &dyn SectorAllocator) {
    let old = allocator.allocate(&request("fence", "store-a")).await.expect("allocate").expect("there is work");
    let new = allocator.take_up(&old.store, old.sector, TTL).await.expect("take up");
    assert_eq!(allocator.renew(&old, TTL).await.expect_err("old fence").kind(), AllocErrorKind::Fenced);
    let err = allocator.release(&old, Outcome::Abandoned).await.expect_err("old fence");
    assert_eq!(err.kind(), AllocErrorKind::Fenced);
    allocator.renew(&new, TTL).await.expect("the holder renews");
    allocator.release(&new, Outcome::Sealed).await.expect("release");
    allocator.release(&new, Outcome::Sealed).await.expect("the same release again changes nothing");
    let held = allocator.held_by(&new.store).await.expect("held by");
    assert!(held.iter().all(|l| l.sector != new.sector), "a released sector is held no more");
    let unknown = crate::allocator::SectorLease {
        sector: crate::SectorId::new(old.sector.miner, crate::SectorNumber(u64::MAX >> 1)),
        fence: Fence(1),
        ..old
    };
    assert_eq!(allocator.renew(&unknown, TTL).await.expect_err("no lease").kind(), AllocErrorKind::Unknown);
}
