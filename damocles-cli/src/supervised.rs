//! Daemons that another program of ours starts.
//!
//! With the hidden switch `--child` a daemon says on standard output where it listens, once it does, and drains when
//! its standard input ends: it never outlives whoever started it, even if that was killed.

use crate::{exit::Failure, signals::Shutdown};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{io::Write as _, net::SocketAddr};
use tokio::io::AsyncReadExt as _;

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
        tokio::spawn(async move {
            let mut input = tokio::io::stdin();
            let mut nothing = [0; 64];
            while input.read(&mut nothing).await.is_ok_and(|n| n > 0) {}
            // Nobody is left who could ask a second time.
            shutdown.advance();
            shutdown.advance();
        });
        Ok(())
    }
}
