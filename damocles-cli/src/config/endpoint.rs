//! Where a server listens, as a URL or as a multiaddr.

use super::Secret;
use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The address of an RPC server: `http://host:port/path`, `ws://...`, or `/ip4/127.0.0.1/tcp/1789[/http]`, any of them
/// after `TOKEN:`. The token is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    token: Option<Secret>,
}

impl Endpoint {
    /// The whole URL without the token. Its path may be a provider's key, so that `Display` leaves it out.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The URL; `path` stands in where the address names none.
    pub fn url_or(&self, path: &str) -> String {
        let mut url = self.url.clone();
        if url.path().is_empty() || url.path() == "/" {
            url.set_path(path);
        }
        url.to_string()
    }

    /// The token that stood before the address.
    pub fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Whether it is spoken to over WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self.url.scheme(), "ws" | "wss")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host) = (self.url.scheme(), self.url.host_str().unwrap_or_default());
        match self.url.port_or_known_default() {
            Some(port) => write!(f, "{scheme}://{host}:{port}"),
            None => write!(f, "{scheme}://{host}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let (token, text) = split_token(text.trim());
        let bad = |why| ParseEndpointError { text: shown(text), why };
        if token.is_some_and(|t| t.is_empty() || !t.chars().all(|c| c.is_ascii_graphic())) {
            return Err(bad("stands behind a token that cannot be sent"));
        }
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
            return Err(bad("must not contain a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("must not contain a query or fragment: a token stands before the address, or in a file"));
        }
        if !url.has_host() {
            return Err(bad("names no host"));
        }
        Ok(Self { url, token: token.map(Secret::new) })
    }
}

/// The field's rule: what stands before the first colon is a token, unless the text is a multiaddr or that colon is a
/// URL's.
fn split_token(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((token, rest)) if !text.starts_with('/') && !rest.starts_with("//") => (Some(token), rest),
        _ => (None, text),
    }
}

/// What an error may say of an address: nothing that could be a token, a password or a provider's key.
fn shown(address: &str) -> String {
    let place = address.split(['?', '#']).next().unwrap_or_default();
    let plain = place.starts_with('/') || place.contains("://");
    if plain && !place.contains('@') { place.chars().take(100).collect() } else { "<address>".to_owned() }
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
    }

    #[test]
    fn tokens_are_split_off_and_never_shown() {
        for text in ["hunter2:/ip4/127.0.0.1/tcp/1234/http", "hunter2:http://127.0.0.1:1234"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.token().map(Secret::reveal), Some("hunter2"));
            assert_eq!(endpoint.url_or("/rpc/v1"), "http://127.0.0.1:1234/rpc/v1");
            assert!(!format!("{endpoint} {endpoint:?}").contains("hunter2"));
        }
        let keyed: Endpoint = "https://host/v3/hunter2".parse().unwrap();
        assert_eq!((keyed.to_string().as_str(), keyed.url()), ("https://host:443", "https://host/v3/hunter2"));
        for bad in [
            "http://me:hunter2@host",
            "http://me:hunter2@:x",
            "hunter2",
            "hunter2:",
            "hunter2:/ip4/1.2.3.4/udp/1",
            "hunter2:127.0.0.1:1234",
            "hun\u{e4}hunter2:/ip4/1.2.3.4/tcp/1",
            "https://host:x/?key=hunter2",
            "https://host/rpc/v1?token=hunter2",
            "https://host/rpc/v1#hunter2",
        ] {
            let error = bad.parse::<Endpoint>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
