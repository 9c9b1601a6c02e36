//! Handing out sectors from a database.

use crate::support::{MINER, Manager, TTL, proof_type, want};
use damocles_core::{
    CommR, Epoch, RequestId, SectorNumber, StoreId,
    allocator::{AllocErrorKind, Outcome, SectorAllocator},
    chain::OnChain,
    conformance,
};
use damocles_seal::allocator::MinerPolicy;
use std::{collections::BTreeSet, time::Duration};

fn used() -> OnChain {
    OnChain::PreCommitted { comm_r: CommR([1; 32]), ticket_epoch: Epoch(1), epoch: Epoch(2), expiration: Epoch(3) }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let manager = Manager::start().await;
    conformance::allocator::all(manager.allocator()).await;
}

#[tokio::test]
async fn leases_outlive_a_restart() {
    let mut manager = Manager::start().await;
    let lease = manager.allocator().allocate(&want("first", "a")).await.unwrap().unwrap();
    manager.restart().await;
    let again = manager.allocator().allocate(&want("first", "a")).await.unwrap().unwrap();
    assert_eq!(again, lease, "a request that was served before the restart");
    let other = manager.allocator().allocate(&want("second", "a")).await.unwrap().unwrap();
    assert_ne!(other.sector, lease.sector);
    assert_eq!(manager.allocator().held_by(&StoreId::new("a")).await.unwrap(), [lease, other]);
}

#[tokio::test]
async fn a_request_that_was_dropped_anywhere_gets_one_sector() {
    // Each number of polls drops the call at another of its waits.
    for polls in 1..60 {
        let mut manager = Manager::start().await;
        let (service, want) = (manager.service.clone(), want("dropped", "a"));
        let mut call = service.allocator().allocate(&want);
        let mut done = false;
        for _ in 0..polls {
            if futures::poll!(&mut call).is_ready() {
                done = true;
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(call);
        manager.restart().await;
        let lease = manager.allocator().allocate(&want).await.unwrap().unwrap();
        assert_eq!(lease.sector.number.0, 1, "dropped after {polls} polls: no number is lost");
        assert_eq!(manager.allocator().held_by(&StoreId::new("a")).await.unwrap(), [lease]);
        if done {
            return;
        }
    }
    panic!("the call never ended");
}

#[tokio::test]
async fn numbers_in_use_on_chain_are_skipped() {
    let policy = MinerPolicy { min_number: 10, ..MinerPolicy::new(MINER, proof_type()) };
    let manager = Manager::with_policy(policy).await;
    for number in [10, 11, 13] {
        manager.chain.inner.set_sector(SectorNumber(number), used());
    }
    let mut given = Vec::new();
    for i in 0..3 {
        let lease = manager.allocator().allocate(&want(&format!("r{i}"), "a")).await.unwrap().unwrap();
        given.push(lease.sector.number.0);
    }
    assert_eq!(given, [12, 14, 15]);
}

#[tokio::test]
async fn numbers_that_were_skipped_stay_skipped() {
    let manager = Manager::start().await;
    for number in 1..=450 {
        manager.chain.inner.set_sector(SectorNumber(number), used());
    }
    for _ in 0..2 {
        let error = manager.allocator().allocate(&want("1", "a")).await.unwrap_err();
        assert_eq!(error.recovery(), damocles_core::Recovery::RETRY, "the worker goes on asking");
        assert!(error.hint().is_some_and(|h| h.contains("min_number")), "{}", error.chain());
    }
    let lease = manager.allocator().allocate(&want("1", "a")).await.unwrap().unwrap();
    assert_eq!(lease.sector.number.0, 451);
}

#[tokio::test]
async fn a_limit_ends_the_work() {
    let policy = MinerPolicy { max_sectors: Some(2), ..MinerPolicy::new(MINER, proof_type()) };
    let manager = Manager::with_policy(policy).await;
    let first = manager.allocator().allocate(&want("1", "a")).await.unwrap().unwrap();
    manager.allocator().allocate(&want("2", "a")).await.unwrap().unwrap();
    assert_eq!(manager.allocator().allocate(&want("3", "a")).await.unwrap(), None);
    assert!(manager.allocator().allocate(&want("1", "a")).await.unwrap().is_some(), "a repeat is no new sector");
    manager.allocator().release(&first, Outcome::Abandoned).await.unwrap();
    let replacement = manager.allocator().allocate(&want("4", "a")).await.unwrap().unwrap();
    assert_eq!(replacement.sector.number.0, 3, "an abandoned number is burnt, not handed out again");
}

#[tokio::test]
async fn nobody_is_served_while_the_chain_is_away() {
    let manager = Manager::start().await;
    manager.chain.inner.set_unavailable(true);
    let err = manager.allocator().allocate(&want("1", "a")).await.unwrap_err();
    assert_eq!(err.kind(), AllocErrorKind::Unavailable);
    manager.chain.inner.set_unavailable(false);
    let lease = manager.allocator().allocate(&want("1", "a")).await.unwrap().unwrap();
    assert_eq!(lease.sector.number.0, 1, "nothing was lost");
    let stranger =
        damocles_core::allocator::AllocateRequest { miners: vec![damocles_core::ActorId(7)], ..want("2", "a") };
    assert_eq!(manager.allocator().allocate(&stranger).await.unwrap(), None, "no sectors of other miners");
}

#[tokio::test]
async fn two_managers_on_one_database_share_the_numbers() {
    let one = Manager::start().await;
    let two = crate::support::open_db(one.dir.path()).await;
    let clock = one.clock.clone();
    let policy = MinerPolicy { max_sectors: Some(20), ..MinerPolicy::new(MINER, proof_type()) };
    let two = damocles_seal::allocator::SqlAllocator::new(two, one.chain.clone(), vec![policy.clone()], clock.clone());
    let one = damocles_seal::allocator::SqlAllocator::new(
        crate::support::open_db(one.dir.path()).await,
        one.chain.clone(),
        vec![policy],
        clock,
    );
    let calls = (0..24).map(|i| {
        let allocator = if i % 2 == 0 { &one } else { &two };
        // Each request is made at both, as after a reply that was lost.
        async move {
            let want = want(&format!("r{}", i / 2), "a");
            loop {
                match allocator.allocate(&want).await {
                    Ok(lease) => return lease.map(|l| (i / 2, l.sector)),
                    Err(e) => assert_eq!(e.kind(), AllocErrorKind::Unavailable, "{}", e.chain()),
                }
            }
        }
    });
    let given: BTreeSet<_> = futures::future::join_all(calls).await.into_iter().flatten().collect();
    assert_eq!(given.len(), 12, "each request got one sector, whoever served it: {given:?}");
    let sectors: BTreeSet<_> = given.iter().map(|(_, sector)| sector).collect();
    assert_eq!(sectors.len(), 12, "no sector was handed out twice");
}

#[tokio::test]
async fn silence_is_shown_and_only_an_operator_moves_a_sector() {
    let manager = Manager::start().await;
    let lease = manager.allocator().allocate(&want("1", "a")).await.unwrap().unwrap();
    manager.clock.advance(Duration::from_secs(61));
    let [shown] = &manager.service.sectors().await.unwrap()[..] else { panic!("one sector") };
    assert!(shown.lease.silent);
    let other = StoreId::new("b");
    let err = manager.allocator().take_up(&other, lease.sector, TTL).await.unwrap_err();
    assert_eq!(err.kind(), AllocErrorKind::HeldElsewhere, "silence gives nobody a right");
    assert!(err.hint().is_some_and(|h| h.contains("sectors release")));
    manager.allocator().renew(&lease, TTL).await.unwrap();
    assert!(!manager.service.sectors().await.unwrap()[0].lease.silent);

    manager.allocator().release_by_operator(lease.sector).await.unwrap();
    assert_eq!(manager.allocator().renew(&lease, TTL).await.unwrap_err().kind(), AllocErrorKind::Fenced);
    let moved = manager.allocator().take_up(&other, lease.sector, TTL).await.unwrap();
    assert!(moved.fence > lease.fence);
    let history = manager.service.sector(lease.sector).await.unwrap().unwrap().events;
    let kinds: Vec<_> = history.iter().map(|e| serde_json::to_value(&e.event).unwrap()["event"].clone()).collect();
    assert_eq!(kinds, ["leased", "released", "taken_up"]);
}

#[tokio::test]
async fn a_copy_of_a_take_up_fences_nobody() {
    let mut manager = Manager::start().await;
    let lease = manager.allocator().allocate(&want("1", "a")).await.unwrap().unwrap();
    let (store, early, late) = (StoreId::new("a"), RequestId::new("early"), RequestId::new("late"));
    let taken = manager.allocator().take_up_once(&early, &store, lease.sector, TTL).await.unwrap();
    assert!(taken.fence > lease.fence);
    manager.restart().await;
    let again = manager.allocator().take_up_once(&early, &store, lease.sector, TTL).await.unwrap();
    assert_eq!(again, taken, "a repeat");
    let next = manager.allocator().take_up_once(&late, &store, lease.sector, TTL).await.unwrap();
    assert!(next.fence > taken.fence);
    let err = manager.allocator().take_up_once(&early, &store, lease.sector, TTL).await.unwrap_err();
    assert_eq!(err.kind(), AllocErrorKind::Fenced, "a copy that arrives late");
    manager.allocator().renew(&next, TTL).await.unwrap();
    let other = StoreId::new("b");
    let err = manager.allocator().take_up_once(&RequestId::new("b"), &other, lease.sector, TTL).await.unwrap_err();
    assert_eq!(err.kind(), AllocErrorKind::HeldElsewhere);
}
