//! The program dies at every step that it takes outwards, and is started again.

use crate::harness::World;
use damocles_core::{Context, post::PoStScheduler};

/// Runs one duty to its end with a death at step `at`; whether there was one.
async fn with_death(at: usize, proof: bool) -> bool {
    let world = World::new().await.landing_at_once();
    if proof {
        world.hold(16, &[&[1, 2], &[3]]);
    } else {
        world.hold(19, &[&[1, 2, 3]]);
        world.fault(19, &[2, 3]).await;
    }
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, proof).await;
    let cx = Context::detached();
    world.node.cut.arm(at);
    let died = tokio::select! {
        done = scheduler.fulfil(&duty, &cx) => {
            done.unwrap();
            false
        }
        () = world.node.cut.reached.notified() => true,
    };
    drop(scheduler);
    world.node.cut.arm(usize::MAX);

    let scheduler = world.scheduler().await;
    let recorded = !scheduler.records().recent(duty.miner, 1).await.unwrap().is_empty();
    let proofs = world.bench.proofs();
    let done = scheduler.fulfil(&duty, &cx).await.unwrap();
    assert_eq!(done.receipts.len(), 1, "step {at}");
    if recorded {
        assert_eq!(world.bench.proofs(), proofs, "step {at}: what is recorded is not made again");
    }
    let [landed] = &world.chain.landed_calls()[..] else {
        panic!("step {at}: exactly one message: {:?}", world.chain.landed_calls())
    };
    assert_eq!((landed.exit_code, world.chain.pending()), (0, 0), "step {at}");
    if proof {
        world.check(landed, &[1, 2, 3]).await;
    }
    died
}

#[tokio::test]
async fn a_proof_survives_a_death_at_any_step() {
    let mut at = 0;
    while with_death(at, true).await {
        at += 1;
    }
    // Two steps for each of head, partitions, challenge, miner, sectors, read, prove and submit at the least.
    assert!(at > 30, "only {at} steps were cut");
}

#[tokio::test]
async fn a_recovery_survives_a_death_at_any_step() {
    let mut at = 0;
    while with_death(at, false).await {
        at += 1;
    }
    assert!(at > 20, "only {at} steps were cut");
}
