//! Durations: seconds, or hours, minutes, seconds and milliseconds in that order.

use super::{Refusal, refuse};
use crate::diagnostic::excerpt;

/// Milliseconds of ten years of 365 days.
const MAX_MS: u128 = 10 * 365 * 24 * 60 * 60 * 1000;

/// The seconds, with as many decimals as are needed.
pub(crate) fn parse(text: &str) -> Result<String, Refusal> {
    let bad =
        || refuse("not_a_duration", format!("`{}` is not such as `90` or `1h30m`", excerpt(text)));
    let Some(total) = milliseconds(text) else {
        return bad();
    };
    if total == 0 {
        return refuse("not_a_duration", "must be more than zero");
    }
    if total > MAX_MS {
        return refuse("above_max", "is more than ten years");
    }
    let (seconds, rest) = (total / 1000, total % 1000);
    Ok(if rest == 0 {
        seconds.to_string()
    } else {
        format!("{seconds}.{rest:03}").trim_end_matches('0').to_owned()
    })
}

/// `None` if it does not parse, or is far beyond any bound.
fn milliseconds(text: &str) -> Option<u128> {
    if let Some(seconds) = number(text) {
        return seconds.checked_mul(1000);
    }
    let units: [(&str, u128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut rest, mut total, mut next) = (text, 0u128, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (value, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(letters);
        let place = units.iter().position(|(name, _)| *name == unit)?;
        if place < next {
            return None;
        }
        let (_, factor) = units.get(place)?;
        total = total.checked_add(number(value)?.checked_mul(*factor)?)?;
        next = place + 1;
        rest = after;
    }
    (next > 0).then_some(total)
}

/// `0` or `[1-9][0-9]*`.
fn number(text: &str) -> Option<u128> {
    let plain = text == "0"
        || (text.bytes().all(|b| b.is_ascii_digit())
            && text.bytes().next().is_some_and(|b| b != b'0'));
    if plain { text.parse().ok() } else { None }
}
