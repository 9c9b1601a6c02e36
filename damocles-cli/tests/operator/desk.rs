//! A home with a devnet beside it, for the commands of operators.

use crate::program::{Program, run};
use anyhow::{Context as _, ensure};
use damocles_chain::{
    rpc::RpcClient,
    signer::{KeyKind, Keystore},
};
use damocles_cli::manager::init::Initialised;
use damocles_core::Address;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf};
use tempfile::TempDir;

/// What each account gets at genesis.
const FUNDS: &str = "100000";

/// A home, its keys, and the devnet that it talks to.
#[derive(Debug)]
pub(crate) struct Desk {
    dir: TempDir,
    /// The keys of the home.
    pub(crate) keys: Initialised,
    /// A second owner.
    pub(crate) second_owner: Address,
    /// A second worker.
    pub(crate) second_worker: Address,
    /// The chain.
    _devnet: Program,
    /// The daemon, which does not run at first.
    pub(crate) daemon: Program,
    /// Where the chain listens.
    pub(crate) node: SocketAddr,
    rpc: RpcClient,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// Its data.
    pub(crate) out: String,
    /// Its talk.
    pub(crate) err: String,
}

impl Ended {
    /// Its data as JSON.
    ///
    /// # Errors
    ///
    /// It failed, or printed no JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        ensure!(self.code == Some(0), "exit {:?}: {}", self.code, self.err);
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {}", self.out))
    }
}

impl Desk {
    /// A home with keys in plain text whose devnet makes an epoch each `epoch_ms`.
    ///
    /// # Errors
    ///
    /// Something did not start.
    pub(crate) async fn start(epoch_ms: u64) -> anyhow::Result<Self> {
        Self::start_with(epoch_ms, |_| String::new()).await
    }

    /// As [`Self::start`], with further parameters of the devnet.
    ///
    /// # Errors
    ///
    /// Something did not start.
    pub(crate) async fn start_with(
        epoch_ms: u64,
        parameters: impl FnOnce(&Initialised) -> String,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("logs"))?;
        let home = dir.path().join("home");
        let text = home.to_str().context("paths of tests are text")?.to_owned();
        let made = run(&["--home", &text, "daemon", "init", "--devnet", "--json"]).await?;
        let keys: Initialised = serde_json::from_slice(&made.stdout)?;
        let keystore = Keystore::open(home.join("keystore"))?;
        let second_owner = keystore.create(KeyKind::Secp256k1)?;
        let second_worker = keystore.create(KeyKind::Bls)?;
        let mut args: Vec<std::ffi::OsString> = ["devnet", "run", "--child", "--listen", "127.0.0.1:0", "--network"]
            .into_iter()
            .chain(["devnet-fake-desk", "--epoch-ms", &epoch_ms.to_string(), "--home"])
            .map(Into::into)
            .collect();
        args.push(dir.path().join("devnet").into());
        let file = dir.path().join("devnet.toml");
        std::fs::write(&file, parameters(&keys))?;
        args.extend(["--config".into(), file.into()]);
        for account in [&keys.owner, &keys.worker, &second_owner, &second_worker] {
            args.extend(["--fund".into(), format!("{account}={FUNDS}").into()]);
        }
        let mut devnet = Program::new("devnet", args, &dir.path().join("logs"));
        let node = devnet.start().await?.context("the devnet listens")?;
        let daemon = Program::new(
            "manager",
            ["--home", &text, "daemon", "run", "--child"].into_iter().map(Into::into).collect(),
            &dir.path().join("logs"),
        );
        let rpc = RpcClient::new(format!("http://{node}/rpc/v1").parse()?)?;
        let desk = Self { dir, keys, second_owner, second_worker, _devnet: devnet, daemon, node, rpc };
        desk.configure("")?;
        Ok(desk)
    }

    /// The home.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Writes the configuration: this devnet, short confidences, no proving, these `[chain]` keys and the known miners.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn configure(&self, chain: &str) -> anyhow::Result<()> {
        self.configure_node(&self.node_url(), chain)
    }

    /// The devnet's address.
    pub(crate) fn node_url(&self) -> String {
        format!("http://{}/rpc/v1", self.node)
    }

    /// Another program in the directory of this desk.
    pub(crate) fn program(&self, name: &str, args: &[&str]) -> Program {
        let args = args.iter().map(Into::into).chain(["--home".into(), self.dir.path().join(name).into()]);
        Program::new(name, args.collect(), &self.dir.path().join("logs"))
    }

    /// As [`Self::configure`], for another node.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn configure_node(&self, node: &str, chain: &str) -> anyhow::Result<()> {
        self.configure_chain(&format!("endpoint = \"{node}\"\n{chain}"))
    }

    /// As [`Self::configure`], with all keys of `[chain]` and perhaps further sections.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(crate) fn configure_chain(&self, chain: &str) -> anyhow::Result<()> {
        let file = self.home().join("manager.toml");
        let old = std::fs::read_to_string(&file)?;
        let miners: String = old.split("[[miners]]").skip(1).map(|m| format!("[[miners]]{m}")).collect();
        let miners = if miners.contains("# actor") { String::new() } else { miners };
        let text = format!(
            "[chain]\n{chain}\n[listen]\naddress = \"127.0.0.1:0\"\n[senders]\ndefault = \"{}\"\n\
             [commitment]\nconfidence = 2\n[proving]\nenabled = false\n{miners}",
            self.keys.worker
        );
        Ok(std::fs::write(file, text)?)
    }

    /// Runs a command of this home.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub(crate) async fn run(&self, args: &[&str]) -> anyhow::Result<Ended> {
        let home = self.home();
        let home = home.to_str().context("paths of tests are text")?;
        let all: Vec<&str> = ["--home", home].iter().chain(args).copied().collect();
        let output = run(&all).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// Runs a command that prints JSON.
    ///
    /// # Errors
    ///
    /// It failed.
    pub(crate) async fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        self.run(&all).await?.json().with_context(|| format!("{args:?}"))
    }

    /// Runs a command that sends a message, agreed to, and prints JSON.
    ///
    /// # Errors
    ///
    /// It failed.
    pub(crate) async fn act(&self, args: &[&str]) -> anyhow::Result<Value> {
        let all: Vec<&str> = args.iter().copied().chain(["--really-do-it"]).collect();
        self.json(&all).await
    }

    /// Asks the devnet.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        Ok(self.rpc.raw(method, params).await?)
    }

    /// Has the devnet make so many epochs at once.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) async fn mine(&self, epochs: u64) -> anyhow::Result<()> {
        self.ask("Devnet.Mine", json!([epochs])).await.map(drop)
    }
}
