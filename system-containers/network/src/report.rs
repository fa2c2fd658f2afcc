//! What goes to the container's log: one line an event, said once, where it is handled.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

/// Writes a line to standard error. There is nobody to tell when that fails, and the network matters more.
pub fn say(line: impl Display) {
    let _nobody_to_tell = writeln!(std::io::stderr(), "{line}");
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Says an error that does not end anything.
pub fn failure(error: &dyn Error) {
    say(chain(error));
}
