//! Where a server listens, as a URL or as a multiaddr.

use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The address of an RPC server: `http://host:port/path`, `ws://...`, or `/ip4/127.0.0.1/tcp/1789[/http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// The URL; `path` stands in where the address names none.
    pub fn url_or(&self, path: &str) -> String {
        let mut url = self.url.clone();
        if url.path().is_empty() || url.path() == "/" {
            url.set_path(path);
        }
        url.to_string()
    }

    /// Whether it is spoken to over WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self.url.scheme(), "ws" | "wss")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let bad = |why| ParseEndpointError { text: text.chars().take(100).collect(), why };
        let url = if text.starts_with('/') {
            from_multiaddr(text).ok_or_else(|| bad("is not a multiaddr such as `/ip4/127.0.0.1/tcp/1789/http`"))?
        } else {
            text.to_owned()
        };
        let url = Url::parse(&url).map_err(|_| bad("is not a URL such as `http://127.0.0.1:1789`"))?;
        if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
            return Err(bad("is not an address of http, https, ws or wss"));
        }
        if url.password().is_some() || !url.username().is_empty() {
            // Addresses are logged, so nothing secret may stand in one.
            return Err(ParseEndpointError {
                text: "<address>".to_owned(),
                why: "must not contain a user or password",
            });
        }
        if !url.has_host() {
            return Err(bad("names no host"));
        }
        Ok(Self { url })
    }
}

fn from_multiaddr(text: &str) -> Option<String> {
    let mut parts = text.strip_prefix('/')?.trim_end_matches('/').split('/');
    let (protocol, host) = (parts.next()?, parts.next()?);
    let host = match protocol {
        "ip6" => format!("[{}]", host.parse::<Ipv6Addr>().ok()?),
        "ip4" | "dns" | "dns4" | "dns6" if !host.is_empty() => host.to_owned(),
        _ => return None,
    };
    let ("tcp", port) = (parts.next()?, parts.next()?) else { return None };
    let port: u16 = port.parse().ok()?;
    let scheme = parts.next().unwrap_or("http");
    parts.next().is_none().then(|| format!("{scheme}://{host}:{port}"))
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A text that is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct ParseEndpointError {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (text, url) in [
            ("/ip4/127.0.0.1/tcp/1789", "http://127.0.0.1:1789/rpc/v0"),
            ("/ip6/::1/tcp/1789/ws", "ws://[::1]:1789/rpc/v0"),
            ("/dns/manager.lan/tcp/443/https", "https://manager.lan/rpc/v0"),
            ("http://127.0.0.1:1789", "http://127.0.0.1:1789/rpc/v0"),
            ("ws://node:1234/rpc/v1", "ws://node:1234/rpc/v1"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().url_or("/rpc/v0"), url, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "/", "127.0.0.1:1789", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/x", "ftp://x", "/unix/a/tcp/1"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
        let error = "http://me:hunter2@host".parse::<Endpoint>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
