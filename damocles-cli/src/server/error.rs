//! Why a server does not serve.

use crate::exit::Exit;
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// What to do when an address is not loopback.
pub const LOOPBACK_HINT: &str =
    "listen on 127.0.0.1 and reach it from other machines through an SSH tunnel: callers have no roles yet";

/// A server that cannot serve, or cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Others than this machine could connect.
    #[error("address {0} is not loopback")]
    NotLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error("address {0} is in use")]
    InUse(SocketAddr),
    /// The kernel refuses the address.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A living process listens on the socket.
    #[error("another process listens on {}", .0.display())]
    SocketInUse(PathBuf),
    /// The path is too long for the kernel, or is something else than a socket.
    #[error("{} cannot be a socket: {why}", path.display())]
    SocketPath {
        /// Where.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens on the socket.
    #[error("nobody answers on {}", path.display())]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody listens on the socket, and does not answer in time.
    #[error("no answer to `{method}` came on {} within {} seconds", path.display(), limit.as_secs())]
    Silent {
        /// Where.
        path: PathBuf,
        /// The method.
        method: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The other side's answer is none.
    #[error("the answer to `{method}` on {} could not be understood", path.display())]
    Rubbish {
        /// Where.
        path: PathBuf,
        /// The method.
        method: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The other side refused.
    #[error("`{method}` was refused: {message}")]
    Refused {
        /// The method.
        method: String,
        /// The other side's words.
        message: String,
        /// Its advice.
        hint: Option<String>,
        /// The exit code that it would have ended with.
        exit: Exit,
    },
    /// The listener broke.
    #[error("serving ended")]
    Serve(#[source] io::Error),
}

impl ServerError {
    /// How a process that cannot go on without the server ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotLoopback(_) | Self::SocketPath { .. } => Exit::Usage,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Serve(_) => Exit::Retryable,
            Self::InUse(_) | Self::Bind { .. } | Self::SocketInUse(_) | Self::Socket { .. } | Self::Rubbish { .. } => {
                Exit::Failed
            }
            Self::Refused { exit, .. } => *exit,
        }
    }

    /// What an operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotLoopback(_) => Some(LOOPBACK_HINT.to_owned()),
            Self::InUse(address) => Some(format!(
                "is another daemon running? `ss -ltnp sport = :{}` shows it; else choose another port",
                address.port()
            )),
            Self::SocketInUse(_) => {
                Some("is another daemon running there? `ss -lxp` shows which; each has a socket of its own".to_owned())
            }
            Self::SocketPath { .. } => Some(
                "a shorter path of a directory will do: `worker.run_dir` of a worker, --home of a manager".to_owned(),
            ),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => {
                Some("is the worker of this configuration file running, or the manager of this home?".to_owned())
            }
            _ => None,
        }
    }
}
