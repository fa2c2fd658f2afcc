//! Whose namespaces a container runs in: how all modes name another container, and those of IPC and PID.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::names::{ContainerName, NameError};
use crate::text::text_value;

/// What stands before the name of another container.
pub(super) const OF_ANOTHER: &str = "container:";

/// Text that says of no namespace whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SharingError {
    /// None of the words.
    #[error("{text:?} says not whose it is")]
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

/// With whom the container shares memory, semaphores and message queues: ipc_namespaces(7), and the files in /dev/shm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpcMode {
    /// With nobody.
    #[default]
    Private,
    /// With the containers that name this one.
    Shareable,
    /// With another container, which is shareable.
    Container(ContainerName),
}

text_value!(IpcMode, "\"private\", \"shareable\" or \"container:\" and the name of another container");

/// Whose processes the container sees, and who sees its own: pid_namespaces(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PidMode {
    /// Its own only.
    #[default]
    Private,
    /// Those of another container as well, and that one sees its.
    Container(ContainerName),
}

text_value!(PidMode, "\"private\" or \"container:\" and the name of another container");

impl IpcMode {
    /// The other container.
    pub fn target(&self) -> Option<&ContainerName> {
        match self {
            Self::Container(name) => Some(name),
            Self::Private | Self::Shareable => None,
        }
    }
}

impl PidMode {
    /// The other container.
    pub fn target(&self) -> Option<&ContainerName> {
        match self {
            Self::Container(name) => Some(name),
            Self::Private => None,
        }
    }
}

/// The container that the text names.
pub(super) fn of_another(text: &str) -> Result<ContainerName, SharingError> {
    let name = text.strip_prefix(OF_ANOTHER).ok_or_else(|| SharingError::Unknown { text: text.to_owned() })?;
    name.parse().map_err(|source| SharingError::Name { text: name.to_owned(), source })
}

impl FromStr for IpcMode {
    type Err = SharingError;

    fn from_str(text: &str) -> Result<Self, SharingError> {
        match text {
            "private" => Ok(Self::Private),
            "shareable" => Ok(Self::Shareable),
            _ => of_another(text).map(Self::Container),
        }
    }
}

impl FromStr for PidMode {
    type Err = SharingError;

    fn from_str(text: &str) -> Result<Self, SharingError> {
        match text {
            "private" => Ok(Self::Private),
            _ => of_another(text).map(Self::Container),
        }
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Private => formatter.write_str("private"),
            Self::Shareable => formatter.write_str("shareable"),
            Self::Container(name) => write!(formatter, "{OF_ANOTHER}{name}"),
        }
    }
}

impl fmt::Display for PidMode {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Private => formatter.write_str("private"),
            Self::Container(name) => write!(formatter, "{OF_ANOTHER}{name}"),
        }
    }
}
