//! What kills, foreign files and wrong questions leave in a cache, and what becomes of it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use damocles_seal::params::{
    Action, CircuitId, CircuitKind, EnsureReport, Origin, ParamProgress, ParameterCache, ParamsError, SetStatus,
};
use storage_proofs_core::parameter_cache::parameter_id;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::recorded::ensure;
use crate::sector::SECTOR_SIZE;

/// The smallest circuit.
const CIRCUIT: CircuitId = CircuitId::new(CircuitKind::WindowPoSt, SECTOR_SIZE);

/// How the parent tells the child that it will kill where to generate.
const KILLED_DIR: &str = "DAMOCLES_TEST_KILLED_GENERATION";
const HALF_WAY: &str = "half way";

struct Copy {
    dir: TempDir,
    cache: ParameterCache,
}

impl Copy {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = ParameterCache::new(dir.path());
        Self { dir, cache }
    }

    /// The ready set of the shared cache, or `None` (and a word about it) if that is not ours.
    fn of_ours() -> Option<Self> {
        let (origin, _) = ensure(CIRCUIT.kind);
        if origin != Origin::Ours {
            eprintln!("skipped: the parameter cache holds {origin:?} parameters for {CIRCUIT}");
            return None;
        }
        let copy = Self::empty();
        for extension in ["params", "vk", "meta"] {
            fs::copy(shared(extension), copy.file(extension)).unwrap();
        }
        Some(copy)
    }

    fn file(&self, extension: &str) -> PathBuf {
        file_in(self.dir.path(), extension)
    }

    fn ensure(&self) -> Result<EnsureReport, ParamsError> {
        self.cache.ensure(&[CIRCUIT], &CancellationToken::new(), &|_| ())
    }

    fn action(&self) -> Action {
        self.ensure().unwrap().sets[0].1
    }

    fn assert_equals_shared(&self) {
        for extension in ["params", "vk", "meta"] {
            assert!(fs::read(self.file(extension)).unwrap() == fs::read(shared(extension)).unwrap(), "{extension}");
        }
    }
}

fn file_in(dir: &Path, extension: &str) -> PathBuf {
    dir.join(parameter_id(&CIRCUIT.cache_identifier().unwrap())).with_extension(extension)
}

fn shared(extension: &str) -> PathBuf {
    file_in(ParameterCache::of_library().dir(), extension)
}

fn cut(path: &Path, keep: impl Fn(u64) -> u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(keep(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn a_broken_verifying_key_or_metadata_is_restored_from_the_proving_key() {
    let Some(copy) = Copy::of_ours() else { return };
    assert_eq!(copy.action(), Action::Found);
    let digest = copy.cache.verifying_key_digest(CIRCUIT).unwrap();
    assert_eq!(digest, copy.ensure().unwrap().sets[0].0.verifying_key_digest);
    let damages: [fn(&Copy); 6] = [
        |c| cut(&c.file("vk"), |len| len / 2),
        |c| cut(&c.file("vk"), |_| 0),
        |c| cut(&c.file("vk"), |len| len + 1),
        |c| fs::remove_file(c.file("vk")).unwrap(),
        |c| fs::write(c.file("meta"), b"{\"sector_size\":").unwrap(),
        |c| fs::remove_file(c.file("meta")).unwrap(),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        damage(&copy);
        assert_eq!(copy.cache.status(CIRCUIT).unwrap(), SetStatus::Repairable(Origin::Ours), "{index}");
        assert_eq!(copy.action(), Action::Repaired, "{index}");
        copy.assert_equals_shared();
    }
}

#[test]
fn a_verifying_node_needs_the_verifying_key_only() {
    let Some(copy) = Copy::of_ours() else { return };
    let digest = copy.cache.verifying_key_digest(CIRCUIT).unwrap();
    fs::remove_file(copy.file("params")).unwrap();
    assert_eq!(copy.cache.verifying_key_digest(CIRCUIT).unwrap(), digest);
    // A flipped bit is not a point any more: the library would refuse the key, so we do not vouch for it either.
    let mut bytes = fs::read(copy.file("vk")).unwrap();
    bytes[10] ^= 1;
    fs::write(copy.file("vk"), bytes).unwrap();
    let error = copy.cache.verifying_key_digest(CIRCUIT).unwrap_err();
    assert!(error.to_string().contains(copy.file("vk").to_str().unwrap()), "{error}");
}

#[test]
fn a_killed_generation_is_taken_up_by_exactly_one_and_gives_the_same_bytes() {
    let Some(copy) = Copy::of_ours() else { return };
    cut(&copy.file("params"), |len| len - 1);
    assert_eq!(copy.cache.status(CIRCUIT).unwrap(), SetStatus::Missing);
    let leftover = copy.file("params.damocles-tmp");
    fs::write(&leftover, vec![7; 100]).unwrap();

    let run = || {
        let started = RefCell::new(0);
        let count = |progress| {
            if let ParamProgress::Started { .. } = progress {
                *started.borrow_mut() += 1;
            }
        };
        let report = copy.cache.ensure(&[CIRCUIT], &CancellationToken::new(), &count).unwrap();
        assert_eq!(report.sets[0].0.origin, Origin::Ours);
        started.into_inner()
    };
    let started: usize = std::thread::scope(|scope| {
        let both = [scope.spawn(run), scope.spawn(run)];
        both.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(started, 1);
    assert!(!leftover.exists());
    copy.assert_equals_shared();
}

#[test]
fn a_process_killed_while_it_generates_holds_nobody_up() {
    let Some(_) = Copy::of_ours() else { return };
    let copy = Copy::empty();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["states::generates_until_killed", "--exact", "--ignored", "--nocapture"])
        .env(KILLED_DIR, copy.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(HALF_WAY)), "the child never got half way");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(copy.file("params.damocles-tmp").exists());
    assert!(!copy.file("params").exists() && !copy.file("vk").exists());

    assert_eq!(copy.action(), Action::Generated);
    assert!(!copy.file("params.damocles-tmp").exists());
    copy.assert_equals_shared();
}

/// The child of the test above.
#[test]
#[ignore = "run by a_process_killed_while_it_generates_holds_nobody_up"]
fn generates_until_killed() {
    // Run by hand with all other ignored tests, it has no directory and nothing to do.
    #[expect(clippy::disallowed_methods, reason = "the parent has no other way to name the directory")]
    let Ok(dir) = std::env::var(KILLED_DIR) else { return };
    let progress = |progress| {
        if let ParamProgress::Advanced { fraction, .. } = progress
            && fraction > 0.5
        {
            println!("{HALF_WAY}");
            // Until the parent kills this process.
            std::thread::park();
        }
    };
    drop(ParameterCache::new(dir).ensure(&[CIRCUIT], &CancellationToken::new(), &progress));
}

#[test]
fn a_cancelled_generation_leaves_nothing_behind() {
    let copy = Copy::empty();
    let cancel = CancellationToken::new();
    let first = RefCell::new(None);
    let progress = |progress| {
        first.borrow_mut().get_or_insert_with(|| format!("{progress:?}"));
        if let ParamProgress::Advanced { .. } = progress {
            cancel.cancel();
        }
    };
    let outcome = copy.cache.ensure(&[CIRCUIT], &cancel, &progress);
    assert!(matches!(outcome, Err(ParamsError::Cancelled)), "{outcome:?}");
    assert!(first.into_inner().unwrap().starts_with("Planned"));
    let left: Vec<_> = fs::read_dir(copy.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["damocles-parameters.lock"]);
}

#[test]
fn a_set_of_another_origin_is_used_as_it_is_and_never_mixed_with_ours() {
    let Some(copy) = Copy::of_ours() else { return };
    // Another alpha: still a point, so the library would load it.
    for extension in ["params", "vk"] {
        let mut bytes = fs::read(copy.file(extension)).unwrap();
        let (alpha, beta) = bytes.split_at_mut(96);
        alpha.swap_with_slice(&mut beta[..96]);
        fs::write(copy.file(extension), bytes).unwrap();
    }
    let before = fs::read(copy.file("vk")).unwrap();
    let report = copy.ensure().unwrap();
    assert_eq!((report.sets[0].0.origin, report.sets[0].1), (Origin::Foreign, Action::Found));

    fs::copy(shared("params"), copy.file("params")).unwrap();
    assert!(matches!(copy.ensure(), Err(ParamsError::PartOfAnotherSet { .. })), "its key, our proving key");
    fs::remove_file(copy.file("params")).unwrap();
    let error = copy.ensure().unwrap_err();
    assert!(matches!(error, ParamsError::PartOfAnotherSet { .. }), "a verifying node has no proving key");
    assert!(error.hint().is_some());
    assert!(error.to_string().contains(copy.file("vk").to_str().unwrap()), "{error}");
    assert!(fs::read(copy.file("vk")).unwrap() == before);
}

#[test]
fn parameters_of_the_trusted_set_up_are_never_made() {
    let copy = Copy::empty();
    for size in [32 << 30, 64 << 30] {
        for kind in CircuitKind::ALL {
            // The small circuit comes first and must not be made either.
            let wanted = [CIRCUIT, CircuitId::new(kind, size)];
            let outcome =
                copy.cache.ensure(&wanted, &CancellationToken::new(), &|p| panic!("nothing may begin: {p:?}"));
            let error = outcome.unwrap_err();
            assert!(matches!(error, ParamsError::TrustedSetUpMissing { .. }), "{error}");
            assert!(error.hint().unwrap().contains("FIL_PROOFS_PARAMETER_CACHE"));
        }
    }
    assert_eq!(fs::read_dir(copy.dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_with_its_path() {
    let copy = Copy::empty();
    let file = copy.dir.path().join("file");
    File::create(&file).unwrap();
    let cache = ParameterCache::new(file.join("cache"));
    let error = cache.ensure(&[CIRCUIT], &CancellationToken::new(), &|_| ()).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}
