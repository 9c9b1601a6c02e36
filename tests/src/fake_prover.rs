//! The prover of the tests: the real processors, which can be told to die, and fakes for the two that cost minutes.
//!
//! Replicas, challenges and vanilla proofs are always real. The SNARKs are the keyed digests of
//! `damocles_core::testing::fake_proof`, which no network accepts unless its name begins with `devnet-fake-`, or real
//! ones if the program is told so.

use damocles_core::{
    CommD, CommR,
    pool::{Task, TaskKind},
    post::{ProveWindowPoSt, ReadChallenges, WindowPoStProof},
    testing::fake_proof,
    verify::{PoStStatement, Randomness, SealStatement},
};
use damocles_seal::{
    processor::{
        AddPiecesProcessor, C1Processor, C2Processor, Pc1Processor, Pc2Processor, Processor, ProcessorError,
        ProgressSink, ProveWindowPoStProcessor, ReadChallengesProcessor, Registry, ServeOptions, TransferProcessor,
        TreeDProcessor, serve,
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
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Names a file with a number in it: the task that counts it down to zero dies, half of them before their work and
/// half after it. The count goes on in the next child.
pub const DOOM: &str = "DAMOCLES_TEST_DOOM";
/// Names a file to which every task adds a line with its kind when it begins, and `doomed` with its kind before it dies.
pub const DIARY: &str = "DAMOCLES_TEST_DIARY";
/// Names a file with a kind and a [`Mood`], in which tasks of that kind are for as long as the file says so.
pub const MOOD: &str = "DAMOCLES_TEST_MOOD";

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

/// What may befall a child.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    doom: Option<PathBuf>,
    diary: Option<PathBuf>,
    mood: Option<PathBuf>,
}

impl Fate {
    #[expect(clippy::disallowed_methods, reason = "a test tells it so what to do")]
    fn of_environment() -> Self {
        let file = |name| std::env::var_os(name).map(PathBuf::from);
        Self { doom: file(DOOM), diary: file(DIARY), mood: file(MOOD) }
    }

    fn note(&self, line: &str) {
        let Some(diary) = &self.diary else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(diary);
        // One write, so that lines of several children do not mix.
        let written = file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
        written.expect("the diary can be written");
    }

    /// The mood of tasks of this kind.
    fn mood(&self, kind: &str) -> Mood {
        let text = self.mood.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let mut words = text.split_whitespace();
        if words.next() != Some(kind) {
            return Mood::Good;
        }
        match (words.next(), words.next().and_then(|n| n.parse().ok())) {
            (Some("slow"), Some(millis)) => Mood::Slow(Duration::from_millis(millis)),
            (Some("hang"), _) => Mood::Hang,
            (Some("fork"), _) => Mood::Fork,
            (Some("panic"), _) => Mood::Panic,
            _ => Mood::Good,
        }
    }
}

/// How a task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Good,
    /// `slow MILLIS`: so much later.
    Slow(Duration),
    /// `hang`: never.
    Hang,
    /// `fork`: it starts a process that would live on, writes its number beside the mood file, and dies.
    Fork,
    /// `panic`: it panics.
    Panic,
}

/// A processor that may die at its task.
#[derive(Debug)]
struct Mortal<P> {
    inner: P,
    fate: Fate,
}

impl<T: Task, P: Processor<T>> Processor<T> for Mortal<P> {
    fn process(&self, task: T, progress: &dyn ProgressSink) -> Result<T::Output, ProcessorError> {
        let kind = T::KIND;
        self.fate.note(kind.as_str());
        let doomed = self.fate.doom.as_ref().and_then(|file| count_down(file).ok()).unwrap_or(Doom::None);
        match self.fate.mood(kind.as_str()) {
            Mood::Good => {}
            Mood::Slow(time) => std::thread::sleep(time),
            Mood::Hang => loop {
                std::thread::park();
            },
            Mood::Fork => {
                #[expect(clippy::zombie_processes, reason = "an orphan is what this mood is for")]
                let child = std::process::Command::new("sleep").arg("600").spawn().expect("a process can be started");
                if let Some(mood) = &self.fate.mood {
                    std::fs::write(mood.with_extension("pid"), child.id().to_string()).expect("the number is written");
                }
                die();
            }
            Mood::Panic => panic!("a processor that panics"),
        }
        if doomed == Doom::Before {
            self.fate.note(&format!("doomed {}", kind.as_str()));
            die();
        }
        let output = self.inner.process(task, progress)?;
        if doomed == Doom::After {
            self.fate.note(&format!("doomed {}", kind.as_str()));
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
fn count_down(path: &Path) -> std::io::Result<Doom> {
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

/// How SNARKs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snarks {
    /// As keyed digests.
    Fake,
    /// As they should.
    Real,
}

/// Everything that a real child can do.
pub fn registry(fate: &Fate, snarks: Snarks) -> Registry {
    fn mortal<P>(inner: P, fate: &Fate) -> Mortal<P> {
        Mortal { inner, fate: fate.clone() }
    }
    let registry = Registry::new()
        .with::<AddPieces>(mortal(AddPiecesProcessor, fate))
        .with::<TreeD>(mortal(TreeDProcessor, fate))
        .with::<Pc1>(mortal(Pc1Processor::default(), fate))
        .with::<Pc2>(mortal(Pc2Processor, fate))
        .with::<C1>(mortal(C1Processor, fate))
        .with::<Transfer>(mortal(TransferProcessor::default(), fate))
        .with::<ReadChallenges>(mortal(ReadChallengesProcessor, fate));
    match snarks {
        Snarks::Fake => registry.with::<C2>(mortal(FakeC2, fate)).with::<ProveWindowPoSt>(mortal(FakeWindowPoSt, fate)),
        Snarks::Real => registry
            .with::<C2>(mortal(C2Processor, fate))
            .with::<ProveWindowPoSt>(mortal(ProveWindowPoStProcessor, fate)),
    }
}

/// The program: `damocles-test-prover KIND [real LOCK]`. Real proofs take turns by the lock.
#[expect(clippy::print_stderr, reason = "a program talks on standard error")]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Option<Vec<String>> = args.into_iter().skip(1).map(|a| a.into_string().ok()).collect();
    let (kind, snarks, lock) = match words.as_deref() {
        Some([kind]) => (kind.clone(), Snarks::Fake, None),
        Some([kind, real, lock]) if real == "real" => (kind.clone(), Snarks::Real, Some(lock.into())),
        _ => {
            eprintln!("usage: damocles-test-prover KIND [real LOCK]");
            return ExitCode::from(2);
        }
    };
    let mut options = ServeOptions::default();
    options.kinds = Some(vec![TaskKind::read(kind)]);
    options.turn_lock = lock;
    match serve(registry(&Fate::of_environment(), snarks), &options) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("serve tasks: {error}");
            ExitCode::FAILURE
        }
    }
}
