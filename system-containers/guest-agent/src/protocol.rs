//! Requests and answers as JSON: QMP's `execute`/`return`/`error`, without its greeting.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::frames::{Frame, MAXIMUM_REQUEST};

/// A request in the form of QMP (docs/interop/qmp-spec).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The command's name.
    pub execute: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// Chosen by the client, repeated in the answer.
    pub id: Option<Value>,
}

/// What a command that went well says.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Its value.
    Return(Value),
    /// Its value behind the byte 0xFF, by which the client finds the beginning of what is new.
    Delimited(Value),
    /// Nothing: the machine is going down.
    Silence,
}

impl Answer {
    /// The answer of commands that have nothing to tell.
    #[must_use]
    pub fn empty() -> Self {
        Self::Return(json!({}))
    }
}

/// Why a frame of the stream is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not JSON.
    #[error("invalid JSON syntax")]
    Syntax,
    /// Over the limit.
    #[error("a request is longer than {MAXIMUM_REQUEST} bytes")]
    TooLong,
    /// JSON, but no request.
    #[error("parse a request")]
    Parse(#[source] serde_json::Error),
}

/// Makes a request of a frame.
pub fn parse(frame: Frame) -> Result<Request, RequestError> {
    match frame {
        Frame::Object(bytes) => serde_json::from_slice(&bytes).map_err(RequestError::Parse),
        Frame::Malformed => Err(RequestError::Syntax),
        Frame::TooLong => Err(RequestError::TooLong),
    }
}

/// The bytes of an answer, with the line end that clients read up to.
#[must_use]
pub fn encode_answer(answer: Answer, id: Option<Value>) -> Vec<u8> {
    let (mut bytes, value) = match answer {
        Answer::Silence => return Vec::new(),
        Answer::Return(value) => (Vec::new(), value),
        Answer::Delimited(value) => (vec![0xff], value),
    };
    bytes.extend(with_id(json!({ "return": value }), id).to_string().into_bytes());
    bytes.push(b'\n');
    bytes
}

/// The bytes of an error; `class` is one of QAPI's (`GenericError`, `CommandNotFound`).
#[must_use]
pub fn encode_error(class: &str, error: &dyn std::error::Error, id: Option<Value>) -> Vec<u8> {
    let error = json!({ "error": { "class": class, "desc": chain(error) } });
    let mut bytes = with_id(error, id).to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn with_id(mut message: Value, id: Option<Value>) -> Value {
    if let (Some(message), Some(id)) = (message.as_object_mut(), id) {
        message.insert("id".to_owned(), id);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_a_command_and_nothing_else() {
        let frame = |text: &str| Frame::Object(text.as_bytes().to_vec());
        assert_eq!(parse(frame(r#"{"execute":"guest-ping"}"#)).unwrap().execute, "guest-ping");
        assert!(parse(frame("{}")).is_err());
        assert!(parse(frame(r#"{"execute":"guest-ping","argument":{}}"#)).is_err());
        assert!(parse(frame(r#"{"execute":"guest-ping"]"#)).is_err());
        assert!(parse(Frame::TooLong).is_err());
    }

    #[test]
    fn an_answer_repeats_the_id_and_may_be_delimited() {
        let bytes = encode_answer(Answer::Delimited(json!(7)), Some(json!("x")));
        assert_eq!(bytes[0], 0xff);
        assert_eq!(serde_json::from_slice::<Value>(&bytes[1..]).unwrap(), json!({ "return": 7, "id": "x" }));
        assert!(encode_answer(Answer::Silence, None).is_empty());
    }

    #[test]
    fn an_error_has_a_class_and_tells_its_cause() {
        let source = serde_json::from_str::<Value>("{").unwrap_err();
        let bytes = encode_error("GenericError", &RequestError::Parse(source), None);
        let error: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(error["error"]["class"], "GenericError");
        assert!(error["error"]["desc"].as_str().unwrap().starts_with("parse a request: EOF"), "{error}");
    }
}
