//! What is wrong with a configuration, for people and for scripts.
//!
//! A [`Diagnostic`] carries the lines that it talks about, so it can be shown where the files are not at hand: on the
//! console, by a client of the API, from JSON.

mod render;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use self::render::Style;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The key, `containers.web.memory`; empty where the mistake is not about one.
    pub key: String,
    /// What is wrong, in lower case.
    pub message: String,
    /// Where.
    pub location: Location,
    /// What else has to do with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A second place that a mistake involves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// What it has to do with the mistake.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// A place in a source, with its line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The source's name.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, without control characters; cut if it is long.
    pub excerpt: String,
    /// Where in `excerpt` the offending text starts, in characters.
    pub start: usize,
    /// How many characters it has; 0 if something is missing there.
    pub length: usize,
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>, location: Location) -> Self {
        Self { key: String::new(), message: message.into(), location, related: Vec::new(), help: None }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The most characters of the offending text, and of the text on either side of it, that are shown.
const SHOWN: usize = 60;

impl Location {
    /// The place of some bytes of a text. If they span lines, only the first one counts.
    pub(crate) fn new(source: &str, text: &[u8], span: Range<usize>) -> Self {
        let start = span.start.min(text.len());
        let (before, behind) = text.split_at_checked(start).unwrap_or((text, b""));
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let before = printable(before.get(line_start..).unwrap_or_default());

        let behind = behind.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let length = span.end.saturating_sub(start).min(behind.len());
        let (inside, behind) = behind.split_at_checked(length).unwrap_or((behind, b""));
        let (inside, behind) = (printable(inside), printable(behind));

        let column = before.chars().count() + 1;
        let shown_before = last_characters(&before, SHOWN);
        let shown_inside = first_characters(&inside, SHOWN);
        let mut excerpt = String::new();
        if shown_before.len() < before.len() {
            excerpt.push_str("...");
        }
        excerpt.push_str(shown_before);
        let start = excerpt.chars().count();
        excerpt.push_str(shown_inside);
        if shown_inside.len() == inside.len() {
            excerpt.push_str(first_characters(&behind, SHOWN).trim_end());
        }
        Self { source: source.to_owned(), line, column, excerpt, start, length: shown_inside.chars().count() }
    }

    /// The offending text itself; empty if something is missing there.
    pub fn text(&self) -> String {
        self.excerpt.chars().skip(self.start).take(self.length).collect()
    }
}

/// As text that a terminal can be given: no escape sequences.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |character: char| match character {
        '\t' => ' ',
        '\r' if text.ends_with('\r') => ' ',
        // Zero-width and direction marks would hide what the line really says.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        _ if character.is_control() => char::REPLACEMENT_CHARACTER,
        _ => character,
    };
    text.trim_start_matches('\u{feff}').chars().map(clean).collect()
}

fn first_characters(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

fn last_characters(text: &str, count: usize) -> &str {
    let start = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(start, _)| start);
    text.get(start..).unwrap_or(text)
}

/// The text of a user in a message: quoted, without control characters, not endless.
pub(crate) fn quoted(text: &str) -> String {
    let shown = first_characters(text, SHOWN);
    let dots = if shown.len() < text.len() { "..." } else { "" };
    format!("\"{}{dots}\"", shown.escape_debug())
}
