//! How the tables came to be what they are.

use sqlx::{
    AnyPool, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

const OUTBOX: &str = "
CREATE TABLE chain_messages (
    submit_key TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    call TEXT NOT NULL,
    state TEXT NOT NULL,
    sender TEXT,
    nonce BIGINT,
    cid TEXT,
    signed TEXT,
    receipt TEXT,
    error TEXT
);
CREATE UNIQUE INDEX chain_messages_nonce ON chain_messages (sender, nonce);
CREATE INDEX chain_messages_state ON chain_messages (state);
";

/// The epoch at which a message was last seen on chain.
const LANDED: &str = "ALTER TABLE chain_messages ADD COLUMN landed BIGINT";

/// Several messages of one call. `signed` and `cid` are the newest one's; the older ones are in the other table.
/// `tipset` is there as long as the message is known to be on chain, in that tipset.
const VERSIONS: &str = "
ALTER TABLE chain_messages ADD COLUMN lane TEXT;
ALTER TABLE chain_messages ADD COLUMN kind TEXT;
ALTER TABLE chain_messages ADD COLUMN purpose TEXT;
ALTER TABLE chain_messages ADD COLUMN signed_at BIGINT;
ALTER TABLE chain_messages ADD COLUMN tipset TEXT;
ALTER TABLE chain_messages ADD COLUMN landed_as TEXT;
ALTER TABLE chain_messages ADD COLUMN cancel BIGINT NOT NULL DEFAULT 0;
ALTER TABLE chain_messages ADD COLUMN asked TEXT;
ALTER TABLE chain_messages ADD COLUMN waits_since BIGINT;
CREATE TABLE chain_versions (
    submit_key TEXT NOT NULL,
    version BIGINT NOT NULL,
    cid TEXT NOT NULL,
    purpose TEXT NOT NULL,
    signed TEXT NOT NULL,
    signed_at BIGINT,
    PRIMARY KEY (submit_key, version)
);
CREATE INDEX chain_messages_seq ON chain_messages (seq);
CREATE INDEX chain_messages_lane ON chain_messages (state, lane);
CREATE INDEX chain_messages_sender ON chain_messages (state, sender, tipset);
";

const ALL: [(i64, &str, &str); 3] = [(1, "outbox", OUTBOX), (2, "landed", LANDED), (3, "versions", VERSIONS)];

/// Brings the tables of any earlier version up to date.
pub(super) async fn run(pool: &AnyPool) -> Result<(), MigrateError> {
    up_to(pool, ALL.len()).await
}

async fn up_to(pool: &AnyPool, count: usize) -> Result<(), MigrateError> {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(ALL.into_iter().take(count).map(migration).collect());
    migrator.dangerous_set_table_name("chain_migrations");
    migrator.run(pool).await
}

/// The tables as an earlier version made them.
#[cfg(test)]
pub(crate) async fn old(pool: &AnyPool, version: usize) {
    up_to(pool, version).await.unwrap();
}
