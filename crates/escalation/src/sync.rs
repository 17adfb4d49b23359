//! Every primitive by which threads meet, in one place: the tests of interleavings put others
//! in its stead.

pub(crate) use std::collections::hash_map::RandomState;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

use std::future::Future;

/// In how many parts with a lock each the holds are kept.
pub(crate) const PARTS: u32 = 8;

/// Starts tasks that nobody waits for, wherever it is called from.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(tokio::runtime::Handle);

impl Spawner {
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn here() -> Self {
        Self(tokio::runtime::Handle::current())
    }

    /// As long as the guard lives, code that needs the runtime finds it.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.0.enter()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(task));
    }
}

/// A clock that only goes forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monotonic(tokio::time::Instant);

impl Monotonic {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Milliseconds since the start.
    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment so many milliseconds after the start.
    pub(crate) fn at(self, millis: u64) -> tokio::time::Instant {
        self.0 + std::time::Duration::from_millis(millis)
    }
}
