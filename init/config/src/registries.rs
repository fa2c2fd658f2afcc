//! `[registries.<name>]` and `[proxy]`: how images are pulled.
//!
//! A registry that no entry names is asked over HTTPS, without credentials, with Mozilla's certificate authorities and
//! those of the user-data partition.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::container::is_default;
use crate::names::{NameError, check_characters, check_edges, check_length};
use crate::network::{AddressError, Prefix};
use crate::text::{checked_string, text_value};

/// What is known of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Registries that are asked before this one, in this order. What each of them needs stands in its own entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorName>,
    /// Who pulls; nobody in particular if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password or access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// An OAuth2 refresh token, which some registries give instead of a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_token: Option<String>,
    /// Certificate authorities for this registry beside all others, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<DataFile>,
    /// What the machine shows to the registry, as PEM: the certificate and those between it and its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<DataFile>,
    /// The certificate's key, as PEM; in the certificate's file if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<DataFile>,
    /// Whether to speak HTTP without TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub plain_http: bool,
}

/// `[proxy]`: what stands between this machine and the registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// For HTTPS; what is called `HTTPS_PROXY` elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<ProxyAddress>,
    /// For HTTP without TLS; `HTTP_PROXY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<ProxyAddress>,
    /// Hosts that are asked directly; `NO_PROXY`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Unproxied>,
}

/// Hosts that are asked without a proxy, as programs read `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Unproxied {
    /// All: `*`.
    All,
    /// Those that are called by an address of this network.
    Network(Prefix),
    /// A host and all below it, at one port or at any.
    Host(RegistryName),
}

text_value!(
    Unproxied,
    "hosts such as \"example.org\", \".example.org\", \"registry.example:5000\", \"10.0.0.0/8\" or \"*\""
);

impl Unproxied {
    /// Whether the host is among them, at this port.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(prefix) => host.parse().is_ok_and(|address| prefix.contains(address)),
            Self::Host(name) => {
                let (name, wanted) = match name.as_str().rsplit_once(':') {
                    Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
                    _ => (name.as_str(), None),
                };
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let is_below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                is_below && wanted.is_none_or(|wanted: u16| wanted == port)
            }
        }
    }
}

impl FromStr for Unproxied {
    type Err = UnproxiedError;

    fn from_str(text: &str) -> Result<Self, UnproxiedError> {
        Ok(match text {
            "*" => Self::All,
            network if network.contains('/') => Self::Network(network.parse()?),
            name => Self::Host(name.strip_prefix("*.").or(name.strip_prefix('.')).unwrap_or(name).parse()?),
        })
    }
}

impl fmt::Display for Unproxied {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("*"),
            Self::Network(prefix) => write!(formatter, "{prefix}"),
            Self::Host(name) => write!(formatter, "{name}"),
        }
    }
}

/// Why a text names no hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnproxiedError {
    /// Nor an address with a prefix length.
    #[error(transparent)]
    Network(#[from] AddressError),
    /// Nor a host.
    #[error(transparent)]
    Host(#[from] NameError),
}

checked_string! {
    /// A registry's host name or address, with its port if that is not the usual one.
    RegistryName, NameError, check_registry, "a registry such as \"ghcr.io\" or \"registry.example:5000\""
}

fn check_registry(text: &str) -> Result<(), NameError> {
    check_length(text, 255)?;
    check_characters(text, |character| {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | ':' | '[' | ']')
    })?;
    check_edges(text, &['-', '.'])
}

checked_string! {
    /// A registry, or a part of one that stands for another registry: `harbor.example/docker-hub`.
    MirrorName, NameError, check_mirror, "a registry with or without a path, such as \"harbor.example/docker-hub\""
}

fn check_mirror(text: &str) -> Result<(), NameError> {
    let (registry, path) = text.split_once('/').unwrap_or((text, "path"));
    check_registry(registry)?;
    check_length(path, 255)?;
    path.split('/').try_for_each(|part| check_length(part, 255))?;
    let lower = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    check_characters(path, |character| lower(character) || matches!(character, '-' | '_' | '.' | '/'))
}

checked_string! {
    /// A file of the user-data partition.
    DataFile, NameError, check_data_file, "a file of the user-data partition such as \"certs/registry.pem\""
}

fn check_data_file(text: &str) -> Result<(), NameError> {
    check_length(text, 1024)?;
    check_characters(text, |character| !character.is_control())?;
    match text.split('/').find(|component| matches!(*component, "" | "." | "..")) {
        Some(component) => Err(NameError::Component { component: component.to_owned() }),
        None => Ok(()),
    }
}

checked_string! {
    /// Where a proxy is: `http://[user:password@]host[:port]`.
    ProxyAddress, NameError, check_proxy, "a proxy such as \"http://proxy.example:3128\""
}

fn check_proxy(text: &str) -> Result<(), NameError> {
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(NameError::Component { component: text.split("//").next().unwrap_or_default().to_owned() });
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    check_characters(rest, |character| character.is_ascii_graphic())?;
    check_registry(host.strip_suffix('/').unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_on_the_partition() {
        for path in ["certs/a.pem", "a b.pem", ".a"] {
            assert!(path.parse::<DataFile>().is_ok(), "{path}");
        }
        for path in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "a\n"] {
            assert!(path.parse::<DataFile>().is_err(), "{path}");
        }
    }

    #[test]
    fn a_mirror_may_be_a_part_of_a_registry() {
        for name in ["mirror", "mirror:5000", "[::1]:5000", "harbor.example/docker-hub/x"] {
            assert!(name.parse::<MirrorName>().is_ok(), "{name}");
        }
        for name in ["", "https://mirror", "mirror/", "mirror/A", "a b", "mirror/a?b"] {
            assert!(name.parse::<MirrorName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_proxy_is_spoken_to_in_plain_http() {
        for address in ["http://proxy", "http://proxy:3128/", "http://user:pass@192.0.2.1:3128"] {
            assert!(address.parse::<ProxyAddress>().is_ok(), "{address}");
        }
        for address in ["proxy:3128", "https://proxy", "socks5://proxy", "http://", "http://pro xy"] {
            assert!(address.parse::<ProxyAddress>().is_err(), "{address}");
        }
    }

    #[test]
    fn hosts_without_a_proxy_are_read_as_programs_read_no_proxy() {
        let covers = |text: &str, host: &str, port| {
            let hosts: Unproxied = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(hosts.to_string().parse(), Ok(hosts.clone()));
            hosts.covers(host, port)
        };
        for name in ["example.org", ".example.org", "*.example.org"] {
            assert!(covers(name, "example.org", 443) && covers(name, "a.b.example.org", 5000), "{name}");
            assert!(!covers(name, "notexample.org", 443) && !covers(name, "example.org.a", 443), "{name}");
        }
        assert!(covers("example.org:5000", "a.example.org", 5000) && !covers("example.org:5000", "example.org", 443));
        assert!(covers("10.0.0.0/8", "10.255.0.1", 443) && !covers("10.0.0.0/8", "11.0.0.1", 443));
        assert!(!covers("10.0.0.0/8", "ten.example", 443), "names are not resolved for it");
        assert!(covers("fd00::/8", "fd00::7", 443) && covers("*", "any.example", 80));
        assert!(covers("192.0.2.7", "192.0.2.7", 80) && !covers("192.0.2.7", "192.0.2.70", 80));
        assert!(covers("[2001:db8::7]:5000", "2001:db8::7", 5000) && covers("[2001:db8::7]", "2001:db8::7", 443));
        for wrong in ["", ".", "*.", "a b", "10.0.0.0/33", "name/8"] {
            assert!(wrong.parse::<Unproxied>().is_err(), "{wrong}");
        }
    }
}
