//! From `allow` and `deny` of containers and networks to the packet filter's rules. Pure.
//!
//! What is denied comes first, wherever it stands. A container's own `allow` counts for it, else that of its network, whose
//! containers always reach each other; nobody else gets through then. Without either, it is as if there were no rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_config::{ContainerNetwork, Peers, Prefix};

use super::attachment::{Attachment, Cable};
use super::networks::Network;
use super::register::Register;
use crate::nftables::guard::{Guard, Rule, Source};

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
                self.add(&mut guard, attachment, cable);
            }
        }
        guard
    }

    fn add(&self, guard: &mut Guard, attachment: &Attachment, cable: &Cable) {
        let Some(network) = self.networks.get(cable.network.as_str()) else { return };
        let (own, settings) = (&attachment.wanted, &network.settings);
        let has_own = !(own.allow.is_empty() && own.deny.is_empty());
        if !has_own && settings.allow.is_empty() && settings.deny.is_empty() {
            return;
        }
        // No name of a container holds a slash.
        let chain =
            if has_own { format!("to/{}/{}", cable.network, own.name) } else { format!("to/{}", cable.network) };
        guard.chains.entry(chain.clone()).or_insert_with(|| self.rules(attachment, &cable.network, network));
        for address in [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)] {
            guard.destinations.insert(address, chain.clone());
        }
        guard.links.insert(cable.link_name(), chain);
    }

    fn rules(&self, attachment: &Attachment, name: &str, network: &Network) -> Vec<Rule> {
        let (own, settings) = (&attachment.wanted, &network.settings);
        let mut rules: Vec<Rule> =
            own.deny.iter().chain(&settings.deny).flat_map(|peers| self.matches(peers, name, false)).collect();
        let allow = if own.allow.is_empty() { &settings.allow } else { &own.allow };
        if allow.is_empty() {
            return rules;
        }
        if own.allow.is_empty() && !settings.isolated {
            rules.extend(members(network, true).map(|source| Rule { source, ports: None, accept: true }));
        }
        rules.extend(allow.iter().flat_map(|peers| self.matches(peers, name, true)));
        rules.push(Rule { source: Source::Any, ports: None, accept: false });
        rules
    }

    /// One entry: every source with every port, for who is on the network `here`. Nobody if the container that it names does
    /// not run.
    fn matches(&self, peers: &Peers, here: &str, accept: bool) -> Vec<Rule> {
        let anybody = peers.container.is_none() && peers.network.is_none() && peers.address.is_none();
        let sources = if anybody { [Source::Any].into() } else { self.sources(peers, here) };
        let ports: Vec<_> =
            if peers.ports.is_empty() { vec![None] } else { peers.ports.iter().copied().map(Some).collect() };
        let with_ports =
            |source: Source| ports.iter().map(move |ports| Rule { source: source.clone(), ports: *ports, accept });
        sources.into_iter().flat_map(with_ports).collect()
    }

    fn sources(&self, peers: &Peers, here: &str) -> BTreeSet<Source> {
        let mut sources: BTreeSet<Source> = peers.address.into_iter().map(Source::Address).collect();
        if let Some(name) = &peers.network
            && let Some(network) = self.networks.get(name.as_str())
        {
            sources.extend(members(network, name.as_str() == here));
        }
        if let Some(name) = peers.container.as_ref().map(berth_config::ContainerName::as_str) {
            let is_it = |wanted: &berth_control::message::Attachment| wanted.name == name || wanted.service == name;
            let its = self.attachments.iter().filter(|attachment| is_it(&attachment.wanted));
            for cable in its.flat_map(|attachment| &attachment.cables) {
                let one = [Prefix::new(cable.ipv4.into(), 32), Prefix::new(cable.ipv6.into(), 128)];
                sources.extend(one.into_iter().flatten().map(Source::Address));
                sources.extend((cable.bridged && cable.network == here).then(|| Source::Link(cable.link_name())));
            }
        }
        sources
    }
}

/// The containers of a network, for who is on the same or on another.
fn members(network: &Network, is_here: bool) -> impl Iterator<Item = Source> {
    let subnets = [network.subnets.ipv4, network.subnets.ipv6].into_iter().map(Source::Address);
    subnets.chain(is_here.then_some(Source::Bridge))
}

/// Whether anything can come of it: most machines have no rules.
pub fn is_wanted<'a>(attachments: &Register, mut networks: impl Iterator<Item = &'a ContainerNetwork>) -> bool {
    attachments.has_rules() || networks.any(|it| !(it.allow.is_empty() && it.deny.is_empty()))
}
