//! `[network.links.<name>.wireguard]`: tunnels, their keys and peers.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Prefix;
use crate::names::HostName;
use crate::quantities::TimeSpan;
use crate::text::text_value;

/// A tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct WireGuard {
    /// The machine's own key; if absent, one that is made and kept on the state partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<WireGuardKey>,
    /// The UDP port that peers may begin at; any if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// For policy rules: a number that the tunnel's own packets carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Who is at the other ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<WireGuardPeer>,
}

/// One other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WireGuardPeer {
    /// Who it is.
    pub public_key: WireGuardKey,
    /// A secret between the two, beside the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<WireGuardKey>,
    /// Where it is; if absent it must begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What it may send from, and what is sent to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<Prefix>,
    /// How often something is sent, for NAT on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_keepalive: Option<TimeSpan>,
}

/// Why text is no key or endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireGuardError {
    /// Not 32 bytes as base64.
    #[error("this is no key of 32 bytes in base64")]
    Key,
    /// No address or name and port.
    #[error("{text:?} is no address or host name with a port")]
    Endpoint {
        /// As written.
        text: String,
    },
}

/// A key of Curve25519, or a secret of the same length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WireGuardKey([u8; 32]);

text_value!(WireGuardKey, "a key as `wg genkey` and `wg pubkey` print it: 44 characters of base64");

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl WireGuardKey {
    /// A key of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A secret does not belong into a log.
impl fmt::Debug for WireGuardKey {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("WireGuardKey(…)")
    }
}

impl FromStr for WireGuardKey {
    type Err = WireGuardError;

    fn from_str(text: &str) -> Result<Self, WireGuardError> {
        let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43).ok_or(WireGuardError::Key)?;
        let mut bytes = [0; 32];
        let mut place = bytes.iter_mut();
        let (mut bits, mut count) = (0_u32, 0);
        for digit in digits.bytes() {
            let value = ALPHABET.iter().position(|each| *each == digit).ok_or(WireGuardError::Key)?;
            bits = bits << 6 | u32::try_from(value).map_err(|_| WireGuardError::Key)?;
            count += 6;
            if count >= 8 {
                count -= 8;
                if let Some(place) = place.next() {
                    *place = u8::try_from(bits >> count & 0xff).map_err(|_| WireGuardError::Key)?;
                }
                bits &= (1 << count) - 1;
            }
        }
        // 43 digits are two bits more than a key has.
        if bits == 0 { Ok(Self(bytes)) } else { Err(WireGuardError::Key) }
    }
}

impl fmt::Display for WireGuardKey {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for group in self.0.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..4 {
                let value = usize::try_from(bits >> (18 - 6 * place) & 0x3f).unwrap_or(0);
                let digit = ALPHABET.get(value).copied().filter(|_| place <= group.len()).unwrap_or(b'=');
                write!(formatter, "{}", char::from(digit))?;
            }
        }
        Ok(())
    }
}

/// Where a peer is: an address, or a host name that leads to one, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An address.
    Address(SocketAddr),
    /// A name that the machine's resolver is asked for.
    Name(HostName, u16),
}

text_value!(
    Endpoint,
    "an address or a host name with a port, such as \"192.0.2.9:51820\", \"[2001:db8::9]:51820\" or \"vpn.example.org:51820\""
);

impl Endpoint {
    /// The address and the port, where nobody need be asked for it.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = WireGuardError;

    fn from_str(text: &str) -> Result<Self, WireGuardError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let of_name = |(name, port): (&str, &str)| {
            // An address with a slip of the pen: no top-level domain is a number (RFC 3696, section 2).
            let is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
            let port: u16 = port.parse().ok().filter(|port| *port > 0 && !is_number)?;
            Some(Self::Name(name.parse().ok()?, port))
        };
        let named = text.rsplit_once(':').and_then(of_name);
        named.ok_or_else(|| WireGuardError::Endpoint { text: text.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written_as_wg_does() {
        // A key that `wg genkey` printed.
        let text = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let key: WireGuardKey = text.parse().expect("a key");
        assert_eq!((key.bytes()[0], key.bytes()[31]), (0xc8, 0x69));
        assert_eq!(key.to_string(), text);
        assert_eq!(WireGuardKey::new([0xff; 32]).to_string().parse(), Ok(WireGuardKey::new([0xff; 32])));
        let bad = [
            "",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBml=",
            "yAnz5TF lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmkA=",
        ];
        for text in bad {
            assert!(text.parse::<WireGuardKey>().is_err(), "{text}");
        }
        assert!(!format!("{key:?}").contains("yAnz"));
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_name_with_a_port() {
        for text in ["192.0.2.9:51820", "[2001:db8::9]:51820"] {
            let endpoint: Endpoint = text.parse().expect("an address");
            assert_eq!(
                (endpoint.address().map(|address| address.to_string()), endpoint.to_string()),
                (Some(text.into()), text.into())
            );
        }
        for text in ["vpn.example.org:51820", "vpn:1"] {
            let endpoint: Endpoint = text.parse().expect("a name");
            assert_eq!((endpoint.address(), endpoint.to_string()), (None, text.to_owned()));
        }
        for text in [
            "",
            "vpn",
            "vpn:",
            ":51820",
            "vpn:0",
            "vpn:65536",
            "192.0.2.999:51820",
            "192.0.2:1",
            "2001:db8::9:51820",
            "a b:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
