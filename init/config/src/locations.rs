//! Where the keys of containers and links stand in the files of a configuration, for whoever is asked why something is as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::{Place, Source};
use crate::tree::{Entry, Node};

/// The keys that decide something about whether a container runs. No more: this stays in memory for every container. A new one
/// goes to the end, as their numbers are handed from one program of PID 1 to the next.
const KEYS: [&str; 13] = [
    "depends_on",
    "every",
    "health",
    "image",
    "network_mode",
    "networks",
    "restart",
    "schedule",
    "api",
    "memory",
    "ports",
    "readiness",
    "volumes",
];

/// Those of links; a new one goes to the end here, too.
const LINK_KEYS: [&str; 3] = ["addresses", "dhcp", "match"];

/// In the place of a key's index: where the table itself begins.
const BEGIN: u8 = u8::MAX;

/// A key's index, a source's and a line.
type Found = (u8, u16, u32);

/// Of each container and section by the name that it is declared by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locations {
    sources: Vec<String>,
    containers: BTreeMap<String, Vec<Found>>,
    /// `network.links.<name>` and `networks.<name>`.
    #[serde(default)]
    sections: BTreeMap<String, Vec<Found>>,
}

impl Locations {
    /// What was read from these sources.
    pub(crate) fn of(root: &Node, sources: &[Source]) -> Self {
        let breaks = |source: &Source| -> Vec<usize> {
            source.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place).collect()
        };
        let breaks: Vec<Vec<usize>> = sources.iter().map(breaks).collect();
        let found = |index: u8, place: Place| -> Option<Found> {
            let line = breaks.get(place.source)?.partition_point(|start| *start < place.start) + 1;
            Some((index, u16::try_from(place.source).ok()?, u32::try_from(line).ok()?))
        };
        let keys = |table: &Node, keys: &[&str]| -> Vec<Found> {
            let known = table.entries().filter_map(|(key, entry)| {
                let index = keys.iter().position(|known| known == key)?;
                found(u8::try_from(index).ok()?, entry.node.place)
            });
            known.collect()
        };
        let containers = tables(root, &["containers"]);
        let containers = containers.map(|(name, entry)| (name.clone(), keys(&entry.node, &KEYS))).collect();
        let links = tables(root, &["network", "links"]).map(|(name, entry)| {
            let begin = found(BEGIN, entry.node.place);
            (link_section(name), begin.into_iter().chain(keys(&entry.node, &LINK_KEYS)).collect())
        });
        let networks = tables(root, &["networks"])
            .map(|(name, entry)| (network_section(name), found(BEGIN, entry.node.place).into_iter().collect()));
        let sections = links.chain(networks).collect();
        let sources = sources.iter().map(|source| source.name.clone()).collect();
        Self { sources, containers, sections }
    }

    /// `berth.toml:7`, where a container's key stands; `None` for one that is not there, or that decides nothing.
    pub fn find(&self, container: &str, key: &str) -> Option<String> {
        let index = KEYS.iter().position(|known| *known == key)?;
        self.tell(self.containers.get(container)?, u8::try_from(index).ok()?)
    }

    /// The same of a key of `[network.links.<link>]`.
    pub fn find_of_link(&self, link: &str, key: &str) -> Option<String> {
        let index = LINK_KEYS.iter().position(|known| *known == key)?;
        self.tell(self.sections.get(&link_section(link))?, u8::try_from(index).ok()?)
    }

    /// Where `[network.links.<link>]` begins; of several the first, which the others add to.
    pub fn of_link(&self, link: &str) -> Option<String> {
        self.tell(self.sections.get(&link_section(link))?, BEGIN)
    }

    /// Where `[networks.<network>]` begins.
    pub fn of_network(&self, network: &str) -> Option<String> {
        self.tell(self.sections.get(&network_section(network))?, BEGIN)
    }

    fn tell(&self, keys: &[Found], index: u8) -> Option<String> {
        let (_, source, line) = keys.iter().find(|(known, ..)| *known == index)?;
        Some(format!("{}:{line}", self.sources.get(usize::from(*source))?))
    }

    /// Whether a container is known at all: which of its keys do not stand anywhere, too.
    pub fn has(&self, container: &str) -> bool {
        self.containers.contains_key(container)
    }
}

fn link_section(name: &str) -> String {
    format!("network.links.{name}")
}

fn network_section(name: &str) -> String {
    format!("networks.{name}")
}

/// What stands in the table that the keys lead to; nothing if there is none.
fn tables<'a>(root: &'a Node, keys: &[&str]) -> impl Iterator<Item = (&'a String, &'a Entry)> {
    let find = |node: &'a Node, key: &str| Some(&node.entries().find(|(known, _)| *known == key)?.1.node);
    keys.iter().try_fold(root, |node, key| find(node, key)).into_iter().flat_map(Node::entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_counts() {
        let first =
            Source::new("berth.toml", "\n[containers.web]\nimage = 'a'\nrestart = 'no'\nmemory = '64M'\ncpus = 1\n");
        let second = Source::new("more.toml", "containers.web.image = 'b'\n[containers.web.health]\ntcp = 80\n");
        let locations = crate::load(&[first, second]).unwrap().locations;
        let find = |key| locations.find("web", key).unwrap_or_default();
        assert_eq!((find("image"), find("restart")), ("more.toml:1".to_owned(), "berth.toml:4".to_owned()));
        assert_eq!((find("health"), find("memory")), ("more.toml:2".to_owned(), "berth.toml:5".to_owned()));
        assert_eq!(find("cpus"), "");
        assert_eq!(locations.find("db", "image"), None);
        assert!(locations.has("web") && !locations.has("db"));
    }

    #[test]
    fn links_and_networks_are_found_too_by_the_section_that_others_add_to() {
        let first = "[network]\ndns = []\n\n[network.links.lan]\ndhcp = true\nmtu = 1400\n[networks.back]\n";
        let second = "network.links.wan.dhcp = false\n[network.links.lan]\naddresses = ['10.0.0.2/24']\ndhcp = false\n";
        let sources = [Source::new("berth.toml", first), Source::new("more.toml", second)];
        let locations = crate::load(&sources).unwrap().locations;
        let key = |key| locations.find_of_link("lan", key).unwrap_or_default();
        assert_eq!((key("dhcp"), key("addresses")), ("more.toml:4".to_owned(), "more.toml:3".to_owned()));
        assert_eq!((key("mtu"), key("match")), (String::new(), String::new()));
        assert_eq!(locations.of_link("lan").unwrap(), "berth.toml:4");
        assert_eq!(locations.of_link("wan").unwrap(), "more.toml:1");
        assert_eq!(locations.of_network("back").unwrap(), "berth.toml:7");
        assert_eq!((locations.of_link("back"), locations.of_network("lan")), (None, None));
    }

    #[test]
    fn what_the_program_before_wrote_down_without_links_is_read() {
        let locations: Locations = serde_json::from_str(r#"{"sources":["a"],"containers":{"web":[[3,0,2]]}}"#).unwrap();
        assert_eq!((locations.find("web", "image").unwrap(), locations.of_link("lan")), ("a:2".to_owned(), None));
    }
}
