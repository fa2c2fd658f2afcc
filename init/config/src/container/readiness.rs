//! When a container counts as ready.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that is no such moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no moment at which a container is ready")]
pub struct ReadyWhenError {
    /// The text.
    pub text: String,
}

/// What must have happened before those that depend on a container start, and before it counts as running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadyWhen {
    /// Its program runs.
    #[default]
    Started,
    /// A process in it has sent `READY=1` to the socket that NOTIFY_SOCKET names (sd_notify(3)).
    Notify,
    /// Somebody listens on this TCP port in its network, on whichever address.
    Listening(NonZeroU16),
}

text_value!(ReadyWhen, "\"started\", \"notify\" or a TCP port such as \"listening:5432\"");

impl FromStr for ReadyWhen {
    type Err = ReadyWhenError;

    fn from_str(text: &str) -> Result<Self, ReadyWhenError> {
        match text {
            "started" => Ok(Self::Started),
            "notify" => Ok(Self::Notify),
            _ => {
                let port = text.strip_prefix("listening:").and_then(|port| port.parse().ok());
                port.map(Self::Listening).ok_or_else(|| ReadyWhenError { text: text.to_owned() })
            }
        }
    }
}

impl fmt::Display for ReadyWhen {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Started => formatter.write_str("started"),
            Self::Notify => formatter.write_str("notify"),
            Self::Listening(port) => write!(formatter, "listening:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["started", "notify", "listening:1", "listening:65535"] {
            assert_eq!(text.parse::<ReadyWhen>().unwrap().to_string(), text);
        }
        for text in ["", "ready", "listening", "listening:0", "listening:65536", "listening:80/udp", "Notify"] {
            assert!(text.parse::<ReadyWhen>().is_err(), "{text}");
        }
    }
}
