//! What the engine answers, a line of JSON each.

use std::io::BufRead;

use serde::de::DeserializeOwned;

use super::error::Error;

/// One after the other, as they come.
pub fn each<T: DeserializeOwned>(lines: impl BufRead) -> impl Iterator<Item = Result<T, Error>> {
    let wrong = |error| Error::Refused(format!("the engine says something that is no answer: {error}"));
    lines.lines().map(move |line| serde_json::from_str(&line.map_err(Error::Output)?).map_err(wrong))
}
