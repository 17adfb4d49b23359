//! What every journal must do. A new store earns its place by passing this.

use countersign_core::digest::Digest;
use countersign_core::journal::JournalRecord;
use countersign_ports::journal::{AppendError, Batch, Content, Journal};

use crate::draft::draft;

/// A batch of run records with these ids, each with its id as text.
#[must_use]
pub fn batch(ids: &[&str]) -> Batch {
    let drafts = ids.iter().map(|id| draft(id, id, None).encode().unwrap()).collect();
    Batch { drafts, contents: Vec::new() }
}

/// The journal numbers records from 1, in order, and stores them with that number.
pub async fn numbers_records(journal: &dyn Journal) {
    assert_eq!(journal.append(batch(&["a", "b"])).await.unwrap().seqs, [1, 2]);
    assert_eq!(journal.append(batch(&["c"])).await.unwrap().seqs, [3]);
    let entries = journal.read(1, 10).await.unwrap();
    for (entry, (seq, id)) in entries.iter().zip([(1, "a"), (2, "b"), (3, "c")]) {
        let record: JournalRecord = serde_json::from_slice(&entry.bytes).unwrap();
        assert_eq!((entry.seq, record.journal_seq, record.record_id.as_str()), (seq, seq, id));
    }
    assert_eq!(entries.len(), 3);
    assert_eq!(journal.read(3, 10).await.unwrap().len(), 1);
    assert_eq!(journal.read(1, 2).await.unwrap().len(), 2);
    assert_eq!(*journal.head().borrow(), 3);
}

/// The same record again is the same record; another one under its id is an error, and then
/// nothing of the batch is stored.
pub async fn same_id_same_content(journal: &dyn Journal) {
    journal.append(batch(&["a", "b"])).await.unwrap();
    assert_eq!(journal.append(batch(&["b", "c"])).await.unwrap().seqs, [2, 3]);
    let other = draft("a", "other", None).encode().unwrap();
    for drafts in [
        vec![batch(&["d"]).drafts.remove(0), other.clone()],
        vec![draft("e", "e", None).encode().unwrap(), draft("e", "f", None).encode().unwrap()],
    ] {
        let error = journal.append(Batch { drafts, contents: vec![] }).await.unwrap_err();
        let AppendError::Conflict { stored, offered, .. } = error else {
            panic!("{error}");
        };
        assert_ne!(stored, offered);
    }
    assert_eq!(*journal.head().borrow(), 3);
    assert_eq!(journal.append(batch(&["d"])).await.unwrap().seqs, [4]);
}

/// The same id twice in one batch is one record.
pub async fn repeats_within_a_batch_fall_together(journal: &dyn Journal) {
    assert_eq!(journal.append(batch(&["a", "a", "b"])).await.unwrap().seqs, [1, 1, 2]);
}

/// Records of a call are found by it, and content by its record and digest.
pub async fn finds_calls_and_content(journal: &dyn Journal) {
    let content = Content::new(b"\xffargs".to_vec());
    let digest = content.digest();
    let drafts = ["x.1", "y.1", "x.2"]
        .map(|id| draft(id, id, id.split('.').next()).encode().unwrap())
        .to_vec();
    journal.append(Batch { drafts, contents: vec![content] }).await.unwrap();
    let seqs: Vec<_> = journal.read_call("x").await.unwrap().iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [1, 3]);
    assert_eq!(journal.read_call("z").await.unwrap(), []);
    assert_eq!(journal.content(1, digest).await.unwrap().unwrap(), b"\xffargs");
    assert_eq!(journal.content(2, digest).await.unwrap(), None);
    assert_eq!(journal.content(1, Digest::of("other")).await.unwrap(), None);
}

/// Appends that arrive together are each stored whole, in one sequence without gaps.
pub async fn concurrent_appends_do_not_interleave(journal: &dyn Journal) {
    let one = |i: usize| async move {
        let ids = [format!("{i}.a"), format!("{i}.b"), format!("{i}.c")];
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let seqs = journal.append(batch(&ids)).await.unwrap().seqs;
        assert_eq!((seqs[1], seqs[2]), (seqs[0] + 1, seqs[0] + 2));
    };
    let mut running: Vec<_> = (0..50).map(|i| Box::pin(one(i))).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|f| f.as_mut().poll(context).is_pending());
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!(*journal.head().borrow(), 150);
}

/// Makes one test of each duty. `$make` is an async expression that yields a new, empty
/// journal, and may yield a guard beside it.
#[macro_export]
macro_rules! journal_contract {
    ($make:expr) => {
        $crate::journal_contract!(@each $make;
            numbers_records, same_id_same_content, repeats_within_a_batch_fall_together,
            finds_calls_and_content, concurrent_appends_do_not_interleave);
    };
    (@each $make:expr; $($duty:ident),*) => {$(
        #[tokio::test]
        async fn $duty() {
            let (journal, _guard) = $make;
            $crate::journal_contract::$duty(&journal).await;
        }
    )*};
}
