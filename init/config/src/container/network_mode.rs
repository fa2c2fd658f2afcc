//! Which network namespace a container runs in.

use std::fmt;
use std::str::FromStr;

use super::sharing::{OF_ANOTHER, SharingError, of_another};
use crate::names::ContainerName;
use crate::text::text_value;

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
    type Err = SharingError;

    fn from_str(text: &str) -> Result<Self, SharingError> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => of_another(text).map(Self::Container),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Bridge => formatter.write_str("bridge"),
            Self::Host => formatter.write_str("host"),
            Self::None => formatter.write_str("none"),
            Self::Container(name) => write!(formatter, "{OF_ANOTHER}{name}"),
        }
    }
}
