//! The cases of the wire contract, made from the tables of its types and words: every word and
//! every form of every type is read once, and everything a table forbids is refused once.
//!
//! The tables are kept by hand. Nothing here knows the code that reads the cases.

use crate::{Outcome, workspace};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The cases of one family, one on each line.
pub(crate) fn family(name: &str) -> Outcome<Vec<u8>> {
    let tables = Tables::read()?;
    let mut maker = Maker { tables: &tables, seen: BTreeSet::new(), lines: Vec::new() };
    for (family, documents) in object(&tables.documents)? {
        maker.lines.clear();
        for (document, of) in object(documents)? {
            maker.document(document, text(of)?)?;
        }
        if family == name {
            return Ok(maker.lines.concat().into_bytes());
        }
    }
    Err(format!("types.json has no family `{name}`").into())
}

/// `fixtures/types/v1` and `fixtures/words/v1`.
struct Tables {
    documents: Value,
    types: Value,
    ids: Value,
    strict: Value,
    words: Value,
}

impl Tables {
    fn read() -> Outcome<Self> {
        let read = |path: &str| -> Outcome<Value> {
            let bytes = std::fs::read(workspace::root().join("fixtures").join(path))
                .map_err(|error| format!("cannot read fixtures/{path}: {error}"))?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        let mut types = read("types/v1/types.json")?;
        let mut part = |name: &str| types.get_mut(name).map(Value::take).unwrap_or_default();
        Ok(Self {
            documents: part("documents"),
            ids: part("ids"),
            strict: part("strict"),
            types: part("types"),
            words: read("words/v1/words.json")?,
        })
    }

    /// One value: with everything it can have, or with as little as it must.
    fn value(&self, of: &str, field: &str, full: bool) -> Outcome<Value> {
        if let Some(inner) = of.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(if full { json!([self.value(inner, field, full)?]) } else { json!([]) });
        }
        if let Some(inner) = of.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return Ok(if full {
                json!({"a": self.value(inner, field, full)?})
            } else {
                json!({})
            });
        }
        if let Some(words) = of.strip_prefix("set ") {
            return Ok(if full { json!([self.word(words)?]) } else { json!([]) });
        }
        Ok(match of {
            "text" => json!(field.replace('_', " ")),
            "u64" => json!(if full { u64::MAX } else { 0 }),
            "u16" => json!(1),
            "i32" => json!(if full { i32::MIN } else { i32::MAX }),
            "version" => json!(1),
            "count" => json!(if full { 64 } else { 1 }),
            "bool" => json!(full),
            "digest" => json!(DIGEST),
            "json" => json!({"z": [1, null, "\u{e9}"]}),
            _ if self.ids.get(of).is_some() => json!(field.replace('_', ".") + ".1"),
            _ if self.words.get(of).is_some() => self.word(of)?,
            _ => self.forms(of, full)?.remove(0).1,
        })
    }

    fn word(&self, of: &str) -> Outcome<Value> {
        Ok(self
            .words
            .get(of)
            .and_then(|words| words.get(0))
            .ok_or(format!("no words {of}"))?
            .clone())
    }

    /// Every form of a type: its own, or each of its variants, by name.
    fn forms(&self, of: &str, full: bool) -> Outcome<Vec<(String, Value)>> {
        let def = self.types.get(of).ok_or(format!("types.json has no type `{of}`"))?;
        let Some(variants) = def.get("variants") else {
            return Ok(vec![(String::new(), self.fields(object(def)?, full)?)]);
        };
        let mut forms = Vec::new();
        for (name, inner) in object(variants)? {
            match inner {
                Value::Object(fields) => {
                    let fields = self.fields(fields, full)?;
                    forms.push((name.clone(), Variant::of(def, name).around(Some(fields))));
                }
                Value::String(inner) if self.types.get(inner).is_some() => {
                    for (deeper, value) in self.forms(inner, full)? {
                        let name = if deeper.is_empty() {
                            name.clone()
                        } else {
                            format!("{name}.{deeper}")
                        };
                        forms.push((
                            name.clone(),
                            Variant::of(def, first(&name)).around(Some(value)),
                        ));
                    }
                }
                Value::String(inner) => {
                    let value = self.value(inner, name, full)?;
                    forms.push((name.clone(), Variant::of(def, name).around(Some(value))));
                }
                _ => forms.push((name.clone(), Variant::of(def, name).around(None))),
            }
        }
        Ok(forms)
    }

    fn fields(&self, fields: &Map<String, Value>, full: bool) -> Outcome<Value> {
        let mut made = Map::new();
        for (field, of) in fields {
            let field = Field::of(field, of)?;
            if full || field.need != Need::Skipped {
                let value = match field.need {
                    Need::Null if !full => Value::Null,
                    Need::Default(word) if !full => json!(word),
                    _ => self.value(field.of, field.name, full)?,
                };
                made.insert(field.name.to_owned(), value);
            }
        }
        Ok(Value::Object(made))
    }
}

fn first(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// How a variant shows which it is.
#[derive(Clone)]
struct Variant {
    tag: Option<String>,
    content: Option<String>,
    name: String,
}

impl Variant {
    fn of(def: &Value, name: &str) -> Self {
        let part = |key| def.get(key).and_then(Value::as_str).map(str::to_owned);
        Self { tag: part("tag"), content: part("content"), name: name.to_owned() }
    }

    fn around(&self, inner: Option<Value>) -> Value {
        let mut made = Map::new();
        let Some(tag) = &self.tag else {
            made.insert(self.name.clone(), inner.unwrap_or_default());
            return Value::Object(made);
        };
        made.insert(tag.clone(), json!(self.name));
        match (&self.content, inner) {
            (Some(content), Some(inner)) => drop(made.insert(content.clone(), inner)),
            (None, Some(Value::Object(inner))) => made.extend(inner),
            (None, Some(other)) => return other,
            (_, None) => {}
        }
        Value::Object(made)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Need<'a> {
    Required,
    Skipped,
    Null,
    Default(&'a str),
}

/// A field as the table writes it.
#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a str,
    of: &'a str,
    need: Need<'a>,
}

impl<'a> Field<'a> {
    fn of(name: &'a str, of: &'a Value) -> Outcome<Self> {
        let of = text(of)?;
        let (name, need) = if let Some(name) = name.strip_suffix('?') {
            (name, Need::Skipped)
        } else if let Some(name) = name.strip_suffix('!') {
            (name, Need::Null)
        } else if let Some((name, word)) = name.split_once('=') {
            (name, Need::Default(word))
        } else {
            (name, Need::Required)
        };
        Ok(Self { name, of, need })
    }

    fn many(&self) -> bool {
        self.of.starts_with(['[', '{'])
    }
}

fn object(value: &Value) -> Outcome<&Map<String, Value>> {
    Ok(value.as_object().ok_or_else(|| format!("no object: {value}"))?)
}

fn text(value: &Value) -> Outcome<&str> {
    Ok(value.as_str().ok_or_else(|| format!("no text: {value}"))?)
}

/// Builds a whole document around a part of it.
type Around<'a> = &'a dyn Fn(Value) -> Value;

struct Maker<'a> {
    tables: &'a Tables,
    /// Types, words and ids whose cases were made, here or in an earlier family.
    seen: BTreeSet<String>,
    lines: Vec<String>,
}

/// What is to become of a case.
enum Expect {
    Same,
    Bytes(Value),
    Error(String),
}

impl Maker<'_> {
    fn case(&mut self, document: &str, name: &str, why: &str, input: Value, expect: Expect) {
        self.raw(document, name, why, &input.to_string(), expect);
    }

    /// A case whose input is not what a [`Value`] is written as.
    fn raw(&mut self, document: &str, name: &str, why: &str, input: &str, expect: Expect) {
        let expect = match expect {
            Expect::Same => json!("same"),
            Expect::Bytes(value) => json!({"bytes": value.to_string()}),
            // An untagged type has one error for everything.
            Expect::Error(_) if document == "plan" => json!({"error": "did not match any variant"}),
            Expect::Error(part) => json!({"error": part}),
        };
        let (name, why) = (json!(format!("{document}: {name}")), json!(why));
        self.lines.push(format!(
            "{{\"case\":{name},\"why\":{why},\"type\":\"{document}\",\"input\":{input},\
             \"expect\":{expect}}}\n"
        ));
    }

    fn document(&mut self, document: &str, of: &str) -> Outcome {
        self.typed(document, of, &|value| value)?;
        for (name, value) in self.tables.forms(of, true)? {
            let name =
                if name.is_empty() { "reversed".to_owned() } else { format!("{name} reversed") };
            self.case(
                document,
                &name,
                "The order of keys does not matter to a reader, and is always the same in what is \
                 written.",
                reversed(&value),
                Expect::Bytes(value),
            );
        }
        Ok(())
    }

    /// The cases of whatever a field holds, unless they were made before.
    fn typed(&mut self, document: &str, of: &str, around: Around<'_>) -> Outcome {
        let tables = self.tables;
        if let Some(inner) = of.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return self.typed(document, inner, &|value| around(json!([value])));
        }
        if let Some(inner) = of.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return self.typed(document, inner, &|value| around(json!({"a": value})));
        }
        if let Some(inner) = of.strip_prefix("set ") {
            return self.typed(document, inner, &|value| around(json!([value])));
        }
        if !self.seen.insert(of.to_owned()) {
            return Ok(());
        }
        if let Some(max) = tables.ids.get(of).and_then(Value::as_u64) {
            return self.id(document, of, usize::try_from(max)?, around);
        }
        if let Some(words) = tables.words.get(of).and_then(Value::as_array) {
            self.words(document, of, words, around);
            return Ok(());
        }
        let Some(def) = tables.types.get(of) else { return self.builtin(document, of, around) };
        let Some(variants) = def.get("variants") else {
            return self.fields(document, of, object(def)?, around);
        };
        for full in [false, true] {
            for (form, value) in tables.forms(of, full)? {
                let how = if full { "with everything" } else { "with as little as possible" };
                self.case(
                    document,
                    &format!("{of}.{form} {how}"),
                    &format!("`{form}` is a form of {of}."),
                    around(value),
                    Expect::Same,
                );
            }
        }
        for (name, inner) in object(variants)? {
            let variant = Variant::of(def, name);
            match inner {
                Value::Object(fields) => {
                    let around = |value: Value| around(variant.around(Some(value)));
                    self.fields(document, &format!("{of}.{name}"), fields, &around)?;
                }
                Value::String(inner) => {
                    let around = |value: Value| around(variant.around(Some(value)));
                    self.typed(document, inner, &around)?;
                }
                _ => {}
            }
        }
        let (_, whole) = tables.forms(of, false)?.remove(0);
        match def.get("tag").and_then(Value::as_str) {
            Some(tag) if of != "JournalPayload" => {
                let why =
                    format!("`{tag}` says which {of} it is, and only by a word of the table.");
                for bad in [json!("nobody_knows"), json!(""), json!("Approved"), json!(7)] {
                    let name = format!("{of}.{tag} {bad}");
                    let expect = match &bad {
                        Value::String(word) => format!("unknown variant `{word}`"),
                        _ if def.get("content").is_some() => "expected value".to_owned(),
                        _ => "invalid type: integer `7`".to_owned(),
                    };
                    let value = around(with(&whole, tag, Some(bad)));
                    self.case(document, &name, &why, value, Expect::Error(expect));
                }
                let value = around(with(&whole, tag, None));
                let expect = format!("missing field `{tag}`");
                self.case(
                    document,
                    &format!("{of}.{tag} missing"),
                    &why,
                    value,
                    Expect::Error(expect),
                );
            }
            Some(_) => {}
            None => {
                for (name, value, expect) in [
                    ("of nobody's", json!({"Nobody": {}}), "unknown variant `Nobody`"),
                    ("of two", two(&tables.forms(of, false)?), "expected value"),
                    ("of none", json!({}), "expected value"),
                ] {
                    self.case(
                        document,
                        &format!("{of} {name}"),
                        &format!("One of the variants of {of}, no more and no less."),
                        around(value),
                        Expect::Error(expect.to_owned()),
                    );
                }
            }
        }
        Ok(())
    }

    fn fields(
        &mut self,
        document: &str,
        of: &str,
        fields: &Map<String, Value>,
        around: Around<'_>,
    ) -> Outcome {
        let (least, most) = (self.tables.fields(fields, false)?, self.tables.fields(fields, true)?);
        let strict = self.tables.strict.as_array().is_some_and(|list| list.contains(&json!(of)));
        let variant = of.contains('.');
        if !variant {
            self.case(
                document,
                &format!("{of} with as little as possible"),
                "What may be left out is left out.",
                around(least.clone()),
                Expect::Same,
            );
        }
        if !variant && most != least {
            self.case(
                document,
                &format!("{of} with everything"),
                "What may be there is there, in the order of the table.",
                around(most.clone()),
                Expect::Same,
            );
        }
        if least.as_object().is_some_and(|fields| !fields.is_empty()) {
            let unknown = with(&least, "nobody_knows", Some(json!({"a": 1})));
            let (why, expect) = if strict {
                (
                    "What this type does not know might widen what it permits.",
                    Expect::Error("unknown field `nobody_knows`".to_owned()),
                )
            } else {
                (
                    "A newer writer may say more; what is not known is passed over.",
                    Expect::Bytes(around(least.clone())),
                )
            };
            self.case(
                document,
                &format!("{of} with an unknown field"),
                why,
                around(unknown),
                expect,
            );
        }
        let (mut nulls, mut empties) = (least.clone(), least.clone());
        for (name, spec) in fields {
            let field = Field::of(name, spec)?;
            match (field.need, field.many()) {
                (Need::Skipped, true) => {
                    let empty = self.tables.value(field.of, field.name, false)?;
                    empties = with(&empties, field.name, Some(empty));
                }
                (Need::Skipped, false) => nulls = with(&nulls, field.name, Some(Value::Null)),
                _ => {}
            }
        }
        for (name, value, why) in [
            ("nulls", nulls, "Nothing is `null` too, and is written by leaving it out."),
            ("empty lists", empties, "An empty list is written by leaving it out."),
        ] {
            if value != least {
                let expect = Expect::Bytes(around(least.clone()));
                self.case(document, &format!("{of} with {name}"), why, around(value), expect);
            }
        }
        for (name, spec) in fields {
            self.field(document, of, Field::of(name, spec)?, (fields, &least), around)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        document: &str,
        of: &str,
        field: Field<'_>,
        (fields, least): (&Map<String, Value>, &Value),
        around: Around<'_>,
    ) -> Outcome {
        let Field { name, need, .. } = field;
        let change = |value| around(ordered(fields, with(least, name, value)));
        let title = |what: &str| format!("{of}.{name} {what}");
        match need {
            Need::Required => self.case(
                document,
                &title("missing"),
                &format!("Without `{name}` a reader would have to guess."),
                change(None),
                Expect::Error(format!("missing field `{name}`")),
            ),
            Need::Null | Need::Default(_) => self.case(
                document,
                &title("absent"),
                &format!("`{name}` may be absent, and is always written."),
                change(None),
                Expect::Bytes(around(least.clone())),
            ),
            Need::Skipped => {}
        }
        let takes_null =
            field.of == "json" || need == Need::Null || (need == Need::Skipped && !field.many());
        if !takes_null {
            let null = Expect::Error("invalid type: null".to_owned());
            let why = format!("`{name}` is never `null`.");
            self.case(document, &title("null"), &why, change(Some(Value::Null)), null);
        }
        let known = |list: &Value| list.get(field.of).is_some();
        let (bad, expect) = match field.of {
            "json" => return Ok(()),
            "text" | "digest" => (json!(7), "invalid type: integer `7`"),
            "bool" => (json!("true"), "invalid type: string \"true\""),
            "u64" | "u16" | "i32" | "count" | "version" => {
                (json!("1"), "invalid type: string \"1\"")
            }
            _ if field.many() || field.of.starts_with("set ") => {
                (json!("a"), "invalid type: string \"a\"")
            }
            _ if known(&self.tables.ids) || known(&self.tables.words) => {
                (json!(7), "invalid type: integer `7`")
            }
            _ => (json!("a"), "invalid type: string \"a\""),
        };
        let why = format!("`{name}` is {}, and nothing is made into one.", shown(field.of));
        self.case(
            document,
            &title("of another kind"),
            &why,
            change(Some(bad)),
            Expect::Error(expect.to_owned()),
        );
        self.typed(document, field.of, &|value| change(Some(value)))
    }

    fn id(&mut self, document: &str, of: &str, max: usize, around: Around<'_>) -> Outcome {
        let long = "x".repeat(max + 1);
        let why =
            format!("1 to {max} bytes, none of them a control: an id may stand in a log line.");
        for (what, id, error) in [
            ("empty", "", Some(format!("{of} is empty"))),
            ("with a line break", "a\nb", Some(format!("{of} has a control character at byte 1"))),
            ("with DEL", "ab\u{7f}", Some(format!("{of} has a control character at byte 2"))),
            (
                "with a C1 control",
                "\u{e9}\u{9b}m",
                Some(format!("{of} has a control character at byte 2")),
            ),
            ("too long", &long, Some(format!("{of} has {} bytes", max + 1))),
            ("as long as may be", long.get(1..).unwrap_or_default(), None),
            ("of any letters", "\u{e9}\u{a0}\u{1f600} \"\\", None),
        ] {
            let expect = error.map_or(Expect::Same, Expect::Error);
            self.case(document, &format!("{of} {what}"), &why, around(json!(id)), expect);
        }
        Ok(())
    }

    fn words(&mut self, document: &str, of: &str, words: &[Value], around: Around<'_>) {
        for word in words {
            let name = format!("{of} {}", word.as_str().unwrap_or_default());
            self.case(
                document,
                &name,
                &format!("A word of {of}."),
                around(word.clone()),
                Expect::Same,
            );
        }
        let first = words.first().and_then(Value::as_str).unwrap_or_default();
        let other_case = if first.starts_with(char::is_uppercase) {
            first.to_lowercase()
        } else {
            first.to_uppercase()
        };
        for word in ["nobody_knows", "", &other_case, &format!(" {first}")] {
            let why = format!("{of} has a closed list of words, each with one spelling.");
            let expect = Expect::Error(format!("unknown variant `{word}`"));
            self.case(document, &format!("{of} not {word:?}"), &why, around(json!(word)), expect);
        }
    }

    fn builtin(&mut self, document: &str, of: &str, around: Around<'_>) -> Outcome {
        let integer = |number: &str| format!("invalid value: integer `{number}`");
        let float = |number: &str| format!("invalid type: floating point `{number}`");
        let upper = DIGEST.to_uppercase().replace("SHA256", "sha256");
        let cases: Vec<(Value, Option<String>)> = match of {
            "text" => {
                vec![(json!(""), None), (json!("\u{0}\n\u{7f}\u{2028}\u{e9}\u{1f600}\"\\/"), None)]
            }
            "u64" => vec![
                (json!(u64::MAX), None),
                (json!(-1), Some(integer("-1"))),
                (json!(1.5), Some(float("1.5"))),
            ],
            "u16" => vec![
                (json!(0), None),
                (json!(65_535), None),
                (json!(65_536), Some(integer("65536"))),
            ],
            "i32" => vec![
                (json!(i32::MIN), None),
                (json!(i32::MAX), None),
                (json!(i64::from(i32::MAX) + 1), Some(integer("2147483648"))),
            ],
            "count" => vec![
                (json!(1), None),
                (json!(0), Some(integer("0"))),
                (json!(-1), Some(integer("-1"))),
            ],
            "version" => vec![
                (json!(0), Some("journal_schema_version is 0".to_owned())),
                (json!(2), Some("journal_schema_version is 2".to_owned())),
                (json!(65_537), Some("journal_schema_version is 65537".to_owned())),
                (json!(-1), Some(integer("-1"))),
            ],
            "digest" => {
                let wrong =
                    || Some("a digest is `sha256:` and 64 lower-case hex digits".to_owned());
                vec![
                    (json!(""), wrong()),
                    (json!(upper), wrong()),
                    (json!(DIGEST.get(7..)), wrong()),
                    (json!(DIGEST.get(..70)), wrong()),
                    (json!(format!("{DIGEST}0")), wrong()),
                    (json!(DIGEST.replace("sha256", "sha512")), wrong()),
                ]
            }
            "json" => {
                vec![(json!(false), None), (json!({"b": 1, "a": {"c": [0.1, "\u{1f600}"]}}), None)]
            }
            _ => Vec::new(),
        };
        for (value, error) in cases {
            let name = format!("{of} {}", value.to_string().replace(DIGEST, "whole"));
            let why = format!("{} has edges.", shown(of));
            self.case(
                document,
                &name,
                &why,
                around(value),
                error.map_or(Expect::Same, Expect::Error),
            );
        }
        Ok(())
    }
}

fn shown(of: &str) -> String {
    match of {
        "text" | "u64" | "u16" | "i32" | "bool" | "digest" | "json" => format!("a {of}"),
        "count" => "a number above 0".to_owned(),
        "version" => "1".to_owned(),
        _ => of.to_owned(),
    }
}

/// The object with this field changed in its place, added at the end, or taken out.
fn with(value: &Value, name: &str, field: Option<Value>) -> Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        match field {
            Some(field) => drop(object.insert(name.to_owned(), field)),
            None => drop(object.shift_remove(name)),
        }
    }
    value
}

/// The object with its fields in the order of the table.
fn ordered(fields: &Map<String, Value>, mut value: Value) -> Value {
    let mut made = Map::new();
    if let Some(object) = value.as_object_mut() {
        for name in fields.keys() {
            let name = name.split(['?', '!', '=']).next().unwrap_or(name);
            made.extend(object.shift_remove_entry(name));
        }
    }
    Value::Object(made)
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect()
        }
        Value::Array(list) => list.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

fn two(forms: &[(String, Value)]) -> Value {
    let mut both = Map::new();
    for (_, form) in forms.iter().take(2) {
        both.extend(form.as_object().cloned().unwrap_or_default());
    }
    Value::Object(both)
}
