//! Times as critic chains write them: RFC 3339 in UTC.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// The text is no RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no RFC 3339 time")]
pub struct TimestampError(String);

/// A time, kept as it was spelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(String);

impl Timestamp {
    /// Reads an RFC 3339 time.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let refused = || TimestampError(text.to_owned());
        if text.len() > 64 {
            return Err(refused());
        }
        DateTime::parse_from_rfc3339(text).map_err(|_| refused())?;
        Ok(Self(text.to_owned()))
    }

    /// Writes a time as the peer does: in UTC with `Z` and 0, 3, 6 or 9 fractional digits,
    /// whichever is the least that loses nothing. `None` outside the calendar.
    #[must_use]
    pub fn from_unix(seconds: i64, nanos: u32) -> Option<Self> {
        let time = DateTime::from_timestamp(seconds, nanos)?;
        Some(Self(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
    }

    /// As it was spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How this instant may stand in the hashed text: as spelled, with `+00:00`; and, where that
    /// is spelled otherwise and says the same, as chrono writes it. A reader that writes the
    /// JSON again may drop or add zeros at the end of the fraction without changing the time.
    pub(crate) fn hashed(&self) -> Vec<String> {
        let Ok(time) = DateTime::parse_from_rfc3339(&self.0) else { return Vec::new() };
        let digits = self
            .0
            .split_once('.')
            .map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
        let utc = time.with_timezone(&Utc);
        // More digits than a nanosecond has would not be in chrono's spelling.
        let normal = (digits <= 9).then(|| utc.to_rfc3339());
        let spelled = if time.offset().local_minus_utc() == 0 {
            let end = self.0.len() - if self.0.ends_with(['Z', 'z']) { 1 } else { 6 };
            self.0.get(..end).map(|time| format!("{time}+00:00"))
        } else {
            None
        };
        let mut all: Vec<_> = spelled.into_iter().chain(normal).collect();
        all.dedup();
        all
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        Self::parse(&text)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_hashed_as_spelled_or_as_chrono_spells_the_same_instant() {
        for (text, expected) in [
            ("2026-11-20T23:24:01Z", &["2026-11-20T23:24:01+00:00"][..]),
            ("2026-11-20T23:24:01+00:00", &["2026-11-20T23:24:01+00:00"]),
            ("2026-11-20T23:24:01.728449913Z", &["2026-11-20T23:24:01.728449913+00:00"]),
            (
                "2026-11-20T23:24:01.5Z",
                &["2026-11-20T23:24:01.5+00:00", "2026-11-20T23:24:01.500+00:00"],
            ),
            ("2026-11-21T01:24:01.500+02:00", &["2026-11-20T23:24:01.500+00:00"]),
            // A tenth digit is in no reading of nanoseconds.
            ("2026-11-20T23:24:01.7284499135Z", &["2026-11-20T23:24:01.7284499135+00:00"]),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().hashed(), expected, "{text}");
        }
        for bad in ["", "now", "2026-11-20", "2026-13-20T23:24:01Z", "2026-11-20T23:24:01", "1"] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
        let digits = |n| format!("2026-11-20T23:24:01.{}Z", "5".repeat(n));
        assert!(Timestamp::parse(&digits(64 - 21)).is_ok());
        for more in [1, 2, 100] {
            assert!(Timestamp::parse(&digits(64 - 21 + more)).is_err());
        }
        let written = |s, n| Timestamp::from_unix(s, n).unwrap().to_string();
        assert_eq!(written(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(written(0, 500_000_000), "1970-01-01T00:00:00.500Z");
        assert_eq!(written(0, 1), "1970-01-01T00:00:00.000000001Z");
    }
}
