//! Our tasks in the words of protocol v1, and its answers in ours.
//!
//! A processor of protocol v1 does less than ours: it expects its directories to be prepared, trusts what lies there,
//! syncs nothing and answers with less. What is missing is done here, before and after it.

use super::{
    files::{copy, digest},
    words::{self, C2Output as C2Words, PieceFile, PieceToAdd, Place, Route, SealProof},
};
use crate::{
    pool::dialect::Problem,
    processor::{
        ProcessorError,
        files::{
            expect_len, make_parent, parent, remove_if_there, remove_left, sync_dir, sync_file, sync_files_in,
            temporary,
        },
        fillers::{fillers, start_of},
        names::{TREE_D, prover_id},
        prepare,
    },
    service::comm_d::{comm_d_of, zero_commitment},
    task::{
        AddPieces, AddedPieces, C2, C2Output, CopiedFile, Pc1, Pc1Output, Pc2, Pc2Output, PieceContent, Transfer,
        Transferred, TreeD, TreeDOutput,
    },
};
use bytes::Bytes;
use damocles_core::{
    CancellationToken, CommD, CommP, CommR, PaddedPieceSize, PieceInfo, SealProofType, SectorId,
    pool::{Job, PoolErrorKind, Task},
};
use fs_err as fs;
use serde::{Serialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::Value;
use std::io::{self, Read, Seek, SeekFrom};

/// A task that was given, for what has to be done after it.
#[derive(Debug)]
pub(super) enum Given {
    AddPieces(AddPieces, Vec<PieceInfo>),
    TreeD(TreeD),
    Pc1(Pc1),
    Pc2(Pc2),
    C2,
    Transfer(Transfer),
}

/// Prepares a task and puts it into a line. Blocks.
pub(super) fn give(job: &Job, id: u64, stop: &CancellationToken) -> Result<(Bytes, Given), Problem> {
    let given = match job.kind.as_str() {
        "add_pieces" => add_pieces(read(job)?)?,
        "tree_d" => tree_d(read(job)?)?,
        "pc1" => pc1(read(job)?)?,
        "pc2" => pc2(read(job)?, stop)?,
        "c2" => return c2(&read(job)?, id).map(|line| (line, Given::C2)),
        "transfer" => transfer(read(job)?)?,
        kind => return Err(Problem::new(PoolErrorKind::NoProcessor, format!("protocol v1 has no task `{kind}`"))),
    };
    let (task, given) = given;
    Ok((line(id, &task)?, given))
}

/// What came of a task, as ours. Blocks.
pub(super) fn take(given: Given, answer: Value, stop: &CancellationToken) -> Result<Bytes, Problem> {
    match given {
        Given::AddPieces(task, expected) => write::<AddPieces>(&added(&task, expected, answer)?),
        Given::TreeD(task) => write::<TreeD>(&tree(&task, &answer)?),
        Given::Pc1(task) => write::<Pc1>(&layers(&task, answer)?),
        Given::Pc2(task) => write::<Pc2>(&replica(&task, answer)?),
        Given::C2 => {
            let C2Words { proof } = words(answer)?;
            if proof.is_empty() {
                return Err(rubbish("its proof is empty"));
            }
            write::<C2>(&C2Output { proof })
        }
        Given::Transfer(task) => write::<Transfer>(&copies(task, &answer, stop)?),
    }
}

type Prepared = Result<(Value, Given), Problem>;

fn add_pieces(task: AddPieces) -> Prepared {
    let sector = task.proof_type.sector_size().bytes();
    let (mut pieces, mut expected, mut offset) = (Vec::new(), Vec::new(), 0);
    let zeros = |pieces: &mut Vec<PieceToAdd>, expected: &mut Vec<PieceInfo>, size: PaddedPieceSize| {
        let piece_size = size.unpadded().bytes();
        pieces.push(PieceToAdd { piece_file: PieceFile::Pledge, payload_size: piece_size, piece_size });
        expected.push(PieceInfo { comm_p: CommP(zero_commitment(size.bytes())), size });
    };
    for input in &task.pieces {
        let size = input.piece.size;
        let start = start_of(size.bytes(), offset);
        fillers(offset, start).for_each(|size| zeros(&mut pieces, &mut expected, size));
        offset = start.saturating_add(size.bytes());
        if offset > sector {
            let piece = input.piece.comm_p;
            return Err(Problem::new(
                PoolErrorKind::Failed,
                format!("piece {piece} does not fit at {start} of {sector}"),
            ));
        }
        match &input.content {
            PieceContent::Zeros => zeros(&mut pieces, &mut expected, size),
            PieceContent::File(path) => {
                let payload_size = fs::metadata(path).map_err(|e| failed("look at a piece", e))?.len();
                let piece_file = PieceFile::Local(path.clone());
                pieces.push(PieceToAdd { piece_file, payload_size, piece_size: size.unpadded().bytes() });
                expected.push(input.piece);
            }
        }
    }
    fillers(offset, sector).for_each(|size| zeros(&mut pieces, &mut expected, size));
    fs::create_dir_all(parent(&task.staged)).map_err(|e| failed("prepare the staged file", e))?;
    remove_if_there(&task.staged).map_err(|e| failed("prepare the staged file", e))?;
    let seal_proof_type = SealProof(task.proof_type);
    let words = words::AddPieces { seal_proof_type, pieces, staged_filepath: task.staged.clone() };
    Ok((value(&words)?, Given::AddPieces(task, expected)))
}

fn added(task: &AddPieces, expected: Vec<PieceInfo>, answer: Value) -> Result<AddedPieces, Problem> {
    let pieces: Vec<words::Piece> = words(answer)?;
    if pieces.len() != expected.len() {
        return Err(rubbish(format!("it was given {} pieces and speaks of {}", expected.len(), pieces.len())));
    }
    for (found, wanted) in pieces.iter().zip(&expected) {
        if *found != words::Piece::from(wanted) {
            let (wanted, found) = (wanted.comm_p, CommP(found.commitment));
            let what = format!("the content of piece {wanted} is another piece, {found}, or has another size");
            return Err(Problem::new(PoolErrorKind::Failed, what));
        }
    }
    expect_len("staged file", &task.staged, task.proof_type.sector_size().bytes())?;
    sync_file(&task.staged).map_err(|e| failed("sync the staged file", e))?;
    let comm_d = comm_d_of(&expected, task.proof_type.sector_size());
    let comm_d = comm_d.map_err(|e| Problem::new(PoolErrorKind::Failed, e))?;
    Ok(AddedPieces { pieces: expected, comm_d })
}

fn tree_d(task: TreeD) -> Prepared {
    expect_len("staged file", &task.staged, task.proof_type.sector_size().bytes())?;
    let prepare = |e| failed("prepare the directory of the data tree", e);
    fs::create_dir_all(&task.dir).map_err(prepare)?;
    // It would be loaded instead of built.
    remove_if_there(&task.dir.join(TREE_D)).map_err(prepare)?;
    let registered_proof = SealProof(task.proof_type);
    let words = words::TreeD { registered_proof, staged_file: task.staged.clone(), cache_dir: task.dir.clone() };
    Ok((value(&words)?, Given::TreeD(task)))
}

fn tree(task: &TreeD, answer: &Value) -> Result<TreeDOutput, Problem> {
    yes(answer)?;
    let file = task.dir.join(TREE_D);
    expect_len("data tree", &file, prepare::tree_d_len(task.proof_type.sector_size().bytes()))?;
    let mut root = [0; 32];
    let read = fs::File::open(&file).and_then(|mut tree| {
        tree.seek(SeekFrom::End(-32))?;
        tree.read_exact(&mut root)
    });
    read.and_then(|()| sync_file(&file)).map_err(|e| failed("read the root of the data tree", e))?;
    Ok(TreeDOutput { comm_d: CommD(root), file })
}

fn pc1(task: Pc1) -> Prepared {
    prepare::pc1(&task)?;
    let words = words::Pc1 {
        registered_proof: SealProof(task.proof_type),
        cache_path: task.cache.clone(),
        in_path: task.staged.clone(),
        out_path: task.sealed.clone(),
        prover_id: prover_id(task.sector.miner),
        sector_id: task.sector.number.0,
        ticket: task.ticket.0,
        piece_infos: task.pieces.iter().map(words::Piece::from).collect(),
    };
    Ok((value(&words)?, Given::Pc1(task)))
}

fn layers(task: &Pc1, answer: Value) -> Result<Pc1Output, Problem> {
    of_this_proof(task.proof_type, &answer)?;
    let files = sync_files_in(&task.cache).map_err(|e| failed("sync the layers", e))?;
    sync_file(&task.sealed).map_err(|e| failed("sync the sealed file", e))?;
    Ok(Pc1Output { library: answer, files })
}

fn pc2(task: Pc2, stop: &CancellationToken) -> Prepared {
    of_this_proof(task.proof_type, &task.pc1.library)?;
    prepare::pc2(&task, |from, to| copy(from, to, stop))?;
    let pc1out = task.pc1.library.clone();
    let words = words::Pc2 { pc1out, cache_dir: task.cache.clone(), sealed_file: task.sealed.clone() };
    Ok((value(&words)?, Given::Pc2(task)))
}

fn replica(task: &Pc2, answer: Value) -> Result<Pc2Output, Problem> {
    of_this_proof(task.proof_type, &answer)?;
    let words::Pc2Output { comm_r, comm_d, .. } = words(answer)?;
    expect_len("sealed file", &task.sealed, task.proof_type.sector_size().bytes())?;
    sync_files_in(&task.cache).map_err(|e| failed("sync the trees", e))?;
    sync_file(&task.sealed).map_err(|e| failed("sync the sealed file", e))?;
    Ok(Pc2Output { comm_r: CommR(comm_r), comm_d: CommD(comm_d) })
}

/// C1 left its output in a file; here it is part of the line. As text: it has up to hundreds of megabytes.
fn c2(task: &C2, id: u64) -> Result<Bytes, Problem> {
    let mut nodes = fs::read(&task.c1).map_err(|e| failed("read the challenged nodes", e))?;
    let path = task.c1.display();
    // A processor that does not understand its line says nothing at all.
    serde_json::from_slice::<IgnoredAny>(&nodes)
        .map_err(|e| failed(format!("read the challenged nodes in {path}"), e))?;
    // Between values only: inside a text it is escaped.
    nodes.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    let SectorId { miner, number } = task.sector;
    let prover = value(&prover_id(miner))?;
    let mut line = format!(r#"{{"id":{id},"task":{{"c1out":"#).into_bytes();
    line.extend_from_slice(&nodes);
    let rest = format!(r#","prover_id":{prover},"sector_id":{},"miner_id":{}}}}}"#, number.0, miner.0);
    line.extend_from_slice(rest.as_bytes());
    line.push(b'\n');
    Ok(line.into())
}

fn transfer(task: Transfer) -> Prepared {
    let mut routes = Vec::with_capacity(task.files.len());
    for file in &task.files {
        let what = || format!("copy {} to {}", file.from.display(), file.to.display());
        let found = fs::metadata(&file.from).map_err(|e| failed(what(), e))?;
        if !found.is_file() || file.to.file_name().is_none() {
            return Err(Problem::new(PoolErrorKind::Failed, format!("{}: one of them is no file", what())));
        }
        // A link or a copy by another name cannot be its own source: the copy gets a name of its own first.
        let half = temporary(&file.to);
        let prepared = make_parent(&file.to).and_then(|()| remove_left(&file.to)).and_then(|()| remove_if_there(&half));
        prepared.map_err(|e| failed(what(), e))?;
        let place = |uri| Place { store_name: None, uri };
        let opt = Some(words::RouteOption { is_dir: false, allow_link: false });
        routes.push(Route { src: place(file.from.clone()), dest: place(half), opt });
    }
    let words = words::Transfer { stores: [].into(), routes };
    Ok((value(&words)?, Given::Transfer(task)))
}

/// Reads every copy again: that it was made is only what the processor says.
fn copies(task: Transfer, answer: &Value, stop: &CancellationToken) -> Result<Transferred, Problem> {
    yes(answer)?;
    let mut files = Vec::with_capacity(task.files.len());
    for file in task.files {
        let what = || format!("check the copy of {} for {}", file.from.display(), file.to.display());
        let half = temporary(&file.to);
        let expected = digest(&file.from, stop).map_err(|e| failed(what(), e))?;
        let (len, sha256) = digest(&half, stop).map_err(|e| failed(what(), e))?;
        if (len, &sha256) != (expected.0, &expected.1) {
            return Err(rubbish(format!("{}: it is another file", what())));
        }
        let place = || {
            fs::File::open(&half)?.sync_all()?;
            fs::rename(&half, &file.to)?;
            sync_dir(parent(&file.to))
        };
        place().map_err(|e: io::Error| failed(what(), e))?;
        files.push(CopiedFile { path: file.to, len, sha256 });
    }
    Ok(Transferred { files })
}

fn of_this_proof(expected: SealProofType, library: &Value) -> Result<(), Problem> {
    let named: Option<SealProof> =
        library.get("registered_proof").and_then(|name| serde_json::from_value(name.clone()).ok());
    match named {
        Some(SealProof(found)) if found == expected => Ok(()),
        _ => Err(rubbish(format!("what it gives is not of {expected}"))),
    }
}

fn yes(answer: &Value) -> Result<(), Problem> {
    match answer {
        Value::Bool(true) => Ok(()),
        Value::Bool(false) => Err(Problem::new(PoolErrorKind::Failed, "it says that it failed, without a reason")),
        other => Err(rubbish(format!(
            "it answers `{}` instead of yes or no",
            super::line::excerpt(other.to_string().as_bytes())
        ))),
    }
}

fn line(id: u64, task: &Value) -> Result<Bytes, Problem> {
    let mut line = value(&serde_json::json!({ "id": id, "task": task }))?.to_string().into_bytes();
    line.push(b'\n');
    Ok(line.into())
}

fn read<T: Task>(job: &Job) -> Result<T, Problem> {
    serde_json::from_slice(&job.payload).map_err(|e| Problem::new(PoolErrorKind::Encoding, e))
}

fn write<T: Task>(output: &T::Output) -> Result<Bytes, Problem> {
    serde_json::to_vec(output).map(Bytes::from).map_err(|e| Problem::new(PoolErrorKind::Encoding, e))
}

fn value(words: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(words).map_err(|e| Problem::new(PoolErrorKind::Encoding, e))
}

fn words<T: DeserializeOwned>(answer: Value) -> Result<T, Problem> {
    serde_json::from_value(answer).map_err(|e| Problem::new(PoolErrorKind::Rubbish, e))
}

fn rubbish(what: impl Into<damocles_core::BoxError>) -> Problem {
    Problem::new(PoolErrorKind::Rubbish, what)
}

fn failed(what: impl Into<String>, source: impl Into<damocles_core::BoxError>) -> Problem {
    ProcessorError::new(what, source).into()
}

impl From<ProcessorError> for Problem {
    fn from(error: ProcessorError) -> Self {
        Self::new(error.kind, error)
    }
}
