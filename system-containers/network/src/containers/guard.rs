//! From `allow`, `deny`, `allow_out` and `deny_out` of containers and networks to the packet filter's rules. Pure.
//!
//! What is denied comes first, wherever it stands. A container's own `allow` counts for it, else that of its network, whose
//! containers always reach each other; nobody else gets through then. Without either, it is as if there were no rules. The
//! same goes for what a container may connect to, where its network's resolver comes before everything else: without names,
//! what is allowed could not be found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_config::{Access, ContainerNetwork, OpenPorts, Peers, Prefix};

use super::attachment::{Attachment, Cable};
use super::networks::Network;
use super::register::Register;
use crate::nftables::guard::{Chain, Direction, Guard, Peer, Rule};

/// Of the resolver (RFC 1035, section 4.2).
const NAMES: [&str; 2] = ["53/udp", "53/tcp"];

/// What it is made from.
pub struct Sources<'a> {
    /// All containers.
    pub attachments: &'a Register,
    /// All networks.
    pub networks: BTreeMap<&'a str, &'a Network>,
}

impl Sources<'_> {
    /// All rules.
    pub fn guard(&self) -> Guard {
        let mut guard = Guard::default();
        for attachment in self.attachments.iter() {
            for cable in attachment.cables.iter().filter(|cable| cable.bridged) {
                let Some(network) = self.networks.get(cable.network.as_str()) else { continue };
                for direction in [Direction::In, Direction::Out] {
                    self.add(&mut guard, direction, attachment, (cable, network));
                }
            }
        }
        if !guard.is_empty() {
            let cables = self.attachments.iter().flat_map(|attachment| &attachment.cables);
            let with_addresses = cables.filter(|cable| cable.bridged).flat_map(|cable| {
                [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)].map(|address| (cable.link_name(), address))
            });
            guard.own = with_addresses.collect();
        }
        guard
    }

    fn add(
        &self,
        guard: &mut Guard,
        direction: Direction,
        attachment: &Attachment,
        (cable, network): (&Cable, &Network),
    ) {
        let settings = network.settings.access();
        let (own, common) = (says(&attachment.wanted.access, direction), says(&settings, direction));
        let has_own = !(own.0.is_empty() && own.1.is_empty());
        if !has_own && common.0.is_empty() && common.1.is_empty() {
            return;
        }
        let way = match direction {
            Direction::In => "to",
            Direction::Out => "from",
        };
        // No name of a container holds a slash.
        let chain = match has_own {
            true => format!("{way}/{}/{}", cable.network, attachment.wanted.name),
            false => format!("{way}/{}", cable.network),
        };
        guard.chains.entry(chain.clone()).or_insert_with(|| Chain {
            direction,
            rules: self.rules(direction, [own, common], (&cable.network, network)),
        });
        for address in [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)] {
            guard.addresses.insert((direction, address), chain.clone());
        }
        guard.links.insert((direction, cable.link_name()), chain);
    }

    /// From what a container and its network say.
    fn rules(&self, direction: Direction, [own, common]: [Said; 2], (name, network): (&str, &Network)) -> Vec<Rule> {
        let mut rules = Vec::new();
        if direction == Direction::Out {
            rules.extend(to_resolver(network));
        }
        rules.extend(own.1.iter().chain(common.1).flat_map(|peers| self.matches(peers, (direction, name), false)));
        let allow = if own.0.is_empty() { common.0 } else { own.0 };
        if allow.is_empty() {
            return rules;
        }
        if own.0.is_empty() && !network.settings.isolated {
            let peers = members(network, true, spares_machine(direction, true));
            rules.extend(peers.map(|peer| Rule { peer, ports: None, accept: true }));
        }
        rules.extend(allow.iter().flat_map(|peers| self.matches(peers, (direction, name), true)));
        rules.push(Rule { peer: Peer::Any, ports: None, accept: false });
        rules
    }

    /// One entry: every peer with every port, for who is on the network `here`. Nobody if the container that it names does
    /// not run.
    fn matches(&self, peers: &Peers, (direction, here): (Direction, &str), accept: bool) -> Vec<Rule> {
        let anybody = peers.container.is_none() && peers.network.is_none() && peers.address.is_none();
        let named =
            if anybody { [Peer::Any].into() } else { self.peers(peers, here, spares_machine(direction, accept)) };
        let named = named.into_iter().map(|peer| self.only_routed(peer, (direction, here), accept));
        let ports: Vec<_> =
            if peers.ports.is_empty() { vec![None] } else { peers.ports.iter().copied().map(Some).collect() };
        let with_ports = |peer: Peer| ports.iter().map(move |ports| Rule { peer: peer.clone(), ports: *ports, accept });
        named.flat_map(with_ports).collect()
    }

    /// Who is let in by an address that is not one of the network comes from elsewhere.
    fn only_routed(&self, peer: Peer, (direction, here): (Direction, &str), accept: bool) -> Peer {
        let subnets = self.networks.get(here).map(|network| [network.subnets.ipv4, network.subnets.ipv6]);
        match peer {
            Peer::Address(prefix)
                if direction == Direction::In
                    && accept
                    && !subnets.into_iter().flatten().any(|subnet| subnet.overlaps(prefix)) =>
            {
                Peer::Routed(prefix)
            }
            peer => peer,
        }
    }

    fn peers(&self, peers: &Peers, here: &str, without_machine: bool) -> BTreeSet<Peer> {
        let mut named: BTreeSet<Peer> = peers.address.into_iter().map(Peer::Address).collect();
        if let Some(name) = &peers.network
            && let Some(network) = self.networks.get(name.as_str())
        {
            named.extend(members(network, name.as_str() == here, without_machine));
        }
        if let Some(name) = peers.container.as_ref().map(berth_config::ContainerName::as_str) {
            let its = self.attachments.get(name).into_iter().chain(self.attachments.of_service(name));
            for cable in its.flat_map(|attachment| &attachment.cables) {
                named.extend([cable.ipv4.into(), cable.ipv6.into()].into_iter().filter_map(alone).map(Peer::Address));
                named.extend((cable.bridged && cable.network == here).then(|| Peer::Link(cable.link_name())));
            }
        }
        named
    }
}

/// What is allowed, and what is denied.
type Said<'a> = (&'a [Peers], &'a [Peers]);

fn says(access: &Access, direction: Direction) -> Said<'_> {
    match direction {
        Direction::In => access.inward(),
        Direction::Out => access.outward(),
    }
}

fn alone(address: IpAddr) -> Option<Prefix> {
    Prefix::new(address, if address.is_ipv4() { 32 } else { 128 })
}

/// Whether what is for the machine itself is to be told from what is for containers: its address on a network is one of the
/// network's, and to be allowed to reach these is not to be allowed to reach the machine.
fn spares_machine(direction: Direction, accept: bool) -> bool {
    accept && direction == Direction::Out
}

/// The containers of a network, for who is on the same or on another; `without_machine` if not the machine with them.
fn members(network: &Network, is_here: bool, without_machine: bool) -> impl Iterator<Item = Peer> {
    let peer = if without_machine { Peer::Beyond } else { Peer::Address };
    let subnets = [network.subnets.ipv4, network.subnets.ipv6].into_iter().map(peer);
    subnets.chain(is_here.then_some(Peer::Bridge))
}

fn to_resolver(network: &Network) -> impl Iterator<Item = Rule> {
    let gateways = [network.subnets.gateway4.into(), network.subnets.gateway6.into()].into_iter().filter_map(alone);
    let ports = || NAMES.iter().filter_map(|text| text.parse::<OpenPorts>().ok());
    gateways.flat_map(move |address| {
        ports().map(move |ports| Rule { peer: Peer::Address(address), ports: Some(ports), accept: true })
    })
}

/// Whether anything can come of it: most machines have no rules.
pub fn is_wanted<'a>(attachments: &Register, mut networks: impl Iterator<Item = &'a ContainerNetwork>) -> bool {
    attachments.has_rules() || networks.any(|it| !it.access().is_empty())
}
