//! Taking secrets out of what comes back.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Bytes of a line of a secret that is looked for by itself, as few as any secret has.
const LINE_MIN: usize = 8;

/// Replaces every secret by `{_secret:name}`, as renderings show it.
///
/// It finds a value as it is and in the forms that programs and servers give back: as in a JSON
/// string, with what is not ASCII or everything as `\u` escapes; percent-encoded, as in a form
/// too; as HTML entities; in hex; in base64, plain and for URLs, also within a longer text that
/// was encoded as a whole, such as `user:secret`. Upper and lower case are not told apart. Of a
/// secret of several lines, each with at least 8 bytes is found by itself, too.
///
/// It cannot find what was compressed, encrypted, cut in pieces or encoded otherwise: somebody
/// who has a secret and means to pass it on can.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Forms>>);

struct Forms {
    find: AhoCorasick,
    /// Lower case, beside what stands for it.
    forms: Vec<(Vec<u8>, Arc<str>)>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// The error is the name of a secret.
    pub(crate) fn new<'a>(
        secrets: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut forms: Vec<(Vec<u8>, Arc<str>)> = Vec::new();
        let mut last = String::new();
        for (name, value) in secrets {
            last = name.to_owned();
            let shown: Arc<str> = format!("{{_secret:{name}}}").into();
            let mut of_value = forms_of(value);
            // Logs and diagnostics show a key of several lines line by line.
            let lines = value.lines().filter(|line| value.contains('\n') && line.len() >= LINE_MIN);
            of_value.extend(lines.flat_map(forms_of));
            of_value.sort_unstable();
            of_value.dedup();
            forms.extend(of_value.into_iter().map(|form| (form, Arc::clone(&shown))));
        }
        if forms.is_empty() {
            return Ok(Self(None));
        }
        let find = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(forms.iter().map(|(form, _)| form))
            .map_err(|_| last)?;
        Ok(Self(Some(Arc::new(Forms { find, forms }))))
    }

    /// The bytes without any secret.
    #[must_use]
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(forms) = &self.0 else { return Cow::Borrowed(bytes) };
        let (mut out, mut from) = (Vec::new(), 0);
        for found in forms.find.find_iter(bytes) {
            out.extend_from_slice(bytes.get(from..found.start()).unwrap_or_default());
            if let Some((_, shown)) = forms.forms.get(found.pattern().as_usize()) {
                out.extend_from_slice(shown.as_bytes());
            }
            from = found.end();
        }
        if from == 0 {
            return Cow::Borrowed(bytes);
        }
        out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// Also without the beginning of a secret at the end, for bytes that were cut off there.
    #[must_use]
    pub fn cut_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let clean = self.bytes(bytes);
        let Some(forms) = &self.0 else { return clean };
        let begun = forms.forms.iter().map(|(form, _)| {
            let most = form.len().saturating_sub(1).min(clean.len());
            let ends_with = |length: &usize| {
                let end = clean.get(clean.len() - length..).unwrap_or_default();
                form.get(..*length).is_some_and(|head| head.eq_ignore_ascii_case(end))
            };
            (1..=most).rev().find(ends_with).unwrap_or(0)
        });
        match begun.max().unwrap_or(0) {
            0 => clean,
            begun => match clean {
                Cow::Borrowed(bytes) => {
                    Cow::Borrowed(bytes.get(..bytes.len() - begun).unwrap_or_default())
                }
                Cow::Owned(mut bytes) => {
                    bytes.truncate(bytes.len() - begun);
                    Cow::Owned(bytes)
                }
            },
        }
    }

    /// The JSON without any secret, in names of fields and numbers as well.
    #[must_use]
    pub fn value(&self, value: Value) -> Value {
        if self.0.is_none() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Number(number) => {
                let shown = number.to_string();
                match self.bytes(shown.as_bytes()) {
                    Cow::Borrowed(_) => Value::Number(number),
                    Cow::Owned(_) => Value::String(self.text(shown)),
                }
            }
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| (self.text(name), self.value(value)))
                .collect(),
            other @ (Value::Null | Value::Bool(_)) => other,
        }
    }

    /// The text without any secret.
    #[must_use]
    pub fn text(&self, text: String) -> String {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            // INVARIANT: a secret is text, so what is left of text is text.
            Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.to_owned(),
        json(secret, false, false),
        json(secret, true, false),
        json(secret, true, true),
        json(secret, false, false).replace('/', "\\/"),
        percent(secret, b"-._~"),
        percent(secret, b"-._~").replace("%20", "+"),
        // As encodeURIComponent, encodeURI and application/x-www-form-urlencoded do.
        percent(secret, b"-_.!~*'()"),
        percent(secret, b"-_.!~*'();/?:@&=+$,#"),
        percent(secret, b"*-._").replace("%20", "+"),
        percent(secret, b""),
        html(secret, "&#39;", "&quot;"),
        html(secret, "&#x27;", "&#34;"),
        html(secret, "'", "\""),
        secret.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").ok();
            hex
        }),
    ];
    for shift in 0..3 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(secret.as_bytes());
        // Those characters alone that depend on no neighbour: 8 bits a byte, 6 a character.
        let (first, end) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(text.get(first..end).unwrap_or_default().to_owned());
        }
    }
    forms.into_iter().map(|form| form.to_ascii_lowercase().into_bytes()).collect()
}

/// The inside of a JSON string.
fn json(text: &str, escape_wide: bool, escape_all: bool) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let plain = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if !escape_wide {
        return plain.to_owned();
    }
    let mut out = String::new();
    for c in if escape_all { text.chars() } else { plain.chars() } {
        if escape_all || !c.is_ascii() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(c);
        }
    }
    out
}

pub(crate) fn percent(text: &str, plain: &[u8]) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").ok();
        }
        out
    })
}

fn html(text: &str, apostrophe: &str, quote: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', apostrophe).replace('"', quote)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "pä/s w+o\"r'd<&1>?";

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        Redactor::new(secrets.iter().copied()).unwrap()
    }

    #[track_caller]
    fn redacts(text: &str, clean: &str) {
        let redactor = redactor(&[("s", SECRET)]);
        let out = redactor.bytes(text.as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&out), clean, "{text}");
    }

    #[test]
    fn every_form_of_a_secret_is_replaced_by_its_name() {
        let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let quoted = json!(SECRET).to_string();
        let inside = &quoted[1..quoted.len() - 1];
        for text in [
            SECRET.to_owned(),
            SECRET.to_uppercase().replace('Ä', "ä"),
            inside.to_owned(),
            inside.replace('ä', "\\u00e4"),
            inside.replace('ä', "\\u00E4"),
            inside.replace('/', "\\/"),
            form.to_lowercase(),
            form,
            "p%C3%A4%2Fs%20w%2Bo%22r%27d%3C%261%3E%3F".to_owned(),
            "p%C3%A4/s%20w+o%22r'd%3C&1%3E?".to_owned(),
            "pä/s w+o&quot;r&#39;d&lt;&amp;1&gt;?".to_owned(),
            hex(SECRET.as_bytes()),
            hex(SECRET.as_bytes()).to_uppercase(),
            SECRET.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
        ] {
            redacts(&text, "{_secret:s}");
            redacts(&format!("a {text}{text}\n"), "a {_secret:s}{_secret:s}\n");
        }
        redacts("nothing of it", "nothing of it");
        redacts(&SECRET[..SECRET.len() - 1], &SECRET[..SECRET.len() - 1]);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn base64_is_found_wherever_the_secret_stands_in_what_was_encoded() {
        let redactor = redactor(&[("s", SECRET)]);
        for before in ["", "u", "us", "user:", "a longer user:"] {
            for after in ["", ".", "..", "...", "more"] {
                let whole = format!("{before}{SECRET}{after}");
                for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                    let out = redactor.text(text.clone());
                    assert!(out.contains("{_secret:s}"), "{whole}: {text} {out}");
                    // What is left is too little to tell a byte of the secret by.
                    assert!(out.len() <= text.len(), "{out}");
                }
            }
        }
    }

    #[test]
    fn the_longest_secret_counts_and_none_changes_nothing() {
        let both = redactor(&[("long", "12345678-abcdefgh"), ("short", "12345678")]);
        assert_eq!(
            both.text("12345678-abcdefgh 12345678".into()),
            "{_secret:long} {_secret:short}"
        );
        let none = Redactor::default();
        assert!(matches!(none.bytes(b"12345678"), Cow::Borrowed(b"12345678")));
        assert_eq!(none.cut_bytes(b"1234").as_ref(), b"1234");
        assert_eq!(format!("{both:?}"), "Redactor { .. }");
    }

    #[test]
    fn no_part_of_a_json_document_keeps_a_secret() {
        let redactor = redactor(&[("n", "12345678"), ("s", SECRET)]);
        let given = json!({SECRET: [SECRET, 12345678, 1.5, null, {"a": format!("<{SECRET}>")}]});
        let clean = json!({"{_secret:s}": [
            "{_secret:s}", "{_secret:n}", 1.5, null, {"a": "<{_secret:s}>"},
        ]});
        assert_eq!(redactor.value(given.clone()), clean);
        assert_eq!(Redactor::default().value(given.clone()), given);
    }

    #[test]
    fn a_secret_of_several_lines_is_found_line_by_line() {
        let redactor = redactor(&[("key", "-----BEGIN-----\nc2VjcmV0IHNlY3JldA\r\nshort\n")]);
        for (text, clean) in [
            ("  c2VjcmV0IHNlY3JldA.", "  {_secret:key}."),
            ("-----BEGIN-----\nc2VjcmV0IHNlY3JldA\r\nshort\n", "{_secret:key}"),
            ("a short one", "a short one"),
        ] {
            assert_eq!(redactor.text(text.to_owned()), clean);
        }
    }

    #[test]
    fn where_bytes_are_cut_off_no_beginning_of_a_secret_is_left() {
        let redactor = redactor(&[("s", "12345678-abcdefgh")]);
        for (bytes, left) in [
            ("x 12345678-abcdefgh", "x {_secret:s}"),
            ("x 12345678-abcdefg", "x "),
            ("x 1234", "x "),
            ("x MTIzNDU2", "x "),
            ("x 12345678-abcdefg.", "x 12345678-abcdefg."),
            ("12345678-abcdefgh 12345678", "{_secret:s} "),
            ("", ""),
        ] {
            let out = redactor.cut_bytes(bytes.as_bytes()).into_owned();
            assert_eq!(String::from_utf8_lossy(&out), left, "{bytes}");
        }
    }
}
