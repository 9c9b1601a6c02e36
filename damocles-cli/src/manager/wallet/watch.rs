//! Files that other processes change, as the kernel tells of it.

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent},
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};
use tokio::net::unix::pipe::Receiver;

/// Room for several events, each with the longest name that a file can have.
const ROOM: usize = 4 << 10;

/// Where keys lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Place {
    /// A file, which is replaced as a whole when it changes.
    File(PathBuf),
    /// A directory, with one file for each key.
    Directory(PathBuf),
}

impl Place {
    /// The directory that is watched, and the only name in it that counts.
    fn watched(&self) -> (&Path, Option<&OsStr>) {
        match self {
            Self::File(path) => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                (parent.unwrap_or_else(|| Path::new(".")), path.file_name())
            }
            Self::Directory(path) => (path, None),
        }
    }
}

/// A place that is watched, from when this is made.
#[derive(Debug)]
pub(in crate::manager) struct Watch {
    inotify: Inotify,
    /// The same descriptor: it reads like a pipe.
    ready: Receiver,
    name: Option<OsString>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// The place is not there, or the kernel watches as much as it may.
    pub(in crate::manager) fn of(place: &Place) -> io::Result<Self> {
        let (directory, name) = place.watched();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let told = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(directory, told)?;
        let ready = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, ready, name: name.map(OsStr::to_owned) })
    }

    /// Waits until something was changed there.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(in crate::manager) async fn changed(&self) -> io::Result<()> {
        loop {
            self.ready.readable().await?;
            if self.read_all()? {
                return Ok(());
            }
        }
    }

    /// Reads to the end what is told, and says whether something of it is meant.
    fn read_all(&self) -> io::Result<bool> {
        let mut meant = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => meant |= events.iter().any(|event| self.is_meant(event)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Only a read of its own tells the runtime that nothing is left.
        match self.ready.try_read(&mut [0; ROOM]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(meant),
            // It came this moment, and may have been ours.
            Ok(_) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn is_meant(&self, event: &InotifyEvent) -> bool {
        // What was lost may have been ours.
        let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
        lost || self.name.is_none() || event.name == self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_is_replaced_written_or_removed_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("wallet"), "1").unwrap();
        let file = Watch::of(&Place::File(path("wallet"))).unwrap();
        let all = Watch::of(&Place::Directory(dir.path().to_owned())).unwrap();
        fs::write(path("wallet.new"), "2").unwrap();
        all.changed().await.unwrap();
        let quiet = tokio::select! {
            biased;
            _ = file.changed() => false,
            () = tokio::task::yield_now() => true,
        };
        assert!(quiet, "another file of the directory");
        fs::rename(path("wallet.new"), path("wallet")).unwrap();
        file.changed().await.unwrap();
        fs::write(path("wallet"), "3").unwrap();
        file.changed().await.unwrap();
        fs::remove_file(path("wallet")).unwrap();
        file.changed().await.unwrap();
        assert!(Watch::of(&Place::Directory(path("nowhere"))).is_err());
    }
}
