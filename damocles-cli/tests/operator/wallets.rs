//! Keys that lie elsewhere, and a question on a terminal.

use crate::{BIN, desk::Desk, program::Program, text, within};
use damocles_chain::{
    lotus_json::{Lotus, SignedMessage},
    rpc::{RpcClient, RpcError},
    signer::{Keystore, Purpose, SignRequest, Signer as _},
    venus::testing::FakeServer,
};
use damocles_core::Address;
use futures::FutureExt as _;
use fvm_shared::message::Message;
use nix::pty::openpty;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::io::AsyncReadExt as _;

/// Takes the keys of a home away.
fn without_keys(desk: &Desk) -> PathBuf {
    let moved = desk.home().parent().unwrap().join("elsewhere");
    std::fs::rename(desk.home().join("keystore"), &moved).unwrap();
    moved
}

fn create(desk: &Desk) -> Vec<String> {
    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    ["miner", "create", "--owner", &owner, "--worker", &worker].map(str::to_owned).to_vec()
}

/// Sends with keys that are not in the home, as a command and as the daemon.
async fn sends(desk: &mut Desk) {
    let create = create(desk);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let made = within(desk.act(&create)).await.unwrap();
    assert!(made.pointer("/miner").is_some(), "{made:#}");
    desk.daemon.start().await.unwrap();
    within(desk.act(&["miner", "multiaddrs", "/ip4/10.0.0.1/tcp/24001"])).await.unwrap();
    desk.daemon.stop().await.unwrap();
    assert_eq!(text(&desk.json(&["miner", "multiaddrs"]).await.unwrap(), "/multiaddrs/0"), "/ip4/10.0.0.1/tcp/24001");
    assert!(!desk.home().join("keystore").exists(), "no key came here");
}

async fn signed(keys: &Keystore, method: &str, params: &Value) -> Option<Value> {
    let address: Option<Address> = serde_json::from_value(params.get(0).cloned().unwrap_or_default()).ok();
    Some(match method {
        "Filecoin.WalletList" => json!(keys.list().ok()?),
        "Filecoin.WalletHas" => json!(keys.list().ok()?.contains(&address?)),
        "Filecoin.WalletSignMessage" => {
            let Lotus(message): Lotus<Message> = serde_json::from_value(params.get(1)?.clone()).ok()?;
            let signature = keys.sign(&address?, &SignRequest::message(message.clone())).await.ok()?;
            json!(SignedMessage { message, signature })
        }
        "Filecoin.WalletSign" => {
            let Lotus(bytes): Lotus<Vec<u8>> = serde_json::from_value(params.get(1)?.clone()).ok()?;
            json!(Lotus(keys.sign(&address?, &SignRequest::bytes(Purpose::UNKNOWN, bytes)).await.ok()?))
        }
        _ => return None,
    })
}

/// The devnet with a wallet in front of it, as a node has one.
async fn node_with_wallet(desk: &Desk, keys: Keystore) -> FakeServer {
    let node = Arc::new(RpcClient::new(desk.node_url().parse().unwrap()).unwrap());
    let answering = move |arrived: damocles_chain::venus::testing::Arrived| {
        let (node, keys) = (Arc::clone(&node), keys.clone());
        async move {
            let request: Value = serde_json::from_str(&arrived.text).ok()?;
            let method = request.get("method")?.as_str()?;
            let params = request.get("params").cloned().unwrap_or_default();
            let own = method.starts_with("Filecoin.Wallet") && method != "Filecoin.WalletBalance";
            let answer = if own {
                let refused = || RpcError { code: 1, message: "key not found".to_owned() };
                signed(&keys, method, &params).await.ok_or_else(refused)
            } else {
                let away = || RpcError { code: 1, message: "the node is away".to_owned() };
                node.raw(method, params).await.map_err(|e| RpcError::of(&e).cloned().unwrap_or_else(away))
            };
            let id = request.get("id");
            Some(match answer {
                Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
                Err(RpcError { code, message }) => {
                    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
                }
            })
        }
        .boxed()
    };
    FakeServer::without_sockets(Arc::new(answering)).await.unwrap()
}

#[tokio::test]
async fn the_nodes_own_wallet_signs() {
    let mut desk = Desk::start(50).await.unwrap();
    let keys = Keystore::open(without_keys(&desk)).unwrap();
    let node = node_with_wallet(&desk, keys).await;
    desk.configure_node(&format!("{}/rpc/v1", node.url()), "[wallet]\nkind = \"node\"\n").unwrap();
    sends(&mut desk).await;
    // One that has no wallet is named.
    desk.configure("[wallet]\nkind = \"node\"\n").unwrap();
    let refused = desk.run(&["miner", "multiaddrs", "--clear", "--really-do-it"]).await.unwrap();
    assert_ne!(refused.code, Some(0), "{}", refused.out);
    assert!(refused.err.contains(&desk.node.to_string()), "{}", refused.err);
}

/// A `wallet run` with the keys of a directory, in a home of its own, and where it listens.
async fn wallet_elsewhere(home: &Path, keys: &Path) -> (Program, String) {
    std::fs::create_dir_all(home).unwrap();
    let password = home.join("password");
    std::fs::write(&password, "correct horse battery staple").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let all = |args: &[&str]| {
        let mut all: Vec<std::ffi::OsString> = vec!["--home".into(), home.into(), "wallet".into()];
        all.extend(args.iter().map(Into::into));
        all.extend(["--password-file".into(), password.clone().into()]);
        all
    };
    let import = keys.to_str().unwrap();
    for args in [&["setpwd", "--memory", "1", "--passes", "1"][..], &["import", "--keystore", import]] {
        let done = tokio::process::Command::new(BIN).args(all(args)).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let mut running = Program::new("wallet", all(&["run", "--child", "--listen", "127.0.0.1:0"]), home);
    let address = running.start().await.unwrap().unwrap();
    (running, format!("http://{address}"))
}

#[tokio::test]
async fn a_wallet_on_another_machine_signs() {
    let mut desk = Desk::start(50).await.unwrap();
    let keys = without_keys(&desk);
    let there = desk.home().parent().unwrap().join("wallet-home");
    let (mut wallet, url) = wallet_elsewhere(&there, &keys).await;
    std::fs::remove_dir_all(&keys).unwrap();
    let token = desk.home().join("wallet-token");
    std::fs::copy(there.join("wallet-token"), &token).unwrap();
    let section = format!("[wallet]\nkind = \"remote\"\nendpoint = \"{url}\"\ntoken_file = \"wallet-token\"\n");
    desk.configure(&section).unwrap();
    sends(&mut desk).await;

    // A token that is not the wallet's, and a wallet that is away.
    let right = std::fs::read_to_string(&token).unwrap();
    std::fs::write(&token, "hunter2hunter2hunter2").unwrap();
    let act = ["miner", "multiaddrs", "--clear", "--really-do-it"];
    let denied = desk.run(&act).await.unwrap();
    assert_ne!(denied.code, Some(0), "{}", denied.out);
    assert!(denied.err.contains("missing permission") && !denied.err.contains("hunter2"), "{}", denied.err);
    std::fs::write(&token, right).unwrap();
    assert_eq!(wallet.stop().await.unwrap(), Some(0));
    let away = desk.run(&act).await.unwrap();
    assert_ne!(away.code, Some(0), "{}", away.out);
    assert!(away.err.contains("the wallet cannot be reached"), "{}", away.err);
    assert!(away.err.contains(url.trim_start_matches("http://")), "{}", away.err);
}

/// Runs a command on a terminal and answers its question: how it ended, and what it said.
async fn answered(desk: &Desk, args: &[&str], answer: &str) -> (Option<i32>, String) {
    let terminal = openpty(None, None).unwrap();
    let mut child = tokio::process::Command::new(BIN)
        .arg("--home")
        .arg(desk.home())
        .args(args)
        .stdin(Stdio::from(terminal.slave))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let mut talk = child.stderr.take().unwrap();
    while !said.ends_with(b"[y/N] ") {
        let mut byte = [0];
        assert_eq!(talk.read(&mut byte).await.unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
    let mut keyboard = File::from(terminal.master);
    keyboard.write_all(answer.as_bytes()).unwrap();
    talk.read_to_end(&mut said).await.unwrap();
    let status = child.wait().await.unwrap();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn on_a_terminal_it_is_asked_first() {
    let desk = Desk::start(50).await.unwrap();
    let create = create(&desk);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    for no in ["n\n", "\n", "yy\n"] {
        let (code, said) = within(answered(&desk, &create, no)).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("This will make a miner") && said.contains("nothing was done"), "{said}");
    }
    assert_eq!(desk.json(&["message", "list", "--all"]).await.unwrap().pointer("/messages"), Some(&json!([])));
    let (code, said) = within(answered(&desk, &create, "y\n")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("predict  0 (OK)"), "{said}");
    assert!(desk.json(&["miner", "info"]).await.is_ok());
}
