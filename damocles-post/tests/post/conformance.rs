//! The contract of `PoStScheduler`.

use crate::harness::{Heard, MINER, World};
use damocles_core::{Context, Epoch, Event, conformance, post::PoStScheduler};
use damocles_post::{DryRun, Options, ProofRecords};
use std::sync::Arc;

#[tokio::test]
async fn window_scheduler_keeps_the_contract() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2], &[3]]);
    let scheduler = world.scheduler().await;
    let past_due = |epoch: Epoch| world.chain.tick(epoch.0 - 1000);
    conformance::post::all(&*scheduler, &*world.node, MINER, past_due).await;

    let [landed] = &world.accepted()[..] else { panic!("one message") };
    assert_eq!(landed.key.0, "post/1000/940/16/0.1/1");
    world.check(landed, &[1, 2, 3]).await;
    let records: &ProofRecords = scheduler.records();
    let [attempt] = &records.recent(MINER, 10).await.unwrap()[..] else { panic!("one attempt") };
    assert!(attempt.success().is_some_and(|r| r.epoch == landed.epoch));
}

#[tokio::test]
async fn dry_run_keeps_the_contract_and_sends_nothing() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2], &[3]]);
    let dry = DryRun::new(world.node.clone(), Options::default());
    let past_due = |epoch: Epoch| world.chain.tick(epoch.0 - 1000);
    conformance::post::all(&dry, &*world.node, MINER, past_due).await;
    assert!(world.chain.landed_calls().is_empty() && world.chain.pending() == 0);
    assert_eq!(world.bench.proofs(), 0);
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2], &[3]]);
    let dry = DryRun::new(world.node.clone(), Options::default());
    let heard = Arc::new(Heard::default());
    let duty = world.duty(&dry, true).await;
    assert_eq!(duty, world.duty(&*world.scheduler().await, true).await, "both plan alike");
    dry.fulfil(&duty, &Context::new(heard.clone())).await.unwrap();
    let text = "would prove 3 sectors of miner 1000 in deadline 16, partitions 0 1, until epoch 1019".to_owned();
    assert_eq!(*heard.0.lock(), [Event::Note { from: "post".to_owned(), text }]);
}
