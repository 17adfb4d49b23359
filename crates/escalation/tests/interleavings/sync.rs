//! The primitives of `src/sync.rs`, by which every interleaving can be tried: a scheduler
//! decides at each of them who goes on. Time stands still here; the wall clock alone moves.

pub(crate) use std::sync::Arc;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// Few, so that more meets at the same one.
pub(crate) const PARTS: u32 = 2;

/// The same in every run, so that a seed names one interleaving.
pub(crate) type RandomState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

#[derive(Clone, Debug)]
pub(crate) struct Spawner;

pub(crate) struct Entered;

impl Spawner {
    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn enter(&self) -> Entered {
        Entered
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(task));
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Monotonic;

impl Monotonic {
    pub(crate) fn start() -> Self {
        Self
    }

    pub(crate) fn millis(self) -> u64 {
        0
    }
}
