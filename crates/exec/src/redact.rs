//! Taking secrets out of what comes back.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Bytes of a line of a secret that is looked for by itself, as few as any secret has.
const LINE_MIN: usize = 8;
/// How many layers of JSON escapes are taken off what comes back. A secret in JSON text, in the
/// text of an MCP answer, in that answer as JSON, is below three.
const LAYERS: usize = 3;

/// Replaces every secret by `{_secret:name}`, as renderings show it.
///
/// It finds a value as it is and in the forms that programs and servers give back: as in a JSON
/// string, with what is not ASCII or everything as `\u` escapes; percent-encoded, as in a form
/// too; as HTML entities; in hex; in base64, plain and for URLs, also within a longer text that
/// was encoded as a whole, such as `user:secret`. Upper and lower case are not told apart. Of a
/// secret of several lines, each with at least 8 bytes is found by itself, too. All of them are
/// found inside JSON text within JSON text as well, down to a depth of three, whatever each layer
/// escapes more than it must.
///
/// The work grows with the length of what comes back, not with its product with anything in it.
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
        forms.replace(bytes, &layers(bytes))
    }

    /// Also without the beginning of a secret at the end, for bytes that were cut off there.
    #[must_use]
    pub fn cut_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let clean = self.bytes(bytes);
        let Some(forms) = &self.0 else { return clean };
        let below = layers(&clean);
        let begun = (0..=below.len()).map(|depth| {
            let layer = layer(&clean, &below, depth);
            let begun = forms.begun(layer);
            let end = std::iter::once(layer.len() - begun..layer.len());
            let end = end.filter(|end| !end.is_empty()).collect();
            above(&clean, &below, depth, end).first().map_or(clean.len(), |end| end.start)
        });
        let left = begun.min().unwrap_or(clean.len());
        match clean {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(..left).unwrap_or_default()),
            Cow::Owned(mut bytes) => {
                bytes.truncate(left);
                Cow::Owned(bytes)
            }
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

impl Forms {
    /// Puts names where secrets are, in the bytes themselves or in a layer below.
    fn replace<'a>(&self, bytes: &'a [u8], below: &[Vec<u8>]) -> Cow<'a, [u8]> {
        let mut found = Vec::new();
        for depth in 0..=below.len() {
            let here = self.find.find_iter(layer(bytes, below, depth));
            let (names, ranges): (Vec<_>, Vec<_>) =
                here.map(|found| (found.pattern(), found.range())).unzip();
            found.extend(above(bytes, below, depth, ranges).into_iter().zip(names));
        }
        if found.is_empty() {
            return Cow::Borrowed(bytes);
        }
        found.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let (mut out, mut from) = (Vec::new(), 0);
        for (range, pattern) in found {
            // What lies across another one goes with it.
            if range.start >= from {
                out.extend_from_slice(bytes.get(from..range.start).unwrap_or_default());
                if let Some((_, shown)) = self.forms.get(pattern.as_usize()) {
                    out.extend_from_slice(shown.as_bytes());
                }
            }
            from = from.max(range.end);
        }
        out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// How many bytes at the end are the beginning of a secret.
    fn begun(&self, bytes: &[u8]) -> usize {
        let begun = self.forms.iter().map(|(form, _)| {
            let most = form.len().saturating_sub(1).min(bytes.len());
            let ends_with = |length: &usize| {
                let end = bytes.get(bytes.len() - length..).unwrap_or_default();
                form.get(..*length).is_some_and(|head| head.eq_ignore_ascii_case(end))
            };
            (1..=most).rev().find(ends_with).unwrap_or(0)
        });
        begun.max().unwrap_or(0)
    }
}

/// What is left when JSON escapes are taken off once, twice, and so on, for as long as there are
/// any.
fn layers(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut below: Vec<Vec<u8>> = Vec::new();
    while below.len() < LAYERS {
        let Some(next) = unescape(layer(bytes, &below, below.len())) else { break };
        below.push(next);
    }
    below
}

fn layer<'a>(bytes: &'a [u8], below: &'a [Vec<u8>], depth: usize) -> &'a [u8] {
    depth.checked_sub(1).map_or(bytes, |at| below.get(at).map_or(&[], Vec::as_slice))
}

/// Where ranges of a layer, in order and apart from each other, are in the bytes themselves.
fn above(
    bytes: &[u8],
    below: &[Vec<u8>],
    depth: usize,
    mut ranges: Vec<Range<usize>>,
) -> Vec<Range<usize>> {
    for depth in (0..depth).rev() {
        if !ranges.is_empty() {
            one_up(layer(bytes, below, depth), &mut ranges);
        }
    }
    ranges
}

/// A part of a text with JSON escapes: where it is, and what it stands for.
enum Part<'a> {
    Plain(Range<usize>, &'a [u8]),
    Escape(Range<usize>, [u8; 4], usize),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Plain(_, bytes) => bytes,
            Part::Escape(_, bytes, length) => bytes.get(..*length).unwrap_or_default(),
        }
    }
}

/// The text without one layer of escapes. `None` if it has none.
fn unescape(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.contains(&b'\\') {
        return None;
    }
    let (mut out, mut any) = (Vec::with_capacity(bytes.len()), false);
    for part in parts(bytes) {
        any |= matches!(part, Part::Escape(..));
        out.extend_from_slice(part.bytes());
    }
    any.then_some(out)
}

/// Where ranges of [`unescape`]'s text are in the text with the escapes.
fn one_up(bytes: &[u8], ranges: &mut [Range<usize>]) {
    let mut ranges = ranges.iter_mut().peekable();
    let (mut begun, mut at) = (None, 0);
    for part in parts(bytes) {
        let end = at + part.bytes().len();
        let upper = |inner: usize| match &part {
            Part::Plain(range, _) => range.start + (inner - at)..range.start + (inner - at),
            Part::Escape(range, ..) => range.clone(),
        };
        while let Some(range) = ranges.peek() {
            if begun.is_none() && (at..end).contains(&range.start) {
                begun = Some(upper(range.start).start);
            }
            let (Some(start), true) = (begun, range.end <= end) else { break };
            let last = upper(range.end.max(1) - 1).end;
            let last = if matches!(part, Part::Plain(..)) { last + 1 } else { last };
            if let Some(range) = ranges.next() {
                *range = start..last;
            }
            begun = None;
        }
        at = end;
    }
}

/// An escape that is cut off at the end stands for nothing; what is none stands for itself.
fn parts(bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        if rest.first() == Some(&b'\\')
            && let Some((length, c)) = escape(rest)
        {
            let mut buffer = [0; 4];
            let of = c.map_or(0, |c| c.encode_utf8(&mut buffer).len());
            at += length;
            return Some(Part::Escape(at - length..at, buffer, of));
        }
        let next = rest.iter().skip(1).position(|byte| *byte == b'\\');
        let length = next.map_or(rest.len(), |next| next + 1);
        at += length;
        Some(Part::Plain(at - length..at, rest.get(..length).unwrap_or_default()))
    })
}

/// The length of the escape at the beginning, and what it stands for: nothing if its end is cut
/// off. `None` if it is no escape.
fn escape(text: &[u8]) -> Option<(usize, Option<char>)> {
    let simple = |c| Some((2, Some(c)));
    let Some(kind) = text.get(1) else { return Some((1, None)) };
    match kind {
        b'"' | b'\\' | b'/' | b'\'' => simple(char::from(*kind)),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        b'u' => {
            let Unit::Whole(high) = unit(text) else {
                return matches!(unit(text), Unit::Cut).then_some((text.len(), None));
            };
            if !(0xd800..0xdc00).contains(&high) {
                return char::from_u32(high).map(|c| (6, Some(c)));
            }
            match unit(text.get(6..).unwrap_or_default()) {
                Unit::Cut => Some((text.len(), None)),
                Unit::Whole(low @ 0xdc00..0xe000) => {
                    let c = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    char::from_u32(c).map(|c| (12, Some(c)))
                }
                Unit::Whole(_) | Unit::No => None,
            }
        }
        _ => None,
    }
}

/// A `\uXXXX`.
enum Unit {
    Whole(u32),
    Cut,
    No,
}

fn unit(text: &[u8]) -> Unit {
    let is = |(at, byte): (usize, &u8)| match at {
        0 => *byte == b'\\',
        1 => *byte == b'u',
        _ => byte.is_ascii_hexdigit(),
    };
    match text.get(..6) {
        _ if !text.iter().take(6).enumerate().all(is) => Unit::No,
        None => Unit::Cut,
        Some(whole) => {
            let digits = whole.iter().skip(2).map(|digit| char::from(*digit).to_digit(16));
            Unit::Whole(digits.fold(0, |all, digit| all * 16 + digit.unwrap_or(0)))
        }
    }
}

fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let escaped = json(secret, false, false);
    let mut forms =
        vec![json(secret, true, false), json(secret, true, true), escaped.replace('/', "\\/")];
    // Encoded by itself, or as JSON.
    for text in [secret, &escaped] {
        forms.extend(encoded(text));
    }
    forms.into_iter().map(|form| form.to_ascii_lowercase().into_bytes()).collect()
}

fn encoded(secret: &str) -> Vec<String> {
    let mut forms = vec![
        secret.to_owned(),
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
    forms
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

    /// Ways to write the inside of a JSON string.
    const STYLES: [fn(&str) -> String; 5] = [
        |text| json(text, false, false),
        |text| json(text, false, false).replace('/', "\\/"),
        |text| json(text, true, false).replace("\\\"", "\\u0022"),
        |text| {
            let text = json(text, true, false);
            let text = text.replace('<', "\\u003c").replace('>', "\\u003E");
            text.replace('&', "\\u0026").replace('\'', "\\u0027").replace('+', "\\u002B")
        },
        |text| json(text, true, true),
    ];

    const NASTY: [&str; 5] = [
        SECRET,
        "S3crt/\"+Value\\x&42<",
        "\\\\\"\\\"\"\\/\\u0041\\",
        "first \"line\"\\\r\n\tsecond 'line'\n",
        "a😀\\\u{7f}b\u{1}\"ß%41&quot;",
    ];

    #[test]
    fn a_secret_is_found_in_json_in_json_in_json_however_it_is_encoded_there() {
        for secret in NASTY {
            let redactor = redactor(&[("s", secret)]);
            let escaped = json(secret, false, false);
            let url = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
            let entities = |text: &str| html(text, "&#39;", "&quot;");
            let encodings: [String; 8] = [
                secret.to_owned(),
                url(secret),
                url(&escaped),
                percent(secret, b""),
                entities(secret),
                entities(&escaped),
                hex(secret.as_bytes()),
                STANDARD_NO_PAD.encode(format!("{secret}==")),
            ];
            for (encoding, style) in encodings
                .iter()
                .zip(0..)
                .flat_map(|(encoding, n)| STYLES.iter().map(move |style| ((n, encoding), style)))
            {
                let (number, mut given) = (encoding.0, encoding.1.clone());
                let mut around = ("[{\"KEY\": \"".to_owned(), "\", \"n\": 1}]".to_owned());
                for depth in 0..=LAYERS {
                    let text = format!("{}{given}{}", around.0, around.1);
                    let out = redactor.text(text.clone());
                    if number == 7 {
                        assert!(out.contains("{_secret:s}"), "{depth}: {text} {out}");
                    } else {
                        let clean = format!("{}{{_secret:s}}{}", around.0, around.1);
                        assert_eq!(out, clean, "{depth}: {text}");
                    }
                    given = style(&given);
                    around = (style(&around.0), style(&around.1));
                }
            }
        }
    }

    #[test]
    fn where_bytes_are_cut_off_no_beginning_is_left_at_any_depth() {
        for secret in NASTY.iter().filter(|secret| !secret.contains('\n')) {
            let redactor = redactor(&[("s", secret)]);
            for style in STYLES {
                let mut given = (*secret).to_owned();
                for depth in 0..=LAYERS {
                    for end in given.char_indices().map(|(at, _)| at) {
                        let text = format!("= {}", &given[..end]);
                        let mut out = redactor.cut_bytes(text.as_bytes()).into_owned();
                        // A part of one escape may be left, which stands for nothing.
                        for _ in 0..depth {
                            out = unescape(&out).unwrap_or(out);
                        }
                        assert_eq!(String::from_utf8_lossy(&out), "= ", "{depth}: {text}");
                    }
                    given = style(&given);
                }
            }
        }
    }

    #[test]
    fn what_is_no_escape_stays_as_it_is() {
        let redactor = redactor(&[("s", SECRET)]);
        for text in [
            "\\",
            "\\\\",
            "\\x",
            "C:\\dir\\new",
            "\\ud83d",
            "\\ud83d\\n",
            "\\u12",
            "\\u12g4\\u0041",
        ] {
            assert_eq!(redactor.text(text.to_owned()), text);
            let both = format!("{text} {SECRET} {text} {} {text}", json(SECRET, false, false));
            let clean = format!("{text} {{_secret:s}} {text} {{_secret:s}} {text}");
            assert_eq!(redactor.text(both), clean);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn an_escaped_secret_never_survives(
            secret in "[\"\\\\/'<>&+%=u0-9a-cA-C\t äß😀]{8,40}",
            before in "[\"\\\\/{}:, a-c]{0,12}",
            styles in proptest::collection::vec(0..STYLES.len(), 0..=LAYERS),
        ) {
            let redactor = redactor(&[("s", &secret)]);
            let mut text = format!("{before}{secret}\"}}");
            for style in &styles {
                text = STYLES[*style](&text);
            }
            let mut out = redactor.text(text);
            proptest::prop_assert!(out.contains("{_secret:s}"), "{}", out);
            for _ in &styles {
                proptest::prop_assert!(!out.contains(&secret), "{}", out);
                out = unescape(out.as_bytes()).map_or(out, |out| String::from_utf8(out).unwrap());
            }
            proptest::prop_assert!(!out.contains(&secret), "{}", out);
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
