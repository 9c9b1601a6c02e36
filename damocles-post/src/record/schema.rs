//! The tables. The same statements work on SQLite and PostgreSQL.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::borrow::Cow;

/// Migrations in order; one that was released is never edited.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "attempts", ATTEMPTS)];

const ATTEMPTS: &str = "
CREATE TABLE post_attempts (
    key TEXT NOT NULL PRIMARY KEY,
    duty TEXT NOT NULL,
    number BIGINT NOT NULL,
    miner TEXT NOT NULL,
    deadline TEXT NOT NULL,
    opens BIGINT NOT NULL,
    intent TEXT NOT NULL,
    UNIQUE (duty, number)
);
CREATE INDEX post_attempts_by_time ON post_attempts (miner, opens);
CREATE TABLE post_events (
    key TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (key, seq)
);
";

/// Under a table of its own: on the shared default table the second library of a process would fail.
pub(super) fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name("post_migrations");
    migrator
}
