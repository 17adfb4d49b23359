//! Bundles: a log in one file, a line for each record and each checkpoint. `docs/bundle-format.md`
//! has the format.
//!
//! Threads take blocks of lines, hash and read them, and hand them over in order; one at a time
//! puts the tree together. Memory holds a few blocks, whatever the length of the file.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr_iter, memrchr};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::{Hashed, Opened, Report, Rule, Verifier, may_rotate};
use crate::checkpoint::Checkpoint;
use crate::key::PublicKey;
use crate::strict::object;
use crate::tree::{Frontier, Hash, leaf_hash};

/// Bytes of a block.
const BLOCK: usize = 512 * 1024;
/// What is known of a line takes more room than this. So many shorter ones in one block are no
/// records, and what is behind them in it is not looked at.
const SHORT: usize = 64;
const SHORT_MAX: usize = 4 * 1024;

/// Most bytes of a line. A record has at most 65,535, a header a few keys and hashes.
const MAX_LINE: usize = 256 * 1024;

/// What every line begins with that is no record.
const CONTROL: &[u8] = b"{\"bundle_";

/// A line that is no record.
#[derive(Debug, Serialize, Deserialize)]
enum Control<'a> {
    /// The first line.
    #[serde(rename = "bundle_header", deserialize_with = "object")]
    Header(Header),
    /// Behind the records it covers.
    #[serde(rename = "bundle_checkpoint", borrow)]
    Checkpoint(std::borrow::Cow<'a, str>),
    /// The last line.
    #[serde(rename = "bundle_end", deserialize_with = "object")]
    End(End),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    /// The log's name.
    origin: String,
    /// The log's keys, for information: whoever verifies brings a key of their own.
    keys: Vec<String>,
    /// The first record's place.
    first: u64,
    /// Base64 hashes of the complete subtrees over the records before the first, the widest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    peaks: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    records: u64,
    checkpoints: u64,
}

/// Why a file is no bundle, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read or written.
    #[error("cannot be read or written")]
    Io(#[from] std::io::Error),
    /// Its first line is no header.
    #[error("not a bundle: {0}")]
    Header(String),
    /// It was written by a later version.
    #[error("bundle version {0} is not known")]
    Version(u32),
    /// It is of another log than the key.
    #[error("the bundle is of log `{found}`, the key is of `{expected}`")]
    Origin {
        /// The key's name.
        expected: String,
        /// The header's.
        found: String,
    },
    /// A record holds a line break, so that its line would be two. No journal writes such.
    #[error("record {0} holds a line break")]
    LineBreak(u64),
}

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many threads; as many as there are cores when absent.
    pub threads: Option<NonZero<usize>>,
    /// Whether to judge what the records say as well. Not done for a bundle that does not begin
    /// with the first record.
    pub meaning: bool,
    /// Checkpoints kept elsewhere, which the log must contain.
    pub checkpoints: Vec<Checkpoint>,
}

/// Writes a bundle: the header, then records and checkpoints as they come, then
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct BundleWriter<W> {
    to: W,
    end: End,
}

impl<W: Write> BundleWriter<W> {
    /// Writes the header. `before` is the tree over the records that are left out at the
    /// beginning: its size and complete subtrees, the widest first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(
        mut to: W,
        keys: &[PublicKey],
        (size, peaks): (u64, &[Hash]),
    ) -> Result<Self, BundleError> {
        let header = Header {
            version: 1,
            origin: keys.first().map(|key| key.name().to_owned()).unwrap_or_default(),
            keys: keys.iter().map(ToString::to_string).collect(),
            first: size + 1,
            peaks: peaks.iter().map(|hash| STANDARD.encode(hash)).collect(),
        };
        line(&mut to, &Control::Header(header))?;
        Ok(Self { to, end: End { records: 0, checkpoints: 0 } })
    }

    /// Writes a record's stored bytes.
    ///
    /// # Errors
    /// When they hold a line break, or cannot be written.
    pub fn record(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.end.records += 1;
        if bytes.contains(&b'\n') {
            return Err(BundleError::LineBreak(self.end.records));
        }
        self.to.write_all(bytes)?;
        Ok(self.to.write_all(b"\n")?)
    }

    /// Writes the checkpoint over the records so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&mut self, note: &str) -> Result<(), BundleError> {
        self.end.checkpoints += 1;
        line(&mut self.to, &Control::Checkpoint(note.into()))
    }

    /// Writes the last line, and gives back what was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W, BundleError> {
        line(&mut self.to, &Control::End(self.end))?;
        self.to.flush()?;
        Ok(self.to)
    }
}

fn line(to: &mut impl Write, control: &Control<'_>) -> Result<(), BundleError> {
    let mut bytes = serde_json::to_vec(control).map_err(std::io::Error::other)?;
    bytes.push(b'\n');
    Ok(to.write_all(&bytes)?)
}

/// Holds a bundle against the key. `progress` is told how many bytes have been read so far.
///
/// # Errors
/// When it is no bundle of the key's log, or cannot be read. Damage further on is a finding.
pub fn verify_bundle<R: Read + Send>(
    from: R,
    key: &PublicKey,
    options: &Options,
    progress: impl Fn(u64) + Sync,
) -> Result<Report, BundleError> {
    let mut source = Source { from, carry: Vec::new(), next: 0, read: 0, end: false };
    let mut block = Vec::new();
    source.fill(&mut block, 1)?;
    let split = block.iter().position(|byte| *byte == b'\n').map_or(block.len(), |at| at + 1);
    let rest = block.split_off(split);
    let header = header(&block, key)?;
    source.carry = [rest, std::mem::take(&mut source.carry)].concat();
    source.next = 0;
    let mut verifier = Verifier::new(key);
    for checkpoint in &options.checkpoints {
        verifier = verifier.with_checkpoint(checkpoint.clone());
    }
    let before = header.first.checked_sub(1).ok_or_else(|| form("`first` is 0"))?;
    let tree = frontier(before, &header.peaks)?;
    let earlier = options.checkpoints.iter().find(|pinned| (1..before).contains(&pinned.size));
    if let Some(pinned) = earlier {
        let size = pinned.size;
        return Err(form(format!(
            "it begins behind record {before}, so that a checkpoint of {size} records cannot be \
             held against it"
        )));
    }
    if before > 0 {
        verifier.begin(tree);
    } else if options.meaning {
        verifier = verifier.with_meaning();
    }
    let meaning = options.meaning && before == 0;
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZero::get);
    let shared = Shared {
        source: Mutex::new(source),
        tree: Mutex::new(Joined {
            verifier,
            waiting: BTreeMap::new(),
            next: 0,
            seen: End { records: 0, checkpoints: 0 },
            end: None,
            failed: None,
        }),
        turn: Condvar::new(),
        ahead: threads as u64 * 2,
        meaning,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| shared.work(&progress));
        }
        shared.work(&progress);
    });
    let joined = shared.tree.into_inner().unwrap_or_else(PoisonError::into_inner);
    joined.finish()
}

fn form(problem: impl Into<String>) -> BundleError {
    BundleError::Header(problem.into())
}

fn header(line: &[u8], key: &PublicKey) -> Result<Header, BundleError> {
    if !line.starts_with(CONTROL) {
        return Err(form("its first line is no header"));
    }
    let control =
        serde_json::from_slice(line).map_err(|error| form(format!("its first line: {error}")))?;
    let Control::Header(header) = control else {
        return Err(form("its first line is no header"));
    };
    if header.version != 1 {
        return Err(BundleError::Version(header.version));
    }
    if header.origin != key.name() {
        let (expected, found) = (key.name().to_owned(), header.origin);
        return Err(BundleError::Origin { expected, found });
    }
    Ok(header)
}

fn frontier(size: u64, peaks: &[String]) -> Result<Frontier, BundleError> {
    let mut peaks = peaks.iter();
    let frontier = Frontier::load(size, |_| {
        let hash = peaks.next().and_then(|text| STANDARD.decode(text).ok());
        hash.and_then(|hash| Hash::try_from(hash).ok()).ok_or_else(|| form("`peaks` do not fit"))
    })?;
    if peaks.next().is_some() { Err(form("`peaks` do not fit")) } else { Ok(frontier) }
}

/// Where blocks come from.
struct Source<R> {
    from: R,
    carry: Vec<u8>,
    next: u64,
    read: u64,
    end: bool,
}

impl<R: Read> Source<R> {
    /// Fills a block with whole lines, `wanted` bytes or more unless the file ends. `None` behind
    /// the last one. What has no line break at the end of the file is a block of its own.
    fn fill(&mut self, block: &mut Vec<u8>, wanted: usize) -> Result<Option<u64>, std::io::Error> {
        block.clear();
        std::mem::swap(block, &mut self.carry);
        loop {
            let cut = memrchr(b'\n', block).map(|at| at + 1);
            match cut {
                Some(cut) if self.end || cut >= wanted => {
                    self.carry.extend_from_slice(block.get(cut..).unwrap_or_default());
                    block.truncate(cut);
                    break;
                }
                // A line that is no end of is not kept: it is no record.
                None if self.end || block.len() > MAX_LINE => {
                    if block.is_empty() {
                        return Ok(None);
                    }
                    break;
                }
                _ => {}
            }
            let read = self.from.by_ref().take(BLOCK as u64).read_to_end(block)?;
            self.read += read as u64;
            self.end = read == 0;
        }
        let number = self.next;
        self.next += 1;
        Ok(Some(number))
    }
}

/// A line that was worked on.
enum Done {
    Record(Hashed),
    Note(Box<Opened>),
    End(End),
    /// What is neither, and why.
    Broken(String),
}

struct Shared<'k, R> {
    source: Mutex<Source<R>>,
    tree: Mutex<Joined<'k>>,
    turn: Condvar,
    /// How many blocks a thread may be ahead of the slowest.
    ahead: u64,
    meaning: bool,
}

/// What is put together in order.
struct Joined<'k> {
    verifier: Verifier<'k>,
    waiting: BTreeMap<u64, Vec<Done>>,
    next: u64,
    seen: End,
    end: Option<End>,
    failed: Option<std::io::Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Read> Shared<'_, R> {
    fn work(&self, progress: &impl Fn(u64)) {
        let mut block = Vec::with_capacity(2 * BLOCK);
        loop {
            let (filled, read) = {
                let mut source = lock(&self.source);
                let filled = source.fill(&mut block, BLOCK);
                if filled.is_err() {
                    source.end = true;
                    source.carry.clear();
                }
                (filled, source.read)
            };
            let number = match filled {
                Ok(Some(number)) => number,
                Ok(None) => return,
                Err(error) => {
                    lock(&self.tree).failed.get_or_insert(error);
                    return;
                }
            };
            let key = lock(&self.tree).verifier.current().clone();
            let done = self.lines(&block, &key);
            let mut tree = lock(&self.tree);
            while tree.next + self.ahead < number {
                tree = self.turn.wait(tree).unwrap_or_else(PoisonError::into_inner);
            }
            tree.join(number, done);
            drop(tree);
            self.turn.notify_all();
            progress(read);
        }
    }

    fn lines(&self, block: &[u8], key: &PublicKey) -> Vec<Done> {
        let mut done = Vec::with_capacity(block.len() / 256);
        let rotates = may_rotate(block);
        let (mut begin, mut short) = (0, 0);
        for end in memchr_iter(b'\n', block) {
            let line = block.get(begin..end).unwrap_or_default();
            short += usize::from(line.len() < SHORT);
            if short > SHORT_MAX {
                let detail = format!("more than {SHORT_MAX} lines too short for records follow");
                done.push(Done::Broken(detail));
                return done;
            }
            done.push(self.line(line, key, rotates));
            begin = end + 1;
        }
        if begin < block.len() {
            done.push(Done::Broken("the file ends within a line".to_owned()));
        }
        done
    }

    /// `rotates`: whether a record of this block may change keys.
    fn line(&self, line: &[u8], key: &PublicKey, rotates: bool) -> Done {
        if line.len() > MAX_LINE {
            return Done::Broken("a line is longer than any may be".to_owned());
        }
        if line.starts_with(CONTROL) {
            return match serde_json::from_slice(line) {
                Ok(Control::Checkpoint(note)) => Done::Note(Box::new(Opened::new(&note, key))),
                Ok(Control::End(end)) => Done::End(end),
                Ok(Control::Header(_)) => Done::Broken("there is a second header".to_owned()),
                Err(error) => Done::Broken(format!("a line cannot be read: {error}")),
            };
        }
        let read = self.meaning || (rotates && may_rotate(line));
        let facts = read.then(|| Facts::read(line).map_err(|error| error.to_string()));
        Done::Record(Hashed { leaf: leaf_hash(line), facts })
    }
}

impl Joined<'_> {
    fn join(&mut self, number: u64, done: Vec<Done>) {
        self.waiting.insert(number, done);
        while let Some(done) = self.waiting.remove(&self.next) {
            self.next += 1;
            done.into_iter().for_each(|done| self.take(done));
        }
    }

    fn take(&mut self, done: Done) {
        if self.end.is_some() {
            let at = self.seen.records;
            let detail = "something stands behind the end".to_owned();
            self.verifier.finding(Rule::BundleDamaged, at, None, detail);
            // Once is enough, and what follows is still held against the key.
            self.end = None;
        }
        match done {
            Done::Record(record) => {
                self.seen.records += 1;
                self.verifier.hashed(record);
            }
            Done::Note(note) => {
                self.seen.checkpoints += 1;
                self.verifier.opened(None, *note);
            }
            Done::End(end) => self.end = Some(end),
            Done::Broken(detail) => {
                self.verifier.finding(Rule::BundleDamaged, self.seen.records, None, detail);
            }
        }
    }

    fn finish(mut self) -> Result<Report, BundleError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let seen = self.seen;
        let detail = match self.end {
            Some(end) if end == seen => None,
            Some(end) => Some(format!(
                "it says that it has {} records and {} checkpoints, it has {} and {}",
                end.records, end.checkpoints, seen.records, seen.checkpoints
            )),
            None => Some("it does not end with its last line".to_owned()),
        };
        if let Some(detail) = detail {
            self.verifier.finding(Rule::BundleDamaged, seen.records, None, detail);
        }
        Ok(self.verifier.finish())
    }
}
