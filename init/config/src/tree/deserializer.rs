//! serde over the tree: every failure knows the place and the path of the value that caused it.
//!
//! Each kind of value has its own short function here: one that took every kind would be compiled, with all its
//! branches, for each of the types of the configuration.

use std::collections::btree_map;
use std::iter::Enumerate;
use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{Entry, Failure, Node, Value, alternatives};

/// What a hole is as text: good for a name, a path's component, a description.
const HOLE: &str = "hole";

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Failure;

    /// For types that take several kinds of value.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List(list) => visitor.visit_seq(Elements::new(list)),
            Value::Table(table) => visitor.visit_map(Entries { rest: table.iter(), current: None }),
            Value::Hole => visitor.visit_borrowed_str(HOLE),
            Value::Date | Value::Broken | Value::Removed => return Err(Failure::kind(self, &visitor)),
        }
        .map_err(|failure: Failure| failure.of(self))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Hole => visitor.visit_borrowed_str(HOLE),
            _ => Err(Failure::kind(self, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Boolean(value) => visitor.visit_bool(value),
            _ => Err(Failure::kind(self, &visitor)),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.value {
            Value::Integer(number) => visitor.visit_i64(number),
            _ => Err(Failure::kind(self, &visitor)),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.value {
            Value::List(list) => visitor.visit_seq(Elements::new(list)),
            Value::Hole => visitor.visit_seq(Elements::new(&[])),
            _ => Err(Failure::kind(self, &visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Table(table) => visitor
                .visit_map(Entries { rest: table.iter(), current: None })
                .map_err(|failure: Failure| failure.of(self)),
            _ => Err(Failure::kind(self, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match &self.value {
            Value::Text(text) => BorrowedStrDeserializer::new(text).deserialize_enum(name, words, visitor),
            _ => Err(Failure::kind(self, &alternatives(words).as_str())),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Elements<'de> {
    rest: Enumerate<slice::Iter<'de, Node>>,
}

impl<'de> Elements<'de> {
    fn new(list: &'de [Node]) -> Self {
        Self { rest: list.iter().enumerate() }
    }
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some((index, node)) = self.rest.by_ref().find(|(_, node)| !node.is_removed()) else {
            return Ok(None);
        };
        seed.deserialize(node).map(Some).map_err(|failure| failure.of_element(index, node))
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
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
            .map_err(|failure: Failure| failure.of_key(key, entry))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some((key, entry)) = self.current else {
            return Err(Failure::custom("a value without a key"));
        };
        seed.deserialize(&entry.node).map_err(|failure| failure.of_value(key, &entry.node))
    }
}
