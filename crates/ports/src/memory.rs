//! Every port in memory: nothing survives the process, nothing is signed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use countersign_core::digest::Digest;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::entropy::{Entropy, EntropyError};
use crate::executor::{Execution, ExecutionStatus, ToolExecutor, ToolRun};
use crate::journal::{AppendError, Batch, Committed, Entry, Journal, ReadError};

#[derive(Debug, Default)]
struct Stored {
    records: Vec<Vec<u8>>,
    by_id: HashMap<String, u64>,
    by_call: HashMap<String, Vec<u64>>,
    contents: BTreeMap<(u64, Digest), Vec<u8>>,
}

/// A journal that is gone with the process. Its records are not covered by anything.
#[derive(Debug)]
pub struct MemoryJournal {
    stored: Mutex<Stored>,
    head: watch::Sender<u64>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self { stored: Mutex::default(), head: watch::Sender::new(0) }
    }
}

impl MemoryJournal {
    fn entries(stored: &Stored, seqs: impl Iterator<Item = u64>) -> Vec<Entry> {
        seqs.filter_map(|seq| {
            let bytes = stored.records.get(usize::try_from(seq.checked_sub(1)?).ok()?)?.clone();
            Some(Entry { seq, bytes })
        })
        .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, batch: Batch) -> Result<Committed, AppendError> {
        let mut stored = self.lock();
        let mut known = Vec::with_capacity(batch.drafts.len());
        for (i, draft) in batch.drafts.iter().enumerate() {
            let earlier = batch.drafts.iter().take(i).find(|d| d.record_id() == draft.record_id());
            let seq = stored.by_id.get(draft.record_id().as_str()).copied();
            let bytes = match (seq, earlier) {
                (Some(seq), _) => Self::entries(&stored, [seq].into_iter()).pop().map(|e| e.bytes),
                (None, Some(earlier)) => Some(earlier.stamp(0)),
                (None, None) => None,
            };
            if let Some(bytes) = bytes.filter(|bytes| !draft.same_content(bytes)) {
                return Err(AppendError::Conflict {
                    record_id: draft.record_id().clone(),
                    stored: Digest::of(bytes),
                    offered: Digest::of(draft.stamp(seq.unwrap_or(0))),
                });
            }
            known.push(seq);
        }
        let mut seqs = Vec::with_capacity(batch.drafts.len());
        let before = stored.records.len() as u64;
        for draft in &batch.drafts {
            let id = draft.record_id().as_str();
            if let Some(seq) = stored.by_id.get(id) {
                seqs.push(*seq);
                continue;
            }
            let seq = stored.records.len() as u64 + 1;
            stored.records.push(draft.stamp(seq));
            stored.by_id.insert(id.to_owned(), seq);
            if let Some(call) = draft.call() {
                stored.by_call.entry(call.to_owned()).or_default().push(seq);
            }
            seqs.push(seq);
        }
        if let Some(first) = seqs.first().copied().filter(|first| *first > before) {
            for content in &batch.contents {
                stored.contents.insert((first, content.digest()), content.bytes().to_vec());
            }
        }
        self.head.send_replace(stored.records.len() as u64);
        Ok(Committed { seqs, coverage: None })
    }

    async fn read(&self, from: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        Ok(Self::entries(&self.lock(), (from.max(1)..).take(limit.min(1 << 20))))
    }

    async fn read_call(&self, call: &str) -> Result<Vec<Entry>, ReadError> {
        let stored = self.lock();
        let seqs = stored.by_call.get(call).cloned().unwrap_or_default();
        Ok(Self::entries(&stored, seqs.into_iter()))
    }

    async fn content(&self, seq: u64, digest: Digest) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.lock().contents.get(&(seq, digest)).cloned())
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

impl ManualClock {
    /// Starts at this many milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(millis: u64) -> Self {
        Self(millis.into())
    }

    /// Moves forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }

    /// Jumps, in either direction.
    pub fn set(&self, millis: u64) {
        self.0.store(millis, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Bytes that follow from a seed: the same every time, and therefore for tests only.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// Starts the sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in buffer.chunks_mut(8) {
            // SplitMix64.
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.iter_mut().zip(z.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// An executor that starts nothing: it hands the plan to a closure and returns what that says.
pub struct FnExecutor<F>(pub F);

#[async_trait]
impl<F> ToolExecutor for FnExecutor<F>
where
    F: Fn(&ToolRun) -> (ExecutionStatus, Vec<u8>) + Send + Sync,
{
    async fn run(&self, run: ToolRun) -> Execution {
        let (status, stdout) = (self.0)(&run);
        Execution {
            status,
            stdout_sha256: *Digest::of(&stdout).as_bytes(),
            stdout_len: stdout.len() as u64,
            stdout,
            stderr: Vec::new(),
            duration: Duration::ZERO,
        }
    }
}
