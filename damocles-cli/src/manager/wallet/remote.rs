//! The lock of a running `wallet run`, over its socket.

use super::{
    args::SocketArgs,
    command::Desk,
    password::{self, Asked},
};
use crate::{exit::Failure, frame, output::Render};
use damocles_chain::{
    signer::SignerError,
    wallet::{LockState, RemoteWallet},
};
use damocles_core::Timestamp;
use serde::Serialize;
use std::path::PathBuf;

/// The socket.
pub(super) fn socket(desk: &Desk<'_>, args: &SocketArgs) -> PathBuf {
    args.socket.clone().unwrap_or_else(|| desk.home.path().join("wallet.sock"))
}

fn with<T>(
    desk: &Desk<'_>,
    args: &SocketArgs,
    work: impl AsyncFnOnce(RemoteWallet) -> Result<T, SignerError>,
) -> Result<T, Failure> {
    let wallet = RemoteWallet::at_socket(&socket(desk, args))?;
    Ok(frame::runtime()?.block_on(work(wallet))?)
}

/// Locks it.
pub(super) fn lock(desk: &Desk<'_>, args: &SocketArgs) -> Result<(), Failure> {
    with(desk, args, async |wallet| wallet.lock().await)
}

/// Unlocks it.
pub(super) fn unlock(desk: &Desk<'_>, args: &SocketArgs) -> Result<(), Failure> {
    let password = password::current(&desk.args.password, Asked::Switches)?;
    with(desk, args, async |wallet| wallet.unlock(&password).await)
}

/// Says whether it is locked.
pub(super) fn state(desk: &Desk<'_>, args: &SocketArgs) -> Result<(), Failure> {
    let state = with(desk, args, async |wallet| wallet.state().await)?;
    desk.printer.data(&match state {
        LockState::Locked => Shown { locked: true, until: None },
        LockState::Unlocked { until } => Shown { locked: false, until },
    })
}

#[derive(Debug, Serialize)]
struct Shown {
    locked: bool,
    /// When it locks itself.
    until: Option<Timestamp>,
}

impl Render for Shown {
    fn text(&self, _: bool) -> String {
        if self.locked { "locked" } else { "unlocked" }.to_owned()
    }
}
