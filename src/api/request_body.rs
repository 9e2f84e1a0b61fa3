//! JSON envelope of a request. Only the fields that the API uses are kept.
//!
//! A body of 8 MB may hold millions of values. All of them are parsed, as the whole body must be valid JSON, but values
//! of unknown fields are not stored.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::ApiError;

/// Names of the fields that are kept.
const KNOWN: [&str; 8] = ["accept", "action", "auth_token", "authorization", "reset", "seconds", "state", "verb"];

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Null,
    Bool(bool),
    Text(String),
    /// A non-negative integer.
    Number(u64),
    /// A value of any other type; no field of the API accepts it. Holds the name of the type.
    Other(&'static str),
}

/// The known fields of one JSON object.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Field)>);

impl Fields {
    /// Field of this name; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, field)| field).filter(|field| **field != Field::Null)
    }

    /// Stores a field. If a name occurs twice, the last value wins and only that one is kept.
    fn put(&mut self, name: &'static str, field: Field) {
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, field));
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Field::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// Parsed envelope of a request.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// Fields inside `data`.
    pub(super) data: Fields,
    /// Fields beside `data`.
    pub(super) top: Fields,
}

impl Envelope {
    /// Parses a body; an empty body gives an empty envelope.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let outer: Outer = serde_json::from_slice(body).map_err(|error| ApiError::from_json_error(&error))?;
        match outer.data {
            Some(Inner::Object(data)) => Ok(Self { data, top: outer.top }),
            Some(Inner::NoObject) => Err(ApiError::DataMissing { there: true }),
            None => Err(ApiError::DataMissing { there: false }),
        }
    }
}

/// Normalizes a key: Kazoo accepts keys in any case and with hyphens.
fn normal(key: &str) -> String {
    key.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

fn known(key: &str) -> Option<&'static str> {
    KNOWN.into_iter().find(|name| *name == key)
}

struct Outer {
    top: Fields,
    data: Option<Inner>,
}

enum Inner {
    Object(Fields),
    NoObject,
}

impl<'de> Deserialize<'de> for Outer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Outer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with \"data\"")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outer, A::Error> {
                let mut outer = Outer { top: Fields::default(), data: None };
                while let Some(key) = map.next_key::<String>()? {
                    let key = normal(&key);
                    match known(&key) {
                        Some(name) => outer.top.put(name, map.next_value()?),
                        None if key == "data" => outer.data = Some(map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(outer)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A visitor's result: built from the fields of an object or from a single value.
trait Any: Sized {
    fn scalar(field: Field) -> Self;
    fn object(fields: Fields) -> Self;
}

impl Any for Inner {
    fn scalar(_: Field) -> Self {
        Self::NoObject
    }
    fn object(fields: Fields) -> Self {
        Self::Object(fields)
    }
}

impl Any for Field {
    fn scalar(field: Field) -> Self {
        field
    }
    fn object(_: Fields) -> Self {
        Self::Other("object")
    }
}

struct Reader<T>(std::marker::PhantomData<T>);

impl<'de, T: Any> Visitor<'de> for Reader<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok(T::scalar(Field::Null))
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<T, E> {
        Ok(T::scalar(Field::Bool(v)))
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<T, E> {
        Ok(T::scalar(Field::Other("number")))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<T, E> {
        Ok(T::scalar(Field::Number(v)))
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<T, E> {
        Ok(T::scalar(Field::Other("number")))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<T, E> {
        Ok(T::scalar(Field::Text(v.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::scalar(Field::Other("array")))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<String>()? {
            match known(&normal(&key)) {
                Some(name) => fields.put(name, map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(T::object(fields))
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Envelope {
        Envelope::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_found_under_any_spelling_of_their_key() {
        let envelope = read(r#"{"Data":{"RESET":true,"other":[1,{"reset":false}]},"Auth-Token":"t","verb":null}"#);
        assert_eq!(envelope.data.get("reset"), Some(&Field::Bool(true)));
        assert_eq!(envelope.top.text("auth_token"), Some("t"));
        assert_eq!(envelope.top.get("verb"), None);
        assert_eq!(read(r#"{"data":{"reset":1,"reset":"true"}}"#).data.text("reset"), Some("true"));
        let odd = read(r#"{"data":{"action":[1],"state":{"a":1},"reset":1.5}}"#);
        assert_eq!(odd.data.get("action"), Some(&Field::Other("array")));
        assert_eq!(odd.data.get("state"), Some(&Field::Other("object")));
        assert_eq!(odd.data.get("reset"), Some(&Field::Other("number")));
        let numbers = read(r#"{"data":{"seconds":60,"reset":-1}}"#);
        assert_eq!(numbers.data.get("seconds"), Some(&Field::Number(60)));
        assert_eq!(numbers.data.get("reset"), Some(&Field::Other("number")));
    }

    #[test]
    fn bodies_that_are_no_envelope_are_refused() {
        assert!(Envelope::read(b"").is_ok());
        for broken in ["{", "[]", "\"x\"", "{\"data\":{}} x", "{\"data\":{\"a\":}}", "null", "\u{feff}{}", " "] {
            assert!(matches!(Envelope::read(broken.as_bytes()), Err(ApiError::BadJson { .. })), "{broken}");
        }
        let long = format!("\"{}\"", "x".repeat(100_000));
        assert!(matches!(Envelope::read(long.as_bytes()), Err(ApiError::BadJson { why }) if why.len() < 1_000));
        assert!(matches!(Envelope::read(b"{}"), Err(ApiError::DataMissing { there: false })));
        assert!(matches!(Envelope::read(br#"{"data":[]}"#), Err(ApiError::DataMissing { there: true })));
        assert!(matches!(Envelope::read(b"{\"data\":\"\xff\"}"), Err(ApiError::BadJson { .. })));
    }

    #[test]
    fn depth_and_width_do_no_harm() {
        let deep = format!("{{\"data\":{{\"action\":{}1{}}}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let _ = Envelope::read(deep.as_bytes());
        let wide = format!("{{\"data\":{{{}\"reset\":true}}}}", "\"reset\":false,".repeat(100_000));
        assert_eq!(read(&wide).data.0.len(), 1);
    }
}
