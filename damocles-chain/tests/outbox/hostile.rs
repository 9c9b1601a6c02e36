//! Ten thousand messages of five senders over a node that drops, delays, doubles and lies, forks twenty tipsets deep and
//! raises its base fee a hundredfold, sent by a manager that is killed at any point.

use crate::{
    checks::{self, Wire},
    home::Home,
};
use damocles_chain::{
    FeePolicy, Fees, LotusClient, OutboxState,
    devnet::{ForkPlan, MessageFate},
};
use damocles_core::{
    Address, CancellationToken, TokenAmount as Amount,
    chain::{Call, ChainClient as _, MessageId, SubmitKey, Transfer},
};
use futures::future::join_all;
use fvm_shared::econ::TokenAmount;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use serde_json::{Value, json};
use sqlx::{AnyPool, Row as _};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) messages: usize,
    pub(crate) spikes: bool,
    pub(crate) cancels: usize,
    /// Nothing goes wrong: how fast it is.
    pub(crate) calm: bool,
}

const SENDERS: usize = 5;
/// Every so many messages one goes to an actor that is not there.
const FAILS: usize = 10;
/// Calls that are submitted at the same time.
const TOGETHER: usize = 100;

pub(crate) fn fails(n: usize) -> bool {
    n % FAILS == 3
}

pub(crate) fn key(n: usize) -> SubmitKey {
    SubmitKey(format!("send/{n}"))
}

/// The amount says which call a message on chain is of.
pub(crate) fn amount(n: usize) -> i64 {
    i64::try_from(n).unwrap() + 1
}

fn call(home: &Home, n: usize) -> Call {
    let from = home.senders[n % SENDERS].clone();
    let to: Address =
        if fails(n) { "t0999999".parse().unwrap() } else { home.senders[(n / SENDERS) % SENDERS].clone() };
    Call::Send(Transfer { from, to, amount: Amount::from_atto(amount(n).into()) })
}

fn fees() -> Fees {
    let other = FeePolicy { replace_after: 4, ..Fees::default().other };
    Fees { other, ..Fees::default() }
}

fn faults(seed: u64) -> Value {
    let rule =
        |method: &str, kind: Value, per_mille: u32| json!({"Method": method, "Kind": kind, "PerMille": per_mille});
    json!([{"Seed": seed, "Rules": [
        rule("*", json!("DropRequest"), 10),
        rule("*", json!("DropAnswer"), 10),
        rule("*", json!({"DelayRequest": {"Millis": 1, "Jitter": 30}}), 20),
        rule("*", json!({"DelayAnswer": {"Millis": 1, "Jitter": 30}}), 20),
        rule("*", json!("DuplicateRequest"), 10),
        rule("*", json!({"Stale": 3}), 10),
        rule("*", json!("Null"), 3),
        rule("*", json!({"Error": {"Code": 1, "Message": "boom"}}), 5),
        rule("*", json!({"Garbage": "<html>"}), 5),
        rule("Filecoin.MpoolGetNonce", json!({"Offset": 3}), 50),
        rule("Filecoin.MpoolGetNonce", json!({"Offset": -3}), 50),
        rule("Filecoin.StateSearchMsg", json!("Null"), 50),
        rule("xrpc.ch.val", json!("DropAnswer"), 30),
        rule("xrpc.ch.val", json!("DuplicateAnswer"), 50),
    ]}])
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }
}

/// Lets the chain grow, fork and become dear until it is told to stop.
async fn weather(home: &Home, plan: Plan, stop: &CancellationToken) -> (u64, u64) {
    let mut dice = Dice::new(plan.seed);
    let (mut forks, mut spikes, mut deepest) = (0, 0, 0);
    while !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let devnet = Arc::clone(&home.devnet);
        let forked = (!plan.calm && dice.below(25) == 0).then(|| ForkPlan {
            depth: 1 + dice.below(20),
            extend: 1 + dice.below(3),
            nulls: dice.below(2),
            fate: MessageFate::Mixed(dice.below(1 << 40)),
            ..ForkPlan::default()
        });
        if plan.spikes && dice.below(100) == 0 && devnet.base_fee() < TokenAmount::from_nano(1) {
            let fee = devnet.base_fee() * 100;
            // One on top of another would be beyond what a devnet takes, and its fall take longer than the run.
            if devnet.spike_base_fee(fee, 1 + dice.below(5)).is_ok() {
                spikes += 1;
            }
        }
        if let Some(fork) = &forked {
            deepest = deepest.max(fork.depth);
            forks += 1;
        }
        let grow = move || match forked {
            // A chain that is not as long yet cannot fork as deep.
            Some(fork) => devnet.fork(&fork).map(drop).or_else(|_| devnet.mine(1).map(drop)).unwrap(),
            None => drop(devnet.mine(1).unwrap()),
        };
        tokio::task::spawn_blocking(grow).await.unwrap();
    }
    println!("{forks} forks, {deepest} tipsets deep at most, {spikes} spikes");
    (forks, spikes)
}

/// Submits what was not submitted yet.
async fn submit(home: &Home, client: &LotusClient, plan: Plan, next: &AtomicUsize) {
    loop {
        let first = next.load(Ordering::SeqCst);
        if first >= plan.messages {
            return;
        }
        let last = (first + TOGETHER).min(plan.messages);
        let all = (first..last).map(async |n| client.submit(&key(n), &call(home, n)).await);
        if join_all(all).await.iter().all(Result::is_ok) {
            next.store(last, Ordering::SeqCst);
        }
    }
}

/// Managers that live for a while and are killed, one after the other, until everything is on chain.
async fn managers(home: &Home, plan: Plan, cancelled: &BTreeSet<usize>) -> usize {
    let mut dice = Dice::new(plan.seed + 1);
    let next = AtomicUsize::new(0);
    let mut lives = 0;
    let mut to_cancel: Vec<usize> = cancelled.iter().copied().collect();
    loop {
        let database = home.database().await;
        let Ok(client) = home.client(&database).await else { continue };
        lives += 1;
        let running = {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.run(CancellationToken::new()).await })
        };
        let life = Duration::from_millis(if plan.calm { 300_000 } else { 300 + dice.below(4000) });
        let work = async {
            let operator = async {
                while let Some(n) = to_cancel.last().copied() {
                    let asked = client.cancel_message(&MessageId::new(key(n).0)).await;
                    // It was not submitted yet, or landed before.
                    if asked.is_ok() || client.outbox_entry(&MessageId::new(key(n).0)).await.is_ok() {
                        to_cancel.pop();
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::join!(submit(home, &client, plan, &next), operator);
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if open(&database, false).await == 0 {
                    return;
                }
            }
        };
        let done = tokio::time::timeout(life, work).await.is_ok();
        println!(
            "epoch {}: {} submitted, {} open, manager {lives} lived for {life:?}",
            home.devnet.head().epoch,
            next.load(Ordering::SeqCst),
            open(&database, false).await
        );
        running.abort();
        let _ = running.await;
        drop(client);
        database.close().await;
        if done {
            return lives;
        }
    }
}

/// How many calls are not known to be on chain, or to be final there.
async fn open(database: &AnyPool, finally: bool) -> i64 {
    let on_chain = if finally { "1 = 0" } else { "tipset IS NOT NULL" };
    let text = format!(
        "SELECT COUNT(*) AS open FROM chain_messages
         WHERE state = 'recorded' OR (state = 'signed' AND NOT ({on_chain}))"
    );
    sqlx::query(sqlx::AssertSqlSafe(text)).fetch_one(database).await.unwrap().get("open")
}

pub(crate) async fn run(plan: Plan) {
    println!("{plan:?}");
    let wire = Arc::new(Wire::default());
    let watch = Arc::clone(&wire);
    let home = Home::new(SENDERS, 1_000_000, fees(), Arc::new(move |body| watch.see(body))).await;
    home.devnet.mine(25).unwrap();
    if !plan.calm {
        home.devnet.call("Devnet.Faults", faults(plan.seed)).unwrap();
    }
    let mut dice = Dice::new(plan.seed + 2);
    let messages = plan.messages as u64;
    let cancelled: BTreeSet<usize> =
        (0..plan.cancels).map(|_| usize::try_from(dice.below(messages)).unwrap()).collect();
    let stop = CancellationToken::new();
    let begin = Instant::now();
    let living = async {
        let lives = managers(&home, plan, &cancelled).await;
        stop.cancel();
        lives
    };
    let ((forks, _), lives) = tokio::join!(weather(&home, plan, &stop), living);
    let took = begin.elapsed();
    println!(
        "{lives} managers, on chain after {took:?}: {:.0} messages per second",
        plan.messages as f64 / took.as_secs_f64()
    );
    assert!(plan.calm || plan.messages < 1000 || forks > 0 && lives > 1, "it was not hostile");

    // The weather is good again, and everything becomes final.
    home.devnet.call("Devnet.Faults", json!([{}])).unwrap();
    let database = home.database().await;
    let client = home.client(&database).await.unwrap();
    let running = {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.run(CancellationToken::new()).await })
    };
    let mut rounds = 0;
    while open(&database, false).await > 0 {
        home.devnet.mine(1).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        rounds += 1;
        assert!(rounds < 500, "{plan:?}: {:?}", first_open(&client).await);
    }
    home.devnet.mine(905).unwrap();
    while open(&database, true).await > 0 {
        rounds += 1;
        assert!(rounds < 1000, "{plan:?}: {:?}", first_open(&client).await);
        home.devnet.mine(1).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    checks::all(&home, &client, plan, &cancelled, &wire).await;
    running.abort();
    println!("final after {:?}", begin.elapsed());
}

async fn first_open(client: &LotusClient) -> Option<damocles_chain::OutboxEntry> {
    let entries = client.outbox().await.unwrap();
    entries.into_iter().find(|e| !matches!(e.state, OutboxState::Settled | OutboxState::Dropped))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_with_spikes_and_cancels() {
    run(Plan { seed: 20_261_120, messages: 600, spikes: true, cancels: 20, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_lands_once_without_spikes() {
    run(Plan { seed: 20_261_121, messages: 10_000, spikes: false, cancels: 0, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a spike takes the base fee dozens of epochs to fall: minutes"]
async fn every_key_lands_once_with_spikes_and_cancels() {
    run(Plan { seed: 20_261_122, messages: 10_000, spikes: true, cancels: 100, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "says how many messages a second go through the outbox when nothing goes wrong"]
async fn throughput() {
    run(Plan { seed: 20_261_123, messages: 10_000, spikes: false, cancels: 0, calm: true }).await;
}
