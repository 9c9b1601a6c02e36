//! `[chain]`: the nodes, and how messages are sent.

use super::{ConfigError, Endpoint, Secret, Source, quoted};
use damocles_core::Network;
use serde::Deserialize;
use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

/// `[chain]`. Paths that are not absolute are below the home directory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ChainSection {
    /// How messages are sent.
    pub kind: ChainKind,
    /// The node's RPC: a URL or a multiaddr, either of them after `TOKEN:`.
    pub endpoint: Endpoint,
    /// Further nodes of the same network, asked when that one is away. Each has its own token before its address.
    pub others: Vec<Endpoint>,
    /// The token that is sent to the node.
    pub token: Option<Secret>,
    /// A file that holds that token, whose mode is 0600.
    pub token_file: Option<PathBuf>,
    /// Of several nodes: the files that hold their tokens, in their order. An empty path is a node without one.
    pub token_files: Vec<PathBuf>,
    /// The network that the nodes must be on; any if it is absent.
    pub network: Option<Network>,
}

/// How messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// By the manager itself, with the keys of `[wallet]`, through any node that speaks as Lotus does.
    #[default]
    Lotus,
    /// By the messager of a Venus cluster, which `[venus]` names.
    Venus,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    kind: ChainKind,
    endpoint: Option<Endpoint>,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    #[serde(default)]
    token_files: Vec<PathBuf>,
    network: Option<Network>,
}

impl TryFrom<Raw> for ChainSection {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { kind, endpoint, endpoints, token, token_file, token_files, network } = raw;
        let listed = !endpoints.is_empty();
        let mut endpoints = endpoints.into_iter();
        let endpoint = match (endpoint, listed) {
            (Some(_), true) => return Err("`endpoint` and `endpoints` are both there; keep one of the two"),
            (Some(endpoint), false) => endpoint,
            (None, _) => endpoints.next().ok_or("neither `endpoint` nor `endpoints` names a node")?,
        };
        Ok(Self { kind, endpoint, others: endpoints.collect(), token, token_file, token_files, network })
    }
}

impl ChainSection {
    /// The node at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            kind: ChainKind::default(),
            endpoint,
            others: Vec::new(),
            token: None,
            token_file: None,
            token_files: Vec::new(),
            network: None,
        }
    }

    /// All nodes with their tokens, the preferred one first. `read` takes the token out of a file.
    ///
    /// # Errors
    ///
    /// A token file cannot be read.
    pub fn nodes<E>(&self, read: impl Fn(&Path) -> Result<Secret, E>) -> Result<Vec<(Endpoint, Option<Secret>)>, E> {
        let mut nodes = Vec::new();
        for (place, node) in std::iter::once(&self.endpoint).chain(&self.others).enumerate() {
            let only = if place == 0 { self.token_file.as_ref() } else { None };
            let own = self.token_files.get(place).filter(|file| !file.as_os_str().is_empty());
            let token = match own.or(only) {
                Some(file) => Some(read(file)?),
                None if place == 0 => self.token.clone().or_else(|| node.token().cloned()),
                None => node.token().cloned(),
            };
            nodes.push((node.clone(), token));
        }
        Ok(nodes)
    }

    pub(super) fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let separate = self.token.is_some() || self.token_file.is_some();
        if self.token.is_some() && self.token_file.is_some() {
            let error = source.error_at("chain.token_file", "there is a `token` too");
            return Err(error.hint_with("keep one of the two"));
        }
        if separate && !self.others.is_empty() {
            let error = source.error_at("chain.endpoints", "are several nodes, and there is one token");
            return Err(error.hint_with(
                "a token is one node's: name a file for each as `token_files`, or write each before its address",
            ));
        }
        self.check_files(source)?;
        if separate && self.endpoint.token().is_some() {
            let error = source.error_at("chain.endpoint", "there is a token before the address, and another one");
            return Err(error.hint_with("keep one of the two"));
        }
        let same = |a: &Endpoint, b: &Endpoint| a.url() == b.url();
        let all: Vec<_> = std::iter::once(&self.endpoint).chain(&self.others).collect();
        let twice = all.iter().enumerate().find(|(i, a)| all.iter().take(*i).any(|b| same(a, b)));
        match twice {
            Some((i, node)) => {
                Err(source.error_at(&format!("chain.endpoints[{i}]"), format_args!("{node} is there twice")))
            }
            None => Ok(()),
        }
    }

    fn check_files(&self, source: &Source) -> Result<(), ConfigError> {
        if self.token_files.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = std::iter::once(&self.endpoint).chain(&self.others).collect();
        if all.len() != self.token_files.len() {
            let what = format!("are {} for {} nodes", self.token_files.len(), all.len());
            let error = source.error_at("chain.token_files", what);
            return Err(error.hint_with("write one for each node, in their order, and \"\" for a node without a token"));
        }
        if self.token.is_some() || self.token_file.is_some() {
            let error = source.error_at("chain.token_files", "there is a token of the only node too");
            return Err(error.hint_with("keep one of the two"));
        }
        let both = |(node, file): (&&Endpoint, &PathBuf)| node.token().is_some() && !file.as_os_str().is_empty();
        match all.iter().zip(&self.token_files).position(both) {
            Some(i) => {
                let what = "there is a token before the address of that node too";
                Err(source.error_at(&format!("chain.token_files[{i}]"), what).hint_with("keep one of the two"))
            }
            None => Ok(()),
        }
    }

    /// Tokens before addresses are not written.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "# The node: a URL, or a multiaddr such as /ip4/127.0.0.1/tcp/1234/http.\n[chain]")?;
        if self.kind == ChainKind::Venus {
            writeln!(out, "kind = \"venus\"")?;
        }
        if self.others.is_empty() {
            writeln!(out, "endpoint = {}", quoted(self.endpoint.url()))?;
        } else {
            let all = std::iter::once(&self.endpoint).chain(&self.others);
            let all = all.map(|e| toml::Value::String(e.url().to_owned())).collect();
            writeln!(out, "endpoints = {}", toml::Value::Array(all))?;
        }
        match &self.token_file {
            Some(file) => writeln!(out, "token_file = {}", quoted(&file.display().to_string()))?,
            None if self.token_files.is_empty() => writeln!(out, "# token_file = \"/path/to/token\"")?,
            None => {
                let all = self.token_files.iter().map(|file| toml::Value::String(file.display().to_string()));
                writeln!(out, "token_files = {}", toml::Value::Array(all.collect()))?;
            }
        }
        match &self.network {
            Some(network) => writeln!(out, "network = {}", quoted(network.name())),
            None => writeln!(out, "# network = \"mainnet\""),
        }
    }
}
