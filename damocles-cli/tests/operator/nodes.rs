//! Several nodes behind one manager.

use crate::{desk::Desk, program::run, text};
use serde_json::{Value, json};
use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

/// An address where nobody listens.
fn nobody() -> String {
    format!("http://{}/rpc/v1", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn listed(nodes: &[&str], rest: &str) -> String {
    format!("endpoints = {}\n{rest}", json!(nodes))
}

/// The address of a node as it is shown.
fn shown(url: &str) -> &str {
    url.trim_end_matches("/rpc/v1")
}

#[tokio::test]
async fn one_node_is_enough_and_each_is_told_of() {
    let mut desk = Desk::start(50).await.unwrap();
    let (away, here) = (nobody(), desk.node_url());
    desk.configure_chain(&listed(&[&away, &here], "network = \"devnet-fake-desk\"")).unwrap();

    let nodes = desk.json(&["chain", "nodes"]).await.unwrap();
    assert_eq!(text(&nodes, "/network"), "devnet-fake-desk");
    let states: Vec<&str> = (0..2).map(|i| text(&nodes, &format!("/nodes/{i}/state"))).collect();
    assert_eq!(states, ["away", "ok"], "{nodes:#}");
    assert_eq!(text(&nodes, "/nodes/0/endpoint"), shown(&away));
    assert!(!text(&nodes, "/nodes/0/reason").is_empty());
    assert_eq!(nodes.pointer("/nodes/1/preferred"), Some(&json!(true)));
    assert!(nodes.pointer("/nodes/1/head/epoch").and_then(Value::as_i64).is_some(), "{nodes:#}");
    let table = desk.run(&["chain", "nodes"]).await.unwrap();
    assert_eq!(table.code, Some(0), "{}", table.err);
    let line = |url: &str| table.out.lines().find(|line| line.contains(shown(url))).unwrap().to_owned();
    assert!(line(&away).contains("away") && line(&here).contains("ok, preferred"), "{}", table.out);

    // What is asked and what is sent goes to those that are there.
    assert_eq!(text(&desk.json(&["chain", "head"]).await.unwrap(), "/endpoint"), shown(&here));
    let (owner, worker) = (desk.keys.owner.to_string(), desk.keys.worker.to_string());
    let made = desk.act(&["miner", "create", "--owner", &owner, "--worker", &worker]).await.unwrap();
    assert!(made.pointer("/miner").is_some(), "{made:#}");

    let nobody_counts = desk.run(&["chain", "metrics"]).await.unwrap();
    assert_eq!(nobody_counts.code, Some(75), "{}", nobody_counts.err);
    assert!(nobody_counts.err.contains("daemon run"), "{}", nobody_counts.err);
    desk.daemon.start().await.unwrap();
    let metrics = desk.json(&["chain", "metrics"]).await.unwrap();
    assert_eq!(metrics.pointer("/endpoints").and_then(Value::as_array).map(Vec::len), Some(2));
    let asked = |i: usize| metrics.pointer(&format!("/endpoints/{i}/methods/Filecoin.StateMinerInfo/calls")).cloned();
    assert!(asked(1).and_then(|calls| calls.as_u64()).is_some_and(|calls| calls > 0), "{metrics:#}");
    assert_eq!(asked(0), None, "one that is away is asked only how it is: {metrics:#}");
    assert!(desk.run(&["chain", "metrics"]).await.unwrap().out.contains("Filecoin.StateMinerInfo"));
    desk.daemon.stop().await.unwrap();

    let gone = nobody();
    desk.configure_chain(&listed(&[&away, &gone], "")).unwrap();
    let nodes = desk.run(&["chain", "nodes"]).await.unwrap();
    assert_eq!(nodes.code, Some(75), "{}", nodes.err);
    assert!(nodes.err.contains("no node can be relied on") && nodes.err.contains("hint: "), "{}", nodes.err);
    assert!(nodes.out.contains(shown(&away)) && nodes.out.contains(shown(&gone)), "{}", nodes.out);
}

#[tokio::test]
async fn a_node_of_another_network_is_named_and_not_used() {
    let desk = Desk::start(50).await.unwrap();
    let args = ["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--network", "devnet-fake-other"];
    let mut stranger = desk.program("stranger", &args);
    let (here, other) = (desk.node_url(), format!("http://{}/rpc/v1", stranger.start().await.unwrap().unwrap()));

    desk.configure_chain(&listed(&[&here, &other], "")).unwrap();
    let nodes = desk.json(&["chain", "nodes"]).await.unwrap();
    assert_eq!(text(&nodes, "/nodes/0/state"), "ok");
    assert_eq!(text(&nodes, "/nodes/1/state"), "refused", "{nodes:#}");
    assert_eq!(text(&nodes, "/nodes/1/endpoint"), shown(&other));
    assert!(text(&nodes, "/nodes/1/reason").contains("devnet-fake-other"), "{nodes:#}");
    assert_eq!(text(&desk.json(&["chain", "head"]).await.unwrap(), "/network"), "devnet-fake-desk");

    // The first one says which network it is, unless that is not the one that is wanted.
    desk.configure_chain(&listed(&[&other, &here], "network = \"devnet-fake-desk\"")).unwrap();
    for args in [&["chain", "nodes"][..], &["chain", "head"], &["miner", "create", "--really-do-it"]] {
        let refused = desk.run(args).await.unwrap();
        assert_eq!(refused.code, Some(2), "{args:?}: {}", refused.err);
        let said = format!("{} is on network `devnet-fake-other`, not on `devnet-fake-desk`", shown(&other));
        assert!(refused.err.contains(&said), "{args:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn a_home_is_made_for_several_nodes_and_their_tokens_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let repository = dir.path().join("lotus");
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("api"), "/ip4/127.0.0.1/tcp/1/http\n").unwrap();
    std::fs::write(repository.join("token"), "hunter2.from.file\n").unwrap();
    let init = async |home: &str, list: &str| {
        let mut init = tokio::process::Command::new(crate::BIN);
        init.args(["--home", &path(home), "daemon", "init", "--devnet", "--chain", list]).env("HOME", dir.path());
        init.output().await.unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let made = init("one", "~/lotus,/ip4/127.0.0.1/tcp/2/ws").await;
    assert!(made.status.success(), "{}", said(&made));
    let home = dir.path().join("one");
    let config = std::fs::read_to_string(home.join("manager.toml")).unwrap();
    assert!(!config.contains("hunter2"), "{config}");
    assert!(config.contains("http://127.0.0.1:1/rpc/v1") && config.contains("ws://127.0.0.1:2/rpc/v1"), "{config}");
    let token = home.join("node-token-1");
    assert_eq!(std::fs::read_to_string(&token).unwrap(), "hunter2.from.file");
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!Path::new(&home).join("node-token-2").exists());
    let nodes = run(&["--home", &path("one"), "chain", "nodes"]).await.unwrap();
    assert_eq!(nodes.status.code(), Some(75), "the file can be used: {}", said(&nodes));

    let shown = init("two", "http://127.0.0.1:2,hunter2:/ip4/127.0.0.1/tcp/1/http").await;
    assert_eq!(shown.status.code(), Some(2));
    assert!(said(&shown).contains("a token stands before") && !said(&shown).contains("hunter2"), "{}", said(&shown));
    let wrong = init("two", "http://127.0.0.1:2,~/nothing").await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("endpoint 2 of the list"), "{}", said(&wrong));
    assert!(!Path::new(&path("two")).exists(), "nothing was made");
}
