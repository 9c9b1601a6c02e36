//! What an operator does by commands, against a devnet: looking, moving money, changing keys, and minding messages.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

mod again;
mod desk;
mod miners;
mod nodes;
mod program;
mod venus;
mod wallets;

use desk::Desk;
use program::{Program, run};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

const BIN: &str = env!("CARGO_BIN_EXE_damocles-manager");

async fn desk() -> Desk {
    Desk::start(50).await.unwrap()
}

async fn with_miner() -> (Desk, String) {
    let desk = desk().await;
    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    let made = desk.act(&["miner", "create", "--owner", &owner, "--worker", &worker]).await.unwrap();
    let miner = format!("t0{}", made.get("miner").unwrap());
    (desk, miner)
}

/// Ends a wait that would never end.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(150), work).await.unwrap()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {value:#}"))
}

fn atto(value: &Value, pointer: &str) -> i128 {
    text(value, pointer).parse().unwrap()
}

/// Names and times that differ from run to run.
fn redacted(desk: &Desk, text: &str) -> String {
    let mut text = text.to_owned();
    for (address, name) in [(&desk.keys.owner, "OWNER"), (&desk.keys.worker, "WORKER")] {
        text = text.replace(address.as_str(), name);
    }
    text
}

#[tokio::test]
async fn every_read_command_answers_as_text_and_as_json() {
    let desk = desk().await;
    // Nobody agreed: nothing happens, and the exit code says that the arguments are not enough.
    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    let create = ["miner", "create", "--owner", owner.as_str(), "--worker", worker.as_str()];
    let refused = desk.run(&create).await.unwrap();
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
    assert!(refused.err.contains("--really-do-it"), "{}", refused.err);
    assert!(desk.json(&["message", "list", "--all"]).await.unwrap().pointer("/messages/0").is_none());

    let all: Vec<&str> = create.iter().copied().chain(["--really-do-it"]).collect();
    let made = desk.run(&all).await.unwrap();
    assert_eq!(made.code, Some(0), "{}", made.err);
    for part in ["This will make a miner", "devnet-fake-desk", "value", "FIL", "fee      about", "never more than"] {
        assert!(made.err.contains(part), "{part}: {}", made.err);
    }
    let miner = made.out.split_whitespace().nth(1).unwrap().to_owned();
    assert!(miner.starts_with("t0"), "{}", made.out);

    for (args, wanted) in [
        (&["miner", "info"][..], "beneficiary"),
        (&["miner", "power"], "may win blocks"),
        (&["miner", "deadlines"], "DEADLINE"),
        (&["miner", "partitions"], "PARTITION"),
        (&["miner", "partitions", "--deadline", "3"], "PARTITION"),
        (&["miner", "sectors"], "EXPIRES"),
        (&["miner", "faults"], "WINDOW OPENS"),
        (&["miner", "balance"], "fee debt"),
        (&["miner", "control", "list"], "owner"),
        (&["miner", "peer-id"], "-"),
        (&["miner", "multiaddrs"], "-"),
        (&["chain", "head"], "network   devnet-fake-desk"),
        (&["chain", "tipset"], "BLOCK"),
        (&["chain", "tipset", "2"], "epoch     "),
        (&["chain", "base-fee", "--last", "3"], "BASE FEE"),
        (&["chain", "base-fee", "--last", "3"], "attoFIL of 3 tipsets"),
        (&["chain", "funds"], "LASTS UNTIL"),
        (&["chain", "randomness", "seed"], ""),
        (&["chain", "randomness", "ticket", "1"], ""),
        (&["message", "list", "--all"], "createminer/"),
        (&["util", "miner", "info", &miner], "WokerChangeEpoch: -1"),
    ] {
        let shown = desk.run(args).await.unwrap();
        assert_eq!(shown.code, Some(0), "{args:?}: {}", shown.err);
        assert!(shown.out.contains(wanted), "{args:?}: {}", shown.out);
        assert!(desk.json(args).await.unwrap().is_object(), "{args:?}");
    }
    let funds = desk.json(&["chain", "funds", "--over", "20000", &owner]).await.unwrap();
    // The owner paid the deposit.
    assert!(atto(&funds, "/senders/0/spent") > 0 && atto(&funds, "/senders/0/balance") > 0, "{funds:#}");
    assert_eq!(funds.pointer("/senders/0/on_their_way"), Some(&json!(0)));
    assert!(funds.pointer("/senders/0/lasts_until/epoch").and_then(Value::as_i64).is_some(), "{funds:#}");
    let named = desk.json(&["miner", "info", "--miner", &miner.replacen('t', "f", 1)]).await.unwrap();
    assert_eq!(text(&named, "/miner"), miner);
    assert_eq!(named.pointer("/sector_size").unwrap(), "2KiB");
    let info = desk.run(&["miner", "info"]).await.unwrap().out;
    insta::assert_snapshot!("miner_info", info);
    let control = desk.run(&["miner", "control", "list"]).await.unwrap().out;
    let columns: Vec<Vec<String>> = redacted(&desk, &control)
        .lines()
        .map(|line| line.split_whitespace().take(3).map(str::to_owned).collect())
        .collect();
    insta::assert_debug_snapshot!("miner_control_list", columns);

    let deadlines = desk.json(&["miner", "deadlines"]).await.unwrap();
    let deadlines = deadlines.pointer("/deadlines").and_then(Value::as_array).unwrap();
    assert_eq!(deadlines.len(), 48);
    let open: Vec<_> = deadlines.iter().filter(|d| d.pointer("/current") == Some(&json!(true))).collect();
    assert_eq!(open.len(), 1);
    assert!(text(open[0], "/open/time").ends_with('Z'));
    let balance = desk.json(&["miner", "balance"]).await.unwrap();
    let parts = atto(&balance, "/vesting") + atto(&balance, "/available");
    assert!(parts > 0 && parts == atto(&balance, "/balance"), "{balance:#}");

    let shown = desk.json(&["message", "list", "--all"]).await.unwrap();
    let key = text(&shown, "/messages/0/key").to_owned();
    let cid = text(&shown, "/messages/0/cid").to_owned();
    for name in [key.as_str(), cid.as_str()] {
        let one = desk.json(&["message", "show", name]).await.unwrap();
        assert_eq!(text(&one, "/key"), key);
        assert_eq!(one.pointer("/exit_code"), Some(&json!(0)), "{one:#}");
        assert!(desk.run(&["message", "wait", name]).await.unwrap().out.contains("landed"));
    }
    let unknown = desk.run(&["message", "show", "nothing"]).await.unwrap();
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("`nothing`") && unknown.err.contains("message list --all"), "{}", unknown.err);
}

#[tokio::test]
async fn money_comes_out_once_and_only_when_it_was_agreed_to() {
    let (desk, _) = with_miner().await;
    // The deposit vests over 180 days, half a day at a time.
    desk.mine(4_500).await.unwrap();
    let before = desk.json(&["miner", "balance"]).await.unwrap();
    let available = atto(&before, "/available");
    assert!(available > 1_000, "{before:#}");
    let amount = format!("{} attoFIL", available / 2);

    let refused = desk.run(&["miner", "withdraw", &amount]).await.unwrap();
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert_eq!(desk.json(&["miner", "balance"]).await.unwrap().pointer("/balance"), before.pointer("/balance"));
    let much = desk.run(&["miner", "withdraw", "90000", "--really-do-it"]).await.unwrap();
    assert_eq!(much.code, Some(1));
    assert!(much.err.contains("can pay out"), "{}", much.err);
    let not_mine = desk.second_owner.to_string();
    let stranger = desk.run(&["miner", "withdraw", &amount, "--from", &not_mine, "--really-do-it"]).await.unwrap();
    assert_eq!(stranger.code, Some(2), "{}", stranger.err);
    assert!(stranger.err.contains("only the owner or the beneficiary may"), "{}", stranger.err);

    let done = desk.act(&["miner", "withdraw", &amount]).await.unwrap();
    assert_eq!(done.pointer("/exit_code"), Some(&json!(0)), "{done:#}");
    assert!(text(&done, "/key").starts_with("withdraw/"));
    let after = desk.json(&["miner", "balance"]).await.unwrap();
    assert_eq!(atto(&after, "/balance"), atto(&before, "/balance") - available / 2);
    // The same again is another withdrawal: the operator knows of the first.
    let again = desk.act(&["miner", "withdraw", &amount]).await.unwrap();
    assert_ne!(text(&again, "/key"), text(&done, "/key"));
    let owes = desk.run(&["miner", "repay-debt", "--really-do-it"]).await.unwrap();
    assert!(owes.code == Some(1) && owes.err.contains("owes nothing"), "{}", owes.err);
}

#[tokio::test]
async fn keys_change_in_two_steps() {
    let (desk, miner) = with_miner().await;
    let (owner2, worker2) = (desk.second_owner.to_string(), desk.second_worker.to_string());
    let info = async || desk.json(&["miner", "info"]).await.unwrap();

    desk.act(&["miner", "control", "set", &worker2, &owner2]).await.unwrap();
    assert_eq!(info().await.pointer("/control").and_then(Value::as_array).map(Vec::len), Some(2));
    desk.act(&["miner", "control", "set"]).await.unwrap();
    assert_eq!(info().await.pointer("/control"), Some(&json!([])));

    let none = desk.run(&["miner", "worker", "confirm", "--really-do-it"]).await.unwrap();
    assert!(none.code == Some(1) && none.err.contains("was proposed"), "{}", none.err);
    let proposed = desk.act(&["miner", "worker", "propose", &worker2]).await.unwrap();
    assert!(text(&proposed, "/then").contains("miner worker confirm"), "{proposed:#}");
    let before = info().await;
    let old_worker = text(&before, "/worker").to_owned();
    let new_worker = text(&before, "/new_worker/address").to_owned();
    let early = desk.run(&["miner", "worker", "confirm", "--really-do-it"]).await.unwrap();
    assert_eq!(early.code, Some(75), "{}", early.err);
    assert!(early.err.contains("can be confirmed from epoch"), "{}", early.err);
    desk.mine(950).await.unwrap();
    desk.act(&["miner", "worker", "confirm"]).await.unwrap();
    let after = info().await;
    assert_eq!(text(&after, "/worker"), new_worker);
    assert_ne!(old_worker, new_worker);
    assert_eq!(after.pointer("/new_worker"), Some(&Value::Null));

    // What control addresses may do is now up to the new worker.
    let peer = ["miner", "peer-id", "12D3KooWQdMqmHLoqF6bNRt7SMRhik3G8LQPdeoLdTC9N3SgBr2v"];
    let agreed: Vec<&str> = peer.iter().copied().chain(["--really-do-it"]).collect();
    let stranger = desk.run(&agreed).await.unwrap();
    assert_eq!(stranger.code, Some(2), "{}", stranger.err);
    assert!(stranger.err.contains("may not do this"), "{}", stranger.err);

    desk.act(&["miner", "owner", "propose", &owner2]).await.unwrap();
    let pending = text(&info().await, "/pending_owner").to_owned();
    desk.act(&["miner", "owner", "confirm"]).await.unwrap();
    assert_eq!(text(&info().await, "/owner"), pending);
    let util = desk.run(&["util", "miner", "info", &miner]).await.unwrap().out;
    assert!(util.contains(&format!("Owner: {pending}")), "{util}");
}

/// Whether a key is that of a call that removes all addresses.
fn is_clearing(key: &str) -> bool {
    key.starts_with("multiaddrs/") && !key.contains("ip4")
}

#[tokio::test]
async fn peers_are_set_and_messages_are_minded_while_a_daemon_runs() {
    let (mut desk, _) = with_miner().await;
    desk.daemon.start().await.unwrap();
    let peer = "12D3KooWQdMqmHLoqF6bNRt7SMRhik3G8LQPdeoLdTC9N3SgBr2v";
    let done = desk.act(&["miner", "peer-id", peer]).await.unwrap();
    assert!(
        text(&done, "/key").starts_with("peerid/") && text(&done, "/key").contains(&format!("/{peer}/")),
        "{done:#}"
    );
    desk.act(&["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001"]).await.unwrap();
    assert_eq!(text(&desk.json(&["miner", "multiaddrs"]).await.unwrap(), "/multiaddrs/0"), "/ip4/10.0.0.1/tcp/24001");

    // A message that cannot land as no block is made: it is seen, replaced, and given up.
    desk.ask("Devnet.Pause", json!([])).await.unwrap();
    let waiting = desk.run(&["miner", "multiaddrs", "--clear", "--really-do-it"]);
    let minding = async {
        let key = loop {
            let list = desk.json(&["message", "list"]).await.unwrap();
            let sent = list
                .pointer("/messages")
                .and_then(Value::as_array)
                .unwrap()
                .iter()
                .find(|m| is_clearing(text(m, "/key")) && m.pointer("/state") == Some(&json!("signed")));
            if let Some(sent) = sent {
                break text(sent, "/key").to_owned();
            }
        };
        let refused = desk.run(&["message", "cancel", &key]).await.unwrap();
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        desk.act(&["message", "cancel", &key]).await.unwrap();
        loop {
            let shown = desk.json(&["message", "show", &key]).await.unwrap();
            if shown.pointer("/versions").and_then(Value::as_array).unwrap().len() > 1 {
                assert_eq!(shown.pointer("/versions/1/purpose"), Some(&json!("cancel")), "{shown:#}");
                break;
            }
        }
        desk.ask("Devnet.Resume", json!([])).await.unwrap();
        desk.mine(1_000).await.unwrap();
        key
    };
    let (waited, key) = within(async { tokio::join!(waiting, minding) }).await;
    let waited = waited.unwrap();
    assert_eq!(waited.code, Some(10), "{}", waited.err);
    assert!(waited.err.contains("will never land"), "{}", waited.err);
    let after = desk.json(&["miner", "multiaddrs"]).await.unwrap();
    assert_eq!(text(&after, "/multiaddrs/0"), "/ip4/10.0.0.1/tcp/24001", "nothing was changed");
    assert_eq!(text(&desk.json(&["message", "show", &key]).await.unwrap(), "/state"), "dropped");
    assert!(desk.daemon.stop().await.unwrap().is_some(), "it ends by itself");
}

#[tokio::test]
async fn a_message_is_replaced_without_a_daemon() {
    let (desk, _) = with_miner().await;
    desk.ask("Devnet.Pause", json!([])).await.unwrap();
    // A command that is stopped before its message landed leaves it in the outbox.
    let home = desk.home();
    let mut stopped = tokio::process::Command::new(BIN);
    stopped.arg("--home").arg(&home).args(["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001"]);
    let mut child = stopped.arg("--really-do-it").stdin(std::process::Stdio::null()).spawn().unwrap();
    let pool = async || desk.ask("Filecoin.MpoolPending", json!([[]])).await.unwrap();
    within(async {
        while pool().await.as_array().is_none_or(Vec::is_empty) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    // Looking is possible all the while; working on it is not.
    let list = desk.json(&["message", "list"]).await.unwrap();
    let key = text(&list, "/messages/1/key").to_owned();
    let busy = desk.run(&["message", "wait", &key]).await.unwrap();
    assert_eq!(busy.code, Some(75), "{}", busy.err);
    assert!(busy.err.contains("another process has the outbox"), "{}", busy.err);
    child.kill().await.unwrap();

    let low = desk.run(&["message", "replace", &key, "--premium", "1 attoFIL", "--really-do-it"]).await.unwrap();
    assert_ne!(low.code, Some(0), "{}", low.out);
    let replaced = desk.act(&["message", "replace", &key]).await.unwrap();
    assert_eq!(replaced.pointer("/versions").and_then(Value::as_array).map(Vec::len), Some(2), "{replaced:#}");
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    // The same command takes up what the killed one began.
    let done = desk.act(&["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001"]).await.unwrap();
    assert_eq!(text(&done, "/key"), key);
    let after = desk.json(&["miner", "multiaddrs"]).await.unwrap();
    assert_eq!(text(&after, "/multiaddrs/0"), "/ip4/10.0.0.1/tcp/24001");
}

#[tokio::test]
async fn what_was_proposed_and_who_it_is_are_told() {
    let (desk, _) = with_miner().await;
    let owner2 = desk.second_owner.to_string();
    let info = async || desk.json(&["miner", "info"]).await.unwrap();
    desk.act(&["miner", "beneficiary", "propose", &owner2, "--quota", "5", "--expiration", "900000"]).await.unwrap();
    assert_eq!(text(&info().await, "/pending_beneficiary/quota"), "5000000000000000000");
    desk.act(&["miner", "beneficiary", "confirm"]).await.unwrap();
    let named = info().await;
    assert_eq!(text(&named, "/term/quota"), "5000000000000000000", "{named:#}");
    let peer = "12D3KooWQdMqmHLoqF6bNRt7SMRhik3G8LQPdeoLdTC9N3SgBr2v";
    desk.act(&["miner", "peer-id", peer]).await.unwrap();
    assert_eq!(text(&desk.json(&["miner", "peer-id"]).await.unwrap(), "/peer_id"), peer);
}

/// A node that refuses everybody, as one does whose token is another.
fn closed_node() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[tokio::test]
async fn wrong_nodes_are_named_with_what_to_do() {
    let desk = desk().await;
    desk.configure("network = \"mainnet\"").unwrap();
    for args in [&["chain", "head"][..], &["miner", "create", "--really-do-it"], &["message", "wait", "x"]] {
        let ended = desk.run(args).await.unwrap();
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
        assert!(ended.err.contains("on network `devnet-fake-desk`, not on `mainnet`"), "{}", ended.err);
        assert!(ended.err.contains("hint: "), "{}", ended.err);
    }
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    desk.configure_node(&format!("http://{away}/rpc/v1"), "").unwrap();
    let ended = desk.run(&["chain", "head"]).await.unwrap();
    assert_eq!(ended.code, Some(75), "{}", ended.err);
    assert!(ended.err.contains(&away.to_string()) && ended.err.contains("hint: "), "{}", ended.err);
    let closed = closed_node();
    desk.configure_node(&format!("http://{closed}/rpc/v1"), "token = \"hunter2hunter2\"").unwrap();
    let ended = desk.run(&["miner", "info", "--miner", "t01000"]).await.unwrap();
    assert_eq!(ended.code, Some(75), "{}", ended.err);
    assert!(ended.err.contains(&closed.to_string()) && ended.err.contains("check the token"), "{}", ended.err);
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    desk.configure("[wallet]\nkind = \"file\"\nendpoint = \"http://w\"").unwrap();
    let ended = desk.run(&["message", "list"]).await.unwrap();
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("`wallet.endpoint`: means nothing to a wallet of kind `file`"), "{}", ended.err);
}

#[tokio::test]
async fn a_home_with_an_encrypted_wallet_makes_a_miner() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (home, password) = (path("home"), path("password"));
    std::fs::write(&password, "correct horse battery staple").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let nowhere = run(&["--home", &home, "daemon", "init", "--password-file", &password]).await.unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(said(&nowhere).contains("FULLNODE_API_INFO"), "{}", said(&nowhere));
    let mut init = tokio::process::Command::new(BIN);
    init.args(["--home", &home, "daemon", "init", "--json", "--network", "2k", "--password-file", &password]);
    init.env("FULLNODE_API_INFO", "hunter2hunter2:/ip4/127.0.0.1/tcp/1/http");
    let made = init.output().await.unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let keys: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = std::fs::metadata(Path::new(&home).join("node-token")).unwrap();
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
    let file = Path::new(&home).join("manager.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    assert!(!config.contains("hunter2") && config.contains("kind = \"file\""), "{config}");
    assert!(!Path::new(&home).join("keystore").exists());

    let mut args: Vec<_> = ["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--network", "devnet-fake-e"]
        .into_iter()
        .chain(["--epoch-ms", "50", "--home"])
        .map(std::ffi::OsString::from)
        .collect();
    args.push(path("devnet").into());
    for key in ["/owner", "/worker"] {
        args.extend(["--fund".into(), format!("{}=1000", text(&keys, key)).into()]);
    }
    let mut devnet = Program::new("devnet", args, &dir.path().join("logs"));
    let node = devnet.start().await.unwrap().unwrap();
    let config = config.replace("http://127.0.0.1:1/", &format!("http://{node}/"));
    std::fs::write(&file, config.replace("confidence = 10", "confidence = 2")).unwrap();

    let create = ["--home", &home, "miner", "create", "--really-do-it", "--json"];
    let created = run(&create).await.unwrap();
    assert!(created.status.success(), "{}", said(&created));
    // A miner of a chain that came to be at once is there for the daemon, whose wallet is opened by itself.
    std::fs::write(&password, "another password altogether").unwrap();
    let looked = run(&["--home", &home, "message", "list", "--all", "--json"]).await.unwrap();
    assert!(looked.status.success(), "looking takes no key: {}", said(&looked));
    let listed: Value = serde_json::from_slice(&looked.stdout).unwrap();
    let key = text(&listed, "/messages/0/key");
    assert!(run(&["--home", &home, "message", "show", key]).await.unwrap().status.success());
    let wrong = run(&["--home", &home, "message", "wait", key]).await.unwrap();
    assert_eq!(wrong.status.code(), Some(10), "{}", said(&wrong));
    assert!(said(&wrong).contains("does not open the wallet"), "{}", said(&wrong));
    assert!(!said(&wrong).contains("another password"), "{}", said(&wrong));
}
