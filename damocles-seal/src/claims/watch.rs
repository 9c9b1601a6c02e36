//! The kernel tells when something is given back.

use super::ClaimError;
use crate::watch::DirWatch;
use nix::sys::inotify::AddWatchFlags;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Tells of everything that was given back since it was made.
#[derive(Debug)]
pub struct Changes {
    dir: PathBuf,
    watch: DirWatch,
}

impl Changes {
    pub(super) fn of(dir: &Path) -> Result<Self, ClaimError> {
        let watch = || -> io::Result<DirWatch> {
            let watch = DirWatch::new()?;
            // The end of a holder closes what it wrote; whoever gives up its place removes a file.
            watch.add_for(dir, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE)?;
            Ok(watch)
        };
        let watch = watch().map_err(|source| ClaimError::Io { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), watch })
    }

    /// Waits until something may have been given back. Several events are one answer.
    ///
    /// # Errors
    ///
    /// The watch broke.
    pub async fn next(&mut self) -> Result<(), ClaimError> {
        self.watch.next().await.map_err(|source| ClaimError::Io { path: self.dir.clone(), source })
    }
}
