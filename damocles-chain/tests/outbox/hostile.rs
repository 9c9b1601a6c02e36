//! Ten thousand messages of five senders over a node that drops, delays, doubles and lies, forks twenty tipsets deep and
//! raises its base fee a hundredfold, sent by a manager that is killed at any point. A run in which some of that did not
//! happen goes on with more messages until it did.

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
use parking_lot::Mutex;
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
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// At least so many.
    pub(crate) messages: usize,
    pub(crate) spikes: bool,
    /// How many of them are cancelled.
    pub(crate) cancels: usize,
    /// Nothing goes wrong: how fast it is.
    pub(crate) calm: bool,
}

const SENDERS: usize = 5;
/// How many tipsets the deepest forks revert.
const DEEPEST: u64 = 20;
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

/// The most that a message of these runs may offer for a unit of gas, attoFIL: less than the base fee of a spike, and more
/// than it takes on any other day.
const MOST: i64 = 50_000_000;
/// The least base fee of a spike.
const SPIKE: i64 = 4 * MOST;

fn fees() -> Fees {
    let other =
        FeePolicy { replace_after: 4, max_fee_cap: Some(Amount::from_atto(MOST.into())), ..Fees::default().other };
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

/// What really happened in a run.
#[derive(Debug, Default)]
struct Events {
    forks: AtomicU64,
    deepest: AtomicU64,
    spikes: AtomicU64,
    /// How often a call was seen that waits because its ceiling does not cover what lands.
    too_dear: AtomicU64,
    lives: AtomicU64,
    /// Of calls that were cancelled, with a nonce that is filled on chain.
    fillers: AtomicU64,
}

impl Events {
    /// Whether all of a plan has happened.
    fn are_all(&self, plan: Plan) -> bool {
        let least = |count: &AtomicU64, least: u64| count.load(Ordering::SeqCst) >= least;
        plan.calm
            || least(&self.forks, 1)
                && least(&self.deepest, DEEPEST)
                && least(&self.spikes, plan.spikes.into())
                && least(&self.too_dear, plan.spikes.into())
                && least(&self.lives, 2)
                && least(&self.fillers, (plan.cancels > 0).into())
    }
}

/// Lets the chain grow, fork and become dear until it is told to stop.
async fn weather(home: &Home, plan: Plan, events: &Events, stop: &CancellationToken) {
    let mut dice = Dice::new(plan.seed);
    while !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let devnet = Arc::clone(&home.devnet);
        let forked = (!plan.calm && dice.below(25) == 0).then(|| ForkPlan {
            depth: if dice.below(4) == 0 { DEEPEST } else { 1 + dice.below(DEEPEST) },
            extend: 1 + dice.below(3),
            nulls: dice.below(2),
            fate: MessageFate::Mixed(dice.below(1 << 40)),
            ..ForkPlan::default()
        });
        if plan.spikes && dice.below(100) == 0 && devnet.base_fee() < TokenAmount::from_atto(MOST) {
            let fee = (devnet.base_fee() * 100).max(TokenAmount::from_atto(SPIKE));
            // One on top of another would be beyond what a devnet takes, and its fall take longer than the run.
            if devnet.spike_base_fee(fee, 1 + dice.below(5)).is_ok() {
                events.spikes.fetch_add(1, Ordering::SeqCst);
            }
        }
        let grow = move || {
            // A chain that is not as long yet cannot fork as deep.
            let depth = forked.and_then(|fork| devnet.fork(&fork).ok().map(|_| fork.depth));
            if depth.is_none() {
                devnet.mine(1).unwrap();
            }
            depth
        };
        if let Some(depth) = tokio::task::spawn_blocking(grow).await.unwrap() {
            events.forks.fetch_add(1, Ordering::SeqCst);
            events.deepest.fetch_max(depth, Ordering::SeqCst);
        }
    }
}

/// The calls of a run, which get more as long as not everything has happened.
struct Work {
    /// How many there are.
    all: AtomicUsize,
    submitted: AtomicUsize,
    /// Those that are cancelled, and those of them that are not yet.
    cancelled: Mutex<BTreeSet<usize>>,
    to_cancel: Mutex<Vec<usize>>,
}

impl Work {
    fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed + 2);
        let messages = plan.messages as u64;
        let cancelled: BTreeSet<usize> =
            (0..plan.cancels).map(|_| usize::try_from(dice.below(messages)).unwrap()).collect();
        Self {
            all: AtomicUsize::new(plan.messages),
            submitted: AtomicUsize::new(0),
            to_cancel: Mutex::new(cancelled.iter().rev().copied().collect()),
            cancelled: Mutex::new(cancelled),
        }
    }

    fn more(&self, plan: Plan) {
        let first = self.all.fetch_add(TOGETHER, Ordering::SeqCst);
        if plan.cancels > 0 {
            let more = (first..first + TOGETHER).step_by(10);
            self.cancelled.lock().extend(more.clone());
            self.to_cancel.lock().extend(more);
        }
    }

    /// Submits what was not submitted yet.
    async fn submit(&self, home: &Home, client: &LotusClient) {
        loop {
            let (first, all) = (self.submitted.load(Ordering::SeqCst), self.all.load(Ordering::SeqCst));
            if first >= all {
                return;
            }
            let last = (first + TOGETHER).min(all);
            let calls = (first..last).map(async |n| client.submit(&key(n), &call(home, n)).await);
            if join_all(calls).await.iter().all(Result::is_ok) {
                self.submitted.store(last, Ordering::SeqCst);
            }
        }
    }

    /// Cancels what was not cancelled yet.
    async fn cancel(&self, client: &LotusClient) {
        loop {
            let last = self.to_cancel.lock().last().copied();
            let Some(n) = last else { return };
            let asked = client.cancel_message(&MessageId::new(key(n).0)).await;
            // It was not submitted yet, or landed before.
            if asked.is_ok() || client.outbox_entry(&MessageId::new(key(n).0)).await.is_ok() {
                self.to_cancel.lock().pop();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Managers that live for a while and are killed, one after the other, until everything is on chain and has happened.
async fn managers(home: &Home, plan: Plan, work: &Work, events: &Events) {
    let mut dice = Dice::new(plan.seed + 1);
    loop {
        let database = home.database().await;
        let Ok(client) = home.client(&database).await else { continue };
        let lives = events.lives.fetch_add(1, Ordering::SeqCst) + 1;
        let running = {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.run(CancellationToken::new()).await })
        };
        let life = Duration::from_millis(if plan.calm { 300_000 } else { 300 + dice.below(4000) });
        let living = async {
            loop {
                tokio::join!(work.submit(home, &client), work.cancel(&client));
                while open(&database, false).await > 0 {
                    events.too_dear.fetch_add(too_dear(&database).await, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                events.fillers.store(fillers(&database).await, Ordering::SeqCst);
                if events.are_all(plan) {
                    return;
                }
                work.more(plan);
            }
        };
        let done = tokio::time::timeout(life, living).await.is_ok();
        println!(
            "epoch {}: base fee {}, {} submitted, {} open, {events:?}, manager {lives} lived for {life:?}",
            home.devnet.head().epoch,
            home.devnet.base_fee().atto(),
            work.submitted.load(Ordering::SeqCst),
            open(&database, false).await
        );
        running.abort();
        let _ = running.await;
        drop(client);
        database.close().await;
        if done {
            return;
        }
    }
}

/// How many messages that do nothing are on chain.
async fn fillers(database: &AnyPool) -> u64 {
    let text = "SELECT COUNT(*) AS fillers FROM chain_messages WHERE tipset IS NOT NULL AND landed_as = 'cancel'";
    let count: i64 = sqlx::query(text).fetch_one(database).await.unwrap().get("fillers");
    count.try_into().unwrap()
}

/// How many calls wait because the ceiling of their class does not cover what lands.
async fn too_dear(database: &AnyPool) -> u64 {
    let text = "SELECT COUNT(*) AS waiting FROM chain_messages
         WHERE state IN ('recorded', 'signed') AND error LIKE '%most for a unit of gas%'";
    let count: i64 = sqlx::query(text).fetch_one(database).await.unwrap().get("waiting");
    count.try_into().unwrap()
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
    let (work, events, stop) = (Work::new(plan), Events::default(), CancellationToken::new());
    let begin = Instant::now();
    let living = async {
        managers(&home, plan, &work, &events).await;
        stop.cancel();
    };
    tokio::join!(weather(&home, plan, &events, &stop), living);
    let took = begin.elapsed();
    let plan = Plan { messages: work.all.load(Ordering::SeqCst), ..plan };
    println!("{events:?}");
    println!("on chain after {took:?}: {:.0} messages per second", plan.messages as f64 / took.as_secs_f64());
    assert!(events.are_all(plan), "it was not hostile");

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
    let cancelled = work.cancelled.lock().clone();
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
    run(Plan { seed: 20_261_120, messages: 1000, spikes: true, cancels: 20, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_lands_once_without_spikes() {
    run(Plan { seed: 20_261_121, messages: 10_000, spikes: false, cancels: 0, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_lands_once_with_spikes_and_cancels() {
    run(Plan { seed: 20_261_122, messages: 10_000, spikes: true, cancels: 100, calm: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures and asserts little: cargo test --workspace --test outbox throughput -- --ignored --nocapture"]
async fn throughput() {
    run(Plan { seed: 20_261_123, messages: 10_000, spikes: false, cancels: 0, calm: true }).await;
}
