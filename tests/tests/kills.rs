//! Kills of every process at moments that a seed chooses: the n-th call, journal entry, message or task.
//!
//! `DAMOCLES_TEST_SEED=N cargo test -p damocles-tests --test kills` runs each test with that seed instead of its own.

#![expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the seed and the moments are told, and a seed is replayed, through the environment of the test"
)]

use anyhow::{Context as _, ensure};
use damocles_tests::{
    audit,
    lab::{Bins, Lab, Options, Parent},
    proxy::{Side, Trap},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use std::time::Duration;

/// A moment that does not come is a mistake of the test.
const PATIENCE: Duration = Duration::from_secs(600);
/// Beyond the next challenge.
const FAR: i64 = 1_000_000;

fn bins() -> Bins {
    Bins {
        manager: env!("CARGO_BIN_EXE_damocles-test-manager").into(),
        worker: env!("CARGO_BIN_EXE_damocles-test-worker").into(),
        prover: env!("CARGO_BIN_EXE_damocles-test-prover").into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Manager,
    Devnet,
    Child(Parent),
}

/// Counted from the last kill on.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The n-th call of the worker.
    WorkerCall(u64, Side),
    /// The n-th call of the manager to the chain.
    ChainCall(u64, Side),
    /// The n-th message.
    Push(u64, Side),
    /// The n-th entry in the journal.
    Append(u64),
    /// The n-th task of a child.
    Task(u64, Side),
    /// The message with the next window PoSt.
    Proof(Side),
}

impl Moment {
    /// One of those that come after each other in the whole life of one sector, the proof of minutes included.
    fn choose_wide(victim: Victim, nth: u32, rng: &mut StdRng) -> Self {
        let side = if rng.r#gen() { Side::Before } else { Side::After };
        match victim {
            Victim::Worker => Self::Append(rng.gen_range(7..=11)),
            Victim::Manager => Self::WorkerCall(rng.gen_range(8..=14), side),
            Victim::Devnet => Self::ChainCall(rng.gen_range(40..=120), side),
            // Of six tasks; the one that died is the first of those that follow.
            Victim::Child(_) => Self::Task(if nth == 1 { 2 } else { rng.gen_range(2..=3) }, side),
        }
    }

    /// One of those at which this victim has something to lose.
    fn choose(victim: Victim, rng: &mut StdRng) -> Self {
        let side = if rng.r#gen() { Side::Before } else { Side::After };
        match (victim, rng.gen_range(0..3)) {
            (Victim::Worker, 0) => Self::Append(rng.gen_range(1..=10)),
            (Victim::Worker, _) => Self::WorkerCall(rng.gen_range(1..=12), side),
            (Victim::Manager, 0) => Self::WorkerCall(rng.gen_range(1..=12), side),
            (Victim::Manager, 1) | (Victim::Devnet, 0) => Self::Push(1, side),
            (Victim::Manager | Victim::Devnet, _) => Self::ChainCall(rng.gen_range(1..=80), side),
            (Victim::Child(Parent::Worker), _) => Self::Task(rng.gen_range(1..=2), side),
            (Victim::Child(Parent::Manager), _) => Self::Task(1, side),
        }
    }
}

/// Waits for the moment.
async fn strike(lab: &mut Lab, victim: Victim, moment: Moment) -> anyhow::Result<()> {
    let trap = |needle: &str, nth, side| Trap { needle: needle.to_owned(), nth, side };
    match moment {
        Moment::WorkerCall(nth, side) => {
            lab.to_manager.set_trap(trap("\"method\"", nth, side));
            lab.to_manager.sprung().await;
        }
        Moment::ChainCall(nth, side) => {
            lab.to_devnet.set_trap(trap("\"method\"", nth, side));
            lab.to_devnet.sprung().await;
        }
        Moment::Push(nth, side) => {
            lab.to_devnet.set_trap(trap("Filecoin.MpoolPush", nth, side));
            lab.to_devnet.sprung().await;
        }
        Moment::Append(nth) => {
            let start = lab.journal().await?.0.len();
            let goal = start + usize::try_from(nth)?;
            lab.journal_shows("a journal entry", |j| j.0.len() >= goal).await?;
        }
        Moment::Task(nth, side) => {
            let Victim::Child(parent) = victim else { anyhow::bail!("only children have tasks") };
            let side = if side == Side::Before { "before" } else { "after" };
            let before = dooms(lab, parent).len();
            std::fs::write(lab.doom(parent), format!("{nth} {side}"))?;
            lab.eventually("a doomed task", async || Ok(dooms(lab, parent).len() > before)).await?;
        }
        Moment::Proof(side) => {
            lab.to_devnet.set_trap(trap("Filecoin.MpoolPush", 1, side));
            lab.ask("Devnet.AdvanceTo", json!([FAR])).await?;
            lab.to_devnet.sprung().await;
        }
    }
    Ok(())
}

/// The kinds of the tasks at which children died.
fn dooms(lab: &Lab, parent: Parent) -> Vec<String> {
    lab.diary_lines(parent).iter().filter_map(|l| l.strip_prefix("doomed ").map(str::to_owned)).collect()
}

/// Kills at the moment, with the chain's clock stopped until all is up again.
async fn kill(lab: &mut Lab, victim: Victim, moment: Moment) -> anyhow::Result<()> {
    let struck = tokio::time::timeout(PATIENCE, strike(lab, victim, moment)).await;
    struck.with_context(|| format!("{moment:?} never comes\n{}", lab.last_words()))??;
    let mut subscriptions = lab.to_devnet.subscriptions();
    let before = *subscriptions.borrow_and_update();
    match victim {
        Victim::Worker => lab.worker.kill().await?,
        Victim::Manager => lab.manager.kill().await?,
        Victim::Devnet => lab.devnet.kill().await?,
        Victim::Child(_) => {}
    }
    match victim {
        Victim::Child(Parent::Worker) => {
            let kind = dooms(lab, Parent::Worker).pop().context("a doomed task")?;
            lab.note_death(&kind).await?;
        }
        Victim::Worker => lab.note_hit().await?,
        Victim::Manager | Victim::Devnet => lab.note_absence().await?,
        Victim::Child(Parent::Manager) => {}
    }
    if victim != Victim::Devnet {
        lab.pause().await?;
    }
    match victim {
        Victim::Worker => drop(lab.worker.start().await?),
        Victim::Manager => lab.start_manager().await?,
        Victim::Devnet => {
            lab.start_devnet().await?;
            lab.pause().await?;
        }
        Victim::Child(parent) => {
            // The line of the doomed task is its last.
            let after = |lines: &[String]| lines.last().is_some_and(|l| !l.starts_with("doomed"));
            lab.eventually("the task is run again", async || Ok(after(&lab.diary_lines(parent)))).await?;
        }
    }
    if matches!(victim, Victim::Manager | Victim::Devnet) {
        let back = tokio::time::timeout(PATIENCE, subscriptions.wait_for(|n| *n > before)).await;
        back.context("the manager does not come back to the chain")??;
    }
    lab.resume().await
}

fn seed_of(own: u64) -> u64 {
    let seed = std::env::var("DAMOCLES_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(own);
    eprintln!("seed {seed}");
    seed
}

async fn seal_under_kills(options: Options, victim: Victim, seed: u64, kills: u32) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed_of(seed));
    let (wanted, one_life) = (options.sectors, options.sectors == 1);
    let mut lab = Lab::start(bins(), options).await?;
    for n in 1..=kills {
        let moment = if one_life { Moment::choose_wide(victim, n, &mut rng) } else { Moment::choose(victim, &mut rng) };
        let known = lab.journal().await?;
        eprintln!("kill {n} of {victim:?} at {moment:?}, under way: {:?}", known.under_way());
        kill(&mut lab, victim, moment).await?;
    }
    let sectors = lab.finish().await?;
    let proven = u64::try_from(sectors.iter().filter(|s| s.is_proven()).count())?;
    ensure!(proven == wanted && sectors.len() == usize::try_from(wanted)?, "{sectors:#?}");
    audit::check(&lab).await
}

macro_rules! kills {
    ($($name:ident: $victim:expr, $seed:expr, $kills:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            seal_under_kills(Options::default(), $victim, $seed, $kills).await.unwrap();
        })*
    };
}

kills! {
    the_worker_is_killed_five_times: Victim::Worker, 1, 5;
    the_worker_is_killed_five_times_more: Victim::Worker, 2, 5;
    the_manager_is_killed_five_times: Victim::Manager, 3, 5;
    the_manager_is_killed_five_times_more: Victim::Manager, 4, 5;
    the_devnet_is_killed_five_times: Victim::Devnet, 5, 5;
    the_devnet_is_killed_five_times_more: Victim::Devnet, 6, 5;
    sealing_children_die_five_times: Victim::Child(Parent::Worker), 7, 5;
    sealing_children_die_five_times_more: Victim::Child(Parent::Worker), 8, 5;
}

/// Three kills of each process, with real proofs.
#[tokio::test]
#[ignore = "minutes of proving: cargo test --workspace --test kills -- --ignored --nocapture"]
async fn real_proofs_survive_three_kills_of_each() {
    let victims =
        [(Victim::Worker, 21), (Victim::Manager, 22), (Victim::Devnet, 23), (Victim::Child(Parent::Worker), 24)];
    for (victim, seed) in victims {
        let begun = std::time::Instant::now();
        seal_under_kills(Options::real(), victim, seed, 3).await.unwrap();
        eprintln!("{victim:?}: sealed and proven under three kills in {} s", begun.elapsed().as_secs());
    }
}

/// The message with the proof of both sectors is in the air when something dies: it lands once, and no deadline is
/// missed.
async fn prove_under_kill(victim: Victim, side: Side) -> anyhow::Result<()> {
    let mut lab = Lab::start(bins(), Options::default()).await?;
    lab.active().await?;
    lab.journal_shows("both sectors end", |j| j.ended() == 2).await?;
    kill(&mut lab, victim, Moment::Proof(side)).await?;
    lab.eventually("the proof lands", async || Ok(!audit::landed_posts(&lab).await?.is_empty())).await?;
    lab.ask("Devnet.Mine", json!([100])).await?;
    let codes = audit::landed_posts(&lab).await?;
    ensure!(codes == [0], "one partition is proven by one message, not by these: {codes:?}");
    ensure!(lab.faulty().await? == 0, "a deadline was missed");
    let sectors = lab.finish().await?;
    ensure!(sectors.len() == 2 && sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    audit::check(&lab).await
}

#[tokio::test]
async fn a_proof_in_the_air_survives_the_manager() {
    prove_under_kill(Victim::Manager, Side::Before).await.unwrap();
    prove_under_kill(Victim::Manager, Side::After).await.unwrap();
}

#[tokio::test]
async fn a_proof_in_the_air_survives_the_devnet() {
    prove_under_kill(Victim::Devnet, Side::Before).await.unwrap();
    prove_under_kill(Victim::Devnet, Side::After).await.unwrap();
}

/// A child that proves dies; then the manager dies while the chain goes on, which misses a deadline: the sectors are
/// declared recovered and proven a day later.
#[tokio::test]
async fn proving_survives_a_dead_child_and_a_missed_deadline() {
    let mut lab = Lab::start(bins(), Options::default()).await.unwrap();
    lab.active().await.unwrap();
    std::fs::write(lab.doom(Parent::Manager), "1 after").unwrap();
    let sectors = lab.finish().await.unwrap();
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    assert!(lab.diary_lines(Parent::Manager).iter().any(|l| l.starts_with("doomed")));

    lab.manager.kill().await.unwrap();
    // A day and a deadline.
    for _ in 0..30 {
        lab.ask("Devnet.Mine", json!([100])).await.unwrap();
    }
    let faulty = lab.faulty().await.unwrap();
    assert_eq!(faulty, 2, "both sectors missed their deadlines");
    lab.start_manager().await.unwrap();
    let sectors = lab.finish().await.unwrap();
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    assert_eq!(lab.faulty().await.unwrap(), 0);
    audit::check(&lab).await.unwrap();
}
