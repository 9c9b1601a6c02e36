//! Where a node is, and the token that it wants.

use multiaddr::{Multiaddr, Protocol};
use reqwest::Url;
use std::{fmt, str::FromStr};
use zeroize::Zeroizing;

/// The path of the v1 API, for endpoints that name none.
const DEFAULT_PATH: &str = "/rpc/v1";

/// How requests travel. Channels always travel over a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A POST for each request.
    Http,
    /// One connection for all requests.
    WebSocket,
}

/// A node's address and token.
///
/// Text forms: a URL (`http`, `https`, `ws`, `wss`; without a path it means `/rpc/v1`) or a multiaddr
/// (`/ip4/127.0.0.1/tcp/1234/http`, `/dns4/node/tcp/443/wss`), either of them after `TOKEN:`. [`Endpoint::parse_list`]
/// reads what stands in `FULLNODE_API_INFO`. Neither `Debug` nor `Display` shows the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    http: Url,
    ws: Url,
    transport: Transport,
    token: Option<Zeroizing<String>>,
}

impl Endpoint {
    /// Sets the token, instead of one in the text.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Zeroizing::new(token.into()));
        self
    }

    /// The token, for whoever keeps it in a file of its own.
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.as_str())
    }

    /// The whole URL without the token. Its path or query may hold a provider's key, so that `Display` leaves them out.
    pub fn url(&self) -> &str {
        match self.transport {
            Transport::Http => self.http.as_str(),
            Transport::WebSocket => self.ws.as_str(),
        }
    }

    /// How requests to it travel: as the text said.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where requests are posted to.
    pub(super) fn http(&self) -> &Url {
        &self.http
    }

    /// Where channels are opened.
    pub(super) fn ws(&self) -> &Url {
        &self.ws
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self) -> Option<Zeroizing<String>> {
        self.token.as_ref().map(|token| Zeroizing::new(format!("Bearer {}", token.as_str())))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Path and query may hold a provider's key.
        let url = match self.transport {
            Transport::Http => &self.http,
            Transport::WebSocket => &self.ws,
        };
        let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
        match url.port_or_known_default() {
            Some(port) => write!(f, "{scheme}://{host}:{port}"),
            None => write!(f, "{scheme}://{host}"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "..");
        f.debug_struct("Endpoint").field("url", &self.to_string()).field("token", &token).finish()
    }
}

/// A text that names no node. It never holds the text, which may hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither URL nor multiaddr.
    #[error("the endpoint is neither a URL nor a multiaddr ({0})")]
    Form(String),
    /// No host or port in it.
    #[error("the endpoint names no host and port")]
    NoHost,
    /// A scheme that is not spoken here.
    #[error("the endpoint's scheme `{0}` is none of http, https, ws, wss")]
    Scheme(String),
    /// The token cannot be sent in a header.
    #[error("the endpoint's token has characters that no token has")]
    Token,
    /// A list without an endpoint in it.
    #[error("no endpoint is given")]
    None,
    /// An item of a list that names no node.
    #[error("endpoint {place} of the list: {reason}")]
    Item {
        /// Which one, from 1.
        place: usize,
        /// What is wrong with it.
        reason: Box<Self>,
    },
    /// A node's repository that cannot be used. The path is no secret.
    #[error("the repository `{path}` names no node: {reason}")]
    Repo {
        /// The directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Lotus' rule: what stands before the first colon is a token, unless the text is a multiaddr or that colon is a
/// URL's.
fn split_token(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((token, rest)) if !text.starts_with('/') && !rest.starts_with("//") => (Some(token), rest),
        _ => (None, text),
    }
}

fn url_of_multiaddr(text: &str) -> Result<Url, EndpointError> {
    let form = |e: &dyn fmt::Display| EndpointError::Form(e.to_string());
    let address: Multiaddr = text.parse().map_err(|e| form(&e))?;
    let (mut host, mut port, mut secure, mut socket) = (None, None, false, false);
    for part in &address {
        match part {
            Protocol::Ip4(ip) => host = Some(ip.to_string()),
            Protocol::Ip6(ip) => host = Some(format!("[{ip}]")),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => host = Some(name.into_owned()),
            Protocol::Tcp(number) => port = Some(number),
            Protocol::Http => {}
            Protocol::Https | Protocol::Tls => secure = true,
            Protocol::Ws(_) => socket = true,
            Protocol::Wss(_) => (secure, socket) = (true, true),
            other => return Err(EndpointError::Scheme(other.tag().to_owned())),
        }
    }
    let (Some(host), Some(port)) = (host, port) else {
        return Err(EndpointError::NoHost);
    };
    let scheme = match (secure, socket) {
        (false, false) => "http",
        (true, false) => "https",
        (false, true) => "ws",
        (true, true) => "wss",
    };
    Url::parse(&format!("{scheme}://{host}:{port}")).map_err(|e| form(&e))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (token, place) = split_token(text.trim());
        let mut url = if place.starts_with('/') {
            url_of_multiaddr(place)?
        } else {
            Url::parse(place).map_err(|e| EndpointError::Form(e.to_string()))?
        };
        let (http_scheme, ws_scheme, transport) = match url.scheme() {
            "http" => ("http", "ws", Transport::Http),
            "ws" => ("http", "ws", Transport::WebSocket),
            "https" => ("https", "wss", Transport::Http),
            "wss" => ("https", "wss", Transport::WebSocket),
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(EndpointError::NoHost);
        }
        if url.path() == "/" {
            url.set_path(DEFAULT_PATH);
        }
        // A password in the URL would be printed with it.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Token);
        }
        if token.is_some_and(|t| t.is_empty() || !t.chars().all(|c| c.is_ascii_graphic())) {
            return Err(EndpointError::Token);
        }
        let with = |scheme: &str| {
            let rest = url.as_str().split_once(':').map_or("", |(_, rest)| rest);
            Url::parse(&format!("{scheme}:{rest}")).map_err(|e| EndpointError::Form(e.to_string()))
        };
        let token = token.map(|t| Zeroizing::new(t.to_owned()));
        Ok(Self { http: with(http_scheme)?, ws: with(ws_scheme)?, transport, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, http, ws, token) in [
            ("http://127.0.0.1:1234", "http://127.0.0.1:1234/rpc/v1", "ws://127.0.0.1:1234/rpc/v1", None),
            ("https://node.example/rpc/v0", "https://node.example/rpc/v0", "wss://node.example/rpc/v0", None),
            ("/ip4/127.0.0.1/tcp/1234/http", "http://127.0.0.1:1234/rpc/v1", "ws://127.0.0.1:1234/rpc/v1", None),
            ("abc.def:/ip6/::1/tcp/80/https", "https://[::1]:80/rpc/v1", "wss://[::1]:80/rpc/v1", Some("abc.def")),
            ("abc:ws://h:1/", "http://h:1/rpc/v1", "ws://h:1/rpc/v1", Some("abc")),
            ("/dns4/h/tcp/443/tls/http", "https://h/rpc/v1", "wss://h/rpc/v1", None),
            ("/dns4/h/tcp/443/tls/ws", "https://h/rpc/v1", "wss://h/rpc/v1", None),
            ("a.b-_:/dns/h/tcp/1234/ws", "http://h:1234/rpc/v1", "ws://h:1234/rpc/v1", Some("a.b-_")),
            ("/ip4/127.0.0.1/tcp/1234", "http://127.0.0.1:1234/rpc/v1", "ws://127.0.0.1:1234/rpc/v1", None),
            ("/dns4/h/tcp/443/wss", "https://h/rpc/v1", "wss://h/rpc/v1", None),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.http.as_str(), endpoint.ws.as_str()), (http, ws), "{text}");
            assert_eq!(endpoint.token.as_ref().map(|t| t.as_str()), token, "{text}");
            let socket = text.contains("ws");
            assert_eq!(endpoint.transport() == Transport::WebSocket, socket, "{text}");
        }
    }

    #[test]
    fn bad_texts_and_tokens_are_not_shown() {
        for bad in [
            "",
            "node",
            "ftp://h",
            "/ip4/1.2.3.4",
            "/ip4/1.2.3.4/udp/1",
            "se\ncret:http://h",
            "http://u:p@h",
            ":http://h",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
        let endpoint: Endpoint = "secret:http://h:1".parse().unwrap();
        assert!(!format!("{endpoint:?} {endpoint}").contains("secret"));
        let endpoint: Endpoint = "http://h:1/rpc/v1?token=secret".parse().unwrap();
        assert!(!format!("{endpoint:?} {endpoint}").contains("secret"));
        let endpoint: Endpoint = "https://h/v3/secret".parse().unwrap();
        assert_eq!(endpoint.to_string(), "https://h:443");
        let endpoint: Endpoint = "secret:/dns4/h/tcp/443/wss".parse().unwrap();
        assert_eq!(endpoint.to_string(), "wss://h:443");
        let error = "secret:/ip4/1.2.3".parse::<Endpoint>().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}
