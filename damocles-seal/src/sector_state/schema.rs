//! The tables. The same statements work on SQLite and PostgreSQL.

use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use std::borrow::Cow;

/// Migrations in order; one that was released is never edited.
const MIGRATIONS: [(i64, &str, &str); 3] =
    [(1, "sectors", SECTORS), (2, "take-ups", TAKE_UPS), (3, "troubles", TROUBLES)];

const SECTORS: &str = "
CREATE TABLE seal_numbers (
    miner BIGINT NOT NULL PRIMARY KEY,
    next BIGINT NOT NULL
);
CREATE TABLE seal_sectors (
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    proof_type BIGINT NOT NULL,
    request TEXT NOT NULL UNIQUE,
    store TEXT NOT NULL,
    worker TEXT NOT NULL,
    fence BIGINT NOT NULL,
    heard_until BIGINT NOT NULL,
    ended TEXT,
    implicit BIGINT NOT NULL,
    kind TEXT,
    stage_done TEXT,
    stage_next TEXT,
    last_error TEXT,
    finalized BIGINT NOT NULL,
    abort_reason TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (miner, number)
);
CREATE INDEX seal_sectors_by_store ON seal_sectors (store);
CREATE TABLE seal_sector_events (
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (miner, number, seq)
);
CREATE TABLE seal_intents (
    submit_key TEXT NOT NULL PRIMARY KEY,
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    content TEXT NOT NULL,
    call TEXT NOT NULL,
    message TEXT,
    ended TEXT,
    reason TEXT,
    epoch BIGINT,
    exit_code BIGINT,
    cid TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (miner, number, kind, attempt)
);
CREATE INDEX seal_intents_by_end ON seal_intents (ended);
CREATE TABLE seal_pieces (
    id BIGINT NOT NULL PRIMARY KEY,
    comm_p TEXT NOT NULL,
    size BIGINT NOT NULL,
    payload_size BIGINT NOT NULL,
    path TEXT NOT NULL,
    miner BIGINT,
    number BIGINT,
    queued_at BIGINT NOT NULL
);
CREATE INDEX seal_pieces_by_sector ON seal_pieces (miner, number);
CREATE TABLE seal_sector_index (
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    store TEXT NOT NULL,
    PRIMARY KEY (miner, number)
);
CREATE TABLE seal_reservations (
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    store TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (miner, number)
);
CREATE TABLE seal_workers (
    name TEXT NOT NULL PRIMARY KEY,
    dest TEXT NOT NULL,
    info TEXT NOT NULL,
    last_ping BIGINT NOT NULL
);
";

const TAKE_UPS: &str = "
CREATE TABLE seal_take_ups (
    miner BIGINT NOT NULL,
    number BIGINT NOT NULL,
    request TEXT NOT NULL,
    fence BIGINT NOT NULL,
    PRIMARY KEY (miner, number, request)
);
";

const TROUBLES: &str = "
ALTER TABLE seal_intents ADD COLUMN trouble TEXT;
";

/// Under a table of its own: on the shared default table the second library of a process would fail.
pub(super) fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name("seal_migrations");
    migrator
}
