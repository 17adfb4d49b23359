//! The tables, and what marks a file as ours.

use countersign_audit::tree::Place;

/// "CSJ1": says in the file's header whose it is.
pub(crate) const APPLICATION_ID: i32 = 0x4353_4a31;

/// The edition of the tables below. A newer one is refused.
pub(crate) const VERSION: u32 = 1;

/// `records.bytes` is the truth; `record_id` and `call` are copies to search by, and the
/// verifier compares them.
///
/// The tree and its checkpoints live in the rows of the records that complete them, so that
/// an append touches as few pages as it can: `nodes` holds the hashes of all subtrees that
/// this leaf closes, the leaf's own first, 32 bytes each; `checkpoint` is set in the last row
/// of every group. Content lies beside the log, under the first record of its batch, because
/// an index over digests would touch a random page for each.
pub(crate) const TABLES: &str = "
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    nodes BLOB NOT NULL,
    checkpoint TEXT,
    record_id TEXT NOT NULL,
    call TEXT,
    bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_id ON records (record_id);
CREATE INDEX records_by_call ON records (call) WHERE call IS NOT NULL;
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE INDEX contents_by_seq ON contents (seq);
";

/// The row that holds a node: that of the leaf which closes its subtree.
pub(crate) fn node_row(place: Place) -> u64 {
    (place.index + 1) << place.level
}
