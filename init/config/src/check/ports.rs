//! No port of the machine leads to two containers, or to one where a tunnel has it; and there are not more than can be
//! handed on.

use super::container_path;
use super::replicas::MOST_WITH_PORTS;
use crate::configuration::Configuration;
use crate::container::{Protocol, PublishedPorts};
use crate::load::{Mistake, Report};
use crate::names::ContainerName;
use crate::tree::{Node, Path};

/// The most entries of one container's `ports`: `network` is told of them in one message.
const MOST_ENTRIES: usize = 1000;

/// The most places of the packet filter that a machine's published ports take, each once for either family. They change at
/// one moment, for which `network` has room in its memory.
const MOST_PLACES: u32 = 32_768;

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

/// Says which container's ports are too many.
fn check_number(configuration: &Configuration, root: &Node, report: &mut Report) {
    let mut left = MOST_PLACES;
    for (name, container) in &configuration.containers {
        let path = container_path(name).key("ports");
        let count = container.ports.len();
        if count > MOST_ENTRIES {
            let message = format!("{count} entries are too many, {MOST_ENTRIES} are the most");
            report.add(report.about(root, &path, message).help("join ports that follow each other to ranges"));
        }
        let ports: u32 = container.ports.iter().map(PublishedPorts::places).fold(0, u32::saturating_add);
        let slots = if container.replicas.is_some() { MOST_WITH_PORTS } else { 1 };
        match left.checked_sub(ports.saturating_mul(slots)) {
            Some(rest) => left = rest,
            None => {
                let mistake = too_many(report, root, &path, ports, slots);
                report.add(mistake);
            }
        }
    }
}

fn too_many(report: &Report, root: &Node, path: &Path, ports: u32, slots: u32) -> Mistake {
    let of_all = if slots == 1 { String::new() } else { format!(", {slots} times as the replicas share them") };
    let message =
        format!("{ports} ports{of_all}: that is more than the {MOST_PLACES} that the packet filter has room for");
    let help = "let the range of the machine be that of the container, such as \"10000-20000:10000-20000\": it counts as one port";
    report.about(root, path, message).help(help)
}

/// Compares each entry with those whose ports start within its own. A file in which everything overlaps fills the
/// report and ends the search.
pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    check_number(configuration, root, report);
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
