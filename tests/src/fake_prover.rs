//! The fake prover: the real processors, but for the two that cost minutes.
//!
//! Replicas, challenges and vanilla proofs are real; only the SNARKs are the keyed digests of
//! `damocles_core::testing::fake_proof`, which no network accepts unless its name begins with `devnet-fake-`.

use damocles_core::{
    CommD, CommR,
    pool::{Task, TaskKind},
    post::{ProveWindowPoSt, ReadChallenges, WindowPoStProof},
    testing::fake_proof,
    verify::{PoStStatement, Randomness, SealStatement},
};
use damocles_seal::{
    processor::{
        AddPiecesProcessor, C1Processor, Pc1Processor, Pc2Processor, Processor, ProcessorError, ProgressSink,
        ReadChallengesProcessor, Registry, ServeOptions, TransferProcessor, TreeDProcessor, serve,
    },
    task::{AddPieces, C1, C2, C2Output, Pc1, Pc2, Transfer, TreeD},
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use std::{
    ffi::OsString,
    io::{Read as _, Seek as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

/// Names a file with a number in it: the task that counts it down to zero dies, half of them before their work and
/// half after it. The count goes on in the next child.
pub const DOOM: &str = "DAMOCLES_TEST_DOOM";

/// The part of the proofs library's C1 output that the statement is made of.
#[derive(Debug, Deserialize)]
struct C1File {
    comm_r: [u8; 32],
    comm_d: [u8; 32],
    seed: [u8; 32],
    ticket: [u8; 32],
}

#[derive(Debug)]
struct FakeC2;

impl Processor<C2> for FakeC2 {
    fn process(&self, task: C2, _: &dyn ProgressSink) -> Result<C2Output, ProcessorError> {
        let path = task.c1.display();
        let text = std::fs::read(&task.c1).map_err(|e| ProcessorError::new(format!("read `{path}`"), e))?;
        let c1: C1File =
            serde_json::from_slice(&text).map_err(|e| ProcessorError::new(format!("parse `{path}`"), e))?;
        let statement = SealStatement {
            sector: task.sector,
            proof_type: task.proof_type,
            comm_r: CommR(c1.comm_r),
            comm_d: CommD(c1.comm_d),
            ticket: Randomness(c1.ticket),
            seed: Randomness(c1.seed),
        };
        Ok(C2Output { proof: fake_proof::seal(&statement) })
    }
}

#[derive(Debug)]
struct FakeWindowPoSt;

impl Processor<ProveWindowPoSt> for FakeWindowPoSt {
    fn process(&self, task: ProveWindowPoSt, _: &dyn ProgressSink) -> Result<WindowPoStProof, ProcessorError> {
        let statement = PoStStatement {
            miner: task.miner,
            proof_type: task.proof_type,
            randomness: task.randomness,
            sectors: task.sectors,
        };
        Ok(WindowPoStProof { proof: fake_proof::window_post(&statement) })
    }
}

/// A processor that may die at its task.
#[derive(Debug)]
struct Mortal<P> {
    inner: P,
    doom: Option<PathBuf>,
}

impl<T: Task, P: Processor<T>> Processor<T> for Mortal<P> {
    fn process(&self, task: T, progress: &dyn ProgressSink) -> Result<T::Output, ProcessorError> {
        let doomed = self.doom.as_ref().and_then(|file| count_down(file).ok()).unwrap_or(Doom::None);
        if doomed == Doom::Before {
            die();
        }
        let output = self.inner.process(task, progress)?;
        if doomed == Doom::After {
            die();
        }
        Ok(output)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doom {
    None,
    Before,
    After,
}

/// Counts the number in the file down by one. It is `N before` or `N after`.
fn count_down(path: &PathBuf) -> std::io::Result<Doom> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut words = text.split_whitespace();
    let left: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let side = words.next().unwrap_or("before").to_owned();
    if left == 0 {
        return Ok(Doom::None);
    }
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{} {side}", left - 1)?;
    file.sync_all()?;
    Ok(match (left, side.as_str()) {
        (1, "after") => Doom::After,
        (1, _) => Doom::Before,
        _ => Doom::None,
    })
}

fn die() -> ! {
    let _ = kill(Pid::this(), Signal::SIGKILL);
    unreachable!("a killed process does not go on");
}

/// Everything that a real child can do, with the SNARKs faked.
pub fn registry(doom: Option<PathBuf>) -> Registry {
    fn mortal<P>(inner: P, doom: &Option<PathBuf>) -> Mortal<P> {
        Mortal { inner, doom: doom.clone() }
    }
    Registry::new()
        .with::<AddPieces>(mortal(AddPiecesProcessor, &doom))
        .with::<TreeD>(mortal(TreeDProcessor, &doom))
        .with::<Pc1>(mortal(Pc1Processor::default(), &doom))
        .with::<Pc2>(mortal(Pc2Processor, &doom))
        .with::<C1>(mortal(C1Processor, &doom))
        .with::<C2>(mortal(FakeC2, &doom))
        .with::<Transfer>(mortal(TransferProcessor, &doom))
        .with::<ReadChallenges>(mortal(ReadChallengesProcessor, &doom))
        .with::<ProveWindowPoSt>(mortal(FakeWindowPoSt, &doom))
}

/// The program: `damocles-test-prover KIND`.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(kind) = args.into_iter().nth(1).and_then(|a| a.into_string().ok()) else {
        eprintln!("usage: damocles-test-prover KIND");
        return ExitCode::from(2);
    };
    let doom = std::env::var_os(DOOM).map(PathBuf::from);
    let mut options = ServeOptions::default();
    options.kinds = Some(vec![TaskKind::read(kind)]);
    match serve(registry(doom), &options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve tasks: {error}");
            ExitCode::FAILURE
        }
    }
}
