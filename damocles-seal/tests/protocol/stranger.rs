//! A processor of protocol v1 that shares no line with us: it was written from `docs/processor-protocol.md` alone.

use crate::{
    runner::{Case, cases},
    support::{PROOF, c2, pool_of, prove, run, slot},
};
use damocles_core::{
    Context, SectorSize,
    pool::{PoolErrorKind, ProcessorPool, Task, TaskKind},
    zero_comm_d,
};
use damocles_seal::{
    pool::{CommandSpec, LocalPool, Protocol},
    task::{C2, TreeD},
};
use sha2::{Digest, Sha256};
use std::fs;

pub(crate) fn all() -> Vec<Case> {
    cases![a_stranger_proves, a_stranger_builds_a_tree, what_a_stranger_says_is_an_error_with_its_words].into()
}

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protocol/stranger.py");

fn stranger(kind: TaskKind) -> LocalPool {
    let command = CommandSpec::new("python3", [PROGRAM, kind.as_str()]);
    pool_of(slot(Protocol::V1, kind, command), |_| ())
}

async fn a_stranger_proves() {
    let dir = tempfile::tempdir().unwrap();
    let pool = stranger(C2::KIND);
    // Line ends between values are no line ends of the protocol.
    for nodes in ["{\"vanilla\":[[1,2],[3]]}", "{\n  \"vanilla\": [],\r\n \"text\": \"a\\nb\"\n}\n"] {
        let proof = prove(&pool, &c2(dir.path(), nodes), &Context::detached()).await.unwrap().proof;
        let value: serde_json::Value = serde_json::from_str(nodes).unwrap();
        let prover = [&[0xe8, 7][..], &[0; 30]].concat();
        let statement = serde_json::json!([value, prover, 7, 1000]);
        assert_eq!(proof, Sha256::digest(statement.to_string()).to_vec());
    }
    assert!(pool.slots()[0].pid.is_some(), "one child for both");
    pool.drain().await.unwrap();
    assert_eq!(pool.slots()[0].pid, None, "it exits when its input ends");
}

async fn a_stranger_builds_a_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (staged, tree) = (dir.path().join("staged"), dir.path().join("prepared"));
    fs::write(&staged, vec![0; 2048]).unwrap();
    let pool = stranger(TreeD::KIND);
    for _ in 0..2 {
        let task = TreeD { proof_type: PROOF, staged: staged.clone(), dir: tree.clone() };
        let output = run(&pool, &task).await;
        assert_eq!(output.comm_d, zero_comm_d(SectorSize::KiB2));
        assert_eq!(fs::metadata(&output.file).unwrap().len(), 2 * 2048 - 32);
        fs::write(&output.file, "an old tree is not trusted").unwrap();
    }
}

async fn what_a_stranger_says_is_an_error_with_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let pool = stranger(C2::KIND);
    let error = prove(&pool, &c2(dir.path(), "[\"fail\"]"), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Failed);
    assert!(error.chain().contains("these are no nodes"), "{}", error.chain());
    // A processor cannot answer a line that it does not understand: it never gets one.
    let error = prove(&pool, &c2(dir.path(), "[1,"), &Context::detached()).await.unwrap_err();
    assert!(error.chain().contains("read the challenged nodes in"), "{}", error.chain());
    prove(&pool, &c2(dir.path(), "{}"), &Context::detached()).await.unwrap();
}
