//! The life of two sectors through real processes, undisturbed and with what an operator does.

use damocles_cli::{
    config::{ManagerConfig, manager::Home},
    manager::init::{Initialised, write_config},
    worker::control::ThreadState,
};
use damocles_seal::sector_state::SectorKind;
use damocles_tests::{
    audit,
    lab::{Bins, Lab, Options, path_text},
    program,
};
use std::process::Output;

fn bins() -> Bins {
    Bins {
        manager: env!("CARGO_BIN_EXE_damocles-test-manager").into(),
        worker: env!("CARGO_BIN_EXE_damocles-test-worker").into(),
        prover: env!("CARGO_BIN_EXE_damocles-test-prover").into(),
    }
}

#[tokio::test]
async fn two_sectors_are_sealed_and_proven() {
    let lab = Lab::start(bins(), Options::default()).await.unwrap();
    let sectors = lab.finish().await.unwrap();
    assert_eq!(sectors.len(), 2);
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    audit::check(&lab).await.unwrap();

    let listed = lab.sector_list().await.unwrap();
    let kinds: Vec<_> = listed.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Some(SectorKind::Data), Some(SectorKind::Cc)]);
    for summary in &listed {
        assert!(summary.finalized, "{summary:#?}");
        assert_eq!((summary.replica.as_deref(), &summary.last_error), (Some("persist"), &None));
        let shown = lab.show(summary.sector).await.unwrap();
        assert_eq!(shown.summary, *summary);
        assert_eq!(shown.pieces.len(), usize::from(summary.kind == Some(SectorKind::Data)));
        assert_eq!(shown.attempts.len(), 2, "a pre-commit and a prove-commit: {:#?}", shown.attempts);
        assert!(shown.attempts.iter().all(|a| a.ended.as_deref() == Some("landed") && a.exit_code == Some(0)));
    }
    let status = lab.list().await.unwrap();
    assert_eq!(status.worker, "lab");
    let [thread] = &status.threads[..] else { panic!("{status:#?}") };
    assert_eq!((thread.state, thread.sector, &thread.last_error), (ThreadState::Idle, None, &None));
    assert_eq!(thread.location, lab.path("sealing"));
}

#[tokio::test]
async fn a_damaged_replica_is_skipped_and_a_mended_one_recovers() {
    let lab = Lab::start(bins(), Options::default()).await.unwrap();
    lab.finish().await.unwrap();
    let [victim, healthy] = lab.sectors()[..] else { panic!("two sectors") };
    let replica = lab.path(&format!("persist/sealed/{victim}"));
    let whole = std::fs::read(&replica).unwrap();
    // A wrong byte in every node, because a proof looks at some of them only.
    let damaged: Vec<u8> = whole.iter().enumerate().map(|(i, b)| if i % 32 == 0 { b ^ 1 } else { *b }).collect();
    std::fs::write(&replica, damaged).unwrap();
    let sectors = lab.proven().await.unwrap();
    let of = |id| sectors.iter().find(|s| s.id == format!("{id}")).unwrap();
    assert!(!of(victim).is_proven(), "{sectors:#?}");
    assert!(of(healthy).is_proven(), "{sectors:#?}");
    assert_eq!(lab.faulty().await.unwrap(), 1);
    let path = replica.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(lab.manager.log().contains(&path), "the log names the replica: {}", lab.last_words());

    std::fs::write(&replica, whole).unwrap();
    // On a machine with much else to do, the recovery may be declared too late for the next deadline of this fast chain.
    let mut sectors = lab.proven().await.unwrap();
    for _ in 0..5 {
        if sectors.iter().all(|s| s.is_proven()) {
            break;
        }
        sectors = lab.proven().await.unwrap();
    }
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    assert_eq!(lab.faulty().await.unwrap(), 0);
}

#[tokio::test]
async fn a_drained_worker_ends_its_step_and_goes_on_later() {
    let mut lab = Lab::prepare(bins(), Options::default()).await.unwrap();
    std::fs::write(lab.mood(), "pc1 slow 1500").unwrap();
    lab.worker.start().await.unwrap();
    lab.journal_shows("PC1 runs", |j| j.under_way() == [(1, "pc1".to_owned())]).await.unwrap();
    let thread = lab.thread_shows("it runs", |t| t.stage.as_deref() == Some("pc1")).await.unwrap();
    assert_eq!((thread.state, thread.sector), (ThreadState::Running, Some(lab.sectors()[0])));
    assert_eq!(lab.worker.drain().await.unwrap(), Some(0));
    let journal = lab.journal().await.unwrap();
    assert!(journal.done(1, "pc1") && !journal.done(1, "pc2"), "{}", audit::history(&journal, 1));
    std::fs::remove_file(lab.mood()).unwrap();
    lab.worker.start().await.unwrap();
    let sectors = lab.finish().await.unwrap();
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    audit::check(&lab).await.unwrap();
    assert_eq!(lab.worker.drain().await.unwrap(), Some(0));
    assert_eq!(lab.manager.drain().await.unwrap(), Some(0));
    assert_eq!(lab.devnet.drain().await.unwrap(), Some(0));
}

/// The code and what was said.
fn refusal(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty(), "nobody is told that it is ready");
    (output.status.code().expect("it ended by itself"), said)
}

#[tokio::test]
async fn a_second_daemon_is_an_error_with_a_hint() {
    let mut lab = Lab::start(bins(), Options::default()).await.unwrap();
    let (manager, worker) = (lab.bins().manager.clone(), lab.bins().worker.clone());
    let text = |path: &str| path_text(&lab.path(path)).unwrap();

    let same_home = program::run(&manager, &["--home", &text("manager"), "daemon", "run", "--child"]).await.unwrap();
    let other_home = text("other");
    let _: Initialised =
        program::run_json(&manager, &["--home", &other_home, "daemon", "init", "--devnet", "--json"]).await.unwrap();
    let address = ManagerConfig::load(lab.path("manager/manager.toml")).unwrap().listen.address;
    let home = Home::resolve(Some(lab.path("other"))).unwrap();
    let mut config = ManagerConfig::load(home.config()).unwrap();
    config.listen.address = address;
    assert!(write_config(&home, &config).is_ok());
    let same_port = program::run(&manager, &["--home", &other_home, "daemon", "run", "--child"]).await.unwrap();

    let same_socket = program::run(&worker, &["daemon", "--child", "-c", &text("worker.toml")]).await.unwrap();
    let other = std::fs::read_to_string(lab.worker_file()).unwrap().replace("name = \"lab\"", "name = \"other\"");
    std::fs::write(lab.path("other.toml"), other).unwrap();
    let same_store = program::run(&worker, &["daemon", "--child", "-c", &text("other.toml")]).await.unwrap();
    let devnet_home = text("devnet");
    let args = ["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--network", "devnet-fake-lab"];
    let same_chain = program::run(&manager, &[&args[..], &["--home", &devnet_home]].concat()).await.unwrap();

    for (output, thing) in [
        (same_home, text("manager")),
        (same_port, address.to_string()),
        (same_socket, text("run/lab.sock")),
        (same_store, text("sealing")),
        (same_chain, devnet_home.clone()),
    ] {
        let (code, said) = refusal(&output);
        assert!(code != 0 && code != 101, "{code}: {said}");
        assert!(said.contains(&thing) && said.contains("hint: "), "{code}: {said}");
    }
    assert!(lab.devnet.is_running() && lab.manager.is_running() && lab.worker.is_running());
    let sectors = lab.finish().await.unwrap();
    assert!(sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
}
