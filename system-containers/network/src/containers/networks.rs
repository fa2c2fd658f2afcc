//! The networks that containers are on: which there are, their numbers, subnets and bridges.
//!
//! One file below the state directory keeps numbers and subnets, so that both are the same after a reboot. A bridge is
//! made when its first container comes, and removed when the configuration no longer has its network.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use berth_config::{ContainerNetwork, NetworkDriver, Networking, Prefix};
use berth_control::message;
use serde::{Deserialize, Serialize};

use super::bridge;
use super::subnet::Subnets;
use crate::link::{Link, LinkTable};
use crate::netlink::{Netlink, NetlinkError};
use crate::{files, random, report};

/// Three digits: the names of cables have room for no more.
const LAST_NUMBER: u16 = 999;
/// Networks that the machine has met: more than there are in its life, and a bound for who gives it ever new ones.
const MOST_AVOIDED: usize = 32;

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not in the configuration.
    #[error("there is no network {name}: declare it as [networks.{name}]")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// More than there are numbers, or every candidate is in use.
    #[error("no subnet is left for network {name}: give it `subnets` that nothing else uses")]
    NoSubnet {
        /// Its name.
        name: String,
    },
    /// The machine would not reach one of the two any more.
    #[error(
        "network {name} has the subnet {subnet}, which overlaps with {other} of the machine's link {link}: give it another one"
    )]
    Overlaps {
        /// Its name.
        name: String,
        /// As declared.
        subnet: Prefix,
        /// An address of the machine with its network, or the destination of a route.
        other: Prefix,
        /// The link's name.
        link: String,
    },
    /// Its bridge.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A network as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its own; the default network has 0.
    pub number: u16,
    /// As declared.
    pub settings: ContainerNetwork,
    /// What follows from that.
    pub subnets: Subnets,
    /// The number of its bridge while that is there.
    #[serde(skip)]
    pub bridge: Option<u32>,
}

impl Network {
    /// The name of its bridge.
    pub fn bridge_name(&self) -> String {
        bridge::name(self.number)
    }

    /// Where its containers' ways out lead, if anywhere: to the bridge, or to the router on the parent's network.
    pub fn gateways(&self) -> [Option<IpAddr>; 2] {
        match self.settings.driver {
            NetworkDriver::Bridge => [Some(self.subnets.gateway4.into()), Some(self.subnets.gateway6.into())],
            NetworkDriver::Macvlan | NetworkDriver::Ipvlan => [true, false].map(|ipv4| self.settings.gateway(ipv4)),
        }
    }

    /// As clients are told of it.
    pub fn describe(&self, name: &str) -> message::Network {
        let (driver, link) = match self.settings.driver {
            NetworkDriver::Bridge => ("bridge", self.bridge.map(|_| self.bridge_name())),
            NetworkDriver::Macvlan => ("macvlan", self.settings.parent.as_ref().map(ToString::to_string)),
            NetworkDriver::Ipvlan => ("ipvlan", self.settings.parent.as_ref().map(ToString::to_string)),
        };
        message::Network {
            name: name.to_owned(),
            driver: driver.to_owned(),
            link: link.unwrap_or_default(),
            subnets: [self.subnets.ipv4, self.subnets.ipv6].iter().map(ToString::to_string).collect(),
            gateways: self.gateways().into_iter().flatten().map(|address| address.to_string()).collect(),
            internal: self.settings.internal,
            isolated: self.settings.isolated,
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// This machine's part of its IPv6 networks.
    random: u64,
    networks: BTreeMap<String, Network>,
    /// Networks of the machine that came to be where a subnet had been chosen, such as that of a lease. They are not there
    /// yet when the next subnet is chosen after a boot.
    #[serde(default)]
    avoided: Vec<Prefix>,
}

/// All networks.
#[derive(Debug)]
pub struct Networks {
    netlink: Netlink,
    path: PathBuf,
    kept: Kept,
    /// What the configuration says; until that is known, what was in force before.
    declared: BTreeMap<String, ContainerNetwork>,
    reserved: BTreeSet<IpAddr>,
}

impl Networks {
    /// Takes up what an earlier run of this program left.
    pub async fn take_up(netlink: Netlink, path: PathBuf, table: &LinkTable) -> Self {
        let kept: Option<Kept> = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let kept = kept.unwrap_or_else(|| Kept { random: random::number(), ..Kept::default() });
        let mut declared: BTreeMap<String, ContainerNetwork> =
            kept.networks.iter().map(|(name, network)| (name.clone(), network.settings.clone())).collect();
        declared.entry(ContainerNetwork::DEFAULT.to_owned()).or_default();
        let mut this = Self { netlink, path, kept, declared, reserved: BTreeSet::new() };
        let names: Vec<String> = this.kept.networks.keys().cloned().collect();
        for name in names {
            let there = this.get(&name).is_some_and(|network| {
                let bridge = network.bridge_name();
                table.iter().any(|link| link.name == bridge)
            });
            if there && let Err(error) = this.up(&name, table).await {
                report::failure(&error);
            }
        }
        this
    }

    /// One of them, if it was ever needed.
    pub fn get(&self, name: &str) -> Option<&Network> {
        self.kept.networks.get(name)
    }

    /// All that were ever needed.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Network)> {
        self.kept.networks.iter()
    }

    /// Those whose bridges are there.
    pub fn live(&self) -> impl Iterator<Item = (&String, &Network)> {
        self.kept.networks.iter().filter(|(_, network)| network.bridge.is_some())
    }

    /// Whether the configuration gives the address to one container.
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.contains(&address)
    }

    /// The configuration has changed: says which networks are others now, or none. Nothing of theirs is to be used
    /// any more; [`Self::forget`] is to be called for each.
    pub fn configure(&mut self, networking: &Networking) -> Vec<String> {
        self.declared = networking.networks.iter().map(|(name, it)| (name.to_string(), it.clone())).collect();
        self.declared.entry(ContainerNetwork::DEFAULT.to_owned()).or_default();
        self.reserved.clone_from(&networking.reserved);
        for (name, network) in &mut self.kept.networks {
            if let Some(declared) = self.declared.get(name).filter(|it| it.is_same_apart_from_rules(&network.settings))
            {
                network.settings.clone_from(declared);
            }
        }
        let changed = |(name, network): &(&String, &Network)| self.declared.get(*name) != Some(&network.settings);
        self.kept.networks.iter().filter(changed).map(|(name, _)| name.clone()).collect()
    }

    /// Removes a network's bridge. Its number and, where they are not given, its subnets stay its own as long as it is
    /// declared.
    pub async fn forget(&mut self, name: &str) {
        let declared = self.declared.get(name);
        let Some(network) = self.kept.networks.get_mut(name) else { return };
        let (bridge, bridge_name) = (network.bridge.take(), network.bridge_name());
        match declared {
            Some(declared) => network.settings = declared.clone(),
            None => drop(self.kept.networks.remove(name)),
        }
        if let Some(bridge) = bridge
            && let Err(error) = self.netlink.remove_link(bridge, &bridge_name).await
        {
            report::failure(&error);
        }
        self.save();
    }

    /// A network with its bridge, if it has one, which is made when it is needed. Says whether it was.
    pub async fn up(&mut self, name: &str, table: &LinkTable) -> Result<bool, NetworkError> {
        if self.get(name).is_some_and(|network| network.bridge.is_some()) {
            return Ok(false);
        }
        let unknown = || NetworkError::Unknown { name: name.to_owned() };
        let settings = self.declared.get(name).cloned().ok_or_else(unknown)?;
        let before = self.get(name).cloned();
        let no_subnet = || NetworkError::NoSubnet { name: name.to_owned() };
        let number =
            before.as_ref().map_or_else(|| self.free_number(name), |it| Some(it.number)).ok_or_else(no_subnet)?;
        // Where containers use it already it stays, whatever the host's routes are now.
        let on_bridge =
            |link: &Link| link.controller.is_some_and(|index| is_called(table, index, &bridge::name(number)));
        let in_use = table.iter().any(on_bridge);
        let bridged = settings.driver == NetworkDriver::Bridge;
        let taken = if in_use {
            Vec::new()
        } else {
            let of_host = bridge::host_networks(&self.netlink, table).await?;
            if bridged {
                refuse_overlaps(name, &settings.subnets, table, &of_host)?;
            }
            self.taken(name, of_host, table)
        };
        let subnets = before.as_ref().map(|it| it.subnets);
        let avoided = if in_use { &[] } else { self.kept.avoided.as_slice() };
        let choose = |taken: &[Prefix]| Subnets::choose(number, &settings, subnets, taken, self.kept.random);
        // What was there once may be all that is left.
        let subnets = choose(&[&taken, avoided].concat()).or_else(|| choose(&taken)).ok_or_else(no_subnet)?;
        let mut network = Network { number, settings, subnets, bridge: None };
        let changed = before.as_ref() != Some(&network);
        if bridged {
            network.bridge = Some(bridge::ensure(&self.netlink, &network).await?);
        }
        self.kept.networks.insert(name.to_owned(), network);
        if changed {
            self.save();
        }
        Ok(bridged)
    }

    /// A bridge is gone that nobody here has removed: says of which network.
    pub fn lose(&mut self, bridge: u32) -> Option<String> {
        let (name, network) = self.kept.networks.iter_mut().find(|(_, network)| network.bridge == Some(bridge))?;
        network.bridge = None;
        Some(name.clone())
    }

    fn free_number(&self, name: &str) -> Option<u16> {
        if name == ContainerNetwork::DEFAULT {
            return Some(0);
        }
        let used: BTreeSet<u16> = self.kept.networks.values().map(|network| network.number).collect();
        (1..=LAST_NUMBER).find(|number| !used.contains(number))
    }

    /// The networks that the host or another network uses.
    fn taken(&self, name: &str, of_host: Vec<(Prefix, u32)>, table: &LinkTable) -> Vec<Prefix> {
        let mut taken: Vec<Prefix> = of_host.into_iter().map(|(network, _)| network).collect();
        // No route of the main table leads to an address that is alone in its network, or a VRF's.
        taken.extend(table.iter().filter(|link| !link.is_own()).flat_map(of_link));
        let others = self.kept.networks.iter().filter(|(other, _)| *other != name);
        taken.extend(others.map(|(_, other)| other.subnets.ipv4));
        let others = self.declared.iter().filter(|(other, _)| *other != name);
        taken.extend(others.flat_map(|(_, other)| other.subnet(true)));
        taken
    }

    /// What is wrong with the addresses that a link of the machine has got, for people.
    pub fn overlaps(&self, link: &Link) -> Vec<String> {
        let mut found = Vec::new();
        for (name, network) in self.live() {
            for subnet in [network.subnets.ipv4, network.subnets.ipv6] {
                let help = match network.settings.subnet(subnet.address().is_ipv4()) {
                    Some(_) => "give that one other `subnets`",
                    None => "it gets another one when the machine starts anew; give it `subnets` to have that now",
                };
                found.extend(of_link(link).find(|own| own.overlaps(subnet)).map(|own| {
                    format!(
                        "its address {own} overlaps with {subnet}, the subnet of the containers' network {name}: {help}"
                    )
                }));
            }
        }
        found
    }

    /// Remembers the networks of the machine that have come to be where a subnet was chosen.
    pub fn note_overlaps(&mut self, table: &LinkTable) {
        let chosen = self.live().filter(|(_, network)| network.settings.subnet(true).is_none());
        let chosen: Vec<Prefix> = chosen.map(|(_, network)| network.subnets.ipv4).collect();
        if chosen.is_empty() {
            return;
        }
        let avoided = &mut self.kept.avoided;
        let before = avoided.len();
        for own in table.iter().filter(|link| !link.is_own()).flat_map(of_link) {
            let is_met = chosen.iter().any(|subnet| subnet.overlaps(own));
            // A lease has another address of the same network each time.
            let is_new = !avoided.iter().any(|other| other.length() == own.length() && other.overlaps(own));
            if is_met && is_new && avoided.len() < MOST_AVOIDED {
                avoided.push(own);
            }
        }
        if avoided.len() > before {
            self.save();
        }
    }

    fn save(&self) {
        let written: io::Result<()> = serde_json::to_vec(&self.kept)
            .map_err(io::Error::from)
            .and_then(|bytes| files::write_atomically(&self.path, &bytes));
        if let Err(error) = written {
            report::say(format_args!("containers' networks may be others after a reboot: {error}"));
        }
    }
}

fn is_called(table: &LinkTable, index: u32, name: &str) -> bool {
    table.find(index).is_some_and(|link| link.name == name)
}

/// The addresses of a link with their networks.
fn of_link(link: &Link) -> impl Iterator<Item = Prefix> {
    let global = link.addresses.iter().filter(|(_, facts)| facts.global);
    global.filter_map(|(address, facts)| Prefix::new(*address, facts.prefix_length))
}

/// A subnet may be a part of what a route leads to: it has the longer prefix. Beside an address of the machine, or with a
/// route into it, some of the two would not be reached.
fn refuse_overlaps(
    name: &str,
    subnets: &[Prefix],
    table: &LinkTable,
    routes: &[(Prefix, u32)],
) -> Result<(), NetworkError> {
    for subnet in subnets {
        let links = table.iter().filter(|link| !link.is_own());
        let mut addresses = links.flat_map(|link| of_link(link).map(move |own| (own, link)));
        let routed = || {
            let within = |(route, _): &&(Prefix, u32)| route.overlaps(*subnet) && route.length() >= subnet.length();
            routes.iter().filter(within).find_map(|(route, link)| Some((*route, table.find(*link)?)))
        };
        if let Some((other, link)) = addresses.find(|(own, _)| own.overlaps(*subnet)).or_else(routed) {
            let (name, link) = (name.to_owned(), link.name.clone());
            return Err(NetworkError::Overlaps { name, subnet: *subnet, other, link });
        }
    }
    Ok(())
}
