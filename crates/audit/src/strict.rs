//! Reading JSON in which no object has a key twice: two readers of such a text may see two
//! things, and a signature covers only what one of them saw.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads one document.
///
/// # Errors
/// When the bytes are no JSON, are nested more than 128 deep, or repeat a key.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut from)?;
    from.end()?;
    Ok(value)
}

/// An object. What is derived would also take its fields in a row, as a list without their names.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        object(from).map(Self)
    }
}

/// Reads what stands in an object, as [`Object`] does.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    from.deserialize_map(Fields(PhantomData))
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` stands there twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Where a journal record says that it stands. Looks for what every record has and at no more of
/// it, keeps nothing, and costs a small part of a signature's verification.
///
/// # Errors
/// When the text is no JSON, is nested more than 128 deep, repeats a key at any depth, or lacks
/// one of the fields that every record has.
pub(crate) fn journal_seq(text: &str) -> Result<u64, serde_json::Error> {
    let (mut seq, mut keys) = (None, Keys::default());
    let mut from = serde_json::Deserializer::from_str(text);
    Passing { at: At::Record, keys: &mut keys, seq: &mut seq }.deserialize(&mut from)?;
    from.end()?;
    seq.ok_or_else(|| serde::de::Error::missing_field("journal_seq"))
}

/// The keys of the objects that are being read, the outermost first, lent by the text where it
/// spells them plainly.
type Keys<'de> = Vec<Cow<'de, str>>;

/// What is being passed.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Record,
    /// The field that says where the record stands.
    Seq,
    Payload,
    /// A field that has to be a text.
    Text,
    /// A field that has to be a whole number, not below 0.
    Number,
    Anything,
}

impl At {
    /// The fields that have to be there.
    const fn fields(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Record => &[
                ("agent_id", Self::Text),
                ("journal_seq", Self::Seq),
                ("payload", Self::Payload),
                ("record_id", Self::Text),
                ("timestamp_millis", Self::Number),
            ],
            Self::Payload => &[("type", Self::Text)],
            _ => &[],
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Record => "a record",
            Self::Payload => "a payload",
            Self::Seq | Self::Number => "a whole number",
            Self::Text => "a text",
            Self::Anything => "JSON",
        }
    }
}

struct Passing<'a, 'de> {
    at: At,
    keys: &'a mut Keys<'de>,
    seq: &'a mut Option<u64>,
}

impl Passing<'_, '_> {
    /// Whether what stands there may stand there.
    fn of<E: serde::de::Error>(&self, among: &[At]) -> Result<(), E> {
        let fits = self.at == At::Anything || among.contains(&self.at);
        fits.then_some(()).ok_or_else(|| E::custom(format_args!("not {}", self.at.what())))
    }
}

impl<'de> DeserializeSeed<'de> for Passing<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Passing<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.at.what())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.of(&[])
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.of(&[])
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        if self.at == At::Seq {
            *self.seq = Some(value);
        }
        self.of(&[At::Seq, At::Number])
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.of(&[])
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.of(&[At::Text])
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.of(&[])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.of(&[])?;
        let Self { at, keys, seq: found } = self;
        while seq.next_element_seed(Passing { at, keys, seq: found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.of(&[At::Record, At::Payload])?;
        let (fields, begin, mut needed) = (self.at.fields(), self.keys.len(), 0);
        while let Some(key) = map.next_key_seed(Key)? {
            let at = fields.iter().find(|(name, _)| *name == key);
            needed += usize::from(at.is_some());
            self.keys.push(key);
            let at = at.map_or(At::Anything, |(_, at)| *at);
            map.next_value_seed(Passing { at, keys: self.keys, seq: self.seq })?;
        }
        let own = self.keys.get_mut(begin..).unwrap_or_default();
        own.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        if let Some(key) = own.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(a),
            _ => None,
        }) {
            return Err(A::Error::custom(format_args!("the key `{key}` stands there twice")));
        }
        if needed < fields.len() {
            let missing = fields.iter().find(|(name, _)| !own.iter().any(|key| key == name));
            return Err(A::Error::missing_field(missing.map_or("", |(name, _)| name)));
        }
        self.keys.truncate(begin);
        Ok(())
    }
}

/// A key, lent by the text where it can.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_refused_at_every_depth() {
        for good in ["{}", "[]", "{\"a\":{\"a\":1},\"b\":[{\"a\":null},true,-5,-1.5,\"x\"]}"] {
            assert_eq!(parse(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in
            ["{\"a\":1,\"a\":1}", "[{\"b\":{\"c\":1,\"\\u0063\":2}}]", "{} {}", "", "{", "NaN"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse("[".repeat(200_000).as_bytes()).is_err());
    }

    #[test]
    fn a_record_is_read_only_where_every_record_is_alike_and_refused_where_it_could_be_two() {
        const GOOD: &str = r#"{"journal_seq":7,"record_id":"r","agent_id":"a","timestamp_millis":1,"payload":{"type":"t","more":[{"a":1},{"a":[]}]}}"#;
        assert_eq!(journal_seq(GOOD).unwrap(), 7);
        assert_eq!(journal_seq(&format!(" {GOOD}\n")).unwrap(), 7);
        // A field of a record, elsewhere, is any field.
        let other = GOOD.replace("\"a\":1", "\"journal_seq\":\"x\",\"payload\":null,\"type\":1");
        assert_eq!(journal_seq(&other).unwrap(), 7);
        let most = u64::MAX.to_string();
        assert_eq!(journal_seq(&GOOD.replace('7', &most)).unwrap(), u64::MAX);
        for (from, to) in [
            ("\"journal_seq\":7,", ""),
            ("\"journal_seq\":7", "\"journal_seq\":7,\"journal_seq\":7"),
            ("\"journal_seq\":7", "\"journal_seq\":7,\"\\u006aournal_seq\":8"),
            ("\"journal_seq\":7", "\"Journal_seq\":7"),
            (":7", ":\"7\""),
            (":7", ":7.0"),
            (":7", ":7e0"),
            (":7", ":-7"),
            (":7", ":07"),
            (":7", ":null"),
            (":7", ":[7]"),
            (":7", ":{\"journal_seq\":7}"),
            (":7", ":18446744073709551616"),
            ("\"record_id\":\"r\",", ""),
            ("\"r\"", "1"),
            ("\"r\"", "true"),
            ("\"r\"", "-1"),
            ("\"r\"", "1.5"),
            ("\"a\",", "null,"),
            ("_millis\":1", "_millis\":true"),
            ("_millis\":1", "_millis\":-1"),
            ("_millis\":1", "_millis\":1.5"),
            ("{\"type\":\"t\",\"more\":[{\"a\":1},{\"a\":[]}]}", "true"),
            ("_millis\":1", "_millis\":\"1\""),
            ("\"type\":\"t\",", ""),
            ("\"type\":\"t\"", "\"type\":{}"),
            ("\"type\":\"t\"", "\"type\":\"t\",\"type\":\"t\""),
            ("{\"type\"", "[{\"type\""),
            ("\"a\":1", "\"a\":1,\"b\":2,\"a\":1"),
            ("\"a\":1", "\"a\":1,\"\\u0061\":1"),
            ("\"a\":1", "\"a\":NaN"),
            ("\"a\":1", "\"a\":1e400"),
            ("\"a\":1", "\"a\":\"\\ud800\""),
            ("}}", "}}}"),
            ("}}", "}}{}"),
            ("}}", "}} x"),
            ("}}", "}"),
            ("{\"journal", "\u{feff}{\"journal"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD, "{from}");
            assert!(journal_seq(&bad).is_err(), "{bad}");
        }
        for bad in ["", "7", "[]", "{}", "null", "{\"journal_seq\":7}"] {
            assert!(journal_seq(bad).is_err(), "{bad}");
        }
        for (from, to, why) in [
            ("\"record_id\":\"r\",", "", "missing field `record_id`"),
            ("\"timestamp_millis\":1,", "", "missing field `timestamp_millis`"),
            ("\"r\"", "1", "not a text"),
            ("_millis\":1", "_millis\":\"1\"", "not a whole number"),
            ("{\"type\":\"t\",\"more\":[{\"a\":1},{\"a\":[]}]}", "[]", "not a payload"),
        ] {
            let error = journal_seq(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = journal_seq("[]").unwrap_err().to_string();
        assert!(error.contains("not a record"), "{error}");
        assert!(journal_seq(&GOOD.replace("1}", &format!("{}1", "[".repeat(200_000)))).is_err());
    }

    #[test]
    fn numbers_are_correctly_rounded_and_keep_their_sign() {
        let read = |text: &str| parse(text.as_bytes()).unwrap().as_f64().unwrap();
        assert!(read("-0").is_sign_negative());
        assert!(read("-0.0").is_sign_negative());
        assert_eq!(read("0.30000000000000004").to_string(), "0.30000000000000004");
        assert_eq!(read("12345678901234567890123"), 12_345_678_901_234_567_890_123.0);
        assert!(parse(b"1e400").is_err());
    }
}
