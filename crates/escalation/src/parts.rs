//! One thing in several parts with a lock each.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::PoisonError;

use crate::sync::{Mutex, MutexGuard, PARTS};

pub(crate) struct Parts<T> {
    first: Mutex<T>,
    others: Vec<Mutex<T>>,
}

impl<T: Default> Default for Parts<T> {
    fn default() -> Self {
        Self { first: Mutex::default(), others: (1..PARTS).map(|_| Mutex::default()).collect() }
    }
}

impl<T> Parts<T> {
    /// The part for a hash: by bits that a map in that part makes little of.
    pub(crate) fn of(hash: u64) -> u32 {
        u32::try_from((hash >> 40) % u64::from(PARTS)).unwrap_or(0)
    }

    pub(crate) fn lock(&self, part: u32) -> MutexGuard<'_, T> {
        let other = usize::try_from(part).ok().and_then(|part| part.checked_sub(1));
        lock(other.and_then(|at| self.others.get(at)).unwrap_or(&self.first))
    }

    pub(crate) fn all() -> std::ops::Range<u32> {
        0..PARTS
    }
}

/// A thread that panicked has left everything whole: nothing of others is called under a lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key with its hash, which is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashed<K> {
    pub(crate) hash: u64,
    pub(crate) key: K,
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

/// Takes a hash for what it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by keys that are hashes, or come with theirs.
pub(crate) type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<Taken>>;
