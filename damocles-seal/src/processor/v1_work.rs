//! The tasks of protocol v1, done by our processors.
//!
//! They promise less than ours: a directory is prepared and a copy made by who asks, and pieces are not checked, because
//! nobody says what they should be.

use super::{
    AddPiecesProcessor, C2Processor, Pc1Processor, Processor, ProcessorError, ProgressSink, ProveWindowPoStProcessor,
    ReadChallengesProcessor, TransferProcessor, TreeDProcessor,
    files::{expect_len, sync_file, sync_files_in},
    library::failed,
    names::{TREE_D, miner_of},
};
use crate::{
    pool::v1::{
        post_words::{self, WindowPoStOutput},
        words::{self, C2Output, Pc2Output, Piece, PieceFile, SealProof},
    },
    task::{CopyFile, Pc1, PieceContent, Transfer, TreeD},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use damocles_core::{
    ActorId, CommP, CommR, PaddedPieceSize, PieceInfo, SectorId, SectorNumber,
    pool::TaskKind,
    post::{ChallengeRead, ProveWindowPoSt, ReadChallenges, ReplicaPaths},
    verify::{ProvenSector, Randomness},
};
use filecoin_proofs_api::seal::{self, SealCommitPhase1Output, SealPreCommitPhase1Output};
use fs_err as fs;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What does the work of a stage.
pub(super) type Work = fn(Value) -> Result<Value, ProcessorError>;

/// The work of a stage; none if there is no such stage here.
pub(super) fn of(stage: &TaskKind) -> Option<Work> {
    Some(match stage.as_str() {
        "add_pieces" => |task| run(task, add_pieces),
        "tree_d" => |task| run(task, tree_d),
        "pc1" => |task| run(task, pc1),
        "pc2" => |task| run(task, pc2),
        "c2" => |task| run(task, c2),
        "transfer" => |task| run(task, transfer),
        "window_post" => |task| run(task, window_post),
        _ => return None,
    })
}

fn run<T: DeserializeOwned, O: Serialize>(
    task: Value,
    work: fn(T) -> Result<O, ProcessorError>,
) -> Result<Value, ProcessorError> {
    let task = serde_json::from_value(task).map_err(|e| ProcessorError::new("understand the task", e))?;
    serde_json::to_value(work(task)?).map_err(|e| ProcessorError::new("encode the output", e))
}

/// Protocol v1 has no progress.
struct Silent;

impl ProgressSink for Silent {
    fn progress(&self, _: u64, _: Option<u64>) {}
}

fn add_pieces(task: words::AddPieces) -> Result<Vec<Piece>, ProcessorError> {
    let mut pieces = Vec::with_capacity(task.pieces.len());
    for piece in task.pieces {
        let content = match piece.piece_file {
            PieceFile::Local(path) => PieceContent::File(path),
            PieceFile::Pledge => PieceContent::Zeros,
            PieceFile::Url(_) => {
                // It may hold a token.
                let what = "pieces are read from files here: let the worker fetch them into a directory of pieces";
                return Err(ProcessorError::because(what));
            }
        };
        let unpadded = piece.piece_size;
        let padded = unpadded.checked_mul(128).map_or(0, |size| size / 127);
        let size = PaddedPieceSize::try_from(padded).ok().filter(|size| size.unpadded().bytes() == unpadded);
        let size = size.ok_or_else(|| ProcessorError::because(format!("no piece has {unpadded} unpadded bytes")))?;
        pieces.push((content, size));
    }
    let added = AddPiecesProcessor.add(task.seal_proof_type.0, &pieces, &task.staged_filepath)?;
    Ok(added.iter().map(Piece::from).collect())
}

fn tree_d(task: words::TreeD) -> Result<bool, ProcessorError> {
    let task = TreeD { proof_type: task.registered_proof.0, staged: task.staged_file, dir: task.cache_dir };
    TreeDProcessor.process(task, &Silent).map(|_| true)
}

fn pc1(task: words::Pc1) -> Result<Value, ProcessorError> {
    let sector = sector(&task.prover_id, task.sector_id)?;
    let padded = |piece: &Piece| {
        let size = PaddedPieceSize::try_from(piece.size / 127 * 128);
        let size = size.map_err(|e| ProcessorError::new("use a piece", e))?;
        Ok(PieceInfo { comm_p: CommP(piece.commitment), size })
    };
    let pieces = task.piece_infos.iter().map(padded).collect::<Result<_, ProcessorError>>()?;
    let tree = task.cache_path.join(TREE_D);
    let task = Pc1 {
        sector,
        proof_type: task.registered_proof.0,
        ticket: Randomness(task.ticket),
        pieces,
        staged: task.in_path,
        sealed: task.out_path,
        cache: task.cache_path,
        // Put there by who asks, often as a link.
        tree_d: tree.exists().then_some(tree),
    };
    Ok(Pc1Processor::default().process(task, &Silent)?.library)
}

/// The sealed file holds the data, and is encoded in place: who asks keeps the copy.
fn pc2(task: words::Pc2) -> Result<Pc2Output, ProcessorError> {
    let output = SealPreCommitPhase1Output::deserialize(&task.pc1out)
        .map_err(|e| ProcessorError::new("read PC1's output", e))?;
    expect_len("sealed file", &task.sealed_file, u64::from(output.registered_proof.sector_size()))?;
    let sealed = seal::seal_pre_commit_phase2(output, &task.cache_dir, &task.sealed_file)
        .map_err(|e| failed(format!("PC2 in {}", task.cache_dir.display()), e))?;
    sync_files_in(&task.cache_dir).map_err(|e| ProcessorError::new("sync the trees", e))?;
    sync_file(&task.sealed_file).map_err(|e| ProcessorError::new("sync the sealed file", e))?;
    let registered_proof = serde_json::to_value(sealed.registered_proof).and_then(serde_json::from_value);
    let registered_proof: SealProof = registered_proof.map_err(|e| ProcessorError::new("name the proof", e))?;
    Ok(Pc2Output { registered_proof, comm_r: sealed.comm_r, comm_d: sealed.comm_d })
}

/// `c2`.
#[derive(Deserialize)]
struct C2Task {
    c1out: SealCommitPhase1Output,
    prover_id: [u8; 32],
    sector_id: u64,
    miner_id: u64,
}

fn c2(task: C2Task) -> Result<C2Output, ProcessorError> {
    let sector = sector(&task.prover_id, task.sector_id)?;
    if sector.miner != ActorId(task.miner_id) {
        let named = task.miner_id;
        return Err(ProcessorError::because(format!("miner {named} and prover {} are two", sector.miner)));
    }
    C2Processor.prove(task.c1out, sector, "the task").map(|proof| C2Output { proof })
}

fn transfer(task: words::Transfer) -> Result<bool, ProcessorError> {
    let mut files = Vec::new();
    for route in task.routes {
        let (from, to) = (route.src.uri, route.dest.uri);
        if !from.is_absolute() || !to.is_absolute() {
            let (from, to) = (from.display(), to.display());
            return Err(ProcessorError::because(format!("{from} or {to} is not an absolute path")));
        }
        if route.opt.is_some_and(|opt| opt.is_dir) {
            let found = files_in(&from).map_err(|e| ProcessorError::new("look for what to copy", e))?;
            fs::create_dir_all(&to).map_err(|e| ProcessorError::new("make the directory to copy to", e))?;
            files.extend(found.into_iter().map(|name| CopyFile { from: from.join(&name), to: to.join(&name) }));
        } else {
            files.push(CopyFile { from, to });
        }
    }
    TransferProcessor::default().process(Transfer { files, bytes_per_second: None }, &Silent).map(|_| true)
}

/// The names of the files in a directory; one that holds directories is none of a sector's.
fn files_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !fs::metadata(&path)?.is_file() {
            return Err(std::io::Error::other(format!("{} is not a file", path.display())));
        }
        names.extend(path.file_name().map(PathBuf::from));
    }
    Ok(names)
}

fn window_post(task: post_words::WindowPoSt) -> Result<WindowPoStOutput, ProcessorError> {
    let miner = ActorId(task.miner_id);
    let (proof_type, randomness) = (task.proof_type.0, Randomness(task.seed));
    let sector = |replica: &post_words::Replica| ProvenSector {
        number: SectorNumber(replica.sector_id),
        comm_r: CommR(replica.comm_r),
    };
    let sectors: Vec<ProvenSector> = task.replicas.iter().map(sector).collect();
    let replicas = task.replicas.into_iter().zip(&sectors).map(|(replica, sector)| damocles_core::post::Replica {
        sector: *sector,
        paths: ReplicaPaths { sealed: replica.sealed_file, cache: replica.cache_dir },
    });
    let read = ReadChallenges { miner, proof_type, randomness, replicas: replicas.collect() };
    let (mut vanilla, mut faults, mut proven) = (Vec::new(), Vec::new(), Vec::new());
    for read in ReadChallengesProcessor.process(read, &Silent)? {
        match read {
            ChallengeRead::Read { number, vanilla: proof } => {
                vanilla.push(hex::encode(proof));
                proven.extend(sectors.iter().find(|sector| sector.number == number).copied());
            }
            ChallengeRead::Bad { number, reason } => {
                tracing::warn!(sector = number.0, reason, "a replica does not read well");
                faults.push(number.0);
            }
        }
    }
    // Challenges depend on all sectors: with a fault there is no proof, and who asks leaves it out and asks again.
    if !faults.is_empty() {
        return Ok(WindowPoStOutput { proofs: Vec::new(), faults });
    }
    let prove = ProveWindowPoSt { miner, proof_type, randomness, sectors: proven, vanilla };
    let proof = ProveWindowPoStProcessor.process(prove, &Silent)?.proof;
    Ok(WindowPoStOutput { proofs: vec![STANDARD.encode(proof)], faults })
}

fn sector(prover: &[u8; 32], number: u64) -> Result<SectorId, ProcessorError> {
    let miner = miner_of(prover).ok_or_else(|| ProcessorError::because("the prover is no miner's"))?;
    Ok(SectorId::new(miner, SectorNumber(number)))
}
