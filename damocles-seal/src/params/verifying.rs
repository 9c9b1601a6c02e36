//! Verifying keys without their proving keys, for those who only verify.

use std::fs;
use std::io::Write;

use bellperson::Circuit;
use blstrs::Scalar;
use tokio_util::sync::CancellationToken;

use super::cache::{Action, EnsureReport, ParameterCache, ReadySet, SetStatus, digest, origin};
use super::circuit::{BlankCircuit, CircuitId, Source};
use super::error::ParamsError;
use super::files::{Found, SetFiles, Staged, remove_temporaries, sync_dir};
use super::generate::{GenerateError, Generation, Tables};
use super::lock::CacheLock;
use super::progress::ParamProgress;
use super::trapdoor::Trapdoor;

impl ParameterCache {
    /// Makes sure that every circuit of `wanted` has its verifying key, and blocks until it has.
    ///
    /// A key is a few KB, and the seventh part of the work of a whole set. [`ensure`](Self::ensure) later makes the rest
    /// of the set, with the same key.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure): keys for 32 and 64 GiB sectors are not made, and nothing of another origin is
    /// overwritten.
    pub fn ensure_verifying_keys(
        &self,
        wanted: &[CircuitId],
        cancel: &CancellationToken,
        progress: &dyn Fn(ParamProgress),
    ) -> Result<EnsureReport, ParamsError> {
        let found = wanted.iter().map(|circuit| self.found_key(*circuit)).collect::<Result<Vec<_>, _>>()?;
        if let Some(sets) = found.into_iter().map(|set| set.map(|s| (s, Action::Found))).collect() {
            return Ok(EnsureReport { sets });
        }
        fs::create_dir_all(self.dir()).map_err(|e| ParamsError::file("create", self.dir(), e))?;
        let _lock = CacheLock::acquire(self.dir(), cancel, || progress(ParamProgress::Waiting))?;
        remove_temporaries(self.dir())?;
        let mut tables = None;
        let mut sets = Vec::with_capacity(wanted.len());
        for circuit in wanted {
            // Looked at again, because the process that was waited for may have made it.
            if let Some(set) = self.found_key(*circuit)? {
                sets.push((set, Action::Found));
                continue;
            }
            let step = self.step(*circuit)?;
            let action = match step.status {
                SetStatus::Repairable(_) => self.repair(&step)?,
                _ => {
                    progress(ParamProgress::Started { circuit: *circuit });
                    let tables = tables.get_or_insert_with(Tables::new);
                    self.generate_key(*circuit, &step.identifier, tables, cancel)?
                }
            };
            let set = self.found_key(*circuit)?.ok_or_else(|| {
                let path = SetFiles::new(self.dir(), &step.identifier).key;
                ParamsError::file("read back", &path, std::io::ErrorKind::InvalidData.into())
            })?;
            progress(ParamProgress::Finished(set.clone()));
            sets.push((set, action));
        }
        Ok(EnsureReport { sets })
    }

    /// The key that is there. One that is not there and cannot be made is an error.
    fn found_key(&self, circuit: CircuitId) -> Result<Option<ReadySet>, ParamsError> {
        let identifier = circuit.cache_identifier()?;
        let files = SetFiles::new(self.dir(), &identifier);
        match (files.read_key()?, circuit.source()?) {
            (Found::Whole(key), _) => {
                let origin = origin(&identifier, &key);
                Ok(Some(ReadySet { circuit, origin, verifying_key_digest: digest(&key) }))
            }
            (_, Source::Generated) => Ok(None),
            (_, Source::TrustedSetUp) => Err(ParamsError::TrustedSetUpMissing { circuit, path: files.key }),
        }
    }

    fn generate_key(
        &self,
        circuit: CircuitId,
        identifier: &str,
        tables: &Tables,
        cancel: &CancellationToken,
    ) -> Result<Action, ParamsError> {
        let mut key = Staged::create(&SetFiles::new(self.dir(), identifier).key)?;
        let generation = Generation::new(tables, &mut key.writer, cancel, &|_| ());
        match circuit.with_blank(RunForKey { generation, trapdoor: &Trapdoor::published(identifier) })? {
            Ok(_) => {}
            Err(GenerateError::Cancelled) => return Err(ParamsError::Cancelled),
            Err(GenerateError::Write(source)) => return Err(key.failed(source)),
            Err(source) => return Err(ParamsError::Generate { circuit, source }),
        }
        key.sync()?;
        key.place()?;
        sync_dir(self.dir())?;
        Ok(Action::Generated)
    }
}

/// Runs the generator on whatever type the circuit has, for the key alone.
struct RunForKey<'a, W> {
    generation: Generation<'a, W>,
    trapdoor: &'a Trapdoor,
}

impl<W: Write> BlankCircuit for RunForKey<'_, W> {
    type Output = Result<Vec<u8>, GenerateError>;

    fn with<C: Circuit<Scalar>>(self, make: impl Fn() -> C) -> Self::Output {
        self.generation.run_for_key(make, self.trapdoor)
    }
}
