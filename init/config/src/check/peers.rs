//! `allow`, `deny` and the same with `_out`: entries that name somebody who has an address, for whom the packet filter sees.

use super::container_path;
use crate::configuration::Configuration;
use crate::container::{Bandwidth, Container, NetworkMode};
use crate::load::Report;
use crate::networks::{ContainerNetwork, NetworkDriver, NetworkName};
use crate::peers::Peers;
use crate::tree::{Node, Path};

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    let mut refuse = |path: &Path, message: &str, help: &str| report.add(report.about(root, path, message).help(help));
    for (name, container) in &configuration.containers {
        let path = container_path(name);
        for (key, peers) in container.access().lists() {
            let path = path.clone().key(key);
            if !peers.is_empty()
                && let Some((message, help)) = unseen(container, configuration)
            {
                refuse(&path, message, help);
            }
            entries(peers, &path, configuration, &mut refuse);
        }
        if container.bandwidth != Bandwidth::default() {
            let path = path.clone().key("bandwidth");
            if container.network_mode != NetworkMode::Bridge {
                let help = "limit the container whose network it is, or leave it out";
                refuse(&path, "the container has no links of its own", help);
            } else if container.bandwidth.ingress.is_some() && !on_bridges(container, configuration) {
                let help = "leave `ingress` out, or put the container on networks with the driver \"bridge\"";
                refuse(&path.key("ingress"), "what comes in on a parent link is not up to this machine", help);
            }
        }
    }
    for (name, network) in &configuration.networks {
        for (key, peers) in network.access().lists() {
            let path = Path::default().key("networks").key(name.as_str()).key(key);
            if !peers.is_empty() && network.driver != NetworkDriver::Bridge {
                let help = "leave it out, or give the network the driver \"bridge\"";
                refuse(&path, "what goes over a parent link does not pass this machine's packet filter", help);
            }
            entries(peers, &path, configuration, &mut refuse);
        }
        if network.bandwidth != Bandwidth::default() && network.driver != NetworkDriver::Bridge {
            let path = Path::default().key("networks").key(name.as_str()).key("bandwidth");
            let help = "leave it out, or limit what its containers send with their own `bandwidth`";
            refuse(&path, "what goes over a parent link does not pass this machine's packet filter", help);
        }
    }
}

/// Why the packet filter does not see what the container sends and receives.
fn unseen(container: &Container, configuration: &Configuration) -> Option<(&'static str, &'static str)> {
    if container.network_mode != NetworkMode::Bridge {
        return Some(("the container has no network of its own", "say it of the container whose network it is"));
    }
    let help = "leave it out, or put the container on networks with the driver \"bridge\" only";
    (!on_bridges(container, configuration))
        .then_some(("what goes over a parent link does not pass this machine's packet filter", help))
}

fn on_bridges(container: &Container, configuration: &Configuration) -> bool {
    let bridge = |name: &NetworkName| {
        configuration.networks.get(name).is_none_or(|network| network.driver == NetworkDriver::Bridge)
    };
    container.memberships().iter().all(|(name, _)| bridge(name))
}

fn entries(peers: &[Peers], path: &Path, configuration: &Configuration, refuse: &mut impl FnMut(&Path, &str, &str)) {
    for (index, each) in peers.iter().enumerate() {
        let path = path.clone().index(index);
        let named = [each.container.is_some(), each.network.is_some(), each.address.is_some()];
        if named.into_iter().filter(|named| *named).count() > 1 {
            refuse(&path, "it names more than one", "make an entry of each");
        }
        if *each == Peers::default() {
            refuse(&path, "it says nothing", "name a container, a network, an address or ports");
        }
        if let Some(name) = &each.container {
            match configuration.containers.get(name) {
                Some(container) if container.network_mode == NetworkMode::Bridge => {}
                Some(_) => {
                    let help = "name the container whose network it is, or an `address`";
                    refuse(&path.clone().key("container"), "this container has no address of its own", help);
                }
                None => refuse(
                    &path.clone().key("container"),
                    "there is no such container",
                    "name one that is declared; replicas by their common name",
                ),
            }
        }
        let known = |name: &NetworkName| {
            name.as_str() == ContainerNetwork::DEFAULT || configuration.networks.contains_key(name)
        };
        if each.network.as_ref().is_some_and(|name| !known(name)) {
            refuse(&path.clone().key("network"), "there is no such network", "declare it, or name another one");
        }
        if each.address.is_some_and(|prefix| !prefix.is_network()) {
            refuse(&path.key("address"), "bits behind the prefix are set", "name the lowest address");
        }
    }
}
