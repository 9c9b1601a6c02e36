//! The manager's database, as this crate uses it.

use super::schema;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Any, AnyPool, Transaction, migrate::MigrateError};

/// The manager's database with the tables of this crate in it.
#[derive(Clone, Debug)]
pub struct SealDb {
    pool: AnyPool,
    begin: &'static str,
}

impl SealDb {
    /// Makes or updates the tables.
    ///
    /// The pool is the caller's: it chooses the database and, for SQLite, the pragmas.
    ///
    /// # Errors
    ///
    /// The database does not answer, or its tables are newer than this build.
    pub async fn open(pool: AnyPool) -> Result<Self, DbError> {
        // SQLite would start a read transaction that cannot always be made a writing one; PostgreSQL would let two
        // writers read the same row.
        let begin = match pool.connect_options().database_url.scheme() {
            "sqlite" => "BEGIN IMMEDIATE",
            _ => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        };
        schema::migrator().run(&pool).await?;
        Ok(Self { pool, begin })
    }

    /// The pool.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    pub(crate) async fn write(&self) -> Result<Transaction<'static, Any>, DbError> {
        Ok(self.pool.begin_with(self.begin).await?)
    }
}

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// It did not answer.
    #[error("the database could not be used")]
    Sql(#[from] sqlx::Error),
    /// Its tables do not fit this build.
    #[error("the tables could not be brought up to date")]
    Migrate(#[from] MigrateError),
    /// A number does not fit into its column, or what is in a column is no such number.
    #[error("{what} {value} is out of range")]
    Range {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: String,
    },
    /// A row does not hold what was written.
    #[error("row `{row}` of table `{table}` could not be read")]
    Row {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
        /// What is wrong with it.
        #[source]
        source: Box<Self>,
    },
    /// A column does not hold what was written.
    #[error("a stored {what} could not be read")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
}

impl DbError {
    /// Whether asking again gives the same error: the database answered, what it holds is wrong.
    pub(crate) fn stays(&self) -> bool {
        match self {
            Self::Migrate(_) | Self::Range { .. } | Self::Corrupt { .. } => true,
            Self::Row { source, .. } => source.stays(),
            Self::Sql(e) => matches!(
                e,
                sqlx::Error::ColumnDecode { .. }
                    | sqlx::Error::ColumnNotFound(_)
                    | sqlx::Error::Decode(_)
                    | sqlx::Error::TypeNotFound { .. }
            ),
        }
    }

    /// Names the row, if the row is what is wrong.
    pub(crate) fn in_row(self, table: &'static str, row: impl ToString) -> Self {
        if self.stays() { Self::Row { table, row: row.to_string(), source: Box::new(self) } } else { self }
    }
}

pub(crate) fn to_db(what: &'static str, value: u64) -> Result<i64, DbError> {
    i64::try_from(value).map_err(|_| DbError::Range { what, value: value.to_string() })
}

pub(crate) fn from_db(what: &'static str, value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::Range { what, value: value.to_string() })
}

pub(crate) fn json_of<T: Serialize>(what: &'static str, value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|source| DbError::Corrupt { what, source })
}

pub(crate) fn of_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|source| DbError::Corrupt { what, source })
}
