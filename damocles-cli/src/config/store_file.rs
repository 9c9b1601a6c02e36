//! `config.toml` in a sealing store: what the thread of that store does otherwise than the worker's file says.

use super::{
    ConfigError, Findings, Source, retired,
    worker::{PlanName, SealingSection, check_sealing},
};
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The name of the file in its store.
const NAME: &str = "config.toml";

/// What a store says, in the form that damocles-worker 0.13 reads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreFile {
    /// What becomes of its sectors. It cannot change while a worker runs.
    pub plan: Option<PlanName>,
    /// Goes before all that the worker's file says, field by field.
    pub sealing: SealingSection,
}

impl StoreFile {
    /// Where the file of a store is.
    pub fn path(location: &Path) -> PathBuf {
        location.join(NAME)
    }

    /// The text of a store's file; none if there is no such file.
    ///
    /// # Errors
    ///
    /// There is one, and it cannot be read.
    pub fn source(location: &Path) -> Result<Option<Source>, ConfigError> {
        let file = Self::path(location);
        match fs_err::symlink_metadata(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            // A pipe would be read without end.
            _ if file.exists() && !file.is_file() => {
                Err(Source::of(file, "").error_in("is no file").hint_with("remove it, or put a file there"))
            }
            _ => Source::read(file).map(Some),
        }
    }

    /// Reads and checks a text to its end, however much of it is wrong. `None` where the rest is no such file.
    pub fn parse_all(source: &Source) -> (Option<Self>, Findings<'_>) {
        let mut found = Findings::new(source);
        let (read, errors) = source.parse_all::<Self>(retired::WORKER);
        found.extend(errors);
        if let Some(read) = &read {
            check_sealing(&mut found, "sealing", &read.sealing);
        }
        (read, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let source = Source::of("config.toml", text);
        let (errors, _) = StoreFile::parse_all(&source).1.into_parts();
        errors.iter().map(|e| format!("{e} ({})\n", e.hint().unwrap_or("-"))).collect()
    }

    #[test]
    fn the_form_of_the_incumbent_is_read() {
        for text in ["plan = 'sealer'\n[sealing]\nallowed_miners = [1000]\n", "sealing.allowed_miners = [1000]\n"] {
            assert_eq!(told(text), "");
            let read = StoreFile::parse_all(&Source::of("config.toml", text)).0.unwrap();
            assert_eq!(read.sealing.allowed_miners, Some(vec![damocles_core::ActorId(1000)]));
        }
        assert_eq!(StoreFile::parse_all(&Source::of("x", "")).0, Some(StoreFile::default()));
    }

    #[test]
    fn it_is_read_strictly() {
        let told = told(
            "plan = 'snapup'\nlocation = '/x'\n[sealing]\nmax_retrys = 3\nallowed_miners = []\nverify_after_pc2 = true\n\
             rpc_polling_interval = '0s'\n",
        );
        for part in [
            "config.toml:1:8: `plan`: unknown name `snapup`",
            "config.toml:2:1: unknown key `location`",
            "config.toml:4:1: unknown key `sealing.max_retrys` (did you mean `max_retries`?)",
            "config.toml:5:1: `sealing.allowed_miners`: allows nothing (remove it to allow all)",
            "config.toml:6:1: key `sealing.verify_after_pc2` is no longer used (remove it: every proof is verified",
            "config.toml:7:1: `sealing.rpc_polling_interval`: no time at all",
        ] {
            assert!(told.contains(part), "`{part}` in {told}");
        }
        assert_eq!(told.lines().count(), 6, "{told}");
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StoreFile::source(dir.path()).unwrap().is_none());
        std::fs::create_dir(StoreFile::path(dir.path())).unwrap();
        let error = StoreFile::source(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("config.toml: is no file") && error.hint().is_some(), "{error}");
    }
}
