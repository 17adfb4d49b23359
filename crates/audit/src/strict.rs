//! Reading JSON in which no object has a key twice: two readers of such a text may see two
//! things, and a signature covers only what one of them saw.

use std::fmt;

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

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_refused_at_every_depth() {
        for good in ["{}", "[]", "{\"a\":{\"a\":1},\"b\":[{\"a\":null},true,-1.5,\"x\"]}"] {
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
    fn numbers_are_correctly_rounded_and_keep_their_sign() {
        let read = |text: &str| parse(text.as_bytes()).unwrap().as_f64().unwrap();
        assert!(read("-0").is_sign_negative());
        assert!(read("-0.0").is_sign_negative());
        assert_eq!(read("0.30000000000000004").to_string(), "0.30000000000000004");
        assert_eq!(read("12345678901234567890123"), 12_345_678_901_234_567_890_123.0);
        assert!(parse(b"1e400").is_err());
    }
}
