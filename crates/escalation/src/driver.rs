//! The one task that watches all deadlines.

use std::sync::Weak;
use std::time::Duration;

use crate::store::Inner;
use crate::sync::Arc;

/// How often the wall clock is looked at when no deadline is nearer.
const CLOCK_CHECK: Duration = Duration::from_secs(5);

/// Starts it. It ends with the queue.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner.spawner.spawn(watch_deadlines(Arc::downgrade(inner)));
}

async fn watch_deadlines(queue: Weak<Inner>) {
    loop {
        let Some(inner) = queue.upgrade() else { return };
        let latest = u64::try_from(CLOCK_CHECK.as_millis()).unwrap_or(u64::MAX);
        let more = inner.tick(latest);
        let next = inner.monotonic.at(inner.wake.at());
        let earlier = Arc::clone(&inner.wake.earlier);
        // The queue may end while this task sleeps; it ends at the next look.
        drop(inner);
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = earlier.notified() => {}
        }
    }
}
