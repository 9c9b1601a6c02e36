//! A real program under test.

use anyhow::{Context as _, bail};
use damocles_cli::supervised::Ready;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

/// Starting takes a second or two; a loaded machine may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of our programs with its arguments. It can be started and killed again and again.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    bin: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    running: Option<(Child, Option<ChildStdin>)>,
}

impl Program {
    /// A program that is not running. What it says on standard error is appended to a file in `logs`.
    pub fn new(name: &'static str, bin: &Path, args: Vec<OsString>, logs: &Path) -> Self {
        Self { name, bin: bin.to_owned(), args, log: logs.join(format!("{name}.log")), running: None }
    }

    /// Starts it and waits until it is ready; says where it listens.
    pub async fn start(&mut self) -> anyhow::Result<Option<SocketAddr>> {
        let talk = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.bin)
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(talk))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} (`{}`)", self.name, self.bin.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("piped")?;
        let line = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        let Some(line) = line.with_context(|| format!("{} is not ready", self.name))?? else {
            let status = child.wait().await?;
            bail!("{} ended ({status}): {}", self.name, self.last_words());
        };
        self.running = Some((child, stdin));
        let ready: Ready = serde_json::from_str(&line).with_context(|| format!("{} said `{line}`", self.name))?;
        Ok(ready.listening)
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|(child, _)| child.id())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|(child, _)| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills it, and only it, without a word: its children have to notice by themselves.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some((mut child, _stdin)) = self.running.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
        }
        child.wait().await?;
        Ok(())
    }

    /// Asks it to drain, as an operator does with a signal, and waits; says with which code it ended.
    pub async fn drain(&mut self) -> anyhow::Result<Option<i32>> {
        let Some((mut child, _stdin)) = self.running.take() else { return Ok(None) };
        if let Some(pid) = child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not drain: {}", self.name, self.last_words()))??.code())
    }

    /// Everything that it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end and waits; says with which code it ended.
    pub async fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let Some((mut child, stdin)) = self.running.take() else { return Ok(None) };
        drop(stdin);
        let group = child.id().map(|id| i32::try_from(id).map(Pid::from_raw)).transpose()?;
        if let Ok(status) = tokio::time::timeout(Duration::from_secs(30), child.wait()).await {
            return Ok(status?.code());
        }
        if let Some(group) = group {
            killpg(group, Signal::SIGKILL)?;
        }
        child.wait().await?;
        bail!("{} did not end when it was asked to: {}", self.name, self.last_words())
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n")
    }
}

/// Runs a command of one of our programs to its end.
pub async fn run(bin: &Path, args: &[&str]) -> anyhow::Result<Output> {
    run_for(bin, args, PATIENCE).await
}

/// Runs a command that may take so long.
pub async fn run_for(bin: &Path, args: &[&str], patience: Duration) -> anyhow::Result<Output> {
    let output = Command::new(bin).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(tokio::time::timeout(patience, output).await.with_context(|| format!("{args:?} does not end"))??)
}

/// Runs a command that must succeed and prints JSON.
pub async fn run_json<T: serde::de::DeserializeOwned>(bin: &Path, args: &[&str]) -> anyhow::Result<T> {
    let output = run(bin, args).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{args:?} failed ({}): {said}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?} printed no JSON: {said}"))
}
