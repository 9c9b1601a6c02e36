//! Files that other processes change, as the kernel tells of it.

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent},
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};
use tokio::io::{Interest, unix::AsyncFd};

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
    ready: AsyncFd<OwnedFd>,
    name: Option<OsString>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// The place is not there, or the kernel watches as much as it may.
    #[expect(deprecated, reason = "an owned descriptor stays open, which is what its unsafe replacement asks for")]
    pub(in crate::manager) fn of(place: &Place) -> io::Result<Self> {
        let (directory, name) = place.watched();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let told = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(directory, told)?;
        let ready = AsyncFd::with_interest(inotify.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self { inotify, ready, name: name.map(OsStr::to_owned) })
    }

    /// Waits until something was changed there.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(in crate::manager) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            // Nothing to read means that there was news for somebody else only.
            let Ok(events) = ready.try_io(|_| self.inotify.read_events().map_err(from_errno)) else { continue };
            if events?.iter().any(|event| self.is_meant(event)) {
                return Ok(());
            }
        }
    }

    fn is_meant(&self, event: &InotifyEvent) -> bool {
        // What was lost may have been ours.
        let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
        lost || self.name.is_none() || event.name == self.name
    }
}

fn from_errno(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error as i32)
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
