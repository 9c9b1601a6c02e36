//! A daemon under test.

use anyhow::{Context as _, bail};
use damocles_cli::supervised::Ready;
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

/// Starting takes a second or two; a loaded machine may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// `damocles-manager` as a daemon. It ends with this value.
#[derive(Debug)]
pub(crate) struct Program {
    args: Vec<OsString>,
    log: PathBuf,
    running: Option<(Child, Option<ChildStdin>)>,
}

impl Program {
    /// One that is not running. What it says is appended to a file in `logs`.
    pub(crate) fn new(name: &str, args: Vec<OsString>, logs: &Path) -> Self {
        Self { args, log: logs.join(format!("{name}.log")), running: None }
    }

    /// Starts it and waits until it is ready; says where it listens.
    pub(crate) async fn start(&mut self) -> anyhow::Result<Option<SocketAddr>> {
        let talk = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(crate::BIN)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(talk))
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("piped")?;
        let line = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await??;
        let Some(line) = line else { bail!("it ended: {}", std::fs::read_to_string(&self.log)?) };
        self.running = Some((child, stdin));
        Ok(serde_json::from_str::<Ready>(&line)?.listening)
    }

    /// Asks it to end and waits; says with which code it ended.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let Some((mut child, stdin)) = self.running.take() else { return Ok(None) };
        drop(stdin);
        Ok(tokio::time::timeout(PATIENCE, child.wait()).await??.code())
    }
}

/// Runs a command to its end.
pub(crate) async fn run(args: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(crate::BIN).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(tokio::time::timeout(PATIENCE, output).await.with_context(|| format!("{args:?} does not end"))??)
}
