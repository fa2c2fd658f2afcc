//! Device nodes that a container gets: `/dev/ttyUSB0[:/dev/modem][:rwm]`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::names::{AbsolutePath, NameError};
use crate::text::text_value;

/// Why text is no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// A path that is none.
    #[error("the path {path:?}: {source}")]
    Path {
        /// As written.
        path: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// More than three parts.
    #[error("it has more than three parts")]
    Parts,
    /// Letters other than r, w and m.
    #[error("{text:?} is not made of r (read), w (write) and m (make the node)")]
    Access {
        /// As written.
        text: String,
    },
}

/// A device node of the machine in the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    source: AbsolutePath,
    destination: AbsolutePath,
    access: Access,
}

text_value!(Device, "a device such as \"/dev/ttyUSB0\" or \"/dev/ttyUSB0:/dev/modem:rw\"");

/// What the device cgroup lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Access {
    read: bool,
    write: bool,
    make: bool,
}

impl Device {
    /// On the machine.
    pub fn source(&self) -> &AbsolutePath {
        &self.source
    }

    /// In the container.
    pub fn destination(&self) -> &AbsolutePath {
        &self.destination
    }

    /// Some of the letters `rwm`, in this order, as the OCI runtime specification has them.
    pub fn access(&self) -> String {
        let Access { read, write, make } = self.access;
        [(read, 'r'), (write, 'w'), (make, 'm')].into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect()
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let path = |path: &str| {
            path.parse::<AbsolutePath>().map_err(|source| DeviceError::Path { path: path.to_owned(), source })
        };
        let mut parts = text.split(':');
        let source = path(parts.next().unwrap_or(""))?;
        let (second, third) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(DeviceError::Parts);
        }
        // Docker's rule: the second of two parts is a path if it starts like one, the access otherwise.
        let (destination, access) = match (second, third) {
            (Some(second), None) if !second.starts_with('/') => (None, Some(second)),
            (second, third) => (second, third),
        };
        let destination = destination.map(path).transpose()?.unwrap_or_else(|| source.clone());
        Ok(Self { source, destination, access: access.map_or(Ok(Access::READ_WRITE_MAKE), str::parse)? })
    }
}

impl Access {
    /// Docker's default.
    const READ_WRITE_MAKE: Self = Self { read: true, write: true, make: true };
}

impl FromStr for Access {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let bad = || DeviceError::Access { text: text.to_owned() };
        let mut access = Self { read: false, write: false, make: false };
        for letter in text.chars() {
            let flag = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.make,
                _ => return Err(bad()),
            };
            if std::mem::replace(flag, true) {
                return Err(bad());
            }
        }
        if text.is_empty() { Err(bad()) } else { Ok(access) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}", self.source)?;
        if self.destination != self.source {
            write!(formatter, ":{}", self.destination)?;
        }
        if self.access != Access::READ_WRITE_MAKE {
            write!(formatter, ":{}", self.access())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_docker_reads_them() {
        let read = |text: &str| {
            let device: Device = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            format!("{} {} {}", device.source(), device.destination(), device.access())
        };
        assert_eq!(read("/dev/a"), "/dev/a /dev/a rwm");
        assert_eq!(read("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(read("/dev/a:r"), "/dev/a /dev/a r");
        assert_eq!(read("/dev/a:/dev/b:mr"), "/dev/a /dev/b rm");
        for text in ["", "a", "/dev/a:", "/dev/a:x", "/dev/a:rr", "/dev/a:/dev/b:", "/dev/a:/dev/b:r:w", "/dev/a:b:r"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
