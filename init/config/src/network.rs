//! `[network]`: links, addresses and name servers of the machine.
//!
//! A link that no entry matches behaves as [`LinkSettings::default`]: if it is an Ethernet link it is set up, asks
//! DHCP for an IPv4 address and listens to router advertisements.

mod address;
mod bond;
mod hardware;
mod inbound;
mod made;
mod matching;
mod rule;
mod wireguard;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::address::{AddressError, Mtu, Prefix};
pub use self::bond::{
    AdSelect, ArpAllTargets, ArpValidate, Bond, BondMode, FailOverMac, LacpRate, PrimaryReselect, TransmitHash,
};
pub use self::hardware::Hardware;
pub use self::inbound::OpenPorts;
pub use self::made::{Bridge, Made, Vlan, VlanProtocol, Vrf};
pub use self::matching::{LinkIdentity, LinkMatch, Pattern};
pub use self::rule::{Rule, RuleAction};
pub use self::wireguard::{Endpoint, WireGuard, WireGuardKey, WireGuardPeer};
use crate::container::{MacAddress, is_default};
use crate::names::{HostName, NameError, TimeServer};
use crate::text::checked_string;

/// Everything about the machine's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Name servers; asked before those of single links and of DHCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<HostName>,
    /// Name servers of single domains and what is below them, by the domain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<HostName, Vec<IpAddr>>,
    /// Whether the machine's programs ask its own resolver, which keeps answers; if not, they ask the name servers.
    #[serde(skip_serializing_if = "is_true")]
    pub resolver: bool,
    /// Who is asked for the time; those that DHCP names if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_servers: Vec<TimeServer>,
    /// Ports of the machine itself that others may connect to. Published ports need no entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inbound: Vec<OpenPorts>,
    /// Which routing tables packets are looked up in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Links by name. With `match` the name is only a label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<LinkName, LinkSettings>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            dns: Vec::new(),
            dns_search: Vec::new(),
            domains: BTreeMap::new(),
            resolver: true,
            time_servers: Vec::new(),
            inbound: Vec::new(),
            rules: Vec::new(),
            links: BTreeMap::new(),
        }
    }
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Network {
    /// The settings for a link: the entry with its name, else the first in the order of names whose `match` fits.
    pub fn link_settings(&self, link: &LinkIdentity) -> Option<(&LinkName, &LinkSettings)> {
        let by_name = self.links.get_key_value(link.name).filter(|(_, settings)| settings.matching.is_none());
        by_name.or_else(|| {
            self.links.iter().find(|(_, settings)| {
                settings.matching.as_ref().is_some_and(|matching| settings.is_for(matching, link))
            })
        })
    }

    /// The bond, bridge or VRF that the link is a port of.
    pub fn controller(&self, link: &LinkIdentity) -> Option<(&LinkName, &LinkSettings)> {
        let entry = self.link_settings(link).map(|(name, _)| name.as_str());
        self.links.iter().find(|(_, settings)| {
            settings.ports().iter().any(|port| port.as_str() == link.name || Some(port.as_str()) == entry)
        })
    }
}

checked_string! {
    /// The name of a link, or a label for some links: at most 15 bytes, the kernel's limit (IFNAMSIZ less the zero).
    LinkName, NameError, check_link_name, "a link's name of at most 15 characters, such as \"eth0\""
}

fn check_link_name(text: &str) -> Result<(), NameError> {
    // dev_valid_name() in the kernel's net/core/dev.c.
    match text {
        "" => return Err(NameError::Empty),
        "." | ".." => return Err(NameError::Component { component: text.to_owned() }),
        _ if text.len() > 15 => return Err(NameError::TooLong { length: text.len(), limit: 15 }),
        _ => {}
    }
    match text.chars().find(|character| !character.is_ascii_graphic() || matches!(character, '/' | ':' | '%')) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

/// `[network.links.<name>]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LinkSettings {
    /// Which links are meant; the one with the entry's name if absent.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<LinkMatch>,
    /// The name that the link gets; the kernel's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rename: Option<LinkName>,
    /// The hardware address that the link gets; its own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Makes the link: several links as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// Makes the link: one VLAN of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Makes the link: a switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// Makes the link: one that leads nowhere.
    #[serde(skip_serializing_if = "is_default")]
    pub dummy: bool,
    /// Makes the link: routing of its own for some links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<Vrf>,
    /// Makes the link: a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<WireGuard>,
    /// Whether to ask DHCP for an IPv4 address. If absent: yes, unless `addresses` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether to take an address of 169.254.0.0/16 as long as DHCP gives none; yes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_local: Option<bool>,
    /// Whether to ask DHCPv6 for addresses. If absent: what routers say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<bool>,
    /// Whether connections go out from addresses that change (RFC 8981).
    #[serde(skip_serializing_if = "is_default")]
    pub privacy: bool,
    /// Where IPv6 addresses come from.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: Ipv6,
    /// Fixed addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Prefix>,
    /// Default gateways, at most one of each family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name servers that are asked before those of DHCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Of the routes of this link that have none of their own, those of DHCP and router advertisements too. Links with a
    /// lower one are preferred; if absent, the order in which the machine found them counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The routing table of this link's routes; the main one, or that of its VRF, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The largest packet; the driver's or DHCP's choice if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl LinkSettings {
    /// Whether to ask DHCP for an IPv4 address.
    pub fn uses_dhcp(&self) -> bool {
        self.dhcp.unwrap_or_else(|| {
            self.speaks_ethernet() && !self.addresses.iter().any(|address| address.address().is_ipv4())
        })
    }

    /// Whether to take an address of the link alone (RFC 3927) as long as DHCP gives none.
    pub fn falls_back(&self) -> bool {
        self.link_local.unwrap_or(true)
    }

    /// Whether there can be a DHCP server on the link.
    pub fn speaks_ethernet(&self) -> bool {
        !matches!(self.made(), Some(Made::Dummy | Made::Vrf(_) | Made::WireGuard(_)))
    }

    /// Whether `match` fits. A link that was renamed is still meant by its old name.
    fn is_for(&self, matching: &LinkMatch, link: &LinkIdentity) -> bool {
        match &self.rename {
            Some(new) if new.as_str() == link.name => {
                let others = LinkMatch { name: None, ..matching.clone() };
                others == LinkMatch::default() || others.fits(link)
            }
            _ => matching.fits(link),
        }
    }

    /// Whether to take addresses and routes from IPv6 router advertisements.
    pub fn accepts_router_advertisements(&self) -> bool {
        self.ipv6 == Ipv6::Auto
    }
}

/// Where a link's IPv6 addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Ipv6 {
    /// From router advertisements, on top of `addresses`.
    #[default]
    Auto,
    /// Only from `addresses`, next to the link-local one.
    Static,
    /// IPv6 is switched off on this link.
    Off,
}

/// One entry of `routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` and `::/0` are default routes.
    pub destination: Prefix,
    /// The next router; the link itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Routes with a lower one are preferred; the link's if absent, else the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The routing table; the link's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_not_a_name() {
        let driver = LinkMatch { driver: "e1000e".parse().ok(), ..LinkMatch::default() };
        let label = LinkSettings { matching: Some(driver), ..LinkSettings::default() };
        let links = [("eth0", label.clone()), ("eth1", LinkSettings::default()), ("lan", label)];
        let links = links.map(|(name, settings)| (name.parse().expect("a name"), settings)).into();
        let network = Network { links, ..Network::default() };
        let chosen = |name: &str, driver: &str| {
            let link = LinkIdentity { name, driver, ..LinkIdentity::default() };
            network.link_settings(&link).map(|(name, _)| name.to_string())
        };
        assert_eq!(chosen("eth0", "virtio_net"), None);
        assert_eq!(chosen("eth1", "virtio_net").as_deref(), Some("eth1"));
        assert_eq!(chosen("eth1", "e1000e").as_deref(), Some("eth1"));
        assert_eq!(chosen("eth7", "e1000e").as_deref(), Some("eth0"));
    }
}
