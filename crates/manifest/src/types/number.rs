//! Numbers in one spelling each.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use super::{Refusal, refuse};
use crate::diagnostic::excerpt;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IntegerRule {
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    pub(crate) clamp: bool,
    pub(crate) leading_dash: bool,
}

impl IntegerRule {
    pub(crate) fn negative(&self) -> bool {
        self.leading_dash || self.min.is_some_and(|min| min < 0)
    }

    pub(crate) fn parse(&self, text: &str) -> Result<String, Refusal> {
        self.check(digits(text, "not_an_integer", "a whole number")?)
    }

    fn check(&self, n: i64) -> Result<String, Refusal> {
        if n < 0 && !self.negative() {
            return refuse("negative", format!("{n} is negative"));
        }
        match (self.min, self.max) {
            (Some(min), _) if n < min && self.clamp => Ok(min.to_string()),
            (_, Some(max)) if n > max && self.clamp => Ok(max.to_string()),
            (Some(min), _) if n < min => refuse("below_min", format!("{n} is below {min}")),
            (_, Some(max)) if n > max => refuse("above_max", format!("{n} is above {max}")),
            _ => Ok(n.to_string()),
        }
    }

    pub(crate) fn schema(&self) -> Value {
        let floor = if self.negative() { None } else { Some(0) };
        let min = if self.clamp { floor } else { self.min.max(floor) };
        let max = if self.clamp { None } else { self.max };
        bounds("integer", min.map(Value::from), max.map(Value::from))
    }
}

/// A bound of a `number`, as exact as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Whole(i64),
    /// Finite.
    Float(f64),
}

impl Bound {
    pub(crate) fn negative(self) -> bool {
        match self {
            Self::Whole(n) => n < 0,
            Self::Float(n) => n < 0.0,
        }
    }

    /// As JSON readers expect it; a whole number that they would round stays one.
    fn json(self) -> Value {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "exact to 2^53")]
            Self::Whole(n) if n.unsigned_abs() <= 1 << 53 => (n as f64).into(),
            Self::Whole(n) => n.into(),
            Self::Float(n) => n.into(),
        }
    }

    fn decimal(self) -> Option<Decimal> {
        Decimal::of(&self.to_string())
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
        }
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.decimal()?.cmp(&other.decimal()?))
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberRule {
    pub(crate) min: Option<Bound>,
    pub(crate) max: Option<Bound>,
    pub(crate) clamp: bool,
    pub(crate) leading_dash: bool,
}

impl NumberRule {
    pub(crate) fn negative(&self) -> bool {
        self.leading_dash || self.min.is_some_and(Bound::negative)
    }

    pub(crate) fn parse(&self, text: &str) -> Result<String, Refusal> {
        let shown = || excerpt(text);
        let Some(nonzero) = decimal(text) else {
            return refuse("not_a_number", format!("`{}` is not a plain number", shown()));
        };
        let n: f64 = match text.parse() {
            Ok(n) if f64::is_finite(n) => n,
            _ => return refuse("not_finite", format!("`{}` is too large", shown())),
        };
        if nonzero && n == 0.0 {
            return refuse("rounds_to_zero", format!("`{}` is too close to zero", shown()));
        }
        if text.starts_with('-') && (n == 0.0 || !self.negative()) {
            return refuse("negative", format!("`{}` is negative", shown()));
        }
        // Digit by digit: what rounds to the bound may be beyond it.
        let exact = Decimal::of(text);
        let against = |bound: Option<Bound>, side| {
            bound.filter(|b| b.decimal().zip(exact.as_ref()).is_none_or(|(b, n)| n.cmp(&b) == side))
        };
        let (below, above) =
            (against(self.min, Ordering::Less), against(self.max, Ordering::Greater));
        match (below, above) {
            (None, None) => Ok(text.to_owned()),
            (Some(bound), _) | (_, Some(bound)) if self.clamp => Ok(bound.to_string()),
            (Some(min), _) => refuse("below_min", format!("{} is below {min}", shown())),
            (_, Some(max)) => refuse("above_max", format!("{} is above {max}", shown())),
        }
    }

    pub(crate) fn schema(&self) -> Value {
        let floor = if self.negative() { None } else { Some(Bound::Float(0.0)) };
        let min = match self.min {
            Some(min) if !self.clamp && floor.is_none_or(|floor| min > floor) => Some(min),
            _ => floor,
        };
        let max = if self.clamp { None } else { self.max };
        bounds("number", min.map(Bound::json), max.map(Bound::json))
    }
}

pub(crate) fn parse_port(text: &str) -> Result<String, Refusal> {
    let n = digits(text, "not_a_port", "a port number")?;
    if (1..=65535).contains(&n) {
        Ok(n.to_string())
    } else {
        refuse("not_a_port", format!("{n} is not between 1 and 65535"))
    }
}

/// `0` or `[1-9][0-9]*`, with `-` before the latter.
fn digits(text: &str, code: &'static str, what: &str) -> Result<i64, Refusal> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0"
        || (plain.bytes().all(|b| b.is_ascii_digit())
            && plain.bytes().next().is_some_and(|b| b != b'0'));
    match text.parse() {
        Ok(n) if canonical => Ok(n),
        _ => refuse(code, format!("`{}` is not {what}", excerpt(text))),
    }
}

/// Whether the text is `-?INT(.DIGITS)?(e[+-]?DIGITS)?`, and then whether it has a digit other
/// than zero before the exponent.
fn decimal(text: &str) -> Option<bool> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_ok = exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)));
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole_ok = digits(whole) && (whole == "0" || !whole.starts_with('0'));
    (exponent_ok && whole_ok && fraction.is_none_or(digits))
        .then(|| mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b)))
}

/// The JSON number that is written as one of the same value, if JSON here has one: it has integers
/// of 64 bits, and floating-point numbers in their shortest spelling.
pub(crate) fn exact(raw: &str) -> Option<Value> {
    let whole = !raw.contains(['.', 'e', 'E']);
    let value: Value = match raw.parse::<f64>() {
        Ok(n) if !whole => serde_json::Number::from_f64(n)?.into(),
        _ => serde_json::from_str(raw).ok().filter(Value::is_number)?,
    };
    (Decimal::of(&value.to_string())? == Decimal::of(raw)?).then_some(value)
}

/// A number as it is written, whatever its size.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: String,
    /// Of the last digit.
    exponent: i64,
}

impl Decimal {
    /// Of a text that is a plain number; nothing if its exponent is beyond 64 bits.
    fn of(text: &str) -> Option<Self> {
        let plain = text.strip_prefix('-').unwrap_or(text);
        let negative = text != plain;
        let (mantissa, exponent) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let dropped = i64::try_from(all.len() - digits.len()).ok()?;
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative, digits, exponent: 0 });
        }
        let exponent: i64 = exponent.parse().ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.checked_sub(places)?.checked_add(dropped)?;
        Some(Self { negative, digits, exponent })
    }

    /// By value; zero has no sign.
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        // Where the first digit stands, then digit by digit.
        let size = |n: &Self| n.exponent.saturating_add_unsigned(n.digits.len() as u64);
        let larger = || size(self).cmp(&size(other)).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => larger(),
            _ => larger().reverse(),
        })
    }
}

fn bounds(kind: &str, min: Option<Value>, max: Option<Value>) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), kind.into());
    schema.extend(min.map(|min| ("minimum".to_owned(), min)));
    schema.extend(max.map(|max| ("maximum".to_owned(), max)));
    schema.into()
}
