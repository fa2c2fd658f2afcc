//! Which network namespace a container runs in.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::names::{ContainerName, NameError};
use crate::text::text_value;

/// Text that is no network mode.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkModeError {
    /// None of the words.
    #[error("{text:?} is not a network mode")]
    Unknown {
        /// As written.
        text: String,
    },
    /// What stands behind `container:`.
    #[error("{text:?} is not a container's name: {source}")]
    Name {
        /// As written.
        text: String,
        /// Why.
        source: NameError,
    },
}

/// Which network the container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// One of its own, joined to others and the outside by the bridges of its `networks`.
    #[default]
    Bridge,
    /// The machine's.
    Host,
    /// Only a loopback link of its own.
    None,
    /// That of another container: the same links, addresses and ports.
    Container(ContainerName),
}

text_value!(NetworkMode, "\"bridge\", \"host\", \"none\" or \"container:\" and the name of another container");

impl FromStr for NetworkMode {
    type Err = NetworkModeError;

    fn from_str(text: &str) -> Result<Self, NetworkModeError> {
        match (text, text.strip_prefix("container:")) {
            ("bridge", _) => Ok(Self::Bridge),
            ("host", _) => Ok(Self::Host),
            ("none", _) => Ok(Self::None),
            (_, Some(name)) => name
                .parse()
                .map(Self::Container)
                .map_err(|source| NetworkModeError::Name { text: name.to_owned(), source }),
            _ => Err(NetworkModeError::Unknown { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Bridge => formatter.write_str("bridge"),
            Self::Host => formatter.write_str("host"),
            Self::None => formatter.write_str("none"),
            Self::Container(name) => write!(formatter, "container:{name}"),
        }
    }
}
