//! Daemons that another program of ours starts.
//!
//! With the hidden switch `--child` a daemon says on standard output where it listens, once it does, and stops when its
//! standard input ends: it never outlives whoever started it, even if that was killed.

use crate::{exit::Failure, signals::Shutdown};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

/// How a daemon was started.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Supervision {
    /// Say where it listens on standard output and end when standard input does
    #[arg(long, hide = true)]
    pub child: bool,
}

/// What a supervised daemon says once it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens, if it does.
    pub listening: Option<SocketAddr>,
}

impl Supervision {
    /// Says that the daemon is ready, and follows standard input from now on.
    ///
    /// # Errors
    ///
    /// Nobody hears it.
    pub fn ready(self, listening: Option<SocketAddr>, shutdown: &Shutdown) -> Result<(), Failure> {
        if !self.child {
            return Ok(());
        }
        let line = serde_json::to_string(&Ready { listening }).map_err(anyhow::Error::from)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("say that the daemon is ready")?;
        let shutdown = shutdown.clone();
        // A thread that nobody waits for: a runtime that ends would wait for a blocking read as long as the pipe is open.
        std::thread::Builder::new()
            .name("supervision".to_owned())
            .spawn(move || {
                let mut nothing = [0; 64];
                while std::io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
                // Nobody is left who could ask a second time. This never aborts, whatever signals came before.
                shutdown.drain.cancel();
                shutdown.stop.cancel();
            })
            .context("follow standard input")?;
        Ok(())
    }
}
