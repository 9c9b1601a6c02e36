//! What is broken is named with its place, the sector waits, nothing is lost, the daemons live, and once it is mended
//! the sector goes on.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

use damocles_cli::worker::control::{ThreadState, ThreadStatus};
use damocles_tests::{
    audit,
    lab::{Bins, Lab, Options},
    proxy::{Mode, Rubbish},
};
use nix::unistd::Pid;
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

fn bins() -> Bins {
    Bins {
        manager: env!("CARGO_BIN_EXE_damocles-test-manager").into(),
        worker: env!("CARGO_BIN_EXE_damocles-test-worker").into(),
        prover: env!("CARGO_BIN_EXE_damocles-test-prover").into(),
    }
}

/// A lab whose first sector is stuck in a task of this kind.
async fn stuck_in(kind: &str, options: Options) -> Lab {
    let mut lab = Lab::prepare(bins(), options).await.unwrap();
    std::fs::write(lab.mood(), format!("{kind} hang")).unwrap();
    lab.worker.start().await.unwrap();
    let stage = if kind == "transfer" { "persist" } else { kind };
    lab.journal_shows(kind, |j| j.under_way() == [(1, stage.to_owned())]).await.unwrap();
    lab
}

/// Kills the stuck worker. Whatever the test breaks, it breaks while nobody looks.
async fn unstick(lab: &mut Lab) {
    lab.worker.kill().await.unwrap();
    lab.note_hit().await.unwrap();
    std::fs::remove_file(lab.mood()).unwrap();
}

async fn ends_well(lab: &Lab) {
    let sectors = lab.finish().await.unwrap();
    assert!(sectors.len() == 2 && sectors.iter().all(|s| s.is_proven()), "{sectors:#?}");
    audit::check_messages(lab).await.unwrap();
}

fn error_of(thread: &ThreadStatus) -> &str {
    thread.last_error.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_corrupt_journal_entry_parks_the_sector_until_it_is_restored() {
    let mut lab = stuck_in("pc2", Options::default()).await;
    unstick(&mut lab).await;
    let journal = lab.path("sealing/meta/journal.db");
    let sql = async |text: String| {
        let mut db = SqliteConnectOptions::new().filename(&journal).connect().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut db).await.unwrap();
    };
    let entry = "WHERE number = 1 AND kind = 'done' AND stage = 'pc1'";
    sql(format!("DROP TRIGGER entry_is_never_changed; UPDATE entry SET at = at + 1 {entry}")).await;
    lab.worker.start().await.unwrap();
    let thread = lab.thread_shows("parked", |t| t.state == ThreadState::Parked).await.unwrap();
    assert!(error_of(&thread).contains(journal.to_str().unwrap()), "{thread:#?}");
    assert!(error_of(&thread).contains("hint: "), "{thread:#?}");
    assert_eq!(thread.sector, Some(lab.sectors()[0]));
    assert!(lab.worker.is_running() && lab.path(&format!("sealing/data/sealed/{}", lab.sectors()[0])).exists());

    sql(format!("UPDATE entry SET at = at - 1 {entry}")).await;
    lab.resume_thread().await.unwrap();
    ends_well(&lab).await;
    audit::check(&lab).await.unwrap();
}

#[tokio::test]
async fn a_truncated_replica_is_noticed_before_it_is_persisted_and_made_again() {
    let mut lab = stuck_in("transfer", Options::default()).await;
    unstick(&mut lab).await;
    let sector = lab.sectors()[0];
    let sealed = lab.path(&format!("sealing/data/sealed/{sector}"));
    std::fs::OpenOptions::new().write(true).open(&sealed).unwrap().set_len(1000).unwrap();
    lab.worker.start().await.unwrap();
    ends_well(&lab).await;
    let shown = serde_json::to_string(&lab.show(sector).await.unwrap().events).unwrap();
    assert!(shown.contains(sealed.to_str().unwrap()), "the history names the file: {shown}");
    let journal = lab.journal().await.unwrap();
    assert_eq!(journal.count(|l| l.kind == "rewound"), 1, "{}", audit::history(&journal, 1));
}

/// A program that is a processor if the file `mode` says nothing else.
fn moody_script(dir: &Path) -> std::path::PathBuf {
    let (script, mode, child) = (dir.join("prover.sh"), dir.join("mode"), dir.join("grandchild"));
    let text = format!(
        "#!/bin/sh\ncase \"$(cat {mode} 2>/dev/null)\" in\n\
         rubbish) echo rubbish; exec sleep 600 ;;\n\
         silent) exec sleep 600 ;;\n\
         dead) echo these are my last words >&2; exit 3 ;;\n\
         forks) sleep 600 & echo $! > {child}; exit 3 ;;\n\
         esac\nexec {prover} \"$@\"\n",
        mode = mode.display(),
        child = child.display(),
        prover = bins().prover.display(),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Whether a process is there and not merely waiting to be collected.
fn lives(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[tokio::test]
async fn a_child_that_is_no_processor_is_named_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let script = moody_script(dir.path());
    let provers = BTreeMap::from([("pc1", script.clone())]);
    let mode = dir.path().join("mode");
    std::fs::write(&mode, "rubbish").unwrap();
    let mut lab = Lab::start(bins(), Options { provers, max_retries: 1000, ..Options::default() }).await.unwrap();
    let mut last = String::new();
    for (how, sign) in
        [("rubbish", "did not start"), ("silent", "did not start"), ("dead", "these are my last words"), ("forks", "")]
    {
        std::fs::write(&mode, how).unwrap();
        let known = last.clone();
        let news = |t: &ThreadStatus| t.last_error.as_ref().is_some_and(|e| *e != known);
        let thread = lab.thread_shows(how, news).await.unwrap();
        eprintln!("{how}: {thread:#?}");
        last = error_of(&thread).to_owned();
        assert!(last.contains(script.to_str().unwrap()) && last.contains(sign), "{how}: {last}");
        assert_eq!((thread.sector, thread.stage.as_deref()), (Some(lab.sectors()[0]), Some("pc1")));
    }
    let child = dir.path().join("grandchild");
    lab.eventually("a grandchild", async || Ok(child.exists())).await.unwrap();
    std::fs::remove_file(&mode).unwrap();
    assert!(lab.worker.is_running());
    ends_well(&lab).await;
    let pid: i32 = std::fs::read_to_string(&child).unwrap().trim().parse().unwrap();
    assert!(!lives(Pid::from_raw(pid)), "the grandchild was stopped with its parent");
}

#[tokio::test]
async fn a_task_that_panics_forks_or_hangs_loses_nothing() {
    let mut lab = Lab::prepare(bins(), Options { max_retries: 1000, ..Options::default() }).await.unwrap();
    std::fs::write(lab.mood(), "pc2 panic").unwrap();
    lab.worker.start().await.unwrap();
    let thread = lab.thread_shows("panic", |t| t.last_error.is_some()).await.unwrap();
    assert!(error_of(&thread).contains("a processor that panics"), "{thread:#?}");

    std::fs::write(lab.mood(), "pc2 fork").unwrap();
    let known = thread.last_error.clone();
    let thread = lab.thread_shows("fork", |t| t.last_error.is_some() && t.last_error != known).await.unwrap();
    assert!(error_of(&thread).contains("pc2"), "{thread:#?}");
    let pid: i32 = std::fs::read_to_string(lab.mood().with_extension("pid")).unwrap().parse().unwrap();
    lab.eventually("the end of the grandchild", async || Ok(!lives(Pid::from_raw(pid)))).await.unwrap();

    std::fs::write(lab.mood(), "pc2 hang").unwrap();
    lab.thread_shows("hang", |t| t.state == ThreadState::Running && t.stage.as_deref() == Some("pc2")).await.unwrap();
    std::fs::remove_file(lab.mood()).unwrap();
    // An operator looks at the list, drains in vain and stops the worker.
    assert_eq!(lab.worker.stop().await.unwrap(), Some(75), "what ran has not ended: {}", lab.last_words());
    lab.worker.start().await.unwrap();
    ends_well(&lab).await;
}

#[tokio::test]
async fn a_task_that_hangs_is_stopped_and_tried_again() {
    let timeouts = BTreeMap::from([("pc2", "8s")]);
    let mut lab = Lab::prepare(bins(), Options { timeouts, max_retries: 1000, ..Options::default() }).await.unwrap();
    std::fs::write(lab.mood(), "pc2 hang").unwrap();
    lab.worker.start().await.unwrap();
    let thread = lab.thread_shows("the end of the hang", |t| t.last_error.is_some()).await.unwrap();
    assert!(error_of(&thread).contains("pc2") && error_of(&thread).contains("longer than it may"), "{thread:#?}");
    assert_eq!(thread.stage.as_deref(), Some("pc2"));
    std::fs::remove_file(lab.mood()).unwrap();
    ends_well(&lab).await;
    let starts = lab.journal().await.unwrap().starts();
    assert!(starts.get(&(1, "pc2".to_owned())).is_some_and(|n| *n >= 2), "{starts:?}");
    assert_eq!(starts.get(&(1, "pc1".to_owned())), Some(&1), "{starts:?}");
}

#[tokio::test]
async fn a_manager_that_is_away_is_waited_for() {
    let mut lab = Lab::start(bins(), Options::default()).await.unwrap();
    for stage in ["tree_d", "pre_commit", "c2"] {
        lab.journal_shows(stage, |j| j.done(1, stage) || j.done(2, stage)).await.unwrap();
        lab.to_manager.become_peer(Mode::Refuse);
        let thread = lab.thread_shows("away", |t| t.last_error.is_some()).await.unwrap();
        assert!(error_of(&thread).contains(&lab.to_manager.address().to_string()), "{thread:#?}");
        assert_ne!(thread.state, ThreadState::Parked);
        lab.to_manager.become_peer(Mode::Forward);
    }
    for rubbish in [Rubbish::Html, Rubbish::Null, Rubbish::Error] {
        let mut met = lab.to_manager.rubbish();
        met.borrow_and_update();
        lab.to_manager.become_peer(Mode::Answer(rubbish));
        tokio::time::timeout(Duration::from_secs(60), met.changed()).await.expect("a call meets it").unwrap();
        lab.to_manager.become_peer(Mode::Forward);
    }
    assert!(lab.worker.is_running());
    ends_well(&lab).await;
    audit::check(&lab).await.unwrap();
}

#[tokio::test]
async fn a_node_that_answers_rubbish_is_waited_for() {
    let mut lab = Lab::start(bins(), Options::default()).await.unwrap();
    let endpoint = lab.to_devnet.address().to_string();
    let moments = [
        (1, "pc2", Rubbish::Error),
        (1, "pre_commit", Rubbish::Null),
        (1, "c2", Rubbish::Html),
        (2, "ticket", Rubbish::Number),
        (2, "persist", Rubbish::Noise),
    ];
    for (sector, stage, rubbish) in moments {
        lab.journal_shows(stage, |j| j.done(sector, stage)).await.unwrap();
        lab.pause().await.unwrap();
        let said = lab.manager.log().len();
        let mut subscriptions = lab.to_devnet.subscriptions();
        let before = *subscriptions.borrow_and_update();
        lab.to_devnet.become_peer(Mode::Answer(rubbish));
        let names = async || Ok(lab.manager.log().get(said..).is_some_and(|l| l.contains(&endpoint)));
        lab.eventually(&format!("{rubbish:?} in the log"), names).await.unwrap();
        if stage == "pre_commit" {
            // The message is recorded, and its sector says why it does not move.
            let shown = async || {
                let detail = lab.show(lab.sectors()[0]).await?;
                let trouble = detail.summary.pre_commit.and_then(|a| a.trouble);
                Ok(trouble.is_some_and(|t| t.contains(&endpoint)))
            };
            // The thread looks at once instead of at its next turn.
            lab.resume_thread().await.unwrap();
            lab.eventually("the node in `sectors show`", shown).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(lab.manager.is_running(), "{rubbish:?}: {}", lab.last_words());
        lab.to_devnet.become_peer(Mode::Forward);
        let back = subscriptions.wait_for(|n| *n > before);
        tokio::time::timeout(Duration::from_secs(60), back).await.expect("the manager comes back").unwrap();
        lab.resume().await.unwrap();
    }
    ends_well(&lab).await;
    audit::check(&lab).await.unwrap();
}

/// A small file system of its own, if this process may have one.
#[derive(Debug)]
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(dir: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let options = format!("size={kib}k");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Self(dir.to_owned()))
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [1; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let Some(persist) = SmallDisk::at(&dir.path().join("persist"), 512) else {
        eprintln!("skipped: this process may not mount a tmpfs");
        return;
    };
    let sealing = SmallDisk::at(&dir.path().join("sealing"), 8192).unwrap();
    let stores = BTreeMap::from([("persist", persist.0.clone()), ("sealing", sealing.0.clone())]);
    let mut lab = Lab::prepare(bins(), Options { stores, ..Options::default() }).await.unwrap();
    persist.fill();
    lab.worker.start().await.unwrap();
    lab.journal_shows("persist", |j| j.under_way() == [(1, "persist".to_owned())]).await.unwrap();
    let waits = |t: &ThreadStatus| t.state == ThreadState::Waiting && t.last_error.is_some();
    let thread = lab.thread_shows("no room", waits).await.unwrap();
    eprintln!("persist full: {thread:#?}");
    assert_eq!(thread.stage.as_deref(), Some("persist"));
    assert!(error_of(&thread).contains(persist.0.to_str().unwrap()), "{thread:#?}");
    persist.free();
    lab.resume_thread().await.unwrap();
    lab.journal_shows("persisted", |j| j.done(1, "persist")).await.unwrap();
    sealing.fill();
    let full = |t: &ThreadStatus| t.last_error.is_some();
    let thread = lab.thread_shows("full", full).await.unwrap();
    eprintln!("sealing full: {thread:#?}");
    assert!(error_of(&thread).contains(sealing.0.to_str().unwrap()), "{thread:#?}");
    assert!(lab.worker.is_running());
    assert_ne!(thread.state, ThreadState::Parked, "{thread:#?}");
    sealing.free();
    ends_well(&lab).await;
}
