//! RFC 3339 as the wire wants it.

use chrono::{DateTime, SecondsFormat};

/// Milliseconds since the Unix epoch as RFC 3339 with `Z` and three fractional digits, or
/// none when they are zero. Times beyond the year 262,000 are shown as that year's end.
#[must_use]
pub fn rfc3339(millis: u64) -> String {
    let time = i64::try_from(millis)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or(DateTime::<chrono::Utc>::MAX_UTC);
    let format =
        if millis.is_multiple_of(1000) { SecondsFormat::Secs } else { SecondsFormat::Millis };
    time.to_rfc3339_opts(format, true)
}
