//! Published ports: `[address:]port[-port]:port[-port][/protocol]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::text_value;

/// Why text publishes no port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// Only the container's port is there.
    #[error("it does not say which port of the machine leads to the container")]
    OneSided,
    /// Not a port.
    #[error("{text:?} is not a port between 1 and 65535")]
    Port {
        /// What stands there.
        text: String,
    },
    /// A range that ends before it starts.
    #[error("the range {text:?} ends before it starts")]
    Backwards {
        /// The range.
        text: String,
    },
    /// Two ranges of different length.
    #[error("{host} ports of the machine cannot lead to {container} of the container")]
    Lengths {
        /// Ports of the host.
        host: u32,
        /// Ports of the container.
        container: u32,
    },
    /// Not an address.
    #[error("{text:?} is not an IP address")]
    Address {
        /// What stands there.
        text: String,
    },
    /// Not one of the three.
    #[error("{text:?} is not a protocol, there are tcp, udp and sctp")]
    Protocol {
        /// What stands there.
        text: String,
    },
}

/// What carries the data of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The default.
    #[default]
    Tcp,
    /// User datagrams.
    Udp,
    /// Stream control transmission.
    Sctp,
}

impl Protocol {
    /// The number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As in /etc/protocols.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        let found = all.into_iter().find(|protocol| protocol.name() == text);
        found.ok_or_else(|| PortError::Protocol { text: text.to_owned() })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A port of the machine that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMapping {
    /// The machine's address; `None` is every address.
    pub host_address: Option<IpAddr>,
    /// On the machine; never 0.
    pub host_port: u16,
    /// In the container; never 0.
    pub container_port: u16,
    /// Which protocol.
    pub protocol: Protocol,
}

/// Whether something that listens on both would listen twice: `None` is every address, 0.0.0.0 and :: are every
/// address of their family.
fn addresses_overlap(one: Option<IpAddr>, two: Option<IpAddr>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => {
            one == two || (one.is_ipv4() == two.is_ipv4() && (one.is_unspecified() || two.is_unspecified()))
        }
        _ => true,
    }
}

/// One entry of `ports`: a port, or as many on the machine as in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublishedPorts {
    host_address: Option<IpAddr>,
    host: PortRange,
    container: PortRange,
    protocol: Protocol,
}

text_value!(
    PublishedPorts,
    "\"port of the machine:port of the container\", such as \"8080:80\", \"127.0.0.1:5300:53/udp\" or \"8000-8005:8000-8005\""
);

/// From `first` to `last`, both in it, neither 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PublishedPorts {
    /// The machine's address; `None` is every address.
    pub const fn host_address(&self) -> Option<IpAddr> {
        self.host_address
    }

    /// The lowest port of the machine.
    pub const fn first_host_port(&self) -> u16 {
        self.host.first
    }

    /// The lowest port of the container.
    pub const fn first_container_port(&self) -> u16 {
        self.container.first
    }

    /// How many ports follow the lowest, on both sides.
    pub const fn further_ports(&self) -> u16 {
        self.host.last - self.host.first
    }

    /// What it takes to lead there, in places of the packet filter: ports that lead to the same ones of the container go by
    /// their range.
    pub(crate) fn places(&self) -> u32 {
        if self.host == self.container { 1 } else { self.host.count() }
    }

    /// The highest port of the machine.
    pub(crate) const fn last_host_port(&self) -> u16 {
        self.host.last
    }

    /// What carries the data.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The lowest port of the machine that both want.
    pub fn common_host_port(&self, other: &Self) -> Option<u16> {
        let first = self.host.first.max(other.host.first);
        let common = first <= self.host.last.min(other.host.last);
        let same = self.protocol == other.protocol && addresses_overlap(self.host_address, other.host_address);
        (common && same).then_some(first)
    }

    /// Whether one of them is this port of the machine.
    pub(crate) fn has_host_port(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol == protocol && (self.host.first..=self.host.last).contains(&port)
    }

    /// The ports one by one.
    pub fn mappings(&self) -> impl Iterator<Item = PortMapping> + use<> {
        let Self { host_address, host, container, protocol } = *self;
        (host.first..=host.last)
            .zip(container.first..=container.last)
            .map(move |(host_port, container_port)| PortMapping { host_address, host_port, container_port, protocol })
    }
}

impl FromStr for PublishedPorts {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse()?;
        let Some((front, container)) = ports.rsplit_once(':') else {
            return Err(PortError::OneSided);
        };
        let (address, host) = match front.rsplit_once(':') {
            None => (None, front),
            Some((address, host)) => (Some(address), host),
        };
        let host_address = address.map(parse_address).transpose()?;
        let host: PortRange = host.parse()?;
        let container: PortRange = container.parse()?;
        if host.count() != container.count() {
            return Err(PortError::Lengths { host: host.count(), container: container.count() });
        }
        Ok(Self { host_address, host, container, protocol })
    }
}

fn parse_address(text: &str) -> Result<IpAddr, PortError> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| PortError::Address { text: text.to_owned() })
}

impl PortRange {
    pub(crate) const fn first(self) -> u16 {
        self.first
    }

    pub(crate) const fn last(self) -> u16 {
        self.last
    }

    fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let port = |text: &str| match text.parse() {
            // u16's FromStr takes a plus sign.
            Ok(port) if port != 0 && !text.starts_with('+') => Ok(port),
            _ => Err(PortError::Port { text: text.to_owned() }),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last { Err(PortError::Backwards { text: text.to_owned() }) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}", self.first)?;
        if self.last != self.first {
            write!(formatter, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl fmt::Display for PublishedPorts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.host_address {
            Some(IpAddr::V4(address)) => write!(formatter, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(formatter, "[{address}]:")?,
            None => {}
        }
        write!(formatter, "{}:{}", self.host, self.container)?;
        if self.protocol != Protocol::Tcp {
            write!(formatter, "/{}", self.protocol)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(text: &str) -> Vec<String> {
        let ports: PublishedPorts = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let show = |port: PortMapping| {
            let address = port.host_address.map_or("*".to_owned(), |address| address.to_string());
            format!("{address} {} {} {}", port.host_port, port.container_port, port.protocol)
        };
        ports.mappings().map(show).collect()
    }

    #[test]
    fn the_forms_of_compose_are_read() {
        assert_eq!(mappings("8080:80"), ["* 8080 80 tcp"]);
        assert_eq!(mappings("127.0.0.1:5300:53/udp"), ["127.0.0.1 5300 53 udp"]);
        assert_eq!(mappings("[::1]:80:80/sctp"), ["::1 80 80 sctp"]);
        assert_eq!(mappings("::1:80:80"), ["::1 80 80 tcp"]);
        assert_eq!(mappings("8000-8001:9000-9001/tcp"), ["* 8000 9000 tcp", "* 8001 9001 tcp"]);
        assert_eq!(mappings("1-65535:1-65535").len(), 65535);
    }

    #[test]
    fn what_publishes_nothing_is_refused() {
        let error = |text: &str| text.parse::<PublishedPorts>().expect_err(text);
        assert_eq!(error("80"), PortError::OneSided);
        assert_eq!(error("0:80"), PortError::Port { text: "0".to_owned() });
        assert_eq!(error("80:65536"), PortError::Port { text: "65536".to_owned() });
        assert_eq!(error("+80:80"), PortError::Port { text: "+80".to_owned() });
        assert_eq!(error("80:90-85"), PortError::Backwards { text: "90-85".to_owned() });
        assert_eq!(error("80-82:80"), PortError::Lengths { host: 3, container: 1 });
        assert_eq!(error("localhost:80:80"), PortError::Address { text: "localhost".to_owned() });
        assert_eq!(error("80:80/icmp"), PortError::Protocol { text: "icmp".to_owned() });
        assert_eq!(error(":80"), PortError::Port { text: String::new() });
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["8080:80", "127.0.0.1:5300:53/udp", "[::1]:80:80/sctp", "8000-8001:9000-9001"] {
            assert_eq!(text.parse::<PublishedPorts>().map(|ports| ports.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn ports_collide_where_one_listener_would_refuse_the_other() {
        let common = |one: &str, two: &str| {
            let (one, two) = (one.parse::<PublishedPorts>(), two.parse::<PublishedPorts>());
            one.ok().zip(two.ok()).and_then(|(one, two)| one.common_host_port(&two))
        };
        assert_eq!(common("80:1", "80:2"), Some(80));
        assert_eq!(common("80:1", "80:2/udp"), None);
        assert_eq!(common("80:1", "127.0.0.1:80:2"), Some(80));
        assert_eq!(common("127.0.0.1:80:1", "127.0.0.1:80:2"), Some(80));
        assert_eq!(common("127.0.0.1:80:1", "127.0.0.2:80:2"), None);
        assert_eq!(common("0.0.0.0:80:1", "127.0.0.2:80:2"), Some(80));
        assert_eq!(common("0.0.0.0:80:1", "[::]:80:2"), None);
        assert_eq!(common("80-90:80-90", "85-99:85-99"), Some(85));
        assert_eq!(common("80-90:80-90", "91:91"), None);
    }
}
