//! What a running worker takes over and what not, with real files.

use super::*;
use damocles_core::{SectorSize, Timestamp, testing::FakeClock};
use tempfile::TempDir;

/// A worker with two threads that are at work, as far as settings can tell.
struct World {
    dir: TempDir,
    hot: Hot,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.hot.fmt(f)
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for store in ["a", "b"] {
            SealingStore::init(&dir.path().join(store)).unwrap();
        }
        let file = dir.path().join("worker.toml");
        std::fs::write(&file, text(&dir, "")).unwrap();
        let (source, config) = read(&file).unwrap();
        let spec = children::pool_spec(&config.slots(), &config.processors, &Machine::default).unwrap();
        let hot = Hot::new(source, config, Arc::new(FakeClock::at(Timestamp(5_000))));
        let told = vec![SectorSize::KiB2, SectorSize::GiB64];
        hot.begin(Work {
            worker: "w".to_owned(),
            controls: Vec::new(),
            pool: Arc::new(LocalPool::new(spec).unwrap()),
            compared: Compared::Sizes { told, known: vec![SectorSize::KiB2, SectorSize::GiB32] },
        });
        Self { dir, hot }
    }

    fn write(&self, rest: &str) {
        std::fs::write(&self.hot.file, text(&self.dir, rest)).unwrap();
    }

    fn store(&self, name: &str, text: &str) {
        std::fs::write(StoreFile::path(&self.dir.path().join(name)), text).unwrap();
    }

    /// What is shown of this place, wherever the test's directory is.
    fn plain(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    async fn reload(&self) -> String {
        self.plain(&self.hot.reload("SIGHUP").await.text())
    }

    fn retries(&self) -> Vec<u32> {
        self.hot.config().threads().iter().map(|thread| thread.max_retries).collect()
    }

    fn refused(&self, thread: usize) -> String {
        self.plain(&self.hot.refused(thread).unwrap_or_default())
    }
}

fn text(dir: &TempDir, rest: &str) -> String {
    let at = |name: &str| dir.path().join(name).display().to_string();
    format!(
        "[sector_manager]\nrpc_client.addr = \"http://m:1\"\n[[sealing_thread]]\nlocation = \"{}\"\n\
         sealing.allowed_sizes = [\"2KiB\"]\n[[sealing_thread]]\nlocation = \"{}\"\nsealing.allowed_sizes = [\"2KiB\"]\n{rest}",
        at("a"),
        at("b"),
    )
}

#[tokio::test]
async fn what_can_change_is_taken_over_at_once() {
    let world = World::new();
    assert!(world.reload().await.ends_with("by SIGHUP: nothing else than was in force"));
    world.write("sealing.max_retries = 8\n[sealing]\nmax_retries = 7\nauto_resume = \"0s\"\n[processors.limitation.concurrent]\npc1 = 2\n");
    let told = "configuration read again at 1970-01-01T00:00:05Z by SIGHUP and taken over:\n  \
                max_retries: 5 -> 7 (thread 0)\n  auto_resume: 1h -> never (all threads)\n  \
                max_retries: 5 -> 8 (thread 1)\n  processors.limitation.concurrent.pc1: none -> 2";
    assert_eq!(world.reload().await, told);
    assert_eq!(world.retries(), [7, 8]);
    let answer = world.hot.order().await.unwrap();
    assert!(!answer.changed, "{answer:?}");
    world.write("");
    let answer = world.hot.order().await.unwrap();
    assert!(answer.changed && answer.message.contains("max_retries: 8 -> 5 (thread 1)"), "{answer:?}");
    assert_eq!((world.retries(), world.hot.config().processors.limitation.concurrent.len()), (vec![5, 5], 0));
}

#[tokio::test]
async fn one_key_that_cannot_change_keeps_all_others_out() {
    let world = World::new();
    world.write("[sealing]\nmax_retries = 7\n[worker]\nname = \"other\"\n[[processors.pc1]]\nconcurrent = 2\n");
    let told = "configuration read again at 1970-01-01T00:00:05Z by SIGHUP and refused as a whole:\n  \
                `processors.pc1[0]` cannot change while the worker runs: a restart is needed\n  \
                `worker.name` cannot change while the worker runs: a restart is needed\n  hint: restart the worker";
    let refused = world.reload().await;
    assert!(refused.starts_with(told), "{refused}");
    assert_eq!(world.retries(), [5, 5]);
    let refusal = world.hot.order().await.unwrap_err();
    assert!(refusal.exit == Exit::Usage && refusal.message.contains("`worker.name`") && refusal.hint.is_some());
    // Without it the rest is taken over.
    world.write("[sealing]\nmax_retries = 7\n");
    world.reload().await;
    assert_eq!(world.retries(), [7, 7]);
}

#[tokio::test]
async fn a_mistake_anywhere_keeps_everything_out() {
    let world = World::new();
    for mistake in ["max_retrys = 1", "seal_interval = \"soon\"", "rpc_polling_interval = \"0s\"", "x = = 1"] {
        world.write(&format!("[sealing]\nmax_retries = 7\n{mistake}\n"));
        let told = world.reload().await;
        assert!(told.contains("refused as a whole:\n  DIR/worker.toml:11:"), "{told}");
        assert_eq!(world.retries(), [5, 5], "{mistake}");
    }
    std::fs::remove_file(&world.hot.file).unwrap();
    assert!(world.reload().await.contains("worker.toml: error: cannot be read"));
    assert_eq!(world.retries(), [5, 5]);
}

#[tokio::test]
async fn a_store_has_the_last_word_for_its_thread_until_its_file_is_gone() {
    let world = World::new();
    world.store("a", "[sealing]\nmax_retries = 3\n");
    world.hot.look().await;
    assert_eq!(world.retries(), [3, 5]);
    let shown = world.hot.threads();
    assert_eq!((shown[0].by_store, shown[1].by_store, shown[0].settings["max_retries"].as_str()), (true, false, "3"));
    // The worker's file changes below it.
    world.write("[sealing]\nmax_retries = 7\n");
    world.reload().await;
    assert_eq!(world.retries(), [3, 7]);

    // What is wrong with one is no matter of the other.
    world.store("a", "[sealing]\nmax_retries = 1\nmax_retrys = 2\n");
    world.store("b", "sealing.max_retries = 4\n");
    world.hot.look().await;
    assert_eq!(world.retries(), [3, 4]);
    let told = "DIR/a/config.toml:3:1: error: unknown key `sealing.max_retrys`\n  remedy: did you mean `max_retries`?";
    assert_eq!((world.refused(0).as_str(), world.refused(1).as_str()), (told, ""));
    // But the worker's file is not taken over with a part of what belongs to it.
    world.write("[sealing]\nseal_interval = \"1s\"\n");
    let told = world.reload().await;
    assert!(told.contains("refused as a whole:\n  DIR/a/config.toml:3:1: error: unknown key"), "{told}");
    assert!(world.refused(0).contains("max_retrys"));
    world.write("[sealing]\nmax_retries = 7\n");

    std::fs::remove_file(StoreFile::path(&world.dir.path().join("a"))).unwrap();
    world.hot.look().await;
    assert_eq!((world.retries(), world.refused(0).as_str()), (vec![7, 4], ""));
    // A store that is not there says nothing at all, not that its file is gone.
    std::fs::rename(world.dir.path().join("b"), world.dir.path().join("away")).unwrap();
    world.hot.look().await;
    assert_eq!(world.retries(), [7, 4]);
    assert!(world.refused(1).contains("sealing store"), "{}", world.refused(1));
}

#[tokio::test]
async fn the_worker_s_file_and_those_of_stores_are_taken_over_together() {
    let world = World::new();
    world.store("a", "sealing.max_retries = 3\n");
    world.write("sealing.max_retries = 9\n");
    world.reload().await;
    assert_eq!(world.retries(), [3, 9]);
    world.store("a", "sealing.max_retries = 4\n");
    world.write("sealing.max_retries = 8\n[worker]\nname = \"other\"\n");
    world.reload().await;
    assert_eq!(world.retries(), [3, 9], "neither of them");
}

#[tokio::test]
async fn a_size_whose_keys_nobody_compared_is_not_let_in() {
    let world = World::new();
    let sizes = |world: &World| world.hot.config().threads().remove(0).allowed_sizes;
    world.store("a", "sealing.allowed_sizes = [\"2KiB\", \"32GiB\"]\n");
    world.hot.look().await;
    assert_eq!(sizes(&world), [SectorSize::KiB2, SectorSize::GiB32]);
    world.store("a", "sealing.allowed_sizes = [\"64GiB\"]\n");
    world.hot.look().await;
    assert_eq!(sizes(&world), [SectorSize::KiB2, SectorSize::GiB32]);
    let told = "DIR/a/config.toml: `allowed_sizes` of thread 0 lets 64GiB in, whose verifying keys were not compared";
    assert!(world.refused(0).starts_with(told), "{}", world.refused(0));
    let told = world.reload().await;
    assert!(told.contains("64GiB") && told.contains("hint: restart"), "{told}");
    world.store("a", "sealing.allowed_sizes = [\"32GiB\"]\n");
    world.reload().await;
    assert_eq!((sizes(&world), world.refused(0).as_str()), (vec![SectorSize::GiB32], ""));
}
