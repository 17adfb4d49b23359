//! Documents of the contract made from its table and a string of bytes: every choice takes a
//! byte, and without bytes the smallest choice is made. So a failing case shrinks to a small
//! document by shrinking its bytes.

use serde_json::{Map, Value};

use super::fixture;

/// `fixtures/types/v1` and `fixtures/words/v1`.
pub struct Contract {
    types: Value,
    ids: Value,
    words: Value,
}

impl Contract {
    pub fn read() -> Self {
        let mut table: Value = serde_json::from_str(&fixture("types/v1/types.json")).unwrap();
        let words = serde_json::from_str(&fixture("words/v1/words.json")).unwrap();
        Self { types: table["types"].take(), ids: table["ids"].take(), words }
    }

    /// A document as the contract writes it.
    pub fn document(&self, of: &str, choices: &mut Choices<'_>) -> String {
        let mut text = String::new();
        self.value(of, choices, &mut text);
        text
    }

    fn value(&self, of: &str, choices: &mut Choices<'_>, text: &mut String) {
        if let Some(inner) = of.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            text.push('[');
            for index in 0..choices.below(4) {
                if index > 0 {
                    text.push(',');
                }
                self.value(inner, choices, text);
            }
            text.push(']');
        } else if let Some(inner) = of.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let mut keys: Vec<_> = (0..choices.below(4)).map(|_| choices.text(6)).collect();
            keys.sort();
            keys.dedup();
            text.push('{');
            for (index, key) in keys.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_text(key, text);
                text.push(':');
                self.value(inner, choices, text);
            }
            text.push('}');
        } else if let Some(of) = of.strip_prefix("set ") {
            let words = self.words[of].as_array().unwrap();
            let chosen: Vec<_> = words.iter().filter(|_| choices.below(3) == 1).collect();
            text.push_str(&serde_json::to_string(&chosen).unwrap());
        } else if let Some(words) = self.words.get(of) {
            let words = words.as_array().unwrap();
            text.push_str(&words[choices.below(words.len())].to_string());
        } else if self.ids.get(of).is_some() {
            let id: String = choices.text(12).chars().filter(|c| !c.is_control()).collect();
            push_text(if id.is_empty() { "x" } else { &id }, text);
        } else {
            match of {
                "text" => push_text(&choices.text(20), text),
                "u64" => text.push_str(&choices.number().to_string()),
                "u16" => text.push_str(&(choices.number() as u16).to_string()),
                "i32" => text.push_str(&(choices.number() as i32).to_string()),
                "count" => text.push_str(&(choices.number() >> 1).max(1).to_string()),
                "version" => text.push('1'),
                "bool" => text.push_str(if choices.below(2) == 1 { "true" } else { "false" }),
                "digest" => {
                    text.push_str("\"sha256:");
                    (0..64).for_each(|_| {
                        text.push(char::from(b"0123456789abcdef"[choices.below(16)]))
                    });
                    text.push('"');
                }
                "json" => choices.json(3, text),
                _ => self.composite(&self.types[of], choices, text),
            }
        }
    }

    fn composite(&self, def: &Value, choices: &mut Choices<'_>, text: &mut String) {
        let Some(variants) = def.get("variants").and_then(Value::as_object) else {
            text.push('{');
            self.fields(def.as_object().unwrap(), choices, text);
            text.push('}');
            return;
        };
        let (name, inner) = variants.iter().nth(choices.below(variants.len())).unwrap();
        let tag = def.get("tag").and_then(Value::as_str);
        let content = def.get("content").and_then(Value::as_str);
        text.push('{');
        if let Some(tag) = tag {
            push_text(tag, text);
            text.push(':');
        }
        push_text(name, text);
        match (tag, content.unwrap_or(name)) {
            (Some(_), content) if def.get("content").is_some() => {
                if !inner.is_null() {
                    text.push(',');
                    push_text(content, text);
                    text.push(':');
                    self.inner(inner, choices, text);
                }
            }
            (None, _) => {
                text.push(':');
                self.inner(inner, choices, text);
            }
            // The fields stand beside the tag.
            (Some(_), _) => {
                let start = text.len();
                self.inner(inner, choices, text);
                assert_eq!(text.pop(), Some('}'));
                let replace = if text.len() == start + 1 { "" } else { "," };
                text.replace_range(start..=start, replace);
            }
        }
        text.push('}');
    }

    fn inner(&self, inner: &Value, choices: &mut Choices<'_>, text: &mut String) {
        match inner {
            Value::Object(fields) => {
                text.push('{');
                self.fields(fields, choices, text);
                text.push('}');
            }
            Value::String(of) => self.value(of, choices, text),
            other => panic!("no variant: {other}"),
        }
    }

    fn fields(&self, fields: &Map<String, Value>, choices: &mut Choices<'_>, text: &mut String) {
        let mut first = true;
        for (field, of) in fields {
            let of = of.as_str().unwrap();
            let name = field.split(['?', '!', '=']).next().unwrap();
            let mut value = String::new();
            if field.ends_with(['?', '!']) && choices.below(3) == 0 {
                value.push_str("null");
            } else {
                self.value(of, choices, &mut value);
            }
            let nothing = matches!(value.as_str(), "null" | "[]" | "{}");
            if field.ends_with('?') && nothing && !(of == "json" && value != "null") {
                continue;
            }
            if !first {
                text.push(',');
            }
            first = false;
            push_text(name, text);
            text.push(':');
            text.push_str(&value);
        }
    }
}

fn push_text(value: &str, text: &mut String) {
    text.push_str(&serde_json::to_string(value).unwrap());
}

/// Bytes that choices are made by.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn text(&mut self, longest: usize) -> String {
        const STRANGE: &[char] = &[
            '\0',
            '\n',
            '\u{1b}',
            '"',
            '\\',
            '/',
            '\u{7f}',
            '\u{85}',
            'é',
            '\u{202e}',
            '\u{2028}',
            '\u{feff}',
            '日',
            '\u{1f600}',
            '\u{10ffff}',
            '{',
        ];
        (0..self.below(longest + 1))
            .map(|_| match self.byte() {
                byte @ 0..=31 => STRANGE[usize::from(byte) % STRANGE.len()],
                byte => char::from(32 + byte % 95),
            })
            .collect()
    }

    /// Any JSON as `serde_json` writes it: one number has one spelling, one key stands once.
    fn json(&mut self, depth: usize, text: &mut String) {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => text.push_str("null"),
            1 => text.push_str("true"),
            2 => text.push_str(&self.number().to_string()),
            3 => push_text(&self.text(8), text),
            4 => text.push_str(&Value::from((self.number() as i64) as f64 / 8.0).to_string()),
            5 => {
                text.push('[');
                for index in 0..self.below(4) {
                    if index > 0 {
                        text.push(',');
                    }
                    self.json(depth - 1, text);
                }
                text.push(']');
            }
            _ => {
                text.push('{');
                for index in 0..self.below(4) {
                    if index > 0 {
                        text.push(',');
                    }
                    push_text(&format!("{index}{}", self.text(4)), text);
                    text.push(':');
                    self.json(depth - 1, text);
                }
                text.push('}');
            }
        }
    }

    /// Any JSON, with every spelling of numbers and texts, and keys that stand twice.
    pub fn tokens(&mut self, depth: usize, text: &mut String) {
        const NUMBERS: &[&str] = &[
            "0",
            "-0",
            "0.10",
            "1e400",
            "-1E-400",
            "1E+2",
            "18446744073709551616",
            "1.0",
            "123456789012345678901234567890.5e-7",
        ];
        const TEXTS: &[&str] = &[
            "\"\"",
            "\"\\u00e9\"",
            "\"\\/\"",
            "\"\\ud83d\\ude00\"",
            "\"é\"",
            "\"a\\u0000\\\"\\\\\"",
        ];
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => text.push_str(NUMBERS[self.below(NUMBERS.len())]),
            1 => text.push_str(TEXTS[self.below(TEXTS.len())]),
            2 => text.push_str("null"),
            3 => text.push_str("false"),
            4 => {
                text.push('[');
                for index in 0..self.below(4) {
                    if index > 0 {
                        text.push(',');
                    }
                    self.tokens(depth - 1, text);
                }
                text.push(']');
            }
            _ => {
                text.push('{');
                for index in 0..self.below(4) {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(TEXTS[self.below(TEXTS.len())]);
                    text.push(':');
                    self.tokens(depth - 1, text);
                }
                text.push('}');
            }
        }
    }
}
