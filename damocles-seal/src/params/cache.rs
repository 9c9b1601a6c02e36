//! A directory of proof parameters: what is in it, and how what is missing gets there.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bellperson::Circuit;
use blake2b_simd::Params as Blake2b;
use blstrs::Scalar;
use storage_proofs_core::parameter_cache::{get_verifying_key_data, parameter_cache_dir};
use tokio_util::sync::CancellationToken;

use super::circuit::{BlankCircuit, CircuitId, Source};
use super::error::ParamsError;
use super::files::{Found, SetFiles, Staged, remove_temporaries, sync_dir};
use super::generate::{GenerateError, Generation, Tables};
use super::lock::CacheLock;
use super::progress::ParamProgress;
use super::trapdoor::Trapdoor;

/// A directory of proof parameters in the proofs library's format.
///
/// The library reads parameters from one directory per process (see [`ParameterCache::of_library`]); another directory
/// is for tests and for preparing files that are moved later.
#[derive(Clone, Debug)]
pub struct ParameterCache {
    dir: PathBuf,
}

/// Who made a set of parameters; told from its verifying key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Made by this crate (on any machine) from the published trapdoor.
    Ours,
    /// Published by Filecoin: the key's digest is the one in the proofs library's list.
    Official,
    /// Neither: for example made by bellperson's stock generator.
    Foreign,
}

/// What a cache has of one circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetStatus {
    /// The set can be used.
    Ready(ReadySet),
    /// The proving key is whole; the verifying key or the metadata beside it is not, and can be restored from it.
    Repairable(Origin),
    /// Nothing usable, or nothing at all; a new set may take the place.
    Missing,
    /// A part of a set that somebody else made; nothing is overwritten.
    PartOfAnotherSet {
        /// The part.
        path: PathBuf,
    },
}

/// A set that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadySet {
    /// Whose parameters these are.
    pub circuit: CircuitId,
    /// Who made them.
    pub origin: Origin,
    /// Blake2b-256 of the `.vk` file. Provers and verifiers with different digests do not understand each other.
    pub verifying_key_digest: [u8; 32],
}

/// What [`ParameterCache::ensure`] did for one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It was there.
    Found,
    /// Its verifying key or metadata was restored from the proving key.
    Repaired,
    /// It was made.
    Generated,
}

/// The sets that were asked for, all of them ready, in the order of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsureReport {
    /// Each with what was done for it.
    pub sets: Vec<(ReadySet, Action)>,
}

/// What is to be done for one circuit.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) circuit: CircuitId,
    pub(super) identifier: String,
    pub(super) status: SetStatus,
}

impl ParameterCache {
    /// The cache in this directory, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory that the proofs library reads in this process: `FIL_PROOFS_PARAMETER_CACHE`, else
    /// `/var/tmp/filecoin-proof-parameters`.
    pub fn of_library() -> Self {
        Self::new(parameter_cache_dir())
    }

    /// Where the files lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the cache has of this circuit. Reads lengths and the verifying key, not the whole proving key.
    ///
    /// # Errors
    /// When the sector size is unknown or a file cannot be read; a damaged file is a status.
    pub fn status(&self, circuit: CircuitId) -> Result<SetStatus, ParamsError> {
        self.status_of(circuit, &circuit.cache_identifier()?)
    }

    /// Blake2b-256 of the circuit's `.vk` file; a node that only verifies needs no more than that file.
    ///
    /// # Errors
    /// When there is no whole verifying key, or it cannot be read.
    pub fn verifying_key_digest(&self, circuit: CircuitId) -> Result<[u8; 32], ParamsError> {
        let files = SetFiles::new(&self.dir, &circuit.cache_identifier()?);
        match files.read_key()? {
            Found::Whole(key) => Ok(digest(&key)),
            Found::Absent => Err(ParamsError::file("read", &files.key, io::ErrorKind::NotFound.into())),
            Found::Broken => Err(ParamsError::file("read", &files.key, io::ErrorKind::InvalidData.into())),
        }
    }

    /// Makes sure that every circuit of `wanted` has its parameters, and blocks until it has.
    ///
    /// Sets of any origin are used as they are. What is missing is made under a lock that other processes respect; a
    /// process that comes second waits and then finds the first one's files. A set appears with its proving key last, so
    /// that a kill at any instant leaves either a whole set or one that the next call completes.
    ///
    /// # Errors
    /// For 32 and 64 GiB sectors whose official files are not there, and before anything is made; see [`ParamsError`].
    pub fn ensure(
        &self,
        wanted: &[CircuitId],
        cancel: &CancellationToken,
        progress: &dyn Fn(ParamProgress),
    ) -> Result<EnsureReport, ParamsError> {
        let steps = wanted.iter().map(|circuit| self.step(*circuit)).collect::<Result<Vec<_>, _>>()?;
        let missing: Vec<_> =
            steps.iter().filter(|step| step.status == SetStatus::Missing).map(|s| s.circuit).collect();
        if steps.iter().all(|step| matches!(step.status, SetStatus::Ready(_))) {
            return Ok(EnsureReport { sets: steps.into_iter().filter_map(Step::found).collect() });
        }
        let estimated_seconds = estimate(&missing);
        progress(ParamProgress::Planned { missing, estimated_seconds });
        fs::create_dir_all(&self.dir).map_err(|e| ParamsError::file("create", &self.dir, e))?;
        let _lock = CacheLock::acquire(&self.dir, cancel, || progress(ParamProgress::Waiting))?;
        remove_temporaries(&self.dir)?;

        let mut tables = None;
        let mut sets = Vec::with_capacity(wanted.len());
        for circuit in wanted {
            // Looked at again, because the process that was waited for may have made it.
            let step = self.step(*circuit)?;
            if cancel.is_cancelled() {
                return Err(ParamsError::Cancelled);
            }
            let action = match step.status {
                SetStatus::Ready(_) => Action::Found,
                SetStatus::Repairable(_) => self.repair(&step)?,
                _ => {
                    let tables = tables.get_or_insert_with(Tables::new);
                    progress(ParamProgress::Started { circuit: step.circuit });
                    self.generate(&step, tables, cancel, progress)?
                }
            };
            let SetStatus::Ready(set) = self.status_of(step.circuit, &step.identifier)? else {
                let path = SetFiles::new(&self.dir, &step.identifier).params;
                return Err(ParamsError::file("read back", &path, io::ErrorKind::InvalidData.into()));
            };
            if action != Action::Found {
                progress(ParamProgress::Finished(set.clone()));
            }
            sets.push((set, action));
        }
        Ok(EnsureReport { sets })
    }

    pub(super) fn step(&self, circuit: CircuitId) -> Result<Step, ParamsError> {
        let identifier = circuit.cache_identifier()?;
        let status = self.status_of(circuit, &identifier)?;
        match (circuit.source()?, status) {
            (Source::TrustedSetUp, SetStatus::Missing | SetStatus::PartOfAnotherSet { .. }) => {
                let path = SetFiles::new(&self.dir, &identifier).params;
                Err(ParamsError::TrustedSetUpMissing { circuit, path })
            }
            (_, SetStatus::PartOfAnotherSet { path }) => Err(ParamsError::PartOfAnotherSet { circuit, path }),
            (_, status) => Ok(Step { circuit, identifier, status }),
        }
    }

    fn status_of(&self, circuit: CircuitId, identifier: &str) -> Result<SetStatus, ParamsError> {
        let files = SetFiles::new(&self.dir, identifier);
        let key = files.read_key()?;
        let Found::Whole(head) = files.read_params()? else {
            return Self::status_without_params(identifier, &key, files);
        };
        let origin = origin(identifier, &head);
        let meta_is_whole = files.read_meta()? == Found::Whole(circuit.sector_size);
        match key {
            Found::Whole(key) if key != head => Ok(SetStatus::PartOfAnotherSet { path: files.key }),
            Found::Whole(key) if meta_is_whole => {
                Ok(SetStatus::Ready(ReadySet { circuit, origin, verifying_key_digest: digest(&key) }))
            }
            _ => Ok(SetStatus::Repairable(origin)),
        }
    }

    /// Without a whole proving key two things are worth keeping: a verifying key of another origin (a node that only
    /// verifies has nothing else), and a download of the official proving key that has got so far.
    fn status_without_params(
        identifier: &str,
        key: &Found<Vec<u8>>,
        files: SetFiles,
    ) -> Result<SetStatus, ParamsError> {
        if matches!(key, Found::Whole(key) if origin(identifier, key) != Origin::Ours) {
            return Ok(SetStatus::PartOfAnotherSet { path: files.key });
        }
        Ok(match files.read_params_head()? {
            Found::Whole(head) if origin(identifier, &head) == Origin::Official => {
                SetStatus::PartOfAnotherSet { path: files.params }
            }
            _ => SetStatus::Missing,
        })
    }

    pub(super) fn repair(&self, step: &Step) -> Result<Action, ParamsError> {
        let files = SetFiles::new(&self.dir, &step.identifier);
        if let Found::Whole(key) = files.read_params()? {
            let mut staged = [files.stage_meta(step.circuit.sector_size)?, files.stage_key(&key)?];
            staged.iter_mut().try_for_each(Staged::sync)?;
            staged.into_iter().try_for_each(Staged::place)?;
            sync_dir(&self.dir)?;
        }
        Ok(Action::Repaired)
    }

    fn generate(
        &self,
        step: &Step,
        tables: &Tables,
        cancel: &CancellationToken,
        progress: &dyn Fn(ParamProgress),
    ) -> Result<Action, ParamsError> {
        let circuit = step.circuit;
        let files = SetFiles::new(&self.dir, &step.identifier);
        let mut params = Staged::create(&files.params)?;
        let advance = |fraction| progress(ParamProgress::Advanced { circuit, fraction });
        let trapdoor = Trapdoor::published(&step.identifier);
        let generation = Generation::new(tables, &mut params.writer, cancel, &advance);
        let key = match circuit.with_blank(Run { generation, trapdoor: &trapdoor })? {
            Ok(key) => key,
            Err(GenerateError::Cancelled) => return Err(ParamsError::Cancelled),
            Err(GenerateError::Write(source)) => return Err(params.failed(source)),
            Err(source) => return Err(ParamsError::Generate { circuit, source }),
        };
        let mut meta = files.stage_meta(circuit.sector_size)?;
        let mut vk = files.stage_key(&key)?;
        for staged in [&mut meta, &mut vk, &mut params] {
            staged.sync()?;
        }
        meta.place()?;
        vk.place()?;
        // The library trusts a `.params` file that it finds, so this name appears last.
        sync_dir(&self.dir)?;
        params.place()?;
        sync_dir(&self.dir)?;
        Ok(Action::Generated)
    }
}

impl Step {
    fn found(self) -> Option<(ReadySet, Action)> {
        match self.status {
            SetStatus::Ready(set) => Some((set, Action::Found)),
            _ => None,
        }
    }
}

/// Runs the generator on whatever type the circuit has.
struct Run<'a, W> {
    generation: Generation<'a, W>,
    trapdoor: &'a Trapdoor,
}

impl<W: Write> BlankCircuit for Run<'_, W> {
    type Output = Result<Vec<u8>, GenerateError>;

    fn with<C: Circuit<Scalar>>(self, make: impl Fn() -> C) -> Self::Output {
        self.generation.run(make, self.trapdoor)
    }
}

/// Tells from the bytes of a verifying key who made it.
pub(super) fn origin(identifier: &str, key: &[u8]) -> Origin {
    let listed = get_verifying_key_data(identifier).map(|data| data.digest.as_str());
    let full = blake2b_simd::blake2b(key).to_hex();
    if listed.is_some_and(|digest| !digest.is_empty() && full.as_str().starts_with(digest)) {
        Origin::Official
    } else if key.starts_with(&Trapdoor::published(identifier).fingerprint()) {
        Origin::Ours
    } else {
        Origin::Foreign
    }
}

pub(super) fn digest(key: &[u8]) -> [u8; 32] {
    let hash = Blake2b::new().hash_length(32).hash(key);
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    digest
}

fn estimate(missing: &[CircuitId]) -> u64 {
    let cores = u64::try_from(rayon::current_num_threads()).unwrap_or(1).max(1);
    missing.iter().map(|circuit| circuit.core_seconds()).sum::<u64>().div_ceil(cores)
}
