//! Commands that are repeated, broken off, given up, or beside which others work.

use crate::{BIN, atto, desk::Desk, text, with_miner, within};
use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet, fs::File, io::Write as _, os::unix::fs::PermissionsExt as _, process::Stdio, time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

const HERE: &str = "/ip4/10.0.0.1/tcp/24001";

/// A command that sends and waits.
fn sending(desk: &Desk, args: &[&str]) -> Child {
    Command::new(BIN)
        .arg("--home")
        .arg(desk.home())
        .args(args)
        .arg("--really-do-it")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Has a command send while no block is made, and kills it before it could see its message land.
async fn broken_off(desk: &Desk, args: &[&str]) -> String {
    let mut child = sent(desk, args).await;
    child.kill().await.unwrap();
    let list = desk.json(&["message", "list"]).await.unwrap();
    let all = list.pointer("/messages").and_then(Value::as_array).unwrap();
    text(all.last().unwrap(), "/key").to_owned()
}

async fn sent(desk: &Desk, args: &[&str]) -> Child {
    desk.ask("Devnet.Pause", json!([])).await.unwrap();
    let pool = async || {
        let pool = desk.ask("Filecoin.MpoolPending", json!([[]])).await.unwrap();
        pool.as_array().map_or(0, Vec::len)
    };
    let before = pool().await;
    let child = sending(desk, args);
    within(async {
        while pool().await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    child
}

#[tokio::test]
async fn what_was_given_up_can_be_asked_for_again() {
    let (desk, _) = with_miner().await;
    let call = ["miner", "multiaddrs", HERE];
    let key = broken_off(&desk, &call).await;
    let given_up = desk.act(&["message", "cancel", &key]).await.unwrap();
    assert_eq!(given_up.pointer("/cancelled"), Some(&json!(true)), "{given_up:#}");
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    desk.mine(1_000).await.unwrap();
    // The chain could still have chosen the message, so that the command asks it first.
    let agreed: Vec<&str> = call.iter().copied().chain(["--really-do-it"]).collect();
    let ended = desk.run(&agreed).await.unwrap();
    assert_eq!(ended.code, Some(10), "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("will never land") && ended.err.contains(&key), "{}", ended.err);
    let done = desk.act(&call).await.unwrap();
    assert_ne!(text(&done, "/key"), key);
    assert_eq!(done.pointer("/earlier"), None, "{done:#}");
    assert_eq!(text(&desk.json(&["miner", "multiaddrs"]).await.unwrap(), "/multiaddrs/0"), HERE);
}

#[tokio::test]
async fn a_replacement_that_nobody_can_pay_ends_the_command() {
    let (desk, _) = with_miner().await;
    let key = broken_off(&desk, &["miner", "multiaddrs", HERE]).await;
    // A FIL for each unit of gas is more than all that the sender has.
    let ended = desk.run(&["message", "replace", &key, "--fee-cap", "1 FIL", "--really-do-it"]).await.unwrap();
    assert!(ended.err.contains("beyond the policy"), "{}", ended.err);
    assert_eq!(ended.code, Some(10), "{}", ended.err);
    assert!(ended.err.contains("does not move"), "{}", ended.err);
    assert_eq!(desk.run(&["message", "replace", &key, "--really-do-it"]).await.unwrap().code, Some(0));
}

#[tokio::test]
async fn what_landed_for_an_earlier_command_is_not_this_ones_work() {
    let (mut desk, _) = with_miner().await;
    let call = ["miner", "multiaddrs", HERE];
    let key = broken_off(&desk, &call).await;
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    desk.daemon.start().await.unwrap();
    let landed = async |key: &str| {
        within(async {
            while desk.json(&["message", "show", key]).await.unwrap().pointer("/landed").is_none_or(Value::is_null) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    landed(&key).await;
    let told = desk.act(&call).await.unwrap();
    assert_eq!((text(&told, "/key"), text(&told, "/earlier")), (key.as_str(), "landed"), "{told:#}");
    let done = desk.act(&call).await.unwrap();
    assert_ne!(text(&done, "/key"), key);
    assert_eq!(done.pointer("/earlier"), None, "{done:#}");

    // Whoever waited for it knows of it.
    let second = broken_off(&desk, &call).await;
    assert_ne!(second, text(&done, "/key"));
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    assert_eq!(desk.run(&["message", "wait", &second]).await.unwrap().code, Some(0));
    let third = desk.act(&call).await.unwrap();
    assert!(text(&third, "/key") != second && third.pointer("/earlier").is_none(), "{third:#}");
    desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn one_key_is_one_call_and_a_default_amount_is_taken_up() {
    let (desk, _) = with_miner().await;
    desk.mine(4_500).await.unwrap();
    // Nobody names an amount, and more is available when the command is repeated.
    let key = broken_off(&desk, &["miner", "withdraw"]).await;
    assert!(key.contains("/all/"), "{key}");
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    desk.mine(3_000).await.unwrap();
    let told = desk.act(&["miner", "withdraw"]).await.unwrap();
    assert_eq!(text(&told, "/key"), key, "{told:#}");
    assert!(text(&told, "/paid").parse::<i128>().unwrap() > 0, "{told:#}");
    let next = desk.act(&["miner", "withdraw"]).await.unwrap();
    assert_ne!(text(&next, "/key"), key);

    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    let create = ["miner", "create", "--owner", &owner, "--worker", &worker];
    let first = broken_off(&desk, &create).await;
    let other: Vec<&str> = create.iter().copied().chain(["--multiaddr", HERE]).collect();
    let second = broken_off(&desk, &other).await;
    assert_ne!(first, second, "another call is no repetition of the first");
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    let made = desk.act(&create).await.unwrap();
    assert_eq!(made.pointer("/earlier"), Some(&json!(true)), "{made:#}");
}

#[tokio::test]
async fn a_withdrawal_says_what_was_paid() {
    let (desk, _) = with_miner().await;
    desk.mine(4_500).await.unwrap();
    let beneficiary = desk.second_owner.to_string();
    let quota = ["miner", "beneficiary", "propose", &beneficiary, "--quota", "700 attoFIL", "--expiration", "900000"];
    desk.act(&quota).await.unwrap();
    desk.act(&["miner", "beneficiary", "confirm"]).await.unwrap();
    let ended = desk.run(&["miner", "withdraw", "1000 attoFIL", "--really-do-it"]).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("may receive 0.0000000000000007 FIL more"), "{}", ended.err);
    assert!(ended.out.contains("paid     0.0000000000000007 FIL"), "{}", ended.out);
    let over = desk.run(&["miner", "withdraw", "--really-do-it"]).await.unwrap();
    assert_eq!(over.code, Some(1), "{}", over.out);
    assert!(over.err.contains("is over") && over.err.contains("hint: "), "{}", over.err);
}

#[tokio::test]
async fn a_daemon_waits_for_a_command_that_waits() {
    let (mut desk, _) = with_miner().await;
    let mut child = sent(&desk, &["miner", "multiaddrs", HERE]).await;
    let log = desk.home().parent().unwrap().join("logs").join("manager.log");
    let ends = async {
        while !std::fs::read_to_string(&log).is_ok_and(|said| said.contains("a command of this home sends a message")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        child.kill().await.unwrap();
    };
    let (started, ()) = within(async { tokio::join!(desk.daemon.start(), ends) }).await;
    started.unwrap();
    // It is one that a second daemon does not wait for.
    let home = desk.home();
    let second = crate::run(&["--home", home.to_str().unwrap(), "daemon", "run"]).await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("a daemon runs on this home already"));
    desk.ask("Devnet.Resume", json!([])).await.unwrap();
    let told = desk.act(&["miner", "multiaddrs", HERE]).await.unwrap();
    assert!(["begun", "landed"].contains(&text(&told, "/earlier")), "{told:#}");
    desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_daemon_of_another_network_sends_nothing() {
    let (mut desk, _) = with_miner().await;
    desk.daemon.start().await.unwrap();
    let args = ["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--network", "devnet-fake-other"];
    let mut stranger = desk.program("stranger", &args);
    let other = format!("http://{}/rpc/v1", stranger.start().await.unwrap().unwrap());
    desk.configure_node(&other, "").unwrap();
    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    let create = ["miner", "create", "--owner", &owner, "--worker", &worker, "--really-do-it"];
    let refused = desk.run(&create).await.unwrap();
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    let said =
        "the daemon of this home is on network `devnet-fake-desk`, and the node of manager.toml on `devnet-fake-other`";
    assert!(refused.err.contains(said) && refused.err.contains("hint: "), "{}", refused.err);
    let list = desk.json(&["message", "list", "--all"]).await.unwrap();
    assert_eq!(list.pointer("/messages").and_then(Value::as_array).map(Vec::len), Some(1), "{list:#}");
    desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn messages_are_shown_without_a_node_and_tokens_are_read_with_care() {
    let (desk, _) = with_miner().await;
    let list = desk.json(&["message", "list", "--all"]).await.unwrap();
    let key = text(&list, "/messages/0/key").to_owned();
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    desk.configure_node(&format!("http://{away}/rpc/v1"), "").unwrap();
    assert!(desk.json(&["message", "list", "--all"]).await.unwrap().pointer("/messages/0").is_some());
    let shown = desk.run(&["message", "show", &key]).await.unwrap();
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.contains("landed") && shown.err.contains("is not known"), "{} {}", shown.out, shown.err);

    let token = desk.home().join("node-token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let read = async |mode: u32| {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        desk.configure("token_file = \"node-token\"").unwrap();
        desk.run(&["chain", "head"]).await.unwrap()
    };
    let open = read(0o644).await;
    assert_eq!(open.code, Some(2), "{}", open.err);
    assert!(open.err.contains("chmod 600") && !open.err.contains("hunter2"), "{}", open.err);
    assert_eq!(read(0o600).await.code, Some(0));
}

#[tokio::test]
async fn whoever_thinks_about_it_holds_nothing_up_and_can_still_leave() {
    let (mut desk, _) = with_miner().await;
    let terminal = openpty(None, None).unwrap();
    let mut child = Command::new(BIN)
        .arg("--home")
        .arg(desk.home())
        .args(["miner", "multiaddrs", HERE])
        .stdin(Stdio::from(terminal.slave))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut talk = child.stderr.take().unwrap();
    let mut said = Vec::new();
    let asked = async {
        while !String::from_utf8_lossy(&said).contains("Do it? [y/N]") {
            assert_ne!(talk.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
        }
    };
    within(asked).await;
    desk.daemon.start().await.unwrap();
    kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
    let ended = within(child.wait()).await.unwrap();
    let _ = File::from(terminal.master).write_all(b"y\n");
    talk.read_to_end(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("nothing was done"), "{said}");
    let list = desk.json(&["message", "list", "--all"]).await.unwrap();
    assert_eq!(list.pointer("/messages").and_then(Value::as_array).map(Vec::len), Some(1), "{list:#}");
    desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn sectors_are_given_up_by_operators_who_were_asked() {
    let (mut desk, miner) = with_miner().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = desk.home().join("manager.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("address = \"127.0.0.1:0\"", &format!("address = \"{port}\""))).unwrap();
    desk.daemon.start().await.unwrap();
    let sector = format!("s-{miner}-7");
    for command in ["abort", "release"] {
        let refused = desk.run(&["sectors", command, &sector]).await.unwrap();
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        assert!(refused.err.contains("--really-do-it"), "{}", refused.err);
        let unknown = desk.run(&["sectors", command, &sector, "--really-do-it"]).await.unwrap();
        assert_eq!(unknown.code, Some(1), "{}", unknown.err);
        assert!(unknown.err.contains("does not know"), "{}", unknown.err);
    }
    // Whoever reaches the port of the workers is not served that.
    let ask = async |method: &str, params: Value| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let head =
            format!("POST /rpc/v0 HTTP/1.1\r\nhost: {port}\r\nconnection: close\r\ncontent-length: {}", body.len());
        let mut stream = tokio::net::TcpStream::connect(port).await.unwrap();
        let request = format!("{head}\r\ncontent-type: application/json\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let number = miner.trim_start_matches("t0");
    let refused = ask("Damocles.AbortSector", json!([{"Miner": number, "Number": 7}])).await;
    assert!(refused.contains("-32601"), "there is no such method: {refused}");
    assert!(ask("Damocles.ListSectors", json!([])).await.contains("\"result\""));
    // A piece goes by the socket.
    let piece = desk.home().join("pieces").join("text");
    std::fs::write(&piece, vec![7; 127]).unwrap();
    let queued = desk.json(&["piece", "add", piece.to_str().unwrap()]).await.unwrap();
    assert_eq!(queued.pointer("/payload_size"), Some(&json!(127)), "{queued:#}");
    desk.daemon.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_only_tried_out_takes_nothing_up_and_holds_nothing_up() {
    let (desk, _) = with_miner().await;
    let call = ["miner", "multiaddrs", HERE];
    // It has the outbox for as long as it waits.
    let mut child = sent(&desk, &call).await;
    let tried = desk.json(&[&call[..], &["--simulate"]].concat()).await.unwrap();
    assert_eq!(tried.pointer("/prediction/exit_code"), Some(&json!(0)), "{tried:#}");
    let (fee, most) = (atto(&tried, "/estimate/max_fee"), atto(&tried, "/most/class"));
    assert!(0 < fee && fee <= most, "{tried:#}");
    assert!(text(&tried, "/notes/0").contains("an earlier command had begun this"), "{tried:#}");
    let other = desk.json(&["miner", "multiaddrs", "/ip4/10.0.0.2/tcp/24001", "--simulate"]).await.unwrap();
    assert_eq!(other.pointer("/notes/0"), None, "{other:#}");
    let list = desk.json(&["message", "list", "--all"]).await.unwrap();
    assert_eq!(list.pointer("/messages").and_then(Value::as_array).map(Vec::len), Some(2), "{list:#}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn the_one_of_several_senders_who_is_shown_is_the_one_who_sends() {
    let (mut desk, _) = with_miner().await;
    let second = desk.second_worker.to_string();
    desk.act(&["miner", "control", "set", &second]).await.unwrap();
    let id = desk.ask("Filecoin.StateLookupID", json!([desk.keys.worker, []])).await.unwrap();
    let file = desk.home().join("manager.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let one = format!("default = \"{}\"", desk.keys.worker);
    // One of them by its ID: who sends follows from the addresses of keys.
    let two = format!("default = [\"{}\", \"{second}\"]", id.as_str().unwrap());
    assert!(config.contains(&one), "{config}");
    std::fs::write(&file, config.replace(&one, &two)).unwrap();
    let both_send = async |desk: &Desk, port: u16| {
        let mut seen = BTreeSet::new();
        for host in 1..40 {
            let at = format!("/ip4/10.0.0.{host}/tcp/{port}");
            let tried = desk.json(&["miner", "multiaddrs", &at, "--simulate"]).await.unwrap();
            let done = desk.act(&["miner", "multiaddrs", &at]).await.unwrap();
            let shown = desk.json(&["message", "show", text(&done, "/key")]).await.unwrap();
            let sender = text(&shown, "/sender");
            assert_eq!((text(&tried, "/from"), text(&done, "/from")), (sender, sender), "{shown:#}");
            seen.insert(sender.to_owned());
            if seen.len() == 2 {
                return;
            }
        }
        panic!("one sends all: {seen:?}");
    };
    both_send(&desk, 24001).await;
    desk.daemon.start().await.unwrap();
    both_send(&desk, 24002).await;
    desk.daemon.stop().await.unwrap();
}
