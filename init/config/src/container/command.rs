//! A program and its arguments: a list, or text that is split as a shell splits it.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::text::EXPECTED;

const WANTED: &str = "a list such as [\"nginx\", \"-g\", \"daemon off;\"], or text";

/// Why text cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// A quotation mark has no partner.
    #[error("the quotation mark {mark} is not closed")]
    Open {
        /// `'` or `"`.
        mark: char,
    },
    /// A backslash with nothing behind it.
    #[error("nothing follows the last backslash")]
    Backslash,
    /// The kernel ends an argument at a zero byte.
    #[error("it has a zero byte")]
    Zero,
}

/// The words of a command line; may be empty, which takes the image's command away. Text is split at blanks, with
/// `'…'`, `"…"` and `\` as in a POSIX shell; nothing is expanded and no shell runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command(Vec<String>);

impl Command {
    /// These words, as they are.
    pub fn new(words: Vec<String>) -> Result<Self, CommandError> {
        if words.iter().any(|word| word.contains('\0')) { Err(CommandError::Zero) } else { Ok(Self(words)) }
    }

    /// Splits text.
    pub fn split(text: &str) -> Result<Self, CommandError> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                ' ' | '\t' | '\n' => words.extend(word.take()),
                '\'' | '"' => quoted(&mut characters, character, word.get_or_insert_default())?,
                '\\' => match characters.next() {
                    // A backslash at the end of a line joins it with the next one.
                    Some('\n') => {}
                    Some(escaped) => word.get_or_insert_default().push(escaped),
                    None => return Err(CommandError::Backslash),
                },
                _ => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        Self::new(words)
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

crate::text::described!(Command, {
    "description": "Takes a list of words, or text that is split as a shell splits it.",
    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
});

/// Reads up to the closing `mark`.
fn quoted(characters: &mut std::str::Chars, mark: char, word: &mut String) -> Result<(), CommandError> {
    while let Some(character) = characters.next() {
        match character {
            _ if character == mark => return Ok(()),
            '\\' if mark == '"' => match characters.next() {
                Some('\n') => {}
                Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => return Err(CommandError::Backslash),
            },
            _ => word.push(character),
        }
    }
    Err(CommandError::Open { mark })
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Command;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(WANTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Command, E> {
        Command::split(text).map_err(|error| E::custom(format_args!("{error}{EXPECTED}{WANTED}")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Command, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = list.next_element::<String>()? {
            words.push(word);
        }
        Command::new(words).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<String>, CommandError> {
        Command::split(text).map(|command| command.words().to_vec())
    }

    #[test]
    fn text_is_split_as_a_shell_splits_it() {
        let cases: [(&str, &[&str]); 10] = [
            ("", &[]),
            ("  \t\n ", &[]),
            ("nginx -g 'daemon off;'", &["nginx", "-g", "daemon off;"]),
            ("a\\ b  c", &["a b", "c"]),
            ("\"a b\"c'd e'", &["a bcd e"]),
            ("'' \"\"", &["", ""]),
            (r#""a\"b\\c\$d\n""#, &["a\"b\\c$d\\n"]),
            (r"'a\b'", &["a\\b"]),
            ("a\\\nb", &["ab"]),
            ("$HOME *", &["$HOME", "*"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(split(text).expect("it can be split"), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_closed_is_refused() {
        assert_eq!(split("a 'b"), Err(CommandError::Open { mark: '\'' }));
        assert_eq!(split("a \"b'"), Err(CommandError::Open { mark: '"' }));
        assert_eq!(split("a\\"), Err(CommandError::Backslash));
        assert_eq!(split("\"a\\"), Err(CommandError::Backslash));
        assert_eq!(split("a\0b"), Err(CommandError::Zero));
    }
}
