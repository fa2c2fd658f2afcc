//! Networks of containers: subnets that do not overlap, and containers that fit into them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::container_path;
use crate::configuration::Configuration;
use crate::container::{Container, NetworkMode};
use crate::load::Report;
use crate::names::ContainerName;
use crate::network::Prefix;
use crate::networks::{ContainerNetwork, NetworkDriver, NetworkName, ParentMode};
use crate::suggestion::nearest;
use crate::tree::{Node, Path};

/// The shortest and longest prefix of a subnet: not more than a machine could fill, and room for some containers.
const IPV4_LENGTHS: std::ops::RangeInclusive<u8> = 8..=29;
const IPV6_LENGTHS: std::ops::RangeInclusive<u8> = 48..=120;
/// RFC 8200: every link that carries IPv6 takes packets of this size.
const LEAST_MTU: u32 = 1280;

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    let mut check = Check { configuration, root, report };
    let mut seen: Vec<(Prefix, Path)> = Vec::new();
    for (name, network) in &configuration.networks {
        check.network(name, network, &mut seen);
    }
    let mut owners: BTreeMap<IpAddr, Path> = BTreeMap::new();
    for (name, container) in &configuration.containers {
        check.memberships(name, container, &mut owners);
    }
}

struct Check<'a, 'b> {
    configuration: &'a Configuration,
    root: &'a Node,
    report: &'a mut Report<'b>,
}

impl Check<'_, '_> {
    fn refuse(&mut self, path: &Path, message: impl Into<String>, help: &str) {
        let mistake = self.report.about(self.root, path, message).help(help);
        self.report.add(mistake);
    }

    fn network(&mut self, name: &NetworkName, network: &ContainerNetwork, seen: &mut Vec<(Prefix, Path)>) {
        let path = Path::default().key("networks").key(name.as_str());
        let mut families = BTreeSet::new();
        for (index, subnet) in network.subnets.iter().enumerate() {
            let path = path.clone().key("subnets").index(index);
            let lengths = if subnet.address().is_ipv4() { IPV4_LENGTHS } else { IPV6_LENGTHS };
            if !lengths.contains(&subnet.length()) {
                let help = format!("its prefix length is between {} and {}", lengths.start(), lengths.end());
                self.refuse(&path, "a network of containers cannot have this size", &help);
            }
            if !subnet.is_network() {
                self.refuse(&path, "bits behind the prefix are set", "name the network's lowest address");
            }
            if !families.insert(subnet.address().is_ipv4()) {
                self.refuse(&path, "there is a subnet of this family already", "leave one of them out");
            }
            if let Some((other, first)) = seen.iter().find(|(other, _)| other.overlaps(*subnet)) {
                let mistake = self.report.about(self.root, &path, format!("it overlaps with {other}"));
                let mistake = self.report.relate(mistake.help("choose another one"), self.root, first, "this");
                self.report.add(mistake);
            }
            seen.push((*subnet, path));
        }
        for (index, gateway) in network.gateways.iter().enumerate() {
            if !network.subnet(gateway.is_ipv4()).is_some_and(|subnet| is_usable(subnet, *gateway)) {
                let path = path.clone().key("gateways").index(index);
                self.refuse(
                    &path,
                    "no subnet of the network has this gateway",
                    "name an address of one of the network's subnets",
                );
            }
        }
        if network.mtu.is_some_and(|mtu| mtu.bytes() < LEAST_MTU) {
            let help = "`mtu` wants at least 1280";
            self.refuse(&path.clone().key("mtu"), "IPv6 does not work with packets that small", help);
        }
        let is_on = |container: &&Container| container.networks.iter().any(|(network, _)| network == name);
        let mine = self.configuration.containers.values().filter(is_on);
        let replicas = |container: &Container| container.replicas.map_or(1, |count| count.get().into());
        let count: u64 = mine.map(replicas).sum();
        if network.mode == Some(ParentMode::Passthru) && count > 1 {
            let message = format!("one container has all of its parent link, and {count} are on it");
            self.refuse(&path.clone().key("mode"), message, "choose another mode, or leave one container on it");
        }
        for (key, message, help) in super::drivers::mistakes(network) {
            self.refuse(&key.map_or_else(|| path.clone(), |key| path.clone().key(key)), message, help);
        }
    }

    fn memberships(&mut self, name: &ContainerName, container: &Container, owners: &mut BTreeMap<IpAddr, Path>) {
        let networks = container_path(name).key("networks");
        if !container.networks.is_empty() && container.network_mode != NetworkMode::Bridge {
            let message =
                format!("with the network mode \"{}\" it is on no network of its own", container.network_mode);
            return self.refuse(&networks, message, "leave `networks` or `network_mode` out");
        }
        let mut seen = BTreeSet::new();
        let mut way_out = container.networks.is_empty();
        for (index, (network, membership)) in container.networks.iter().enumerate() {
            let path = match &container.networks {
                crate::container::Networks::List(_) => networks.clone().index(index),
                crate::container::Networks::Table(_) => networks.clone().key(network.as_str()),
            };
            if !seen.insert(network) {
                self.refuse(&path, "the network is there twice", "leave it out");
            }
            let default = ContainerNetwork::default();
            let of_all = (network.as_str() == ContainerNetwork::DEFAULT).then_some(&default);
            let Some(settings) = self.configuration.networks.get(network).or(of_all) else {
                if !self.report.alone {
                    self.unknown(network, &path);
                }
                // What is not known may lead out.
                way_out = true;
                continue;
            };
            if !way_out && !settings.internal {
                way_out = true;
                self.ports_on(name, container, network, settings);
            }
            if settings.driver == NetworkDriver::Ipvlan && membership.mac_address.is_some() {
                let help = "leave it out, or give the network the driver \"macvlan\"";
                self.refuse(
                    &path.clone().key("mac_address"),
                    "containers of an ipvlan network have their parent's",
                    help,
                );
            }
            if settings.mode == Some(ParentMode::Passthru) && membership.mac_address.is_some() {
                let help = "leave it out, or give the network another `mode`";
                self.refuse(
                    &path.clone().key("mac_address"),
                    "a container that has all of its parent link has its hardware address too",
                    help,
                );
            }
            let fixed = membership.addresses().count() > 0 || membership.mac_address.is_some();
            if fixed && container.replicas.is_some_and(|count| count.get() > 1) {
                self.refuse(&path, "replicas cannot have the same address", "leave the addresses out");
            }
            for (key, address) in membership.addresses() {
                self.fixed_address(&path.clone().key(key), address, settings, owners);
            }
        }
        if !way_out && !container.ports.is_empty() {
            let help = "publish no ports, or name a network that is not internal";
            let path = container_path(name).key("ports");
            self.refuse(&path, "all networks of the container are internal, nothing leads to it", help);
        }
    }

    /// Ports of the machine lead to containers by its bridges only.
    fn ports_on(
        &mut self,
        name: &ContainerName,
        container: &Container,
        network: &NetworkName,
        settings: &ContainerNetwork,
    ) {
        if settings.driver != NetworkDriver::Bridge && !container.ports.is_empty() {
            let message = format!("the container is reached by its own address on \"{network}\", not by the machine's");
            let help = "publish no ports, or name a network with the driver \"bridge\" first";
            self.refuse(&container_path(name).key("ports"), message, help);
        }
    }

    fn fixed_address(
        &mut self,
        path: &Path,
        address: IpAddr,
        network: &ContainerNetwork,
        owners: &mut BTreeMap<IpAddr, Path>,
    ) {
        let subnet = network.subnet(address.is_ipv4());
        if !subnet.is_some_and(|subnet| is_usable(subnet, address)) {
            let help = "give the network `subnets`, and the container an address of its own in one of them";
            return self.refuse(path, "the network does not have this address", help);
        }
        let first = |prefix: Prefix| match prefix.address() {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() | 1).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() | 1).into()),
        };
        if network.gateway(address.is_ipv4()).or(subnet.map(first)) == Some(address) {
            self.refuse(path, "the network's gateway has this address", "choose another one");
        }
        if let Some(other) = owners.get(&address) {
            let mistake = self.report.about(self.root, path, format!("{address} is given to two containers"));
            let mistake = self.report.relate(mistake.help("choose another one"), self.root, other, "this");
            self.report.add(mistake);
        }
        owners.insert(address, path.clone());
    }

    fn unknown(&mut self, network: &NetworkName, path: &Path) {
        let help = match nearest(network.as_str(), self.configuration.networks.keys().map(NetworkName::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("declare it as [networks.{network}]"),
        };
        self.refuse(path, format!("there is no network \"{network}\""), &help);
    }
}

/// An address of the network that a link can have.
fn is_usable(subnet: Prefix, address: IpAddr) -> bool {
    let rest = match (subnet.address(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let last = u32::MAX.checked_shr(subnet.length().into()).unwrap_or(0);
            let rest = network.to_bits() ^ address.to_bits();
            if rest == last { 0 } else { u128::from(rest) }
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => network.to_bits() ^ address.to_bits(),
        _ => 0,
    };
    rest != 0 && subnet.contains(address)
}
