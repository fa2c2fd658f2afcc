//! Addresses with a prefix length, and packet sizes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No prefix length.
    #[error("{text:?} has no prefix length")]
    NoLength {
        /// As written.
        text: String,
    },
    /// Not an address.
    #[error("{text:?} is not an IP address")]
    Address {
        /// As written.
        text: String,
    },
    /// More bits than the address has.
    #[error("{text:?} is not a prefix length between 0 and {limit}")]
    Length {
        /// As written.
        text: String,
        /// 32 or 128.
        limit: u8,
    },
    /// A packet size beyond what IP allows.
    #[error("{text:?} is not a packet size between 68 and 65535")]
    Mtu {
        /// As written.
        text: String,
    },
}

/// An address and how many of its bits are the network's: `192.0.2.7/24`, `2001:db8::7/64`. The other bits are kept:
/// it is the address of a link as well as the destination of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

text_value!(Prefix, "an address with its prefix length, such as \"192.0.2.7/24\" or \"2001:db8::7/64\"");

impl Prefix {
    /// `None` if the address has fewer bits than that.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, length })
    }

    /// All bits of it.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// At most 32 or 128.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether all bits beyond the length are 0.
    pub fn is_network(self) -> bool {
        match self.address {
            IpAddr::V4(address) => address.to_bits().checked_shl(self.length.into()).unwrap_or(0) == 0,
            IpAddr::V6(address) => address.to_bits().checked_shl(self.length.into()).unwrap_or(0) == 0,
        }
    }

    /// Whether some address is in both networks.
    pub fn overlaps(self, other: Self) -> bool {
        if self.length <= other.length { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// Whether the address is in the network.
    pub fn contains(self, other: IpAddr) -> bool {
        let differing = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(two)) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
            (IpAddr::V6(one), IpAddr::V6(two)) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.length)
    }
}

impl FromStr for Prefix {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(AddressError::NoLength { text: text.to_owned() });
        };
        let address: IpAddr = address.parse().map_err(|_| AddressError::Address { text: address.to_owned() })?;
        let limit = if address.is_ipv4() { 32 } else { 128 };
        match length.parse() {
            Ok(bits) if bits <= limit && !length.starts_with('+') => Ok(Self { address, length: bits }),
            _ => Err(AddressError::Length { text: length.to_owned(), limit }),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

/// The largest packet of a link in bytes: between 68 (RFC 791) and 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u16);

impl Mtu {
    /// In bytes.
    pub const fn bytes(self) -> u32 {
        self.0 as u32
    }
}

crate::text::described!(Mtu, { "type": ["integer", "string"], "minimum": 68, "maximum": 65535 });

impl FromStr for Mtu {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse() {
            Ok(bytes) if bytes >= 68 => Ok(Self(bytes)),
            _ => Err(AddressError::Mtu { text: text.to_owned() }),
        }
    }
}

impl serde::Serialize for Mtu {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Mtu {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a packet size in bytes, such as 1500";
        let text = crate::text::Text { expected, scalars: true }.read(deserializer)?;
        text.parse().map_err(|error: AddressError| crate::text::refusal(&error, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_addresses_with_a_length() {
        for text in ["192.0.2.7/24", "0.0.0.0/0", "2001:db8::7/128"] {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "192.0.2.7",
            "192.0.2.7/",
            "192.0.2.7/33",
            "192.0.2/24",
            "::/129",
            "192.0.2.7/+1",
            "192.0.2.7/255.255.255.0",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_contains_its_own_addresses() {
        let contains = |prefix: &str, address: &str| {
            let prefix: Result<Prefix, _> = prefix.parse();
            prefix.is_ok_and(|prefix| address.parse().is_ok_and(|address| prefix.contains(address)))
        };
        assert!(contains("192.0.2.7/24", "192.0.2.254"));
        assert!(!contains("192.0.2.7/25", "192.0.2.128"));
        assert!(contains("192.0.2.7/0", "8.8.8.8"));
        assert!(!contains("192.0.2.7/32", "192.0.2.8"));
        assert!(contains("2001:db8::1/64", "2001:db8::ffff"));
        assert!(!contains("0.0.0.0/0", "::"));
    }
}
