//! Hearing of mounts.

use std::{fs::File, io, time::Duration};
use tokio::io::{Interest, unix::AsyncFd};

/// Mounts come in bursts, and a disk is asked only after its own is done.
const SETTLE: Duration = Duration::from_millis(200);

/// Tells when a file system was mounted or unmounted: the kernel marks `/proc/self/mountinfo` as having something urgent.
#[derive(Debug)]
pub(super) struct Watch(Option<AsyncFd<File>>);

impl Watch {
    /// A watch that counts from now on. Where the file cannot be watched it never tells, and time alone makes callers
    /// look.
    #[expect(deprecated, reason = "its successor is unsafe; a file that we own keeps its descriptor")]
    pub(super) fn new() -> Self {
        let open = || -> io::Result<AsyncFd<File>> {
            AsyncFd::with_interest(File::open("/proc/self/mountinfo")?, Interest::PRIORITY)
        };
        Self(open().inspect_err(|error| tracing::warn!(%error, "mounts cannot be watched")).ok())
    }

    /// Ends when something was mounted or unmounted since the last time.
    pub(super) async fn changed(&self) {
        let Some(file) = &self.0 else { return std::future::pending().await };
        match file.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => return std::future::pending().await,
        }
        tokio::time::sleep(SETTLE).await;
    }
}
