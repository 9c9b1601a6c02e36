//! Large payloads go by file, and files that are not what was announced are rubbish.

use crate::{
    faults::Faulty,
    good::Echo,
    runner::{Case, cases},
    support::{me, pool_of, run, slot},
};
use damocles_core::pool::{PoolErrorKind, Task};
use damocles_seal::pool::{Protocol, SlotSpec};
use std::{fs, path::Path};

pub(crate) fn all() -> Vec<Case> {
    cases![large_payloads_and_outputs_go_by_file, an_output_that_is_not_what_was_announced_is_rubbish].into()
}

/// All files below a directory, but those that hold a directory.
fn payloads(dir: &Path) -> usize {
    let files = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files(dir).iter().flat_map(|dir| files(dir)).filter(|path| !path.ends_with(".held")).count()
}

async fn large_payloads_and_outputs_go_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut slot = slot(Protocol::V2, Echo::KIND, me(["good"]));
    slot.talk.payload_dir = Some(dir.path().to_owned());
    slot.talk.file_above = 1000;
    let pool = pool_of(slot, |_| ());
    for len in [10, 998, 999, 3 << 20] {
        let text = "z".repeat(len);
        assert_eq!(run(&pool, &Echo(text.clone())).await, text);
        assert_eq!(payloads(dir.path()), 0, "nothing is left of {len} bytes");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "one directory for one child");
    }
    damocles_core::pool::ProcessorPool::drain(&pool).await.unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

async fn an_output_that_is_not_what_was_announced_is_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let here = |slot: &mut SlotSpec| slot.talk.payload_dir = Some(dir.path().to_owned());
    for (mode, text) in [
        ("file missing", "No such file"),
        ("file short", "has 17 bytes instead of 18"),
        ("file changed", "has other contents"),
        ("file elsewhere", "is not the name of a file"),
    ] {
        let faulty = Faulty::with(Protocol::V2, mode, here);
        let error = faulty.fault("{}").await;
        assert_eq!(error.kind(), PoolErrorKind::Rubbish, "{mode}: {}", error.chain());
        assert!(error.chain().contains(text), "{mode}: {}", error.chain());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "killed children leave no files either");
}
