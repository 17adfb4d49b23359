//! Reading and writing JSON: what `serde_json` reads and the bytes it writes, in less time. Every
//! append writes its records with it, and a start reads the whole journal.
//!
//! ```
//! use countersign_core::hold::Approver;
//! use countersign_core::json;
//!
//! let bytes = br#"{ "surface": "cli", "id": "ada", "display": "Ada" }"#;
//! let approver: Approver = json::read(bytes)?;
//! let mut written = Vec::new();
//! json::write(&approver, &mut written)?;
//! assert_eq!(written, br#"{"surface":"cli","id":"ada","display":"Ada"}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::fmt::Display;

use serde::de::Deserialize;
use serde::ser::{Error as _, Impossible, Serialize, Serializer};
use serde_json::Error;

/// Reads one document, as [`serde_json::from_slice`] does. That checks every text for UTF-8 by
/// itself; here all bytes are checked at once.
///
/// # Errors
/// When the bytes are no JSON, or not that of a `T`.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // Once more, for the error and its place.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Appends the value as compact JSON. The bytes are those of [`serde_json::to_writer`], which
/// looks at the characters of a text one by one; here it is eight at a time.
///
/// # Errors
/// When the value refuses to be written, or has a map whose keys cannot be texts. What was
/// appended by then is left there.
pub fn write(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> Result<(), Error> {
    value.serialize(Writer(out))
}

struct Writer<'a>(&'a mut Vec<u8>);

/// What [`RawValue`](serde_json::value::RawValue) calls itself. Were the name to change, a test
/// would say so.
const RAW: &str = "$serde_json::private::RawValue";

fn text(text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if has_any::<0x20, b'"', b'\\'>(text.as_bytes()) {
        return serde_json::to_writer(out, text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// Whether a byte is below `LIMIT`, which is at most 128, or `A`, or `B`. Looks at eight bytes at
/// once: the texts of records are too short for anything longer.
#[inline]
pub(crate) fn has_any<const LIMIT: u8, const A: u8, const B: u8>(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let look = |eight: u64| {
        let below = |x: u64, n: u8| x.wrapping_sub(ONES * u64::from(n)) & !x;
        let is = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
        (below(eight, LIMIT) | is(A) | is(B)) & (ONES << 7)
    };
    if let Some(last) = bytes.last_chunk::<8>() {
        let (eights, _) = bytes.as_chunks::<8>();
        let found = eights.iter().map(|eight| look(u64::from_le_bytes(*eight)));
        return found.fold(look(u64::from_le_bytes(*last)), |any, found| any | found) != 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return look(u64::from(first) << 32 | u64::from(last)) != 0;
    }
    bytes.iter().any(|byte| *byte < LIMIT || *byte == A || *byte == B)
}

macro_rules! as_serde_json {
    ($($method:ident($kind:ty))*) => {$(
        fn $method(self, value: $kind) -> Result<(), Error> {
            serde_json::to_writer(self.0, &value)
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    as_serde_json! {
        serialize_bool(bool) serialize_char(char)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128) serialize_u8(u8) serialize_u16(u16) serialize_u32(u32)
        serialize_u64(u64) serialize_u128(u128) serialize_f32(f32) serialize_f64(f64)
        serialize_bytes(&[u8])
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        text(value, self.0)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        text(variant, self.0)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let parts = Parts::of_variant(self.0, variant, b"", b"}")?;
        value.serialize(Writer(parts.out))?;
        parts.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(Parts::new(self.0, b"[", b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        Parts::of_variant(self.0, variant, b"[", b"]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Error> {
        Ok(Parts::new(self.0, b"{", b"}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, Error> {
        if name == RAW {
            return Ok(Parts { raw: true, ..Parts::new(self.0, b"", b"") });
        }
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Error> {
        Parts::of_variant(self.0, variant, b"{", b"}}")
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        text(&value.to_string(), self.0)
    }
}

/// An array or object on its way.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    end: &'static [u8],
    any: bool,
    /// The one field of a raw value, which is JSON already.
    raw: bool,
}

impl<'a> Parts<'a> {
    fn new(out: &'a mut Vec<u8>, begin: &[u8], end: &'static [u8]) -> Self {
        out.extend_from_slice(begin);
        Self { out, end, any: false, raw: false }
    }

    fn of_variant(
        out: &'a mut Vec<u8>,
        variant: &str,
        begin: &[u8],
        end: &'static [u8],
    ) -> Result<Self, Error> {
        out.push(b'{');
        text(variant, out)?;
        out.push(b':');
        Ok(Self::new(out, begin, end))
    }

    fn next(&mut self) {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.next();
        value.serialize(Writer(self.out))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        if self.raw {
            return value.serialize(Raw(self.out));
        }
        self.next();
        text(name, self.out)?;
        self.out.push(b':');
        value.serialize(Writer(self.out))
    }

    fn finish(self) -> Result<(), Error> {
        self.out.extend_from_slice(self.end);
        Ok(())
    }
}

macro_rules! elements {
    ($($part:ident::$method:ident)*) => {$(
        impl serde::ser::$part for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($part:ident)*) => {$(
        impl serde::ser::$part for Parts<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

impl serde::ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.next();
        let begin = self.out.len();
        key.serialize(Writer(self.out))?;
        match self.out.get(begin) {
            Some(b'"') => Ok(()),
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                self.out.insert(begin, b'"');
                self.out.push(b'"');
                Ok(())
            }
            _ => Err(Error::custom("key must be a string")),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

/// Appends a text as it is.
struct Raw<'a>(&'a mut Vec<u8>);

macro_rules! no_text {
    ($($method:ident($($kind:ty),*) -> $out:ty;)*) => {$(
        fn $method(self, $(_: $kind),*) -> Result<$out, Error> {
            Err(Error::custom("a raw value that is no text"))
        }
    )*};
}

type Not = Impossible<(), Error>;

impl Serializer for Raw<'_> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Not;
    type SerializeTuple = Not;
    type SerializeTupleStruct = Not;
    type SerializeTupleVariant = Not;
    type SerializeMap = Not;
    type SerializeStruct = Not;
    type SerializeStructVariant = Not;

    fn serialize_str(self, json: &str) -> Result<(), Error> {
        self.0.extend_from_slice(json.as_bytes());
        Ok(())
    }

    no_text! {
        serialize_bool(bool) -> (); serialize_char(char) -> ();
        serialize_i8(i8) -> (); serialize_i16(i16) -> (); serialize_i32(i32) -> ();
        serialize_i64(i64) -> (); serialize_u8(u8) -> (); serialize_u16(u16) -> ();
        serialize_u32(u32) -> (); serialize_u64(u64) -> ();
        serialize_f32(f32) -> (); serialize_f64(f64) -> (); serialize_bytes(&[u8]) -> ();
        serialize_none() -> (); serialize_unit() -> (); serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Not; serialize_tuple(usize) -> Not;
        serialize_tuple_struct(&'static str, usize) -> Not;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Not;
        serialize_map(Option<usize>) -> Not; serialize_struct(&'static str, usize) -> Not;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Not;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(Error::custom("a raw value that is no text"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    /// Every form `serde` has.
    #[derive(serde::Serialize)]
    enum Form<'a> {
        Unit,
        Newtype(&'a str),
        Tuple(char, Option<f64>, [u8; 2]),
        Struct { texts: Vec<String>, raw: &'a serde_json::value::RawValue },
        Maps(BTreeMap<i8, ()>, BTreeMap<bool, (i64,)>, BTreeMap<char, BTreeMap<String, u128>>),
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_serde_json(
            text in any::<String>(), texts in vec(any::<String>(), 0..3), c in any::<char>(),
            float in any::<Option<f64>>(), keys in btree_map(any::<i8>(), any::<()>(), 0..3),
            more in btree_map(any::<bool>(), any::<(i64,)>(), 0..3),
            nested in btree_map(any::<char>(), btree_map(any::<String>(), any::<u128>(), 0..2), 0..2)
        ) {
            let raw = serde_json::value::to_raw_value(&[&text]).unwrap();
            let forms = [
                Form::Unit,
                Form::Newtype(&text),
                Form::Tuple(c, float, [0, 255]),
                Form::Struct { texts, raw: &raw },
                Form::Maps(keys, more, nested),
            ];
            let mut written = b"before".to_vec();
            write(&forms, &mut written).unwrap();
            let expected = serde_json::to_string(&forms).unwrap();
            prop_assert_eq!(std::str::from_utf8(&written).unwrap(), format!("before{expected}"));
        }

        #[test]
        fn what_is_read_is_what_serde_json_reads(bytes in vec(any::<u8>(), 0..20)) {
            let both = |json: &[u8]| {
                let ours = read::<serde_json::Value>(json).map_err(|e| e.to_string());
                (ours, serde_json::from_slice(json).map_err(|e| e.to_string()))
            };
            let (ours, theirs) = both(&bytes);
            prop_assert_eq!(ours, theirs);
            let (ours, theirs) = both(&[b"[\"", &bytes[..], b"\"]"].concat());
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn every_byte_is_found_wherever_it_stands(
            mut bytes in vec(0x20..=0xffu8, 0..40), one in any::<u8>(), at in 0..40usize
        ) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = one;
            }
            let any = |found: fn(&u8) -> bool| bytes.iter().any(found);
            prop_assert_eq!(has_any::<0x20, 0x7f, 0xc2>(&bytes), any(|b| *b < 0x20 || *b == 0x7f || *b == 0xc2));
            prop_assert_eq!(has_any::<0x20, b'"', b'\\'>(&bytes), any(|b| *b < 0x20 || *b == b'"' || *b == b'\\'));
            prop_assert_eq!(has_any::<0x80, 0x80, 0xff>(&bytes), any(|b| *b <= 0x80 || *b == 0xff));
            prop_assert_eq!(has_any::<0, 0, b'a'>(&bytes), any(|b| matches!(*b, 0 | b'a')));
        }
    }

    #[test]
    fn a_key_that_is_no_text_is_an_error() {
        for map in [BTreeMap::from([(None, 1)]), BTreeMap::from([(Some(()), 1)])] {
            assert!(write(&map, &mut Vec::new()).is_err());
            assert!(serde_json::to_string(&map).is_err());
        }
    }
}
