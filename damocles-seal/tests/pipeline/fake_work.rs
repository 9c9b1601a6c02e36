//! Processors that write small files and make fake proofs. They honour what the task types promise.

use damocles_core::{
    CommR,
    pool::{PoolErrorKind, Task, TaskKind},
    testing::{FakePool, fake_proof},
    verify::SealStatement,
};
use damocles_seal::{
    service::comm_d_of,
    store::replica_cache_files,
    task::{
        AddPieces, AddedPieces, C1, C1Output, C2, C2Output, CopiedFile, Pc1, Pc1Output, Pc2, Pc2Output, Transfer,
        Transferred, TreeD, TreeDOutput,
    },
};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, sync::Arc};

/// What the fake processors did, and what they are to do wrong.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    pub(crate) runs: BTreeMap<String, u32>,
    /// The next run of this kind fails before it does anything.
    pub(crate) before: Vec<(TaskKind, PoolErrorKind)>,
    /// The next run of this kind does its work and fails all the same.
    pub(crate) after: Vec<(TaskKind, PoolErrorKind)>,
    /// Mixed into every replica: a machine that computes wrongly.
    pub(crate) noise: u8,
    /// Added to every proof: no two of a real prover are the same.
    pub(crate) proof_noise: Vec<u8>,
    /// What a third party's processor says of the copies that it made.
    pub(crate) tells_of_copies: Option<fn(&mut Vec<CopiedFile>)>,
}

type Shared = Arc<Mutex<Bench>>;

fn take(list: &mut Vec<(TaskKind, PoolErrorKind)>, kind: &TaskKind) -> Result<(), PoolErrorKind> {
    match list.iter().position(|(k, _)| k == kind) {
        Some(at) => Err(list.remove(at).1),
        None => Ok(()),
    }
}

fn guarded<T: Task>(
    bench: &Shared,
    work: impl Fn(&T, u8) -> std::io::Result<T::Output> + Send + Sync + 'static,
) -> impl Fn(T) -> Result<T::Output, PoolErrorKind> + Send + Sync + 'static {
    let bench = Arc::clone(bench);
    move |task| {
        let noise = {
            let mut bench = bench.lock();
            take(&mut bench.before, &T::KIND)?;
            *bench.runs.entry(T::KIND.to_string()).or_default() += 1;
            bench.noise
        };
        let output = work(&task, noise).map_err(|_| PoolErrorKind::Failed)?;
        take(&mut bench.lock().after, &T::KIND)?;
        Ok(output)
    }
}

pub(crate) fn pool(bench: &Shared) -> FakePool {
    FakePool::new()
        .with(guarded(bench, add_pieces))
        .with(guarded(bench, tree_d))
        .with(guarded(bench, pc1))
        .with(guarded(bench, pc2))
        .with(guarded(bench, c1))
        .with(guarded(bench, {
            let bench = Arc::clone(bench);
            move |task, _| c2(task, &bench.lock().proof_noise)
        }))
        .with(guarded(bench, {
            let bench = Arc::clone(bench);
            move |task, _| transfer(task, bench.lock().tells_of_copies)
        }))
}

fn add_pieces(task: &AddPieces, _: u8) -> std::io::Result<AddedPieces> {
    let size = task.proof_type.sector_size();
    let pieces: Vec<_> = task.pieces.iter().map(|p| p.piece).collect();
    let comm_d = comm_d_of(&pieces, size).map_err(std::io::Error::other)?;
    fs::write(&task.staged, comm_d.0.repeat(64))?;
    Ok(AddedPieces { pieces, comm_d })
}

fn tree_d(task: &TreeD, _: u8) -> std::io::Result<TreeDOutput> {
    let staged = fs::read(&task.staged)?;
    let file = task.dir.join("sc-02-data-tree-d.dat");
    fs::write(&file, &staged)?;
    let comm_d = damocles_core::CommD(staged[..32].try_into().unwrap());
    Ok(TreeDOutput { comm_d, file })
}

fn pc1(task: &Pc1, _: u8) -> std::io::Result<Pc1Output> {
    let (cache, tree) = (&task.cache, task.tree_d.as_ref().unwrap());
    fs::remove_dir_all(cache)?;
    fs::create_dir(cache)?;
    fs::rename(tree, cache.join("sc-02-data-tree-d.dat"))?;
    let layer = Sha256::new().chain_update(task.ticket.0).chain_update(task.sector.to_string()).finalize();
    fs::write(cache.join("sc-02-data-layer-1.dat"), layer)?;
    fs::write(&task.sealed, [])?;
    let files = vec!["sc-02-data-layer-1.dat".to_owned(), "sc-02-data-tree-d.dat".to_owned()];
    Ok(Pc1Output { library: json!({ "cache": cache }), files })
}

fn pc2(task: &Pc2, noise: u8) -> std::io::Result<Pc2Output> {
    let staged = fs::read(&task.staged)?;
    let layer = fs::read(task.cache.join("sc-02-data-layer-1.dat"))?;
    let seal = Sha256::new().chain_update(&staged).chain_update(layer).chain_update([noise]).finalize();
    fs::write(&task.sealed, seal.repeat(64))?;
    for name in replica_cache_files(task.proof_type.sector_size()) {
        fs::write(task.cache.join(name), seal)?;
    }
    fs::write(task.cache.join("sc-02-data-tree-c.dat"), seal)?;
    Ok(Pc2Output {
        comm_r: comm_r_of(&fs::read(&task.sealed)?),
        comm_d: damocles_core::CommD(staged[..32].try_into().unwrap()),
    })
}

pub(crate) fn comm_r_of(sealed: &[u8]) -> CommR {
    CommR(Sha256::digest(sealed).into())
}

fn c1(task: &C1, _: u8) -> std::io::Result<C1Output> {
    fs::read(task.cache.join("sc-02-data-layer-1.dat"))?;
    let comm_r = comm_r_of(&fs::read(&task.sealed)?);
    let statement = SealStatement {
        sector: task.sector,
        proof_type: task.proof_type,
        comm_r,
        comm_d: task.comm_d,
        ticket: task.ticket,
        seed: task.seed,
    };
    let text = serde_json::to_vec(&statement)?;
    fs::write(&task.output, &text)?;
    Ok(C1Output { file: task.output.clone(), len: text.len().try_into().unwrap() })
}

fn c2(task: &C2, noise: &[u8]) -> std::io::Result<C2Output> {
    let statement: SealStatement = serde_json::from_slice(&fs::read(&task.c1)?)?;
    Ok(C2Output { proof: [fake_proof::seal(&statement).as_slice(), noise].concat() })
}

fn transfer(task: &Transfer, tells: Option<fn(&mut Vec<CopiedFile>)>) -> std::io::Result<Transferred> {
    let copy = |file: &damocles_seal::task::CopyFile| {
        let parent = file.to.parent().unwrap();
        if !parent.is_dir() {
            fs::create_dir(parent)?;
        }
        let bytes = fs::read(&file.from)?;
        fs::write(&file.to, &bytes)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(CopiedFile { path: file.to.clone(), len: bytes.len().try_into().unwrap(), sha256 })
    };
    let files: std::io::Result<_> = task.files.iter().map(copy).collect();
    let mut files = files?;
    if let Some(tells) = tells {
        tells(&mut files);
    }
    Ok(Transferred { files })
}
