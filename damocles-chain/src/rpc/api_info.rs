//! What stands in `FULLNODE_API_INFO`: one endpoint or several, or a node's repository.

use super::{Endpoint, EndpointError};
use std::path::Path;
use zeroize::Zeroizing;

/// More of a repository's files is not read: an address is short, and so is a token.
const MAX_FILE: usize = 64 << 10;

impl Endpoint {
    /// Reads a list of endpoints, separated by commas: URLs and multiaddrs, each perhaps after `TOKEN:`, and paths of
    /// Lotus repositories, whose files `api` and `token` are read.
    ///
    /// A path begins with `/` or `./`; a `~` is for the caller to expand, who knows whose home is meant.
    ///
    /// # Errors
    ///
    /// Nothing is given, or an item of the list names no node. The error never holds the text, which may hold a token.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EndpointError> {
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if items.is_empty() {
            return Err(EndpointError::None);
        }
        let mut endpoints: Vec<Self> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let endpoint = Self::of_item(item)
                .map_err(|reason| EndpointError::Item { place: i.saturating_add(1), reason: Box::new(reason) })?;
            // The same node twice would be a majority of its own.
            if !endpoints.iter().any(|known| known.is_same_place(&endpoint)) {
                endpoints.push(endpoint);
            }
        }
        Ok(endpoints)
    }

    fn of_item(item: &str) -> Result<Self, EndpointError> {
        match item.parse() {
            // A multiaddr begins like a path does.
            Err(reason) => {
                let path = Path::new(item);
                let is_path = item.starts_with('/') || item.starts_with("./");
                if is_path && path.is_dir() { Self::from_repo(path) } else { Err(reason) }
            }
            parsed => parsed,
        }
    }

    /// The node whose repository (`~/.lotus`) this is: its file `api` says where it listens, its file `token` is its
    /// token, where there is one.
    ///
    /// # Errors
    ///
    /// The directory has no readable `api`, or it names no node.
    pub fn from_repo(path: &Path) -> Result<Self, EndpointError> {
        let bad = |reason: String| EndpointError::Repo { path: path.display().to_string(), reason };
        let read = |name: &str| -> Result<Option<Zeroizing<String>>, EndpointError> {
            match fs_err::read(path.join(name)) {
                Ok(bytes) if bytes.len() > MAX_FILE => Err(bad(format!("its file `{name}` is too long"))),
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
                    Err(_) => Err(bad(format!("its file `{name}` is no text"))),
                },
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(bad(format!("its file `{name}` cannot be read ({})", e.kind()))),
            }
        };
        let Some(api) = read("api")? else {
            return Err(bad("it has no file `api`, which a node writes while it runs".to_owned()));
        };
        let endpoint: Self = api.parse().map_err(|e: EndpointError| bad(format!("its file `api`: {e}")))?;
        match read("token")? {
            Some(token) if token.is_empty() => Ok(endpoint),
            Some(token) if token.chars().all(|c| c.is_ascii_graphic()) => Ok(endpoint.with_token(token.as_str())),
            Some(_) => Err(bad(format!("its file `token`: {}", EndpointError::Token))),
            None => Ok(endpoint),
        }
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.http() == other.http()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Transport;

    fn texts(list: &str) -> Vec<String> {
        Endpoint::parse_list(list).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists() {
        assert_eq!(texts("abc:/ip4/127.0.0.1/tcp/1234/http"), ["http://127.0.0.1:1234"]);
        assert_eq!(
            texts(" a.b.c:http://one:1 , /dns4/two/tcp/443/wss,,http://three:3/rpc/v1 "),
            ["http://one:1", "wss://two:443", "http://three:3"]
        );
        assert_eq!(texts("http://one:1,t:/dns4/one/tcp/1/ws"), ["http://one:1"], "one node is asked once");
        let authorized = Endpoint::parse_list("a.b.c:http://one:1,http://two:2").unwrap();
        let tokens: Vec<bool> = authorized.iter().map(|e| e.authorization().is_some()).collect();
        assert_eq!(tokens, [true, false]);
    }

    #[test]
    fn what_is_no_list_is_refused_without_being_shown() {
        assert_eq!(Endpoint::parse_list(" , "), Err(EndpointError::None));
        for (bad, place) in [
            ("s3cret:/ip4/127.0.0.1", 1),
            ("http://one:1,s3cret:nowhere", 2),
            ("http://one:1,http://two:2,s3cret:ftp://three", 3),
            ("/nowhere/s3cret", 1),
        ] {
            let error = Endpoint::parse_list(bad).unwrap_err();
            assert!(matches!(&error, EndpointError::Item { place: p, .. } if *p == place), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn repositories() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let error = Endpoint::parse_list(path).unwrap_err();
        assert!(error.to_string().contains("no file `api`"), "{error}");
        std::fs::write(dir.path().join("api"), "/ip4/127.0.0.1/tcp/1234/http\n").unwrap();
        let [open] = Endpoint::parse_list(path).unwrap().try_into().unwrap();
        assert_eq!((open.to_string().as_str(), open.authorization()), ("http://127.0.0.1:1234", None));
        std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
        let [closed] = Endpoint::parse_list(path).unwrap().try_into().unwrap();
        assert_eq!(closed.authorization().unwrap().as_str(), "Bearer s3cret");
        assert_eq!(closed.transport(), Transport::Http);
        for token in ["s3cret\u{7}x".as_bytes(), &[0xff, 0xfe]] {
            std::fs::write(dir.path().join("token"), token).unwrap();
            let error = Endpoint::parse_list(path).unwrap_err();
            assert!(error.to_string().contains("`token`") && !error.to_string().contains("s3cret"), "{error}");
        }
        std::fs::write(dir.path().join("api"), "s3cret").unwrap();
        let error = Endpoint::parse_list(path).unwrap_err();
        assert!(error.to_string().contains(path) && !error.to_string().contains("s3cret"), "{error}");
    }
}
