//! A manager whose messages a Venus cluster sends.

use crate::{BIN, desk::Desk, text, within};
use damocles_chain::{
    lotus_json::from_core,
    rpc::Endpoint,
    signer::{KeyKind, Keystore, MsgMeta, Purpose, SignRequest},
    venus::testing::{FakeGateway, FakeMessager},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use serde_json::{Value, json};
use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

const TOKEN: &str = "hunter2.of.the.cluster";

struct Cluster {
    desk: Desk,
    messager: FakeMessager,
    keys: Keystore,
}

impl Cluster {
    /// A desk whose keys are the messager's: its own home has none.
    async fn start() -> Self {
        let desk = Desk::start(50).await.unwrap();
        let moved: PathBuf = desk.home().parent().unwrap().join("cluster-keys");
        std::fs::rename(desk.home().join("keystore"), &moved).unwrap();
        let keys = Keystore::open(moved).unwrap();
        let node: Endpoint = desk.node_url().parse().unwrap();
        let messager = FakeMessager::start(node, Arc::new(keys.clone()), TOKEN).await.unwrap();
        let cluster = Self { desk, messager, keys };
        cluster.token(TOKEN);
        cluster.configure(&cluster.messager.url(), "");
        cluster
    }

    fn token(&self, token: &str) {
        let file = self.desk.home().join("cluster-token");
        std::fs::write(&file, format!("{token}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn configure(&self, messager: &str, rest: &str) {
        let node = self.desk.node_url();
        let text = format!(
            "kind = \"venus\"\nendpoint = \"{node}\"\n[venus]\nmessager = \"{messager}\"\ntoken_file = \"cluster-token\"\n{rest}"
        );
        self.desk.configure_chain(&text).unwrap();
    }

    fn create(&self) -> Vec<String> {
        let (owner, worker) = (self.desk.keys.owner.to_string(), self.desk.keys.worker.to_string());
        ["miner", "create", "--owner", &owner, "--worker", &worker, "--really-do-it"].map(str::to_owned).to_vec()
    }
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_cluster_sends_what_commands_and_the_daemon_ask_for() {
    let mut cluster = Cluster::start().await;
    let whose = cluster.desk.run(&["miner", "create", "--really-do-it"]).await.unwrap();
    assert_eq!(whose.code, Some(2), "{}", whose.err);
    assert!(whose.err.contains("--owner and --worker"), "{}", whose.err);

    let made = within(cluster.desk.json(&words(&cluster.create()))).await.unwrap();
    assert!(made.pointer("/miner").and_then(Value::as_u64).is_some(), "{made:#}");
    assert_eq!(cluster.messager.records().len(), 1);
    let list = cluster.desk.json(&["message", "list", "--all"]).await.unwrap();
    let (key, uid) = (text(&list, "/messages/0/key"), text(&list, "/messages/0/messager/uid"));
    assert!(key.starts_with("createminer/"), "{list:#}");
    assert_eq!(cluster.messager.records()[0].status.id, uid);
    for name in [key, uid] {
        let one = cluster.desk.json(&["message", "show", name]).await.unwrap();
        assert_eq!(one.pointer("/exit_code"), Some(&json!(0)), "{one:#}");
        assert_eq!(text(&one, "/standing"), "landed");
    }

    // The daemon sends the same way, and commands send through it.
    cluster.desk.daemon.start().await.unwrap();
    within(cluster.desk.act(&["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001"])).await.unwrap();
    let after = cluster.desk.json(&["miner", "multiaddrs"]).await.unwrap();
    assert_eq!(text(&after, "/multiaddrs/0"), "/ip4/10.0.0.1/tcp/24001");
    assert_eq!(cluster.messager.records().len(), 2);
    let uncounted = cluster.desk.run(&["chain", "metrics"]).await.unwrap();
    assert_eq!(uncounted.code, Some(1), "{}", uncounted.err);
    assert!(uncounted.err.contains("not counted on a chain of kind `venus`"), "{}", uncounted.err);
    cluster.desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_messager_that_does_not_take_it_is_named_and_nothing_is_sent() {
    let cluster = Cluster::start().await;
    let refused = async |code: i32, parts: &[&str]| {
        let ended = cluster.desk.run(&words(&cluster.create())).await.unwrap();
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        for part in parts {
            assert!(ended.err.contains(part), "{part}: {}", ended.err);
        }
        assert!(ended.err.contains("hint: ") && !ended.err.contains("hunter"), "{}", ended.err);
    };
    let url = cluster.messager.url();
    let place = url.trim_start_matches("http://").to_owned();
    cluster.token("hunter3");
    refused(75, &[&place, "nothing was sent", "token"]).await;
    cluster.token(TOKEN);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    cluster.configure(&format!("http://{away}"), "");
    refused(75, &[&away, "nothing was sent"]).await;
    cluster.configure(&url, "");
    let file = cluster.desk.home().join("manager.toml");
    let strange = Keystore::open(cluster.desk.home().join("strange")).unwrap().create(KeyKind::Secp256k1).unwrap();
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("[senders]", &format!("[senders]\ncreate_miner = \"{strange}\""))).unwrap();
    let stranger = cluster.desk.run(&words(&cluster.create())).await.unwrap();
    assert_ne!(stranger.code, Some(0), "{}", stranger.out);
    assert!(stranger.err.contains(strange.as_str()), "{}", stranger.err);
    cluster.configure(&url, "");

    assert!(cluster.messager.records().is_empty() && cluster.messager.called("PushMessageWithId").is_empty());
    let list = cluster.desk.json(&["message", "list", "--all"]).await.unwrap();
    assert_eq!(list.pointer("/messages"), Some(&json!([])), "nothing waits to be sent later either");
    within(cluster.desk.json(&words(&cluster.create()))).await.unwrap();
    assert_eq!(cluster.messager.records().len(), 1);
}

#[tokio::test]
async fn a_message_at_the_messager_is_minded_by_its_rules() {
    let cluster = Cluster::start().await;
    within(cluster.desk.json(&words(&cluster.create()))).await.unwrap();
    cluster.messager.idle(true);
    let mut child = sets_addresses(&cluster);
    records(&cluster, |messager| messager.records().len() == 2).await;
    child.kill().await.unwrap();

    let list = cluster.desk.json(&["message", "list"]).await.unwrap();
    let all = list.pointer("/messages").and_then(Value::as_array).unwrap();
    let waiting = all.iter().find(|m| text(m, "/key").starts_with("multiaddrs/")).unwrap();
    assert_eq!(text(waiting, "/state"), "signed", "it may land: {waiting:#}");
    let key = text(waiting, "/key");
    for half in [&["--premium", "7 attoFIL"][..], &["--gas-limit", "1000000"]] {
        let args: Vec<&str> = ["message", "replace", key, "--really-do-it"].iter().chain(half).copied().collect();
        let refused = cluster.desk.run(&args).await.unwrap();
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        assert!(refused.err.contains("messager") && refused.err.contains("hint: "), "{}", refused.err);
    }
    let early = ["message", "replace", key, "--premium", "7 attoFIL", "--fee-cap", "9 attoFIL", "--really-do-it"];
    let early = cluster.desk.run(&early).await.unwrap();
    assert!(early.code == Some(10) && early.err.contains("not signed yet"), "{}", early.err);
    let cancelled = cluster.desk.act(&["message", "cancel", key]).await.unwrap();
    assert_eq!(cancelled.pointer("/cancelled"), Some(&json!(true)), "{cancelled:#}");
    assert_eq!(cluster.messager.called("MarkBadMessage").len(), 1);
}

/// A command that sets the miner's addresses and waits for the end of it.
fn sets_addresses(cluster: &Cluster) -> tokio::process::Child {
    tokio::process::Command::new(BIN)
        .arg("--home")
        .arg(cluster.desk.home())
        .args(["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001", "--really-do-it"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the messager has these records.
async fn records(cluster: &Cluster, enough: fn(&FakeMessager) -> bool) {
    within(async {
        while !enough(&cluster.messager) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Begins to set the miner's addresses and is killed once the messager has signed that. The key of the message.
async fn signed_and_waiting(cluster: &Cluster) -> String {
    within(cluster.desk.json(&words(&cluster.create()))).await.unwrap();
    cluster.messager.idle(true);
    cluster.desk.ask("Devnet.Pause", json!([])).await.unwrap();
    let mut child = sets_addresses(cluster);
    records(cluster, |messager| messager.records().len() == 2).await;
    child.kill().await.unwrap();
    // It signs and sends at one head, and nothing lands before the next.
    cluster.messager.idle(false);
    cluster.desk.mine(1).await.unwrap();
    records(cluster, |messager| messager.records().get(1).is_some_and(|record| record.signed().is_some())).await;
    let list = cluster.desk.json(&["message", "list"]).await.unwrap();
    let all = list.pointer("/messages").and_then(Value::as_array).unwrap();
    text(all.iter().find(|m| text(m, "/key").starts_with("multiaddrs/")).unwrap(), "/key").to_owned()
}

#[tokio::test]
async fn a_message_that_the_messager_signed_is_replaced_and_lands() {
    let cluster = Cluster::start().await;
    let key = signed_and_waiting(&cluster).await;
    let before = cluster.messager.records()[1].status.signed_cid.unwrap().to_string();
    let replaced = cluster.desk.act(&["message", "replace", &key]).await.unwrap();
    let cid = text(&replaced, "/cid").to_owned();
    assert_ne!(cid, before, "{replaced:#}");
    assert_eq!(cluster.messager.called("ReplaceMessage").len(), 1);
    let price = ["message", "replace", &key, "--premium", "5000000 attoFIL", "--fee-cap", "9000000 attoFIL"];
    let priced = cluster.desk.act(&price).await.unwrap();
    assert_ne!(text(&priced, "/cid"), cid);
    assert_eq!(cluster.messager.records()[1].message.gas_premium, TokenAmount::from_atto(5_000_000));
    cluster.desk.ask("Devnet.Resume", json!([])).await.unwrap();
    let landed = within(cluster.desk.json(&["message", "wait", &key])).await.unwrap();
    assert_eq!(landed.pointer("/exit_code"), Some(&json!(0)), "{landed:#}");
    assert_eq!(text(&landed, "/cid"), text(&priced, "/cid"), "the dearest one landed");
}

#[tokio::test]
async fn what_a_messager_gave_up_is_sent_again_when_it_is_asked_to() {
    let cluster = Cluster::start().await;
    let key = signed_and_waiting(&cluster).await;
    cluster.desk.act(&["message", "cancel", &key]).await.unwrap();
    let sender = cluster.desk.keys.worker.to_string();
    let unasked = cluster.desk.run(&["message", "recover"]).await.unwrap();
    assert!(unasked.code == Some(2) && unasked.err.contains("--really-do-it"), "{}", unasked.err);
    assert!(cluster.messager.called("RecoverFailedMsg").is_empty());
    let recovered = cluster.desk.act(&["message", "recover"]).await.unwrap();
    assert_eq!(recovered.pointer("/messages").and_then(Value::as_array).map(Vec::len), Some(1), "{recovered:#}");
    assert_eq!(text(&recovered, "/messages/0/key"), key);
    assert_eq!(text(&recovered, "/messages/0/name"), cluster.messager.records()[1].status.id);
    cluster.desk.ask("Devnet.Resume", json!([])).await.unwrap();
    let landed = within(cluster.desk.json(&["message", "wait", &key])).await.unwrap();
    assert_eq!(landed.pointer("/exit_code"), Some(&json!(0)), "{landed:#}");
    let none = cluster.desk.run(&["message", "recover", &sender, "--really-do-it"]).await.unwrap();
    assert!(none.code == Some(0) && none.out.contains("had given up no"), "{} {}", none.out, none.err);
}

/// A message of an account to itself that moves nothing.
fn nothing(account: Address) -> Message {
    Message {
        version: 0,
        from: account,
        to: account,
        sequence: 0,
        value: TokenAmount::default(),
        method_num: 0,
        params: Default::default(),
        gas_limit: 1000,
        gas_fee_cap: TokenAmount::from_atto(200),
        gas_premium: TokenAmount::from_atto(100),
    }
}

#[tokio::test]
async fn keys_of_a_home_are_served_to_the_cluster() {
    let mut cluster = Cluster::start().await;
    let gateway = FakeGateway::start(TOKEN).await.unwrap();
    let ours = Keystore::open(cluster.desk.home().join("keystore")).unwrap();
    let key = ours.create(KeyKind::Bls).unwrap();
    let serving = format!("gateway = \"{}\"\nserve_wallet = true\naccounts = [\"miners\"]\n", gateway.url());
    cluster.configure(&cluster.messager.url(), &serving);
    cluster.desk.daemon.start().await.unwrap();
    let address = from_core(&key).unwrap();
    let wanted = [(vec!["miners".to_owned()], vec![address])];
    within(gateway.until(|gateway| gateway.wallets() == wanted)).await;
    let (to_sign, meta) = SignRequest::message(nothing(address)).to_lotus();
    within(gateway.wallet_sign(address, &to_sign, &meta)).await.unwrap();
    // Nothing shows what these bytes are.
    let block = MsgMeta { r#type: Purpose::BLOCK, extra: vec![1, 2, 3] };
    within(gateway.wallet_sign(address, b"a block", &block)).await.unwrap_err();
    assert!(!cluster.keys.list().unwrap().contains(&key), "it is signed with ours");
    // One that is made while the daemon runs is told of at once.
    let second = from_core(&ours.create(KeyKind::Secp256k1).unwrap()).unwrap();
    within(gateway.until(|gateway| gateway.wallets().iter().any(|(_, keys)| keys.contains(&second)))).await;
    cluster.desk.daemon.stop().await.unwrap();
}
