//! No port of the machine leads to two containers, or to one where a tunnel has it.

use super::container_path;
use crate::configuration::Configuration;
use crate::container::{Protocol, PublishedPorts};
use crate::load::Report;
use crate::names::ContainerName;
use crate::tree::{Node, Path};

/// An entry of some container's `ports`.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a ContainerName,
    index: usize,
    ports: &'a PublishedPorts,
}

impl Entry<'_> {
    fn path(&self) -> Path {
        container_path(self.name).key("ports").index(self.index)
    }
}

/// Compares each entry with those whose ports start within its own. A file in which everything overlaps fills the
/// report and ends the search.
pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    let mut entries: Vec<Entry> = configuration
        .containers
        .iter()
        .flat_map(|(name, container)| {
            container.ports.iter().enumerate().map(move |(index, ports)| Entry { name, index, ports })
        })
        .collect();
    for (link, settings) in &configuration.network.links {
        let Some(port) = settings.wireguard.as_ref().and_then(|tunnel| tunnel.listen_port) else { continue };
        for entry in entries.iter().filter(|entry| entry.ports.has_host_port(port, Protocol::Udp)) {
            let message = format!("the tunnel \"{link}\" already has the machine's port {port}/udp");
            let mistake = report.about(root, &entry.path(), message).help("publish it at another port");
            let tunnel = Path::default().key("network").key("links").key(link.as_str()).key("wireguard");
            report.add(report.relate(mistake, root, &tunnel.key("listen_port"), "listens here"));
        }
    }
    entries.sort_unstable_by_key(|entry| entry.ports.first_host_port());
    let mut rest = entries.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        let near = behind.iter().take_while(|other| other.ports.first_host_port() <= first.ports.last_host_port());
        for other in near {
            if report.is_full() {
                return;
            }
            if let Some(port) = first.ports.common_host_port(other.ports) {
                collision(*first, *other, port, root, report);
            }
        }
        rest = behind;
    }
}

fn collision(one: Entry, two: Entry, port: u16, root: &Node, report: &mut Report) {
    // The one that stands further down is the mistake, as a reader sees it.
    let in_order = root.find(&one.path()).0 <= root.find(&two.path()).0;
    let (first, second) = if in_order { (one, two) } else { (two, one) };
    let owner = if first.name == second.name { "this container".to_owned() } else { format!("\"{}\"", first.name) };
    let message = format!("{owner} already has the machine's port {port}/{}", first.ports.protocol());
    let mistake = report.about(root, &second.path(), message).help("publish one of them at another port");
    report.add(report.relate(mistake, root, &first.path(), "published here"));
}
