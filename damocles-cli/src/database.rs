//! The manager's database.

use crate::exit::{Exit, Failure};
use anyhow::Context as _;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sqlx::{AnyPool, Connection as _, Executor as _, any::AnyPoolOptions};
use std::{fmt::Write as _, fs::File, path::Path};

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
        let Some(lock) = lock(path)? else { return Ok(None) };
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
            .connect(&url_of(path)?)
            .await
            .with_context(|| format!("open database `{}`", path.display()))?;
        Ok(Some(Self { pool, _lock: lock }))
    }
}

/// The path as a URL: what means something else there is escaped.
fn url_of(path: &Path) -> Result<String, Failure> {
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
    url.push_str("?mode=rwc");
    Ok(url)
}

/// SQLite lets several processes in; two managers on one database would both own every sender's nonce.
fn lock(path: &Path) -> Result<Option<Flock<File>>, Failure> {
    let name = path.with_extension("lock");
    let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&name)?.into_file();
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => {
            Err(Failure::from(anyhow::Error::new(errno).context(format!("lock database `{}`", path.display()))))
        }
    }
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
}
