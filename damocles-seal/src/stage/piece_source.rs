//! Where the bytes of pieces come from.

use super::{deps::unless_cancelled, fault, files};
use crate::service::DealPiece;
use async_trait::async_trait;
use damocles_core::{
    Context, Error,
    pipeline::{SealError, SealErrorKind},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt;

/// Finds the bytes of a piece.
///
/// # Contract
///
/// - A file that is returned is whole as far as its length can tell; whether it is the piece is checked by whoever
///   computes its commitment.
/// - `None` means that this source does not have the piece: another may.
#[async_trait]
pub trait PieceSource: fmt::Debug + Send + Sync + 'static {
    /// A file with the bytes of `piece`. A source that has to fetch them puts them into `into`.
    async fn fetch(&self, piece: &DealPiece, into: &Path, cx: &Context) -> Result<Option<PathBuf>, SealError>;
}

/// Files named by the piece's CID, alone or with `.car`, in these directories.
#[derive(Clone, Debug, Default)]
pub struct LocalPieces {
    dirs: Vec<PathBuf>,
}

impl LocalPieces {
    /// Looks into these directories in order.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { dirs: dirs.into_iter().collect() }
    }
}

#[async_trait]
impl PieceSource for LocalPieces {
    async fn fetch(&self, piece: &DealPiece, _: &Path, cx: &Context) -> Result<Option<PathBuf>, SealError> {
        unless_cancelled(cx, "find piece", self.find(piece)).await
    }
}

impl LocalPieces {
    async fn find(&self, piece: &DealPiece) -> Result<Option<PathBuf>, SealError> {
        let name = piece.piece.comm_p.to_string();
        for dir in &self.dirs {
            for path in [dir.join(&name), dir.join(format!("{name}.car"))] {
                match fs_err::tokio::metadata(&path).await {
                    Ok(meta) if meta.is_file() => {
                        check_length(piece, &path, meta.len())?;
                        let absolute = std::path::absolute(&path);
                        return absolute.map(Some).map_err(|e| fault::of_io("find piece", &path, e));
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(fault::of_io("find piece", &path, e)),
                }
            }
        }
        Ok(None)
    }
}

fn check_length(piece: &DealPiece, place: &Path, len: u64) -> Result<(), SealError> {
    // A file may be longer than the payload by its zeros, but never longer than the piece.
    if len >= piece.payload_size && len <= piece.piece.size.unpadded().bytes() {
        return Ok(());
    }
    Err(Error::new(SealErrorKind::Stage, "check piece")
        .with("path", place.display())
        .with("bytes", len)
        .with("payload", piece.payload_size)
        .with("room", piece.piece.size.unpadded().bytes()))
}

/// `GET <base>/<piece CID>`, as a manager's piece store answers it.
#[derive(Clone)]
pub struct HttpPieces {
    base: String,
    client: reqwest::Client,
    token: Option<String>,
    silence: Duration,
}

impl fmt::Debug for HttpPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("HttpPieces").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpPieces {
    /// Asks `base`, e.g. `http://127.0.0.1:1789/piecestore`. A transfer that is silent for `silence` has failed.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(base: impl Into<String>, token: Option<String>, silence: Duration) -> Result<Self, SealError> {
        let failed =
            || Error::new(SealErrorKind::Stage, "set up piece client").recover_by(damocles_core::Recovery::Park);
        let base = base.into().trim_end_matches('/').to_owned();
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        // No process-wide provider is installed: that is a program's choice.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed().because(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(silence)
            // A piece store may send us to the store that has the piece; the token stays behind on another host.
            .redirect(reqwest::redirect::Policy::limited(5))
            .no_proxy()
            .build()
            .map_err(|e| failed().because(e))?;
        Ok(Self { base, client, token, silence })
    }

    async fn download(&self, piece: &DealPiece, url: &str, target: &Path) -> Result<bool, SealError> {
        let failed = |e: reqwest::Error| {
            Error::new(SealErrorKind::Service, "fetch piece").with("url", url).because(e.without_url())
        };
        let silent = || {
            Error::new(SealErrorKind::Service, "fetch piece")
                .with("url", url)
                .with("silent for seconds", self.silence.as_secs())
        };
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = tokio::time::timeout(self.silence, request.send()).await.map_err(|_| silent())?.map_err(failed)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let mut answer = answer.error_for_status().map_err(failed)?;
        let io = |e| fault::of_io("fetch piece", target, e);
        let mut file = fs_err::tokio::File::create(target).await.map_err(io)?;
        let room = piece.piece.size.unpadded().bytes();
        let mut len = 0_u64;
        while let Some(chunk) =
            tokio::time::timeout(self.silence, answer.chunk()).await.map_err(|_| silent())?.map_err(failed)?
        {
            len = len.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if len > room {
                break;
            }
            file.write_all(&chunk).await.map_err(io)?;
        }
        check_length(piece, target, len).map_err(|e| e.with("url", url))?;
        file.flush().await.map_err(io)?;
        file.sync_all().await.map_err(io)?;
        Ok(true)
    }
}

#[async_trait]
impl PieceSource for HttpPieces {
    async fn fetch(&self, piece: &DealPiece, into: &Path, cx: &Context) -> Result<Option<PathBuf>, SealError> {
        let name = piece.piece.comm_p.to_string();
        let (target, temporary) = (into.join(&name), into.join(format!("{name}.tmp")));
        let there =
            async { fs_err::tokio::try_exists(&target).await.map_err(|e| fault::of_io("find piece", &target, e)) };
        if unless_cancelled(cx, "find piece", there).await? {
            return Ok(Some(target));
        }
        files::make_dir(into, cx).await?;
        let url = format!("{}/{name}", self.base);
        let found = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(Error::new(SealErrorKind::Cancelled, "fetch piece").with("url", &url)),
            found = self.download(piece, &url, &temporary) => found,
        }?;
        if !found {
            return Ok(None);
        }
        let rename = fs_err::tokio::rename(&temporary, &target).await;
        rename.map_err(|e| fault::of_io("fetch piece", &target, e))?;
        Ok(Some(target))
    }
}

/// Asks sources in order.
#[derive(Clone, Debug, Default)]
pub struct FirstOf(pub Vec<Arc<dyn PieceSource>>);

#[async_trait]
impl PieceSource for FirstOf {
    async fn fetch(&self, piece: &DealPiece, into: &Path, cx: &Context) -> Result<Option<PathBuf>, SealError> {
        for source in &self.0 {
            if let Some(file) = source.fetch(piece, into, cx).await? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}
