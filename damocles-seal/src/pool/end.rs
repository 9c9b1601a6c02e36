//! The end of a child against its will.

use crate::sys::{Exited, Process};
use nix::sys::signal::Signal;
use std::{fmt, time::Duration};
use tokio::time::timeout;

/// Kills the whole group and waits until nothing of it is left, unless the kernel does not let it die.
pub(super) async fn kill(process: &mut Process, last_wait: Duration) -> End {
    process.signal(Signal::SIGKILL);
    match timeout(last_wait, process.exited()).await {
        Ok(exited) => End::Gone(exited),
        Err(_) => End::Stuck { pid: process.pid(), last_wait },
    }
}

/// What came of a kill.
#[derive(Debug)]
pub(super) enum End {
    Gone(Exited),
    Stuck { pid: u32, last_wait: Duration },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(Some(status)) => status.fmt(f),
            Self::Gone(None) => f.write_str("unknown"),
            Self::Stuck { pid, last_wait } => {
                write!(f, "process {pid} is still there {last_wait:?} after it was killed")
            }
        }
    }
}
