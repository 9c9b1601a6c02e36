//! `[chain]`: the node.

use super::{ConfigError, Endpoint, Secret, Source, quoted};
use damocles_core::Network;
use serde::Deserialize;
use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

/// `[chain]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ChainSection {
    /// The node's RPC: a URL or a multiaddr, either of them after `TOKEN:`.
    pub endpoint: Endpoint,
    /// Further nodes of the same network, asked when that one is away. Each has its own token before its address.
    pub others: Vec<Endpoint>,
    /// The token that is sent to the node.
    pub token: Option<Secret>,
    /// A file that holds that token.
    pub token_file: Option<PathBuf>,
    /// The network that the nodes must be on; any if it is absent.
    pub network: Option<Network>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    endpoint: Option<Endpoint>,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    network: Option<Network>,
}

impl TryFrom<Raw> for ChainSection {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { endpoint, endpoints, token, token_file, network } = raw;
        let listed = !endpoints.is_empty();
        let mut endpoints = endpoints.into_iter();
        let endpoint = match (endpoint, listed) {
            (Some(_), true) => return Err("`endpoint` and `endpoints` are both there; keep one of the two"),
            (Some(endpoint), false) => endpoint,
            (None, _) => endpoints.next().ok_or("neither `endpoint` nor `endpoints` names a node")?,
        };
        Ok(Self { endpoint, others: endpoints.collect(), token, token_file, network })
    }
}

impl ChainSection {
    /// The node at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, others: Vec::new(), token: None, token_file: None, network: None }
    }

    /// All nodes with their tokens, the preferred one first.
    ///
    /// # Errors
    ///
    /// The token file cannot be read.
    pub fn nodes(&self) -> std::io::Result<Vec<(Endpoint, Option<Secret>)>> {
        let first = match &self.token_file {
            Some(file) => Some(Secret::new(fs_err::read_to_string(file)?.trim())),
            None => self.token.clone().or_else(|| self.endpoint.token().cloned()),
        };
        let others = self.others.iter().map(|other| (other.clone(), other.token().cloned()));
        Ok(std::iter::once((self.endpoint.clone(), first)).chain(others).collect())
    }

    pub(super) fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let separate = self.token.is_some() || self.token_file.is_some();
        if self.token.is_some() && self.token_file.is_some() {
            let error = source.error_at("chain.token_file", "there is a `token` too");
            return Err(error.hint_with("keep one of the two"));
        }
        if separate && !self.others.is_empty() {
            let error = source.error_at("chain.endpoints", "are several nodes, and there is one token");
            return Err(error.hint_with("a token is one node's: write each before its address, `TOKEN:/ip4/...`"));
        }
        if separate && self.endpoint.token().is_some() {
            let error = source.error_at("chain.endpoint", "there is a token before the address, and another one");
            return Err(error.hint_with("keep one of the two"));
        }
        let same = |a: &Endpoint, b: &Endpoint| a.to_string() == b.to_string();
        let all: Vec<_> = std::iter::once(&self.endpoint).chain(&self.others).collect();
        let twice = all.iter().enumerate().find(|(i, a)| all.iter().take(*i).any(|b| same(a, b)));
        match twice {
            Some((i, node)) => {
                Err(source.error_at(&format!("chain.endpoints[{i}]"), format_args!("{node} is there twice")))
            }
            None => Ok(()),
        }
    }

    /// Tokens before addresses are not written.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "# The node: a URL, or a multiaddr such as /ip4/127.0.0.1/tcp/1234/http.\n[chain]")?;
        if self.others.is_empty() {
            writeln!(out, "endpoint = {}", quoted(&self.endpoint.to_string()))?;
        } else {
            let all = std::iter::once(&self.endpoint).chain(&self.others);
            let all = all.map(|e| toml::Value::String(e.to_string())).collect();
            writeln!(out, "endpoints = {}", toml::Value::Array(all))?;
        }
        match &self.token_file {
            Some(file) => writeln!(out, "token_file = {}", quoted(&file.display().to_string()))?,
            None => writeln!(out, "# token_file = \"/path/to/token\"")?,
        }
        match &self.network {
            Some(network) => writeln!(out, "network = {}", quoted(network.name())),
            None => writeln!(out, "# network = \"mainnet\""),
        }
    }
}
