//! The manager's database.

use crate::exit::{Exit, Failure};
use anyhow::Context as _;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sqlx::{AnyPool, Connection as _, Executor as _, any::AnyPoolOptions};
use std::{fmt::Write as _, fs::File, path::Path, time::Duration};
use tokio::sync::oneshot;

/// An open database, and the lock that keeps a second daemon from opening it.
#[derive(Debug)]
pub struct Database {
    /// The pool.
    pub pool: AnyPool,
    _lock: Flock<File>,
}

impl Database {
    /// Opens the SQLite file at `path`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or another process has it open.
    pub async fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_if_free(path).await?.ok_or_else(|| {
            Failure::new(Exit::Failed, anyhow::anyhow!("database `{}` is in use", path.display()))
                .hint("a daemon runs on this home already; stop it, or name another with --home")
        })
    }

    /// As [`Database::open`]; none if another process has it open.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub async fn open_if_free(path: &Path) -> Result<Option<Self>, Failure> {
        match Flock::lock(lock_file(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Self::locked(path, lock).await.map(Some),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(no_lock(path, errno)),
        }
    }

    /// As [`Database::open`], waiting for another process to close it; none if it has not within `limit`.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub async fn open_within(path: &Path, limit: Duration) -> Result<Option<Self>, Failure> {
        let (tell, told) = oneshot::channel();
        let file = lock_file(path)?;
        // The kernel wakes whoever waits for a lock, and nothing breaks that off: a thread whose lock nobody wants any more
        // gives it back.
        std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            let _ = tell.send(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno));
        })?;
        match tokio::time::timeout(limit, told).await {
            Ok(Ok(Ok(lock))) => Self::locked(path, lock).await.map(Some),
            Ok(Ok(Err(errno))) => Err(no_lock(path, errno)),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Opens the file at `path` to read while others may write, by one connection; none if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub async fn look(path: &Path) -> Result<Option<AnyPool>, Failure> {
        if !path.exists() {
            return Ok(None);
        }
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute("PRAGMA busy_timeout = 10000").await.map(drop) })
            })
            .connect(&url_of(path, "ro")?)
            .await
            .with_context(|| format!("open database `{}`", path.display()))?;
        Ok(Some(pool))
    }

    async fn locked(path: &Path, lock: Flock<File>) -> Result<Self, Failure> {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // A commit must be on the disk before anything is done that follows from it.
                    for pragma in [
                        "PRAGMA journal_mode = WAL",
                        "PRAGMA synchronous = FULL",
                        "PRAGMA foreign_keys = ON",
                        "PRAGMA busy_timeout = 10000",
                    ] {
                        connection.execute(pragma).await?;
                    }
                    Ok(())
                })
            })
            // A full disk makes SQLite roll back by itself, after which the driver believes that it is still inside the
            // transaction and begins no other one on this connection.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect(&url_of(path, "rwc")?)
            .await
            .with_context(|| format!("open database `{}`", path.display()))?;
        Ok(Self { pool, _lock: lock })
    }
}

/// The path as a URL: what means something else there is escaped.
fn url_of(path: &Path, mode: &str) -> Result<String, Failure> {
    let unusable = || anyhow::anyhow!("database `{}`: the path is not UTF-8", path.display());
    let mut url = "sqlite://".to_owned();
    for byte in path.to_str().with_context(unusable)?.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url.push_str("?mode=");
    url.push_str(mode);
    Ok(url)
}

/// SQLite lets several processes in; two managers on one database would both own every sender's nonce.
fn lock_file(path: &Path) -> Result<File, Failure> {
    let name = path.with_extension("lock");
    Ok(fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&name)?.into_file())
}

fn no_lock(path: &Path, errno: Errno) -> Failure {
    Failure::from(anyhow::Error::new(errno).context(format!("lock database `{}`", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_name_of_a_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain", "a b", "what?mode=memory", "a#b", "100%20", "d\u{e9}p\u{f4}t", "it's"] {
            let file = dir.path().join(name).join("manager.db");
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            let database = Database::open(&file).await.unwrap();
            sqlx::query("CREATE TABLE t (n INTEGER)").execute(&database.pool).await.unwrap();
            assert!(file.is_file(), "{name}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_gets_it_when_it_is_free_and_looking_takes_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manager.db");
        assert!(Database::look(&file).await.unwrap().is_none());
        let first = Database::open(&file).await.unwrap();
        sqlx::query("CREATE TABLE t (n INTEGER)").execute(&first.pool).await.unwrap();
        assert!(Database::open_if_free(&file).await.unwrap().is_none());
        assert!(Database::open_within(&file, Duration::ZERO).await.unwrap().is_none());
        let looked = Database::look(&file).await.unwrap().unwrap();
        sqlx::query("SELECT n FROM t").fetch_all(&looked).await.unwrap();
        sqlx::query("INSERT INTO t (n) VALUES (1)").execute(&looked).await.unwrap_err();
        let next = Database::open_within(&file, Duration::from_secs(120));
        let (next, ()) = tokio::join!(next, async {
            first.pool.close().await;
            drop(first);
        });
        assert!(next.unwrap().is_some());
    }
}
