//! What can be wrong with a value, and where.

use std::fmt::{self, Display};
use std::ops::Deref;

use serde::de::{Error, Expected, Unexpected};

use super::{Entry, Node, Path, Segment, Value};
use crate::source::Place;
use crate::text::EXPECTED;

/// Why a value is not what the types want. In a box: serde's code hands it through hundreds of functions, and every
/// one of them is smaller for it.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Details>);

/// What a failure knows.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub problem: Problem,
    pub path: Path,
    /// Set by the innermost value on the way out.
    pub place: Option<Place>,
}

impl Deref for Failure {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
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
    pub(super) fn new(problem: Problem) -> Self {
        Self(Box::new(Details { problem, path: Path::default(), place: None }))
    }

    /// A value that is not of the kind that is wanted.
    #[cold]
    pub(super) fn kind(node: &Node, expected: &dyn Expected) -> Self {
        let problem = match found(node) {
            Some(found) => Problem::Kind { found, expected: plain_expectation(expected) },
            None => Problem::Known,
        };
        Self::new(problem).of(node)
    }

    /// The failure of this value.
    #[cold]
    pub(super) fn of(self, node: &Node) -> Self {
        let mut failure = self.at(node.place);
        if matches!(node.value, Value::Hole) {
            // What is wrong with a hole is known.
            failure.0.problem = Problem::Known;
        }
        failure
    }

    /// The failure of the value with this key.
    #[cold]
    pub(super) fn of_value(self, key: &str, node: &Node) -> Self {
        self.of(node).inside(Segment::Key(key.to_owned()))
    }

    /// The failure of the key itself.
    #[cold]
    pub(super) fn of_key(self, key: &str, entry: &Entry) -> Self {
        self.at(entry.key).inside(Segment::Key(key.to_owned()))
    }

    /// The failure of this element of a list.
    #[cold]
    pub(super) fn of_element(self, index: usize, node: &Node) -> Self {
        self.of(node).inside(Segment::Index(index))
    }

    fn at(mut self, place: Place) -> Self {
        self.0.place.get_or_insert(place);
        self
    }

    fn inside(mut self, segment: Segment) -> Self {
        self.0.path.inside(segment);
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

    /// From visitors that take any kind: [`Failure::kind`] has come first everywhere else.
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
        _ => "something else",
    }
}

/// The same of a value; `None` if a diagnostic says already what is wrong with it.
fn found(node: &Node) -> Option<&'static str> {
    Some(match node.value {
        Value::Text(_) => "text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Date => "a date",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
        Value::Broken | Value::Hole | Value::Removed => return None,
    })
}

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
