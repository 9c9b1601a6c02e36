//! Our own child under protocol v1, behind our adapter for it: what it seals is what it seals under our protocol.

use crate::{
    runner::{Case, cases},
    support::{PROOF, SECTOR, me, pool_of, run, slot},
};
use damocles_core::{
    CommP, CommR, PaddedPieceSize, PieceInfo, SectorSize,
    pool::{Task, TaskKind},
    verify::Randomness,
    zero_comm_d,
};
use damocles_seal::{
    pool::Protocol,
    processor::{ServeOptions, all as registry, serve, serve_v1},
    task::{AddPieces, CopyFile, Pc1, Pc2, PieceContent, PieceInput, Transfer, TreeD},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

pub(crate) fn all() -> Vec<Case> {
    cases![both_protocols_seal_the_same, our_child_serves_a_stranger].into()
}

/// A child of this stage under protocol v1, or of all under v2.
pub(crate) fn child(stage: &str) -> ExitCode {
    if stage == "v2" {
        serve(registry(), &ServeOptions::default()).unwrap();
    } else {
        serve_v1(&TaskKind::read(stage), None).unwrap();
    }
    ExitCode::SUCCESS
}

struct Sealing {
    protocol: Protocol,
    dir: PathBuf,
}

impl Sealing {
    async fn run<T: Task>(&self, task: &T) -> T::Output {
        let kind = if self.protocol == Protocol::V1 { T::KIND } else { TaskKind::new("v2") };
        let mut command = me(["v1", kind.as_str()]);
        let parents = self.dir.parent().unwrap().join("parents");
        command.envs.insert("FIL_PROOFS_PARENT_CACHE".to_owned(), parents.to_str().unwrap().to_owned());
        run(&pool_of(slot(self.protocol, T::KIND, command), |_| ()), task).await
    }

    async fn seal(&self, piece: &PieceInput) -> CommR {
        let path = |name: &str| self.dir.join(name);
        let (staged, sealed, cache) = (path("staged"), path("sealed-file"), path("cache-dir"));
        let add = AddPieces { proof_type: PROOF, pieces: vec![piece.clone()], staged: staged.clone() };
        let added = self.run(&add).await;
        assert_eq!(added.pieces.len(), 3, "one, and zeros of 512 and 1024 behind it");
        let tree = TreeD { proof_type: PROOF, staged: staged.clone(), dir: path("prepared") };
        let tree = self.run(&tree).await;
        assert_eq!(tree.comm_d, added.comm_d);
        assert_ne!(tree.comm_d, zero_comm_d(SectorSize::KiB2));
        let pc1 = Pc1 {
            sector: SECTOR,
            proof_type: PROOF,
            ticket: Randomness([5; 32]),
            pieces: added.pieces,
            staged: staged.clone(),
            sealed: sealed.clone(),
            cache: cache.clone(),
            tree_d: Some(tree.file),
        };
        let pc1 = self.run(&pc1).await;
        let pc2 = Pc2 { sector: SECTOR, proof_type: PROOF, pc1, staged, sealed: sealed.clone(), cache };
        let replica = self.run(&pc2).await;
        assert_eq!(replica.comm_d, added.comm_d);
        assert_eq!(self.run(&pc2).await, replica, "it may be repeated: it begins with a fresh copy");
        let transfer = Transfer {
            files: vec![CopyFile { from: sealed.clone(), to: path("stored").join("s-t01000-7") }],
            bytes_per_second: None,
        };
        let copied = self.run(&transfer).await.files;
        assert_eq!(fs::read(&copied[0].path).unwrap(), fs::read(&sealed).unwrap());
        assert_eq!(copied[0].len, 2048);
        replica.comm_r
    }
}

/// A piece of 512 bytes, and what it is: by the way that makes it.
async fn piece(dir: &Path) -> PieceInput {
    let path = dir.join("piece");
    fs::write(&path, [7; 300]).unwrap();
    let task = json!({
        "seal_proof_type": "StackedDrg2KiBV1_1",
        "pieces": [{"piece_file": {"local": path}, "payload_size": 300, "piece_size": 508}],
        "staged_filepath": dir.join("staged"),
    });
    let output = by_hand("add_pieces", &[task]).remove(0);
    let comm_p = serde_json::from_value(output["output"][0]["commitment"].clone()).unwrap();
    let piece = PieceInfo { comm_p: CommP(comm_p), size: PaddedPieceSize::try_from(512).unwrap() };
    PieceInput { piece, content: PieceContent::File(path) }
}

async fn both_protocols_seal_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let piece = piece(dir.path()).await;
    let mut replicas = Vec::new();
    for (name, protocol) in [("one", Protocol::V1), ("two", Protocol::V2)] {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        replicas.push(Sealing { protocol, dir }.seal(&piece).await);
    }
    assert_eq!(replicas[0], replicas[1]);
}

/// Gives our child these tasks at once, and ends its input when all are answered.
fn by_hand(stage: &str, tasks: &[Value]) -> Vec<Value> {
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new(me).args(["v1", stage]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut requests = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), format!("{stage} processor ready"));
    requests.write_all(b"this is no request\n").unwrap();
    for (task, id) in tasks.iter().zip(1..) {
        writeln!(requests, "{}", json!({"id": id, "task": task})).unwrap();
    }
    let mut answers: Vec<Value> = lines.take(tasks.len()).map(|line| serde_json::from_str(&line).unwrap()).collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    drop(requests);
    assert!(child.wait().unwrap().success(), "the end of its input is its end");
    answers
}

async fn our_child_serves_a_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("from")).unwrap();
    for n in 0..3 {
        fs::write(path("from").join(format!("layer-{n}")), vec![n; 100]).unwrap();
    }
    let route = |from: &Path, to: &Path, is_dir| {
        json!({"stores": {}, "routes": [{
            "src": {"store_name": null, "uri": from},
            "dest": {"store_name": "s", "uri": to},
            "opt": if is_dir { json!({"is_dir": true, "allow_link": true}) } else { Value::Null },
        }]})
    };
    let answers = by_hand(
        "transfer",
        &[
            route(&path("from"), &path("to"), true),
            route(&path("from").join("layer-1"), &path("one"), false),
            route(Path::new("from"), &path("x"), false),
            json!({"routes": 7}),
        ],
    );
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    for answer in &answers[..2] {
        assert_eq!((&answer["output"], &answer["err_msg"]), (&json!(true), &Value::Null));
    }
    assert!(answers[2]["err_msg"].as_str().unwrap().contains("not an absolute path"));
    assert!(answers[3]["err_msg"].as_str().unwrap().contains("understand the task"));
    assert_eq!(fs::read(path("to").join("layer-2")).unwrap(), [2; 100]);
    assert_eq!(fs::read(path("one")).unwrap(), [1; 100]);
}
