//! Secrets: values that plans know by name only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use countersign_core::plan::{Piece, SecretEscape};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::redact::{Redactor, percent};

/// Bytes of a secret. A shorter one could be guessed, and would be redacted from text that has
/// nothing to do with it; of a longer one, every form is kept in memory.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=8192;

/// Values by name. They are read once, put into a request when it is sent, and wiped from memory
/// when the last copy is dropped; the buffers that a request was written through are not wiped.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Arc<BTreeMap<String, SecretString>>,
    redactor: Redactor,
}

impl fmt::Debug for Secrets {
    /// Shows names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.values.keys()).finish()
    }
}

/// Why a value cannot be a secret. Repeats nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretError {
    /// The secret's name.
    pub name: String,
    /// The rule that is broken.
    pub rule: &'static str,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret `{}` {}", self.name, self.rule)
    }
}

impl std::error::Error for SecretError {}

impl Secrets {
    /// # Errors
    /// When a name is none that a manifest could write after `_secret:`, or a value has not 8 to
    /// 8192 bytes, or holds a NUL.
    pub fn new(values: BTreeMap<String, SecretString>) -> Result<Self, SecretError> {
        for (name, value) in &values {
            let broken = |rule| SecretError { name: name.clone(), rule };
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(broken("has a name of other than letters, digits, `_`, `.` and `-`"));
            }
            let value = value.expose_secret();
            if !LENGTH.contains(&value.len()) {
                return Err(broken(match value.len() < *LENGTH.start() {
                    true => "has less than 8 bytes: that could be guessed",
                    false => "has more than 8192 bytes",
                }));
            }
            if value.contains('\0') {
                return Err(broken("holds a NUL"));
            }
        }
        let redactor = Redactor::new(values.iter().map(|(name, v)| (&**name, v.expose_secret())))
            .map_err(|name| SecretError { name, rule: "cannot be looked for" })?;
        Ok(Self { values: Arc::new(values), redactor })
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// What takes the values out of all that is shown or kept.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The text with the values in it.
    ///
    /// # Errors
    /// The secret there is none of.
    pub fn fill(&self, pieces: &[Piece]) -> Result<Zeroizing<String>, String> {
        // Of the right size at once: a text that grows leaves copies behind.
        let mut parts: Vec<Zeroizing<String>> = Vec::new();
        for piece in pieces {
            parts.push(Zeroizing::new(match piece {
                Piece::Text(text) => text.clone(),
                Piece::Secret(secret) => {
                    let value = self.value(&secret.secret);
                    let value = value.ok_or_else(|| format!("no secret `{}`", secret.secret))?;
                    match secret.escape {
                        SecretEscape::None => value.to_owned(),
                        SecretEscape::Json => {
                            let quoted = Zeroizing::new(serde_json::Value::from(value).to_string());
                            quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
                        }
                        SecretEscape::Form => percent(value, b"-._~"),
                    }
                }
            }));
        }
        let length = parts.iter().map(|part| part.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        parts.iter().for_each(|part| text.push_str(part));
        Ok(text)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        Some(self.values.get(name)?.expose_secret())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(name: &str, value: &str) -> Result<Secrets, SecretError> {
        Secrets::new([(name.to_owned(), value.to_owned().into())].into())
    }

    #[test]
    fn what_could_be_guessed_or_not_be_named_is_refused_without_being_repeated() {
        for (name, value, rule) in [
            ("token", "1234567", "less than 8 bytes"),
            ("token", "", "less than 8 bytes"),
            ("token", "12345678\0", "NUL"),
            ("", "12345678", "name of other than"),
            ("a b", "12345678", "name of other than"),
            ("a}", "12345678", "name of other than"),
        ] {
            let error = secrets(name, value).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
            assert!(value.is_empty() || !error.contains(value), "{error}");
        }
        assert!(secrets("token", &"x".repeat(8193)).is_err());
        let kept = secrets("api.token-1_A", "12345678").unwrap();
        assert!(kept.has("api.token-1_A") && !kept.has("token"));
        assert_eq!(kept.value("api.token-1_A"), Some("12345678"));
        assert_eq!(format!("{kept:?}"), r#"Secrets(["api.token-1_A"])"#);
    }
}
