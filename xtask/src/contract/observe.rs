//! A serializer that writes nothing and remembers what serde tells it: the names of structs,
//! the variants of enums, and beside them the Rust types of the values.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::any::type_name;
use std::collections::BTreeSet;

/// Members that are remembered of each object, from its start: where the tag of an enum is.
const LEADING: usize = 4;

/// One thing serde was told. `within` is the Rust type that was being written then, with its
/// path and without pointers and parameters: `countersign_core::hook::HookPoint`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// A value of this type is written.
    Type { within: &'static str },
    /// The variant of an enum, by its name on the wire. The tag of an adjacently tagged enum
    /// is one too.
    Variant { within: &'static str, name: &'static str, index: u32, word: &'static str },
    /// A struct, or something that is written as one, such as the variant of an internally
    /// tagged enum. `words` are those of its first members that are texts.
    Object { within: &'static str, name: &'static str, words: Vec<(String, String)> },
    /// An object without a name.
    Map { within: &'static str, words: Vec<(String, String)> },
    /// A text, by a type that is not a plain string.
    Text { within: &'static str, text: String },
}

/// Everything serde was told so far.
#[derive(Debug, Default)]
pub(super) struct Observations(pub(super) BTreeSet<Seen>);

impl Observations {
    /// Writes the value to nowhere and remembers what serde is told.
    pub(super) fn observe<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> serde_json::Result<Option<String>> {
        let within = plain(type_name::<T>());
        self.0.insert(Seen::Type { within });
        value.serialize(Observer { within, seen: self })
    }
}

/// The path of a type without references, owning pointers and its own parameters. What is
/// inside a collection or an option is left out, because it may be empty.
fn plain(mut name: &'static str) -> &'static str {
    const POINTERS: [&str; 6] = [
        "&mut ",
        "&",
        "alloc::boxed::Box<",
        "alloc::rc::Rc<",
        "alloc::sync::Arc<",
        "alloc::borrow::Cow<",
    ];
    while let Some(inner) = POINTERS.iter().find_map(|pointer| name.strip_prefix(pointer)) {
        name = inner.strip_suffix('>').unwrap_or(inner);
    }
    name.split('<').next().unwrap_or(name)
}

struct Observer<'a> {
    within: &'static str,
    seen: &'a mut Observations,
}

/// The text of the value when it is one, for the object around it.
type Written = Option<String>;

impl<'a> Observer<'a> {
    fn variant(&mut self, name: &'static str, index: u32, word: &'static str) {
        self.seen.0.insert(Seen::Variant { within: self.within, name, index, word });
    }

    /// A compound of which the form is known already.
    fn inside(self) -> Inside<'a> {
        Inside {
            observer: self,
            name: None,
            is_object: false,
            key: None,
            members: 0,
            words: vec![],
        }
    }

    /// An object, which is remembered when it ends.
    fn object(self, name: Option<&'static str>) -> Inside<'a> {
        Inside { name, is_object: true, ..self.inside() }
    }
}

macro_rules! nothing {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, _: $type) -> serde_json::Result<Written> {
            Ok(None)
        }
    )*};
}

impl<'a> Serializer for Observer<'a> {
    type Ok = Written;
    type Error = serde_json::Error;
    type SerializeSeq = Inside<'a>;
    type SerializeTuple = Inside<'a>;
    type SerializeTupleStruct = Inside<'a>;
    type SerializeTupleVariant = Inside<'a>;
    type SerializeMap = Inside<'a>;
    type SerializeStruct = Inside<'a>;
    type SerializeStructVariant = Inside<'a>;

    nothing!(
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_bytes: &[u8],
    );

    fn serialize_str(self, text: &str) -> serde_json::Result<Written> {
        if !matches!(self.within, "str" | "alloc::string::String") {
            let (within, text) = (self.within, text.to_owned());
            self.seen.0.insert(Seen::Text { within, text });
        }
        Ok(Some(text.to_owned()))
    }

    fn serialize_none(self) -> serde_json::Result<Written> {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> serde_json::Result<Written> {
        self.seen.observe(value)
    }

    fn serialize_unit(self) -> serde_json::Result<Written> {
        Ok(None)
    }

    fn serialize_unit_struct(self, name: &'static str) -> serde_json::Result<Written> {
        SerializeMap::end(self.object(Some(name)))
    }

    fn serialize_unit_variant(
        mut self,
        name: &'static str,
        index: u32,
        word: &'static str,
    ) -> serde_json::Result<Written> {
        self.variant(name, index, word);
        Ok(Some(word.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> serde_json::Result<Written> {
        let within = self.within;
        self.seen.0.insert(Seen::Object { within, name, words: Vec::new() });
        self.seen.observe(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        index: u32,
        word: &'static str,
        value: &T,
    ) -> serde_json::Result<Written> {
        self.variant(name, index, word);
        self.seen.observe(value).map(|_| None)
    }

    fn serialize_seq(self, _: Option<usize>) -> serde_json::Result<Inside<'a>> {
        Ok(self.inside())
    }

    fn serialize_tuple(self, _: usize) -> serde_json::Result<Inside<'a>> {
        Ok(self.inside())
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> serde_json::Result<Inside<'a>> {
        Ok(self.object(Some(name)))
    }

    fn serialize_tuple_variant(
        mut self,
        name: &'static str,
        index: u32,
        word: &'static str,
        _: usize,
    ) -> serde_json::Result<Inside<'a>> {
        self.variant(name, index, word);
        Ok(self.inside())
    }

    fn serialize_map(self, _: Option<usize>) -> serde_json::Result<Inside<'a>> {
        Ok(self.object(None))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> serde_json::Result<Inside<'a>> {
        Ok(self.object(Some(name)))
    }

    fn serialize_struct_variant(
        mut self,
        name: &'static str,
        index: u32,
        word: &'static str,
        _: usize,
    ) -> serde_json::Result<Inside<'a>> {
        self.variant(name, index, word);
        Ok(self.inside())
    }
}

/// A list, a tuple or an object while its members are written.
struct Inside<'a> {
    observer: Observer<'a>,
    /// As serde was told; a map has none.
    name: Option<&'static str>,
    is_object: bool,
    /// The key of the map's next value.
    key: Option<String>,
    members: usize,
    words: Vec<(String, String)>,
}

impl Inside<'_> {
    fn member<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> serde_json::Result<()> {
        self.members += 1;
        let written = self.observer.seen.observe(value)?;
        if let Some(text) = written
            && self.members <= LEADING
        {
            self.words.push((key.to_owned(), text));
        }
        Ok(())
    }

    fn finish(self) -> serde_json::Result<Written> {
        let (within, words) = (self.observer.within, self.words);
        if self.is_object {
            self.observer.seen.0.insert(match self.name {
                Some(name) => Seen::Object { within, name, words },
                None => Seen::Map { within, words },
            });
        }
        Ok(None)
    }
}

macro_rules! unnamed {
    ($($of:ident: $method:ident),* $(,)?) => {$(
        impl $of for Inside<'_> {
            type Ok = Written;
            type Error = serde_json::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> serde_json::Result<()> {
                self.observer.seen.observe(value).map(drop)
            }

            fn end(self) -> serde_json::Result<Written> {
                self.finish()
            }
        }
    )*};
}

macro_rules! named {
    ($($of:ident),*) => {$(
        impl $of for Inside<'_> {
            type Ok = Written;
            type Error = serde_json::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> serde_json::Result<()> {
                self.member(key, value)
            }

            fn end(self) -> serde_json::Result<Written> {
                self.finish()
            }
        }
    )*};
}

unnamed!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);
named!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Inside<'_> {
    type Ok = Written;
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> serde_json::Result<()> {
        self.key = self.observer.seen.observe(key)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> serde_json::Result<()> {
        let key = self.key.take().unwrap_or_default();
        self.member(&key, value)
    }

    fn end(self) -> serde_json::Result<Written> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value};

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum External {
        UnitForm,
        NewType(u8),
        Tuple(u8, u8),
        Struct { a: u8 },
    }

    #[derive(Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Internal {
        UnitForm,
        NewType(Record),
        Struct { a: u8 },
        Nested(Adjacent),
    }

    #[derive(Serialize)]
    #[serde(tag = "kind", content = "body")]
    enum Adjacent {
        UnitForm,
        NewType(u8),
        Struct { a: u8 },
    }

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        NewType(Record),
        Struct { a: &'static str },
    }

    #[derive(Clone, Serialize)]
    struct Record {
        id: Id,
        word: &'static str,
        rest: Option<Box<Record>>,
    }

    #[derive(Serialize)]
    struct New(u8);

    #[derive(Serialize)]
    struct Pair(u8, Id);

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        rest: Map<String, Value>,
    }

    /// Writes itself by hand, as the ids of core do.
    #[derive(Clone)]
    struct Id;

    impl Serialize for Id {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str("id.1")
        }
    }

    /// Gives its variants to a private enum, as the payload of a journal record does.
    enum ByHand {
        Known(Record),
        Other(Map<String, Value>),
    }

    impl Serialize for ByHand {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Known(record) => Internal::NewType(record.clone()).serialize(to),
                Self::Other(map) => map.serialize(to),
            }
        }
    }

    /// What was seen, one line each, without this module's path and without plain values.
    fn seen<T: Serialize>(value: &T) -> Vec<String> {
        let mut observations = Observations::default();
        observations.observe(value).unwrap();
        let short = |path: &str| path.rsplit("::").next().unwrap().to_owned();
        let words = |words: &[(String, String)]| {
            words.iter().map(|(key, word)| format!(" {key}={word}")).collect::<String>()
        };
        let ours = |path: &str| path.starts_with(module_path!());
        observations
            .0
            .iter()
            .filter_map(|seen| match seen {
                Seen::Type { within } => ours(within).then(|| format!("type {}", short(within))),
                Seen::Variant { name, index, word, .. } => {
                    Some(format!("variant {name} {index} {word}"))
                }
                Seen::Object { within, name, words: w } => {
                    Some(format!("object {name} in {}{}", short(within), words(w)))
                }
                Seen::Map { within, words: w } => {
                    Some(format!("map in {}{}", short(within), words(w)))
                }
                Seen::Text { within, text } => {
                    ours(within).then(|| format!("text {} {text}", short(within)))
                }
            })
            .collect()
    }

    #[track_caller]
    fn check<T: Serialize>(value: &T, expected: &[&str]) {
        assert_eq!(seen(value), expected);
    }

    fn record() -> Record {
        Record { id: Id, word: "w", rest: None }
    }

    #[test]
    fn enums_show_their_variants() {
        check(&External::UnitForm, &["type External", "variant External 0 unit_form"]);
        check(&External::NewType(1), &["type External", "variant External 1 new_type"]);
        check(&External::Tuple(1, 2), &["type External", "variant External 2 tuple"]);
        check(&External::Struct { a: 1 }, &["type External", "variant External 3 struct"]);

        check(
            &Internal::UnitForm,
            &["type Internal", "object Internal in Internal type=unit_form"],
        );
        check(
            &Internal::Struct { a: 1 },
            &["type Internal", "object Internal in Internal type=struct"],
        );
        check(
            &Internal::NewType(record()),
            &[
                "type Id",
                "type Internal",
                "object Record in Internal type=new_type id=id.1 word=w",
                "text Id id.1",
            ],
        );

        let tag = "type Adjacent";
        check(
            &Adjacent::UnitForm,
            &[tag, "variant Adjacent 0 UnitForm", "object Adjacent in Adjacent kind=UnitForm"],
        );
        check(
            &Adjacent::NewType(1),
            &[tag, "variant Adjacent 1 NewType", "object Adjacent in Adjacent kind=NewType"],
        );
        let found = seen(&Adjacent::Struct { a: 1 });
        assert!(found.contains(&"variant Adjacent 2 Struct".to_owned()), "{found:?}");

        check(
            &Internal::Nested(Adjacent::UnitForm),
            &[
                "type Internal",
                "variant Adjacent 0 UnitForm",
                "object Adjacent in Internal type=nested kind=UnitForm",
            ],
        );

        check(
            &Untagged::NewType(record()),
            &[
                "type Id",
                "type Untagged",
                "object Record in Untagged id=id.1 word=w",
                "text Id id.1",
            ],
        );
        check(&Untagged::Struct { a: "x" }, &["type Untagged", "object Untagged in Untagged a=x"]);
    }

    #[test]
    fn structs_show_their_names_and_types() {
        let nested = Record { rest: Some(Box::new(record())), ..record() };
        check(
            &vec![nested],
            &["type Id", "type Record", "object Record in Record id=id.1 word=w", "text Id id.1"],
        );
        check(&New(1), &["type New", "object New in New"]);
        check(&Pair(1, Id), &["type Id", "type Pair", "object Pair in Pair", "text Id id.1"]);
        check(&Unit, &["type Unit", "object Unit in Unit"]);
        check(&Id, &["type Id", "text Id id.1"]);
        let rest = Map::from_iter([("a".to_owned(), Value::from("b"))]);
        check(&Flat { rest }, &["type Flat", "map in Flat a=b"]);
    }

    #[test]
    fn what_is_absent_is_not_seen() {
        check(&Option::<Record>::None, &[]);
        check(&Vec::<Record>::new(), &[]);
        check(&record().rest, &[]);
    }

    #[test]
    fn hand_written_forms_keep_their_type() {
        let rest = Map::from_iter([("type".to_owned(), Value::from("wake"))]);
        check(&ByHand::Other(rest), &["type ByHand", "map in ByHand type=wake"]);
        check(
            &ByHand::Known(record()),
            &[
                "type ByHand",
                "type Id",
                "object Record in ByHand type=new_type id=id.1 word=w",
                "text Id id.1",
            ],
        );
    }

    #[test]
    fn pointers_are_looked_through() {
        for (name, expected) in [
            ("a::B", "a::B"),
            ("&a::B", "a::B"),
            ("&&mut alloc::boxed::Box<a::B<u8>>", "a::B"),
            ("alloc::borrow::Cow<alloc::sync::Arc<a::B>>", "a::B"),
            ("alloc::vec::Vec<a::B>", "alloc::vec::Vec"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }
}
