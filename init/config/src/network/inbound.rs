//! Ports of the machine that are open to others.

use std::fmt;
use std::str::FromStr;

use crate::container::{PortError, PortRange, Protocol};
use crate::text::text_value;

/// One entry of `inbound`: a port or a range of ports, and what carries their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenPorts {
    ports: PortRange,
    protocol: Protocol,
}

text_value!(OpenPorts, scalars, "a port or a range of ports, such as 22, \"5353/udp\" or \"8000-8005/tcp\"");

impl OpenPorts {
    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.ports.first()
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.ports.last()
    }

    /// What carries the data.
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }
}

impl FromStr for OpenPorts {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Ok(Self { ports: ports.parse()?, protocol: protocol.parse()? })
    }
}

impl fmt::Display for OpenPorts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", self.ports, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_tcp() {
        let shown = |text: &str| text.parse::<OpenPorts>().map(|open| open.to_string());
        assert_eq!(shown("22").as_deref(), Ok("22/tcp"));
        assert_eq!(shown("5000-5005/udp").as_deref(), Ok("5000-5005/udp"));
        for text in ["", "0", "65536", "5-4", "22/icmp", "22/", "ssh", "1-2-3"] {
            assert!(text.parse::<OpenPorts>().is_err(), "{text}");
        }
    }
}
