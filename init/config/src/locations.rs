//! Where the keys of containers stand in the files of a configuration, for whoever is asked why a container is as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::source::Source;
use crate::tree::Node;

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

/// Of each container by the name that it is declared by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locations {
    sources: Vec<String>,
    /// A key's index, a source's and a line.
    containers: BTreeMap<String, Vec<(u8, u16, u32)>>,
}

impl Locations {
    /// What was read from these sources.
    pub(crate) fn of(root: &Node, sources: &[Source]) -> Self {
        let breaks = |source: &Source| -> Vec<usize> {
            source.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place).collect()
        };
        let breaks: Vec<Vec<usize>> = sources.iter().map(breaks).collect();
        let of_container = |container: &Node| {
            let known = container.entries().filter_map(|(key, entry)| {
                let line =
                    breaks.get(entry.node.place.source)?.partition_point(|place| *place < entry.node.place.start) + 1;
                let index = KEYS.iter().position(|known| known == key)?;
                Some((
                    u8::try_from(index).ok()?,
                    u16::try_from(entry.node.place.source).ok()?,
                    u32::try_from(line).ok()?,
                ))
            });
            known.collect()
        };
        let containers = root.entries().find(|(key, _)| *key == "containers").map(|(_, containers)| {
            containers.node.entries().map(|(name, entry)| (name.clone(), of_container(&entry.node))).collect()
        });
        let sources = sources.iter().map(|source| source.name.clone()).collect();
        Self { sources, containers: containers.unwrap_or_default() }
    }

    /// `berth.toml:7`, where a container's key stands; `None` for one that is not there, or that decides nothing.
    pub fn find(&self, container: &str, key: &str) -> Option<String> {
        let index = KEYS.iter().position(|known| *known == key)?;
        let keys = self.containers.get(container)?;
        let (_, source, line) = keys.iter().find(|(known, ..)| usize::from(*known) == index)?;
        Some(format!("{}:{line}", self.sources.get(usize::from(*source))?))
    }

    /// Whether a container is known at all: which of its keys do not stand anywhere, too.
    pub fn has(&self, container: &str) -> bool {
        self.containers.contains_key(container)
    }
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
}
