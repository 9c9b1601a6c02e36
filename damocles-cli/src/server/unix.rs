//! The server on a Unix socket, and its client.

use super::{RpcHandler, ServerError, http::Routes};
use crate::exit::Exit;
use damocles_core::CancellationToken;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};

/// Where the control RPC is on a worker's socket.
pub const CONTROL_PATH: &str = "/rpc/v0";
/// A control call touches memory only.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// A daemon that is killed while it starts a child leaves its socket open in the child until that runs its program: it is
/// looked at so often, with so long a pause, before the daemon is taken for a living one.
const CLOSING_LOOKS: u32 = 20;
const CLOSING_PAUSE: Duration = Duration::from_millis(50);
/// The kernel's `sun_path`, with its closing zero.
const LONGEST_PATH: usize = 107;

/// Where the sockets of a user's daemons lie: `/run/damocles` for root, else `$XDG_RUNTIME_DIR/damocles`. `None` when
/// the session has no such directory.
#[expect(clippy::disallowed_methods, reason = "the program reads its environment")]
pub fn default_run_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/run/damocles"));
    }
    std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(|d| Path::new(&d).join("damocles"))
}

/// The control socket of the worker `name`.
pub fn socket_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(format!("{name}.sock"))
}

/// A bound Unix socket that only its owner may connect to. The file goes when this is dropped.
#[derive(Debug)]
pub struct UnixServer {
    listener: UnixListener,
    file: SocketFile,
    routes: Routes,
}

impl UnixServer {
    /// Makes the socket, and its directory if need be. A socket that a dead process left is replaced.
    ///
    /// # Errors
    ///
    /// A living process listens there, the path cannot be a socket, or the directory cannot be written.
    pub async fn bind(path: &Path) -> Result<Self, ServerError> {
        Self::bind_for(path, 0o600).await
    }

    /// As [`UnixServer::bind`], for the group of its directory too.
    ///
    /// # Errors
    ///
    /// Those of [`UnixServer::bind`].
    pub async fn bind_shared(path: &Path) -> Result<Self, ServerError> {
        Self::bind_for(path, 0o660).await
    }

    async fn bind_for(path: &Path, mode: u32) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Socket { path: path.to_owned(), source };
        let made = path.with_file_name(format!(".{}.new", std::process::id()));
        if path.as_os_str().len().max(made.as_os_str().len()) > LONGEST_PATH {
            return Err(ServerError::SocketPath { path: path.to_owned(), why: "the path is too long" });
        }
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        clear(path).await?;
        // The socket is made under another name and closed to others before anybody can find it.
        let hidden = SocketFile::of(made.clone());
        let listener = UnixListener::bind(&made).map_err(failed)?;
        fs_err::set_permissions(&made, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        let inode = fs_err::symlink_metadata(&made).map_err(failed)?.ino();
        fs_err::rename(&made, path).map_err(failed)?;
        drop(hidden);
        let file = SocketFile { path: path.to_owned(), inode: Some(inode) };
        Ok(Self { listener, file, routes: Routes::new() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// JSON-RPC by POST at `path`.
    #[must_use]
    pub fn route_rpc(mut self, path: &str, handler: Arc<dyn RpcHandler>) -> Self {
        self.routes = self.routes.rpc(path, handler);
        self
    }

    /// Serves until `cancel` fires, then removes the socket.
    ///
    /// # Errors
    ///
    /// The listener broke.
    pub async fn serve(self, cancel: CancellationToken) -> Result<(), ServerError> {
        let _file = self.file;
        self.routes.serve(self.listener, cancel).await
    }
}

/// Removes what a dead process left at `path`.
async fn clear(path: &Path) -> Result<(), ServerError> {
    match fs_err::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ServerError::Socket { path: path.to_owned(), source }),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ServerError::SocketPath { path: path.to_owned(), why: "something else lies there" });
        }
        Ok(_) => {}
    }
    let mut connected = UnixStream::connect(path).await;
    for _ in 0..CLOSING_LOOKS {
        if connected.is_err() {
            break;
        }
        tokio::time::sleep(CLOSING_PAUSE).await;
        connected = UnixStream::connect(path).await;
    }
    match connected {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => match fs_err::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(ServerError::Socket { path: path.to_owned(), source: e })
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ServerError::Socket { path: path.to_owned(), source }),
        Ok(_) => Err(ServerError::SocketInUse(path.to_owned())),
    }
}

/// Removes the file when dropped, unless another process has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    fn of(path: PathBuf) -> Self {
        Self { path, inode: None }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |meta: std::fs::Metadata| self.inode.is_none_or(|inode| meta.ino() == inode);
        if fs_err::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // A leftover is replaced at the next start.
            let _ = fs_err::remove_file(&self.path);
        }
    }
}

/// Calls a daemon's JSON-RPC on its Unix socket.
#[derive(Clone, Debug)]
pub struct UnixClient {
    path: PathBuf,
    http: reqwest::Client,
}

impl UnixClient {
    /// A client of the socket at `path`; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// The HTTP library cannot be set up.
    pub fn new(path: &Path) -> Result<Self, ServerError> {
        // No certificate is ever looked at on a socket of this machine.
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .tls_certs_only([])
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(|e| ServerError::Unreachable { path: path.to_owned(), source: e.into() })?;
        Ok(Self { path: path.to_owned(), http })
    }

    /// Calls one method.
    ///
    /// # Errors
    ///
    /// Nobody listens or answers in time, the answer is no JSON-RPC, or it is a refusal.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, ServerError> {
        let unreachable = |e: reqwest::Error| {
            if e.is_timeout() && !e.is_connect() {
                let (path, method) = (self.path.clone(), method.to_owned());
                return ServerError::Silent { path, method, limit: CALL_TIMEOUT };
            }
            ServerError::Unreachable { path: self.path.clone(), source: e.into() }
        };
        let rubbish = |source| ServerError::Rubbish { path: self.path.clone(), method: method.to_owned(), source };
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = format!("http://localhost{CONTROL_PATH}");
        let body = request.to_string();
        let sent = self.http.post(url).header("content-type", "application/json").body(body).send();
        let bytes = sent.await.map_err(unreachable)?.bytes().await.map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(rubbish)?;
        if let Some(error) = answer.get("error").filter(|e| !e.is_null()) {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
            let data = |key: &str| error.get("data").and_then(|data| data.get(key));
            let hint = data("hint").and_then(Value::as_str).map(str::to_owned);
            let exit = data("exit").and_then(Value::as_u64).and_then(Exit::of).unwrap_or(Exit::Failed);
            return Err(ServerError::Refused { method: method.to_owned(), message, hint, exit });
        }
        serde_json::from_value(answer.get("result").cloned().unwrap_or(Value::Null)).map_err(rubbish)
    }
}
