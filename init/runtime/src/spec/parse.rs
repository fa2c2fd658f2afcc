//! From the text of a config.json to its types, with errors that name the field and what it must be.
//!
//! serde_json says what is wrong and up to which byte it has read. Which field that is, a second walk over the text
//! finds out; so the usual case pays nothing for it.

use serde::de::DeserializeOwned;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{problem} (line {line}, column {column})")]
pub struct ParseError {
    /// As `process.args[0]`, with a space after it; empty where no field is to blame.
    path: String,
    /// What it must be.
    problem: String,
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
}

/// Reads a config.json, or a part of one as `exec --process` and `update --resources` take it.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ParseError> {
    serde_json::from_slice(text).map_err(|error| explain(text, &error))
}

fn explain(text: &[u8], error: &serde_json::Error) -> ParseError {
    let (line, column) = (error.line(), error.column());
    let suffix = format!(" at line {line} column {column}");
    let message = error.to_string();
    let message = message.strip_suffix(&suffix).unwrap_or(&message);
    if error.classify() != serde_json::error::Category::Data {
        return ParseError { path: String::new(), problem: format!("this is not JSON: {message}"), line, column };
    }
    let mut path = path_at(text.get(..offset(text, line, column)).unwrap_or(text));
    let problem = match problem(message) {
        Problem::Missing(field) => {
            push_key(&mut path, field);
            "is missing".to_owned()
        }
        Problem::Wrong(text) => text,
    };
    if !path.is_empty() {
        path.push(' ');
    }
    ParseError { path, problem, line, column }
}

enum Problem<'a> {
    Missing(&'a str),
    Wrong(String),
}

/// serde's sentences in ours.
fn problem(message: &str) -> Problem<'_> {
    if let Some(field) = message.strip_prefix("missing field ") {
        return Problem::Missing(field.trim_matches('`'));
    }
    let wrong = ["invalid type: ", "invalid value: ", "unknown variant "];
    let rest = wrong.iter().find_map(|prefix| message.strip_prefix(prefix));
    Problem::Wrong(match rest.unwrap_or(message).split_once(", expected ") {
        // serde takes a list for an object with its fields in order, and misses some.
        Some((found, expected)) if found.starts_with("invalid length") => {
            format!("must be {}, not a list", in_words(expected))
        }
        Some((found, expected)) => format!("must be {}, not {found}", in_words(expected)),
        None => format!("is wrong: {message}"),
    })
}

fn in_words(expected: &str) -> String {
    let range =
        |low: &dyn std::fmt::Display, high: &dyn std::fmt::Display| format!("a whole number from {low} to {high}");
    match expected {
        "u8" => range(&u8::MIN, &u8::MAX),
        "u16" => range(&u16::MIN, &u16::MAX),
        "u32" => range(&u32::MIN, &u32::MAX),
        "u64" => range(&u64::MIN, &u64::MAX),
        "i32" => range(&i32::MIN, &i32::MAX),
        "i64" => range(&i64::MIN, &i64::MAX),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "path string" => "a path".to_owned(),
        structure if structure.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

/// Of a line and column as serde_json counts them: how many bytes it had read.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(position, _)| position + 1);
    let start = std::iter::once(0).chain(ends).nth(line.saturating_sub(1)).unwrap_or(text.len());
    start + column
}

/// Where a walk is: in an object, at a key or before one; or in a list, at an element.
enum Place {
    Object(Option<String>),
    List(usize),
}

/// The field that a text which was read up to here, and is JSON so far, ends in or with.
fn path_at(read: &[u8]) -> String {
    let mut places: Vec<Place> = Vec::new();
    let mut bytes = read.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' => places.push(Place::Object(None)),
            b'[' => places.push(Place::List(0)),
            b'}' | b']' => drop(places.pop()),
            b',' => match places.last_mut() {
                Some(Place::Object(key)) => *key = None,
                Some(Place::List(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let text = string(&mut bytes);
                if let Some(Place::Object(key @ None)) = places.last_mut() {
                    *key = Some(text);
                }
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for place in &places {
        match place {
            Place::Object(Some(key)) => push_key(&mut path, key),
            Place::Object(None) => {}
            Place::List(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// The rest of a string whose first quote is taken, escapes as they are written.
fn string(bytes: &mut impl Iterator<Item = u8>) -> String {
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => text.extend([Some(byte), bytes.next()].into_iter().flatten()),
            other => text.push(other),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn push_key(path: &mut String, key: &str) {
    let plain = key.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if !plain {
        path.push_str(&format!("[\"{key}\"]"));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::Spec;

    fn message(text: &str) -> String {
        parse::<Spec>(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_field_is_named_and_what_it_must_be() {
        let cases = [
            (r#"{}"#, "ociVersion is missing"),
            (r#"{"ociVersion": 1}"#, "ociVersion must be a string, not integer `1`"),
            (
                "{\"ociVersion\": \"1.2.0\",\n \"process\": {\"consoleSize\": {\"height\": 70000, \"width\": 1}}}",
                "process.consoleSize.height must be a whole number from 0 to 65535, not integer `70000`",
            ),
            (
                r#"{"ociVersion": "1", "process": {"args": ["a", "b\"", 7]}}"#,
                "process.args[2] must be a string, not integer `7`",
            ),
            (
                r#"{"ociVersion": "1", "mounts": [{"destination": "/a"}, {"destination": ["/b"]}]}"#,
                "mounts[1].destination must be a string, not sequence",
            ),
            (
                r#"{"ociVersion": "1", "mounts": [{"destination": "/a"}, {"type": "proc"}]}"#,
                "mounts[1].destination is missing",
            ),
            (
                r#"{"ociVersion": "1", "linux": {"sysctl": {"net.core.somaxconn": 5}}}"#,
                "linux.sysctl[\"net.core.somaxconn\"] must be a string, not integer `5`",
            ),
            (r#"{"ociVersion": "1", "linux": 5}"#, "linux must be an object, not integer `5`"),
            (
                r#"{"ociVersion": "1", "linux": {"namespaces": [{"type": "magic"}]}}"#,
                "linux.namespaces[0].type must be one of `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`, \
                 not `magic`",
            ),
            (r#"[]"#, "must be an object, not a list"),
        ];
        for (text, expected) in cases {
            let message = message(text);
            assert_eq!(message.split_once(" (line").unwrap().0, expected, "{text}");
        }
    }

    #[test]
    fn the_place_in_the_file_is_the_end_of_the_wrong_value() {
        let error = parse::<Spec>(b"{\n  \"ociVersion\": 1\n}").unwrap_err();
        assert_eq!(error.to_string(), "ociVersion must be a string, not integer `1` (line 2, column 17)");
    }

    #[test]
    fn what_is_not_json_is_said_so() {
        assert!(message("{\"ociVersion\": ").starts_with("this is not JSON: EOF while parsing"));
        assert!(message("").starts_with("this is not JSON"));
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_a_value(text in ".{0,60}") {
            let _ = parse::<Spec>(text.as_bytes());
        }

        #[test]
        fn a_wrong_value_in_a_list_is_found_at_its_place(before in 0_usize..20) {
            let mut args: Vec<serde_json::Value> = vec!["x,]}\"[{".into(); before];
            args.push(serde_json::Value::Null);
            let text = serde_json::json!({ "ociVersion": "1", "process": { "args": args } }).to_string();
            let expected = format!("process.args[{before}] must be a string, not null");
            prop_assert!(message(&text).starts_with(&expected));
        }
    }
}
