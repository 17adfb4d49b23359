//! The tables, and what marks a file as ours.

use countersign_audit::tree::Place;

/// "CSJ1": says in the file's header whose it is.
pub(crate) const APPLICATION_ID: i32 = 0x4353_4a31;

/// The edition of the tables below. A newer one is refused.
pub(crate) const VERSION: u32 = 1;

/// `records.bytes` is the truth; `record_id` and `call` are copies to search by, and the
/// verifier compares them. `nodes.place` is `level << 56 | index` of a complete subtree.
pub(crate) const TABLES: &str = "
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    record_id TEXT NOT NULL,
    call TEXT,
    bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_id ON records (record_id);
CREATE INDEX records_by_call ON records (call) WHERE call IS NOT NULL;
CREATE TABLE nodes (place INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE contents (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, bytes BLOB NOT NULL) STRICT;
";

/// The key of a tree node. Levels stay below 64 and indexes below 2^56: SQLite's row numbers
/// end long before.
pub(crate) fn node_key(place: Place) -> i64 {
    (i64::from(place.level) << 56) | i64::try_from(place.index).unwrap_or(i64::MAX)
}
