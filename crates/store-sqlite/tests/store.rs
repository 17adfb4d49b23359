//! The journal on SQLite: the contract, durability, refusals, and the verifier on damage.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;

use countersign_audit::checkpoint::Checkpoint;
use countersign_audit::key::{LogKey, PublicKey, SignError, Signer};
use countersign_audit::receipt::Receipt;
use countersign_audit::tiles::TooLong;
use countersign_audit::verify::Rule;
use countersign_core::journal::JournalRecord;
use countersign_ports::journal::{AppendError, Batch, Content, Journal};
use countersign_store_sqlite::{LogReader, OpenError, SqliteJournal};
use countersign_testkit::draft::draft;
use countersign_testkit::journal_contract::batch;
use signed_note::{Note, StandardVerifier, VerifierList};

fn key() -> Arc<LogKey> {
    Arc::new(LogKey::from_seed("log.example/test", &[7; 32]).unwrap())
}

fn open(dir: &Path) -> SqliteJournal {
    SqliteJournal::open(&dir.join("journal.db"), key(), None).unwrap()
}

fn fresh() -> (SqliteJournal, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (open(dir.path()), dir)
}

mod contract {
    countersign_testkit::journal_contract!(super::fresh());
}

async fn filled(dir: &Path, records: usize) {
    let journal = open(dir);
    for i in 0..records {
        let id = format!("record.{i}");
        let contents = vec![Content::new(format!("content {i}").into_bytes())];
        let mut record = draft(&id, "reason", Some(&format!("call.{}", i / 2))).record().clone();
        let content = contents[0].digest().to_string();
        record.content_refs = vec![countersign_core::id::ContentRef::new(content).unwrap()];
        let drafts = vec![countersign_core::journal::JournalDraft::new(record).encode().unwrap()];
        journal.append(Batch { drafts, contents }).await.unwrap();
    }
}

#[tokio::test]
async fn a_receipt_made_while_appending_verifies_with_the_public_key_alone() {
    let (journal, _dir) = fresh();
    for size in 1..40u64 {
        let ids = [format!("{size}.a"), format!("{size}.b")];
        let batch = batch(&[&ids[0], &ids[1]]);
        let last = batch.drafts[1].clone();
        let committed = journal.append(batch).await.unwrap();
        let coverage = committed.coverage.unwrap();
        let seq = committed.seqs[1];
        let record = String::from_utf8(last.stamp(seq)).unwrap();
        let receipt = Receipt::new(seq, record, &coverage.proof, coverage.checkpoint.to_string());
        assert_eq!(receipt.verify(key().public()).unwrap().size, size * 2);
    }
    let again = journal.append(batch(&["3.a"])).await.unwrap();
    let coverage = again.coverage.unwrap();
    let record = String::from_utf8(batch(&["3.a"]).drafts[0].stamp(5)).unwrap();
    let receipt = Receipt::new(5, record, &coverage.proof, coverage.checkpoint.to_string());
    assert_eq!(receipt.verify(key().public()).unwrap().size, 78);
}

#[tokio::test]
async fn everything_is_there_after_reopening_and_the_tree_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5u64 {
        let journal = open(dir.path());
        assert_eq!(*journal.head().borrow(), round * 3);
        let ids: Vec<_> = (0..3).map(|i| format!("{round}.{i}")).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        journal.append(batch(&ids)).await.unwrap();
    }
    let path = dir.path().join("journal.db");
    let mut reader = LogReader::open(&path).unwrap();
    let report = reader.verify(key().public(), |_, _| ()).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.records, report.covered, report.checkpoints), (15, 15, 5));
}

#[tokio::test]
async fn a_foreign_implementation_accepts_a_checkpoint_from_the_database_and_refuses_a_changed_one()
{
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3).await;
    let reader = LogReader::open(&dir.path().join("journal.db")).unwrap();
    let note = reader.checkpoint().unwrap().unwrap();
    let accepts = |note: &str| {
        let verifier = StandardVerifier::new(&key().public().to_string()).unwrap();
        let verifiers = VerifierList::new(vec![Box::new(verifier)]);
        Note::from_bytes(note.as_bytes()).is_ok_and(|note| note.verify(&verifiers).is_ok())
    };
    assert!(accepts(&note));
    assert!(!accepts(&note.replace("\n3\n", "\n4\n")));
    assert_eq!(Checkpoint::open(&note, key().public()).unwrap().size, 3);
}

#[tokio::test]
async fn two_gateways_cannot_open_one_database() {
    let (journal, dir) = fresh();
    let path = dir.path().join("journal.db");
    assert!(matches!(SqliteJournal::open(&path, key(), None), Err(OpenError::InUse(_))));
    drop(journal);
    SqliteJournal::open(&path, key(), None).unwrap();
}

#[tokio::test]
async fn a_foreign_newer_or_damaged_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20).await;
    let path = dir.path().join("journal.db");
    let good = std::fs::read(&path).unwrap();
    let check = |name: &str, bytes: &[u8], expected: fn(&OpenError) -> bool| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = SqliteJournal::open(&path, key(), None).err().unwrap();
        assert!(expected(&error), "{name}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} was changed");
    };
    let mut newer = good.clone();
    newer[63] = 2;
    check("newer.db", &newer, |e| matches!(e, OpenError::Newer { found: 2, .. }));
    check("text.db", b"hello", |e| matches!(e, OpenError::Foreign(_)));
    let mut foreign = good.clone();
    foreign[68] = 0;
    check("foreign.db", &foreign, |e| matches!(e, OpenError::Foreign(_)));
    check("cut.db", &good[..good.len() / 2], |e| matches!(e, OpenError::Damaged { .. }));
    let mut scrambled = good.clone();
    scrambled[4096..8192].fill(0x5a);
    check("scrambled.db", &scrambled, |e| matches!(e, OpenError::Damaged { .. }));
    let other = Arc::new(LogKey::from_seed("log.example/other", &[9; 32]).unwrap());
    assert!(matches!(SqliteJournal::open(&path, other, None), Err(OpenError::OtherKey { .. })));
    assert!(matches!(LogReader::open(&dir.path().join("none.db")), Err(OpenError::Missing(_))));
}

#[tokio::test]
async fn a_changed_byte_in_any_record_is_found_and_the_record_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 4).await;
    let path = dir.path().join("journal.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    let stored = |seq: u64| -> Vec<u8> {
        db.query_row("SELECT bytes FROM records WHERE seq = ?1", [seq], |r| r.get(0)).unwrap()
    };
    for seq in 1..=4u64 {
        let bytes = stored(seq);
        for at in (0..bytes.len()).step_by(41) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            let set = "UPDATE records SET bytes = ?1 WHERE seq = ?2";
            db.execute(set, rusqlite::params![changed, seq]).unwrap();
            let report = LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap();
            let id = format!("record.{}", seq - 1);
            let named = report.findings.iter().any(|f| {
                f.rule == Rule::RecordChanged && f.record_id.as_deref() == Some(id.as_str())
            });
            assert!(!report.ok && named, "byte {at} of record {seq}: {report:?}");
            db.execute(set, rusqlite::params![bytes, seq]).unwrap();
        }
    }
    assert!(LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap().ok);
}

#[tokio::test]
async fn tampering_beside_the_record_is_found_by_the_rule_that_should_find_it() {
    let cases = [
        ("DELETE FROM records WHERE seq = 2", Rule::RecordMissing),
        ("UPDATE records SET checkpoint = NULL WHERE seq = 4", Rule::NotCovered),
        (
            "UPDATE records SET checkpoint = replace(checkpoint, 'A', 'B') WHERE seq = 3",
            Rule::CheckpointInvalid,
        ),
        (
            "UPDATE records SET checkpoint = (SELECT checkpoint FROM records WHERE seq = 3) WHERE seq = 4",
            Rule::RecordMissing,
        ),
        ("UPDATE records SET record_id = 'other' WHERE seq = 3", Rule::RecordMisfiled),
        ("UPDATE records SET call = NULL WHERE seq = 3", Rule::RecordMisfiled),
        ("UPDATE records SET nodes = zeroblob(32) WHERE seq = 1", Rule::RecordChanged),
        (
            "UPDATE records SET nodes = CAST(nodes || zeroblob(32) AS BLOB) WHERE seq = 2",
            Rule::StoreDamaged,
        ),
        ("UPDATE contents SET bytes = x'00' WHERE id = 1", Rule::ContentChanged),
        ("DELETE FROM contents WHERE id = 1", Rule::ContentMissing),
    ];
    for (sql, rule) in cases {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 4).await;
        let path = dir.path().join("journal.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(db.execute(sql, []).unwrap(), 1, "{sql}");
        let report = LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap();
        let found = report.findings.iter().any(|f| f.rule == rule);
        assert!(!report.ok && found, "{sql}: {report:?}");
    }
}

#[tokio::test]
async fn damage_in_the_write_ahead_log_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    for i in 0..10 {
        journal.append(batch(&[&format!("record.{i}")])).await.unwrap();
    }
    // What a killed gateway leaves behind: the database and a WAL that nobody folded in.
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let path = copy.path().join("journal.db");
    let verify = || LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap();
    assert_eq!((verify().ok, verify().records), (true, 10));
    let wal_path = copy.path().join("journal.db-wal");
    let mut wal = std::fs::read(&wal_path).unwrap();
    let at = wal.windows(8).position(|w| w == b"record.4").unwrap();
    wal[at + 7] = b'5';
    std::fs::write(&wal_path, &wal).unwrap();
    let _ = std::fs::remove_file(copy.path().join("journal.db-shm"));
    let report = verify();
    assert!(!report.ok, "{report:?}");
    assert_eq!(report.findings[0].rule, Rule::StoreDamaged);
}

#[tokio::test]
async fn a_full_database_refuses_appends_and_takes_them_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path, key(), Some(256 << 10)).unwrap();
    let mut stored = 0u64;
    let error = loop {
        let contents = vec![Content::new(vec![stored as u8; 9000 + stored as usize])];
        let drafts = batch(&[&format!("record.{stored}")]).drafts;
        match journal.append(Batch { drafts, contents }).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::NoRoom(_)), "{error}");
    assert_eq!(*journal.head().borrow(), stored);
    drop(journal);
    let journal = SqliteJournal::open(&path, key(), None).unwrap();
    assert_eq!(journal.append(batch(&["more"])).await.unwrap().seqs, [stored + 1]);
    drop(journal);
    assert!(LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap().ok);
}

struct LockedKey(Arc<LogKey>, std::sync::atomic::AtomicBool);

impl Signer for LockedKey {
    fn public(&self) -> &PublicKey {
        self.0.public()
    }
    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SignError> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(SignError("locked".into()));
        }
        self.0.sign(text)
    }
}

#[tokio::test]
async fn nothing_is_recorded_without_a_signature() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Arc::new(LockedKey(key(), false.into()));
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path, signer.clone(), None).unwrap();
    journal.append(batch(&["a"])).await.unwrap();
    signer.1.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = journal.append(batch(&["b"])).await.unwrap_err();
    assert!(matches!(error, AppendError::NotSigned(_)), "{error}");
    assert_eq!(journal.read(1, 10).await.unwrap().len(), 1);
    signer.1.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(journal.append(batch(&["c"])).await.unwrap().seqs, [2]);
}

#[tokio::test]
async fn a_changed_record_or_schema_is_not_built_on() {
    let cases = [
        "UPDATE records SET bytes = CAST(replace(bytes, 'reason', 'season') AS BLOB) WHERE seq = 2",
        "CREATE TRIGGER t AFTER INSERT ON contents BEGIN DELETE FROM contents; END",
        "CREATE TABLE extra (id INTEGER PRIMARY KEY)",
        "DROP INDEX records_by_call",
    ];
    for sql in cases {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 4).await;
        let path = dir.path().join("journal.db");
        rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
        let error = SqliteJournal::open(&path, key(), None).err();
        assert!(matches!(error, Some(OpenError::Damaged { .. })), "{sql}: {error:?}");
        let report = LogReader::open(&path).unwrap().verify(key().public(), |_, _| ()).unwrap();
        assert!(!report.ok, "{sql}");
    }
}

#[tokio::test]
async fn a_live_database_can_be_read_and_verified() {
    let (journal, dir) = fresh();
    journal.append(batch(&["a", "b"])).await.unwrap();
    let mut reader = LogReader::open(&dir.path().join("journal.db")).unwrap();
    assert_eq!(reader.head().unwrap(), 2);
    assert!(reader.verify(key().public(), |_, _| ()).unwrap().ok);
    journal.append(batch(&["c"])).await.unwrap();
    let stored = reader.records(3, 10, None).unwrap();
    let record: JournalRecord = serde_json::from_slice(&stored[0].bytes).unwrap();
    assert_eq!(record.record_id.as_str(), "c");
}

#[tokio::test]
async fn proofs_and_tiles_from_the_stored_tree_are_those_of_the_whole_log() {
    use countersign_audit::tiles::{Tiler, parse};
    use countersign_audit::tree::verify_consistency;
    use countersign_store_sqlite::ProofError;

    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 300).await;
    let reader = LogReader::open(&dir.path().join("journal.db")).unwrap();
    for seq in [1, 2, 255, 256, 257, 300] {
        let receipt = reader.receipt(seq).unwrap();
        assert_eq!(receipt.verify_record(key().public()).unwrap().size, 300);
    }
    for (old, new) in [(0, 300), (1, 300), (255, 256), (256, 300), (300, 300)] {
        let proof = reader.consistency(old, Some(new)).unwrap();
        let (old, new) = ((old, &proof.old_root), (new, &proof.new_root));
        assert!(verify_consistency(old, new, &proof.path));
    }
    for seq in [0, 301] {
        assert!(matches!(reader.receipt(seq), Err(ProofError::Record(_))));
    }
    assert!(matches!(reader.consistency(3, Some(301)), Err(ProofError::Sizes { .. })));
    assert!(matches!(reader.call_end("no.call"), Err(ProofError::Call(_))));
    assert_eq!(reader.call_end("call.7").unwrap(), 16);

    let (mut tiler, mut files) = (Tiler::default(), Vec::new());
    let mut keep = |path: &str, bytes: &[u8]| {
        files.push((path.to_owned(), bytes.to_vec()));
        Ok::<_, ProofError>(())
    };
    reader
        .walk::<ProofError>(1, |_, bytes, _| {
            tiler
                .record(bytes, |path, tile| {
                    keep(path, tile).map_err(|_| TooLong { seq: 0, len: 0 })
                })
                .map_err(|error: TooLong| ProofError::Damaged(error.to_string()))
        })
        .unwrap();
    tiler.finish(&mut keep).unwrap();
    assert!(files.len() >= 5, "{}", files.len());
    for (path, bytes) in &files {
        let (row, index, width) = parse(path).unwrap();
        assert_eq!(reader.tile(row, index, width).unwrap().as_ref(), Some(bytes), "{path}");
        assert_eq!(reader.tile(row, index, 257).unwrap(), None);
        assert_eq!(reader.tile(row, index + 9, width).unwrap(), None);
    }
    for bad in [
        "tile/0/1",
        "tile/0/0000",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/x/000",
        "tile/00/000",
        "checkpoint",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
