//! `-a` of `berth run`: which of the streams this command has.

use super::super::error::Error;
use super::refused;

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Input,
    Output,
    Error,
}

/// As it is written.
pub fn stream(text: &str) -> Result<Stream, String> {
    match text.to_lowercase().as_str() {
        "stdin" => Ok(Stream::Input),
        "stdout" => Ok(Stream::Output),
        "stderr" => Ok(Stream::Error),
        _ => Err("there are stdin, stdout and stderr".to_owned()),
    }
}

/// Whether standard input is passed on, if the container has one. Both outputs come in any case.
pub fn input(streams: &[Stream]) -> Result<bool, Error> {
    let outputs = [Stream::Output, Stream::Error];
    if !streams.is_empty() && !outputs.iter().all(|output| streams.contains(output)) {
        return Err(refused("with -a name stdout and stderr; the shell leaves one out: `2>/dev/null`, or -d both"));
    }
    Ok(streams.is_empty() || streams.contains(&Stream::Input))
}
