//! serde over the tree: every failure knows the place and the path of the value that caused it.

use std::collections::btree_map;
use std::fmt::{self, Display};
use std::iter::Enumerate;
use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::{Entry, Node, Path, Segment, Value};
use crate::source::Place;
use crate::text::EXPECTED;

/// Why a value is not what the types want.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub problem: Problem,
    pub path: Path,
    /// Set by the innermost value on the way out.
    pub place: Option<Place>,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// A diagnostic says so already.
    Known,
    /// The last key of the path is none.
    UnknownKey { known: &'static [&'static str] },
    /// A word that is not in the list.
    UnknownWord { word: String, known: &'static [&'static str] },
    /// A key has to be there.
    Missing { key: &'static str },
    /// The kind of the value is wrong.
    Kind { found: &'static str, expected: String },
    /// The value itself is wrong.
    Value { message: String, expected: Option<String> },
}

impl Failure {
    fn new(problem: Problem) -> Self {
        Self { problem, path: Path::default(), place: None }
    }

    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    /// What is wrong with a hole is known.
    fn known(mut self) -> Self {
        self.problem = Problem::Known;
        self
    }

    fn inside(mut self, segment: Segment) -> Self {
        self.path.inside(segment);
        self
    }
}

impl std::error::Error for Failure {}

impl Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {:?}", self.path, self.problem)
    }
}

impl Error for Failure {
    fn custom<T: Display>(message: T) -> Self {
        let message = match message.to_string() {
            // The standard library's FromStr, which serde's types for addresses use.
            text if text == "invalid IP address syntax" => {
                format!("it is not an IP address{EXPECTED}an IP address such as \"192.0.2.7\" or \"2001:db8::7\"")
            }
            text => text,
        };
        Self::new(match message.split_once(EXPECTED) {
            Some((message, expected)) => {
                Problem::Value { message: message.to_owned(), expected: Some(expected.to_owned()) }
            }
            None => Problem::Value { message, expected: None },
        })
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::new(Problem::Kind { found: kind(found), expected: plain_expectation(expected) })
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        let message = match found {
            Unexpected::Signed(number) => format!("{number} is out of range"),
            Unexpected::Unsigned(number) => format!("{number} is out of range"),
            other => format!("{other} does not fit"),
        };
        Self::new(Problem::Value { message, expected: Some(plain_expectation(expected)) })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { known })
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownWord { word: word.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Problem::Missing { key })
    }
}

/// TOML's name of a kind of value.
fn kind(found: Unexpected) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) => "text",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Other(name) if name == DATE => DATE,
        _ => "something else",
    }
}

const DATE: &str = "a date";

/// serde and the standard library talk about Rust's types.
fn plain_expectation(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let plain = match text.as_str() {
        "a boolean" => "true or false",
        "a string" | "string or map" => "text",
        "a sequence" => "a list",
        "a map" => "a table",
        "u32" => "a whole number between 0 and 4294967295",
        "a nonzero u32" => "a whole number between 1 and 4294967295",
        "i64" => "a whole number",
        "IP address" => "an IP address such as \"192.0.2.7\" or \"2001:db8::7\"",
        _ if text.starts_with("struct ") => "a table",
        _ => return text,
    };
    plain.to_owned()
}

/// `"bridge", "host" or "none"`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    let mut text = String::new();
    for (position, word) in words.iter().enumerate() {
        text.push_str(match position {
            0 => "",
            _ if position + 1 == words.len() => " or ",
            _ => ", ",
        });
        text.push('"');
        text.push_str(word);
        text.push('"');
    }
    text
}

impl Node {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Text(text) => Unexpected::Str(text),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Boolean(value) => Unexpected::Bool(*value),
            Value::Date | Value::Broken | Value::Hole | Value::Removed => Unexpected::Other(DATE),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }

    fn wrong_kind(&self, expected: &dyn Expected) -> Failure {
        match self.value {
            Value::Broken | Value::Hole => Failure::new(Problem::Known),
            _ => Failure::invalid_type(self.unexpected(), expected),
        }
        .at(self.place)
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List(list) => visitor.visit_seq(Elements { rest: list.iter().enumerate() }),
            Value::Table(table) => visitor.visit_map(Entries { rest: table.iter(), current: None }),
            Value::Hole => visitor.visit_borrowed_str("hole"),
            Value::Date | Value::Broken | Value::Removed => return Err(self.wrong_kind(&visitor)),
        }
        .map_err(|failure: Failure| failure.at(self.place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    /// serde's own code would take a list for a struct, too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.value {
            Value::Table(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong_kind(&visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Text(text) => BorrowedStrDeserializer::new(text)
                .deserialize_enum(name, words, visitor)
                .map_err(|failure: Failure| failure.at(self.place)),
            _ => Err(self.wrong_kind(&alternatives(words).as_str())),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Hole => visitor.visit_seq(Elements { rest: [].iter().enumerate() }),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

struct Elements<'de> {
    rest: Enumerate<slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((index, node)) = self.rest.by_ref().find(|(_, node)| !node.is_removed()) else {
            return Ok(None);
        };
        seed.deserialize(node).map(Some).map_err(|failure| failure.at(node.place).inside(Segment::Index(index)))
    }
}

struct Entries<'de> {
    rest: btree_map::Iter<'de, String, Entry>,
    current: Option<(&'de String, &'de Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        self.current = self.rest.next();
        let Some((key, entry)) = self.current else {
            return Ok(None);
        };
        let failed = |failure: Failure| failure.at(entry.key).inside(Segment::Key(key.clone()));
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some).map_err(failed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some((key, entry)) = self.current else {
            return Err(Failure::custom("a value without a key"));
        };
        let failed = |failure: Failure| match entry.node.value {
            Value::Hole => failure.known(),
            _ => failure.at(entry.node.place),
        };
        let failed = |failure| failed(failure).inside(Segment::Key(key.clone()));
        seed.deserialize(&entry.node).map_err(failed)
    }
}
