//! The kernel tells when files of a directory change.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{io, os::fd::AsFd as _, path::Path};
use tokio::net::unix::pipe::Receiver;

/// Room for several events, each with the longest name that a file can have.
const ROOM: usize = 4 << 10;

/// Tells that something in one of its directories changed since it was made. What it was has to be looked for.
#[derive(Debug)]
pub struct DirWatch {
    kernel: Inotify,
    /// It reads like a pipe. What it says does not matter: every event is a reason to look again.
    told: Receiver,
}

impl DirWatch {
    /// Watches nothing yet. Call it inside the runtime.
    ///
    /// # Errors
    ///
    /// The kernel has no watch left for this user (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let kernel = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let told = Receiver::from_owned_fd_unchecked(kernel.as_fd().try_clone_to_owned()?)?;
        Ok(Self { kernel, told })
    }

    /// From now on tells of files in this directory that were written to their end, moved in or out, or removed. Not of
    /// what happens in directories below, nor to the target of a link.
    ///
    /// # Errors
    ///
    /// It is no directory, or the kernel has no watch left for this user (`fs.inotify.max_user_watches`).
    pub fn add(&self, dir: &Path) -> io::Result<()> {
        let written = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        self.add_for(dir, written | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE)
    }

    pub(crate) fn add_for(&self, dir: &Path, events: AddWatchFlags) -> io::Result<()> {
        self.kernel.add_watch(dir, events)?;
        Ok(())
    }

    /// Waits until something changed. Several events are one answer.
    ///
    /// # Errors
    ///
    /// The watch broke.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut events = [0; ROOM];
        loop {
            self.told.readable().await?;
            match self.told.try_read(&mut events) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_moved_or_removed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        let mut watch = DirWatch::new().unwrap();
        watch.add(dir.path()).unwrap();
        std::fs::write(&file, "x").unwrap();
        watch.next().await.unwrap();
        std::fs::rename(&file, &other).unwrap();
        watch.next().await.unwrap();
        std::fs::remove_file(&other).unwrap();
        watch.next().await.unwrap();
        assert!(watch.add(&other).is_err(), "it is not there");
    }
}
