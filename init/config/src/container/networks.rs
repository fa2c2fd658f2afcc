//! Which networks a container is on: a list of names, or a table of settings as in Compose's long form.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::names::HostName;
use crate::networks::NetworkName;
use crate::text::text_value;

const WANTED: &str = "a list such as [\"front\"], or a table such as { front = { ipv4_address = \"10.0.0.7\" } }";

/// `networks` of a container, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Networks {
    /// Names only.
    List(Vec<NetworkName>),
    /// With settings.
    Table(BTreeMap<NetworkName, Membership>),
}

/// A container's part in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Membership {
    /// A fixed address; one is chosen if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// A fixed address; one is chosen if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<Ipv6Addr>,
    /// A fixed hardware address; it follows from the IPv4 address if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// Names, beside the container's own, by which others on this network find it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<HostName>,
}

impl Membership {
    /// The fixed addresses, by their key.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, IpAddr)> + use<> {
        let ipv4 = self.ipv4_address.map(|address| ("ipv4_address", IpAddr::V4(address)));
        ipv4.into_iter().chain(self.ipv6_address.map(|address| ("ipv6_address", IpAddr::V6(address))))
    }
}

impl Default for Networks {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Networks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(names) => names.is_empty(),
            Self::Table(table) => table.is_empty(),
        }
    }

    /// The networks with the container's part in each, a list in its order and a table by name.
    pub fn iter(&self) -> impl Iterator<Item = (&NetworkName, Membership)> {
        let (names, table) = match self {
            Self::List(names) => (Some(names), None),
            Self::Table(table) => (None, Some(table)),
        };
        let listed = names.into_iter().flatten().map(|name| (name, Membership::default()));
        listed.chain(table.into_iter().flatten().map(|(name, membership)| (name, membership.clone())))
    }
}

crate::text::described!(Networks, {
    "description": "Takes a list of networks, or a table of networks with the container's addresses and names in each.",
    "anyOf": [
        { "type": "array", "items": { "type": "string" } },
        { "type": "object", "additionalProperties": {
            "type": "object",
            "properties": {
                "ipv4_address": { "type": "string" },
                "ipv6_address": { "type": "string" },
                "mac_address": { "type": "string" },
                "aliases": { "type": "array", "items": { "type": "string" } }
            },
            "additionalProperties": false
        } }
    ]
});

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Networks;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(WANTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Networks, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Networks::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Networks, A::Error> {
        let table: BTreeMap<_, _> = Deserialize::deserialize(MapAccessDeserializer::new(table))?;
        // What is left out when it is written has one form only.
        Ok(if table.is_empty() { Networks::default() } else { Networks::Table(table) })
    }
}

/// Text that is no hardware address of one link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not the hardware address of a link")]
pub struct MacError {
    /// As written.
    pub text: String,
}

/// The hardware address of one link; neither of a group nor all zero, which the kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

text_value!(MacAddress, "a hardware address such as \"02:42:ac:11:00:02\"");

impl MacAddress {
    /// In the order of the wire.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError { text: text.to_owned() };
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        // The lowest bit of the first byte is that of a group (IEEE 802).
        let of_one_link = bytes.first().is_some_and(|first| first & 1 == 0) && bytes != [0; 6];
        if parts.next().is_none() && of_one_link { Ok(Self(bytes)) } else { Err(refused()) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_that_of_one_link() {
        for text in ["02:42:ac:11:00:02", "fe:ff:ff:ff:ff:ff"] {
            assert_eq!(text.parse::<MacAddress>().map(|mac| mac.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "01:00:5e:00:00:01", "00:00:00:00:00:00", "2:3:4:5:6:7"]
        {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
