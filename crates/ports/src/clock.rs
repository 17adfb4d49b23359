//! Wall time.

/// Tells the time that stands in records and deadlines.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May jump in both directions, as wall clocks do.
    fn now_millis(&self) -> u64;
}
