//! What befalls a miner with sectors: debts, terminations and what is left of them.

use crate::{atto, desk::Desk, text, within};
use damocles_chain::{LotusClient, LotusConfig, Senders, signer::Keystore};
use damocles_core::{
    ActorId, CancellationToken, Context, DeadlineIndex, PartitionIndex, SectorNumber,
    chain::{Call, ChainClient as _, ChainClientExt as _, PartitionSectors, SubmitKey, TerminateSectors},
};
use serde_json::{Value, json};
use sqlx::any::AnyPoolOptions;
use std::sync::Arc;

/// A miner with two sectors, which it never proves.
async fn with_sectors() -> (Desk, ActorId) {
    let miner = |keys: &damocles_cli::manager::init::Initialised| {
        format!(
            "[[miner]]\nowner = \"{}\"\nworker = \"{}\"\nsectors = 2\nbalance = \"1000 FIL\"\n",
            keys.owner, keys.worker
        )
    };
    let desk = Desk::start_with(200, miner).await.unwrap();
    let miners = desk.ask("Filecoin.StateListMiners", json!([[]])).await.unwrap();
    let miner = text(&miners, "/0").trim_start_matches("t0").parse().unwrap();
    (desk, ActorId(miner))
}

fn numbers(value: &Value) -> Vec<u64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The deadline in which the sectors are, and when it opens next.
async fn deadline(desk: &Desk, miner: &str) -> (u64, i64) {
    let all = desk.json(&["miner", "deadlines", "--miner", miner]).await.unwrap();
    let all = all.pointer("/deadlines").and_then(Value::as_array).unwrap();
    let found = all.iter().find(|d| d.pointer("/partitions") == Some(&json!(1))).unwrap();
    (
        found.pointer("/index").and_then(Value::as_u64).unwrap(),
        found.pointer("/open/epoch").and_then(Value::as_i64).unwrap(),
    )
}

/// Has every epoch made until one.
async fn until(desk: &Desk, epoch: i64) {
    let head = desk.ask("Filecoin.ChainHead", json!([])).await.unwrap();
    let now = head.pointer("/Height").and_then(Value::as_i64).unwrap();
    desk.mine(u64::try_from(epoch - now).unwrap_or_default()).await.unwrap();
}

/// Sends what no command sends.
async fn terminate(desk: &Desk, miner: ActorId, deadline: u64, number: u64) {
    sqlx::any::install_default_drivers();
    let database = AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    let keys = Keystore::open(desk.home().join("keystore")).unwrap();
    let config = LotusConfig::new(desk.node_url().parse().unwrap(), Senders::all(desk.keys.worker.clone()));
    let client = LotusClient::connect(config, Arc::new(keys), database).await.unwrap();
    let part = PartitionSectors {
        deadline: DeadlineIndex(deadline),
        partition: PartitionIndex(0),
        sectors: [SectorNumber(number)].into_iter().collect(),
    };
    let call = Call::TerminateSectors(TerminateSectors { miner, terminations: vec![part] });
    let id = client.submit(&SubmitKey("terminate".to_owned()), &call).await.unwrap();
    let cx = Context::detached();
    let landed = tokio::select! {
        landed = client.landed(&id, 1, &cx) => landed.unwrap(),
        () = client.run(CancellationToken::new()) => panic!("it runs until cancelled"),
    };
    assert!(landed.is_success(), "{landed:?}");
}

#[tokio::test]
async fn a_debt_is_paid_back_in_parts() {
    let (desk, miner) = with_sectors().await;
    let name = miner_name(miner);
    let miner = name.as_str();
    desk.act(&["miner", "withdraw", "--miner", miner]).await.unwrap();
    // Periods without a proof cost something at the end of each.
    for _ in 0..3 {
        desk.mine(2_900).await.unwrap();
    }
    let (_, opens) = deadline(&desk, miner).await;
    until(&desk, opens + 70).await;
    let balance = desk.json(&["miner", "balance", "--miner", miner]).await.unwrap();
    let debt = atto(&balance, "/fee_debt");
    assert!(debt > 1_000, "{balance:#}");
    let withdrawn = desk.run(&["miner", "withdraw", "1 attoFIL", "--miner", miner, "--really-do-it"]).await.unwrap();
    assert_eq!(withdrawn.code, Some(1), "{}", withdrawn.err);

    let part = format!("{} attoFIL", debt / 2);
    let tried = desk.json(&["miner", "repay-debt", &part, "--miner", miner, "--simulate"]).await.unwrap();
    assert_eq!(tried.pointer("/prediction/exit_code"), Some(&json!(0)), "{tried:#}");
    assert_eq!(atto(&tried, "/value"), debt / 2);
    let paid = desk.act(&["miner", "repay-debt", &part, "--miner", miner]).await.unwrap();
    assert_eq!(paid.pointer("/exit_code"), Some(&json!(0)), "{paid:#}");
    let left = desk.json(&["miner", "balance", "--miner", miner]).await.unwrap();
    assert_eq!(atto(&left, "/fee_debt"), debt - debt / 2, "{left:#}");
    desk.act(&["miner", "repay-debt", "--miner", miner]).await.unwrap();
    let clear = desk.json(&["miner", "balance", "--miner", miner]).await.unwrap();
    assert_eq!(atto(&clear, "/fee_debt"), 0, "{clear:#}");
    let owes = desk.run(&["miner", "repay-debt", "--miner", miner, "--really-do-it"]).await.unwrap();
    assert!(owes.code == Some(1) && owes.err.contains("owes nothing"), "{}", owes.err);
}

fn miner_name(miner: ActorId) -> String {
    format!("t0{miner}")
}

#[tokio::test]
async fn what_was_terminated_is_compacted_away() {
    let (desk, actor) = with_sectors().await;
    let name = miner_name(actor);
    let miner = name.as_str();
    let sectors = async || {
        let found = desk.json(&["miner", "partitions", "--miner", miner]).await.unwrap();
        let all = found.pointer("/partitions").and_then(Value::as_array).unwrap().clone();
        all.into_iter().map(|p| (numbers(&p["all"]), numbers(&p["live"]))).collect::<Vec<_>>()
    };
    assert_eq!(sectors().await, [(vec![0, 1], vec![0, 1])]);
    let (index, opens) = deadline(&desk, miner).await;
    let index_text = index.to_string();
    let compact = ["miner", "compact", "--deadline", &index_text, "--miner", miner];
    let nothing = desk.run(&[&compact[..], &["--really-do-it"]].concat()).await.unwrap();
    assert_eq!(nothing.code, Some(1), "{}", nothing.err);
    assert!(nothing.err.contains("has terminated sectors"), "{}", nothing.err);

    // What is open or about to open cannot be terminated.
    until(&desk, opens + 130).await;
    // Both, for a partition with faults cannot be compacted, and nobody proves here.
    within(terminate(&desk, actor, index, 0)).await;
    within(terminate(&desk, actor, index, 1)).await;
    assert_eq!(sectors().await, [(vec![0, 1], vec![])]);
    // Until 1800 epochs after its window its proofs can be disputed.
    let early = desk.run(&[&compact[..], &["--simulate"]].concat()).await.unwrap();
    assert_eq!(early.code, Some(1), "{}", early.err);
    assert!(
        early.out.contains("refused with 18") && early.err.contains("nothing was sent"),
        "{} {}",
        early.out,
        early.err
    );
    let refused = desk.run(&[&compact[..], &["--really-do-it"]].concat()).await.unwrap();
    assert_ne!(refused.code, Some(0), "{}", refused.out);
    assert!(refused.err.contains("nothing was sent"), "{}", refused.err);
    until(&desk, opens + 60 + 1_900).await;
    let absent = desk.run(&[&compact[..], &["--partitions", "7", "--really-do-it"]].concat()).await.unwrap();
    assert!(absent.code == Some(2) && absent.err.contains("has no partition 7"), "{}", absent.err);
    let done = desk.act(&compact).await.unwrap();
    assert_eq!(done.pointer("/exit_code"), Some(&json!(0)), "{done:#}");
    assert_eq!(sectors().await, []);
    let left = desk.json(&["miner", "sectors", "--miner", miner]).await.unwrap();
    assert_eq!(left.pointer("/sectors"), Some(&json!([])), "{left:#}");
}

#[tokio::test]
async fn the_incumbents_command_makes_a_miner_too() {
    let desk = Desk::start(50).await.unwrap();
    let (from, worker) = (desk.second_owner.to_string(), desk.keys.worker.to_string());
    let create = ["util", "miner", "create", "--from", &from, "--worker", &worker, "--sector-size", "2KiB"];
    let tried = desk.json(&[&create[..], &["--simulate"]].concat()).await.unwrap();
    assert_eq!(tried.pointer("/prediction/exit_code"), Some(&json!(0)), "{tried:#}");
    let made = desk.json(&["message", "list", "--all"]).await.unwrap();
    assert_eq!(made.pointer("/messages"), Some(&json!([])), "nothing was sent");
    let done = desk.run(&[&create[..], &["--exid", "a", "--really-do-it"]].concat()).await.unwrap();
    assert_eq!(done.code, Some(0), "{}", done.err);
    let name = done.out.strip_prefix("miner actor: ").unwrap().split(' ').next().unwrap().to_owned();
    let again = desk.act(&[&create[..], &["--exid", "b"]].concat()).await.unwrap();
    assert_ne!(format!("t0{}", again.pointer("/miner").unwrap()), name, "another name is another miner");
    let info = desk.json(&["util", "miner", "info", &name]).await.unwrap();
    let id = desk.ask("Filecoin.StateLookupID", json!([from, []])).await.unwrap();
    assert_eq!(info.pointer("/owner"), Some(&id), "{info:#}");
    let config = std::fs::read_to_string(desk.home().join("manager.toml")).unwrap();
    assert_eq!(config.matches("[[miners]]").count(), 2, "{config}");
    let strange = desk.run(&["util", "miner", "create", "--from", "t01", "--sector-size", "3KiB"]).await.unwrap();
    assert_eq!(strange.code, Some(2), "{}", strange.err);
}
