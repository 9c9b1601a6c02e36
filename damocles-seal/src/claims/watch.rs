//! The kernel tells when something is given back.

use super::ClaimError;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use tokio::net::unix::pipe::Receiver;

/// Room for several events, each with the longest name that a file can have.
const ROOM: usize = 4 << 10;

/// Tells of everything that was given back since it was made.
#[derive(Debug)]
pub struct Changes {
    dir: PathBuf,
    /// It reads like a pipe. What it says does not matter: every event is a reason to look again.
    watch: Receiver,
}

impl Changes {
    pub(super) fn of(dir: &Path) -> Result<Self, ClaimError> {
        let watch = || -> io::Result<Receiver> {
            let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            // The end of a holder closes what it wrote; whoever gives up its place removes a file.
            watch.add_watch(dir, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE)?;
            Receiver::from_owned_fd_unchecked(watch.as_fd().try_clone_to_owned()?)
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
        let failed = |source| ClaimError::Io { path: self.dir.clone(), source };
        let mut events = [0; ROOM];
        loop {
            self.watch.readable().await.map_err(failed)?;
            match self.watch.try_read(&mut events) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}
