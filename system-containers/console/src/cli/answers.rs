//! What the engine answers, a line of JSON each.

use std::io::{BufRead, Lines};
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::error::Error;

/// One after the other, as they come; an error where they stop without [`berth_control::ANSWER_END`].
pub fn each<T: DeserializeOwned, R: BufRead>(lines: R) -> Answers<T, R> {
    Answers { lines: Some(lines.lines()), kind: PhantomData }
}

/// See [`each`].
pub struct Answers<T, R> {
    /// `None` behind the end.
    lines: Option<Lines<R>>,
    kind: PhantomData<T>,
}

impl<T: DeserializeOwned, R: BufRead> Iterator for Answers<T, R> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let answer = match self.lines.as_mut()?.next() {
            None => Err(Error::Refused(
                "the engine ended before its answer did; it is starting again, try once more".to_owned(),
            )),
            Some(Ok(line)) if line.is_empty() => {
                self.lines = None;
                return None;
            }
            Some(line) => line
                .map_err(Error::Output)
                .and_then(|line| serde_json::from_str(&line).map_err(|error| strange(&error))),
        };
        if answer.is_err() {
            self.lines = None;
        }
        Some(answer)
    }
}

/// The engine's answer is none.
pub fn strange(error: &serde_json::Error) -> Error {
    Error::Refused(format!("the engine says something that is no answer: {error}"))
}

/// The engine's answer has ended before what it was to end with.
pub fn without_outcome() -> Error {
    Error::Refused("the engine says neither that it has worked nor why it has not".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_off_is_not_taken_for_a_whole_one() {
        let numbers = |text: &str| each(text.as_bytes()).collect::<Result<Vec<u8>, _>>();
        assert_eq!(numbers("1\n2\n\n").unwrap(), [1, 2]);
        assert!(numbers("\n").unwrap().is_empty());
        for text in ["", "1\n", "1\n2"] {
            assert!(numbers(text).unwrap_err().to_string().contains("ended before its answer"), "{text:?}");
        }
        assert!(numbers("1\nx\n\n").unwrap_err().to_string().contains("no answer"));
    }
}
