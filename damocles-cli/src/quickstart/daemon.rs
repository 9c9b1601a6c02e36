//! The programs that quickstart starts: itself, with other arguments.

use crate::children::OWN;
use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

/// How long a daemon may take to end.
const GRACE: Duration = Duration::from_secs(20);

/// A running daemon. It ends when its standard input closes, so none outlives a quickstart that was killed.
#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Daemon {
    /// Starts this program with `args`, its talk going to the file `log`, and waits until it prints one line of JSON
    /// on its standard output, which says that it is ready and where.
    ///
    /// # Errors
    ///
    /// It ended or stayed silent for `patience`.
    pub(super) async fn start<T: DeserializeOwned>(
        name: &'static str,
        args: Vec<OsString>,
        log: PathBuf,
        patience: Duration,
    ) -> anyhow::Result<(Self, T)> {
        let talk = fs_err::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(OWN)
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(talk.into_file()))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the daemon's output is piped")?;
        let mut daemon = Self { name, child, stdin, log };
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::select! {
            line = lines.next_line() => line.with_context(|| format!("read what {name} says"))?,
            () = tokio::time::sleep(patience) => bail!("{name} was not ready after {patience:?}, see `{}`", daemon.log.display()),
        };
        let Some(line) = line else {
            let status = daemon.child.wait().await?;
            bail!("{name} ended before it was ready ({status}), its last words: {}", daemon.last_words());
        };
        let ready = serde_json::from_str(&line).with_context(|| format!("{name} said `{line}`"))?;
        Ok((daemon, ready))
    }

    /// Resolves when the daemon ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => {
                anyhow::anyhow!("{} ended ({status}), its last words: {}", self.name, self.last_words())
            }
            Err(error) => anyhow::Error::new(error).context(format!("wait for {}", self.name)),
        }
    }

    /// Lets the daemon end, which it does when its standard input closes, and kills its group after a grace period.
    pub(super) async fn stop(mut self) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        drop(self.stdin.take());
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err()
            && let Some(group) = group
        {
            // It may have ended by itself at this instant: then there is nobody to kill.
            let _ = killpg(group, Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs_err::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(4).collect();
        let words: Vec<_> = lines.into_iter().rev().collect();
        if words.is_empty() { format!("none, see `{}`", self.log.display()) } else { words.join(" | ") }
    }
}
