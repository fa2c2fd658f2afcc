//! Environment variables: a table, or a list of `NAME=value`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::text::{EXPECTED, Text};

const WANTED: &str = "a table such as { TZ = \"UTC\" }, or a list such as [\"TZ=UTC\"]";

/// Variables by name. Numbers and booleans in a table stand for their text, as in Compose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// By name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `NAME=value`, in the order of the names.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }

    fn insert<E: Error>(&mut self, name: String, value: String) -> Result<(), E> {
        // execve(2) ends a variable at a zero byte and its name at the first "=".
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(E::custom(format_args!("{name:?} cannot be a variable{EXPECTED}{WANTED}")));
        }
        self.0.insert(name, value);
        Ok(())
    }
}

crate::text::described!(Environment, {
    "description": "Takes a table, or a list of NAME=value.",
    "anyOf": [
        { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } },
        { "type": "array", "items": { "type": "string" } }
    ]
});

impl FromIterator<(String, String)> for Environment {
    /// Leaves out what cannot be a variable.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            // What cannot be a variable is left out: the promise of this function.
            let _ = environment.insert::<serde::de::value::Error>(name, value);
        }
        environment
    }
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Variables)
    }
}

struct Variables;

impl<'de> Visitor<'de> for Variables {
    type Value = Environment;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(WANTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Environment, A::Error> {
        let mut environment = Environment::default();
        while let Some(name) = table.next_key::<String>()? {
            let value = table.next_value_seed(Value)?;
            environment.insert(name, value)?;
        }
        Ok(environment)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Environment, A::Error> {
        let mut environment = Environment::default();
        while let Some(Line(name, value)) = list.next_element()? {
            environment.insert(name, value)?;
        }
        Ok(environment)
    }
}

/// A value of the table.
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        Text { expected: "text, a number or a boolean", scalars: true }.read(deserializer)
    }
}

/// An element of the list. A type of its own, so that an error points at the element.
struct Line(String, String);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Text { expected: "text such as \"TZ=UTC\"", scalars: false }.read(deserializer)?;
        match line.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self(name.to_owned(), value.to_owned())),
            _ => Err(D::Error::custom(format_args!("{line:?} has no value{EXPECTED}text such as \"TZ=UTC\""))),
        }
    }
}
