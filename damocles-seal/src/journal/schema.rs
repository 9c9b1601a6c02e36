//! The tables of a journal.

/// One statement list a version; a journal at version n has run the first n.
pub(crate) const MIGRATIONS: [&str; 2] = [V1, V2];

const V1: &str = "
CREATE TABLE sector (
    miner INTEGER NOT NULL,
    number INTEGER NOT NULL,
    proof_type INTEGER NOT NULL,
    store TEXT NOT NULL,
    fence INTEGER NOT NULL,
    heard_until INTEGER NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (miner, number)
) STRICT;
CREATE TABLE entry (
    miner INTEGER NOT NULL,
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    stage TEXT,
    version INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    output TEXT NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (miner, number, seq),
    FOREIGN KEY (miner, number) REFERENCES sector (miner, number)
) STRICT;
CREATE TABLE pending_request (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    request TEXT NOT NULL
) STRICT;
CREATE TRIGGER entry_is_never_changed BEFORE UPDATE ON entry BEGIN
    SELECT RAISE(ABORT, 'journal entries are never changed');
END;
CREATE TRIGGER entry_is_never_removed BEFORE DELETE ON entry BEGIN
    SELECT RAISE(ABORT, 'journal entries are never removed');
END;
";

/// What the manager is to be told and has not heard yet.
const V2: &str = "
CREATE TABLE untold (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    miner INTEGER NOT NULL,
    number INTEGER NOT NULL,
    report TEXT NOT NULL,
    FOREIGN KEY (miner, number) REFERENCES sector (miner, number)
) STRICT;
";
