//! What single values cannot show: keys that contradict each other, names that lead nowhere.

mod cycles;
mod dependencies;
mod drivers;
mod health;
mod made;
mod network;
mod networks;
mod peers;
mod pods;
mod ports;
mod replicas;
mod resolution;
mod rules;
mod sysctls;
mod timers;
mod trust;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};

pub use self::pods::pod_obstacle;
use crate::configuration::Configuration;
use crate::container::{Container, NetworkMode};
use crate::load::Report;
use crate::names::ContainerName;
use crate::quantities::Size;
use crate::tree::{Node, Path};

/// Names that a user container cannot have: each is a folder of `system-containers/`.
pub const SYSTEM_CONTAINERS: [&str; 6] = ["console", "control", "engine", "guest-agent", "logs", "network"];

/// Logs beside those of containers, so no container can have these names either.
const LOGS: [&str; 2] = ["init", "kernel"];

/// Docker's minimum: less does not even hold the process that sets the container up.
const LEAST_MEMORY: Size = Size::from_bytes(6 << 20);

/// Overlayfs's own files and a directory or two take some hundred KiB of it.
const LEAST_STORAGE: Size = Size::from_bytes(1 << 20);

/// The most bytes of one container's definition, as TOML: it goes from one program to another in one message, whose JSON is
/// at most twice as long.
const LONGEST_DEFINITION: usize = 64 * 1024;

/// Checks everything. `declared` are the names of all containers, of those too that could not be read.
pub(crate) fn run(configuration: &Configuration, declared: &BTreeSet<String>, root: &Node, report: &mut Report) {
    for (name, container) in &configuration.containers {
        let check = ContainerCheck { name, container, root };
        check.name(report);
        check.length(report);
        check.sizes(report);
        check.published_without_bridge(report);
        check.destinations(report);
        sysctls::check(&check, report);
        health::check(&check, report);
        resolution::check(&check, report);
        timers::check(&check, report);
    }
    dependencies::check(configuration, declared, root, report);
    replicas::check(configuration, root, report);
    ports::check(configuration, root, report);
    network::check(&configuration.network, root, report);
    networks::check(configuration, root, report);
    pods::check(configuration, root, report);
    trust::check(configuration, root, report);
    peers::check(configuration, root, report);
    watchdog::check(&configuration.watchdog, root, report);
}

/// A container with its place in the tree.
struct ContainerCheck<'a> {
    name: &'a ContainerName,
    container: &'a Container,
    root: &'a Node,
}

/// `containers.<name>`.
fn container_path(name: &ContainerName) -> Path {
    Path::default().key("containers").key(name.as_str())
}

impl ContainerCheck<'_> {
    fn path(&self) -> Path {
        container_path(self.name)
    }

    fn report(&self, report: &mut Report, path: &Path, message: String, help: &str) {
        report.add(report.about(self.root, path, message).help(help));
    }

    fn name(&self, report: &mut Report) {
        let message = match self.name.as_str() {
            name if SYSTEM_CONTAINERS.contains(&name) => format!("\"{name}\" is the name of a system container"),
            name if LOGS.contains(&name) => format!("\"{name}\" is the name of a log of the system"),
            _ => return,
        };
        self.report(report, &self.path(), message, "give it another name");
    }

    fn length(&self, report: &mut Report) {
        let length = toml::to_string(self.container).map_or(0, |text| text.len());
        if length > LONGEST_DEFINITION {
            let message = format!("the definition has {length} bytes, of {LONGEST_DEFINITION} at most");
            self.report(report, &self.path(), message, "put what is long into a file, and the file into a volume");
        }
    }

    fn sizes(&self, report: &mut Report) {
        let limits =
            [("memory", self.container.memory, LEAST_MEMORY), ("storage", self.container.storage, LEAST_STORAGE)];
        for (key, limit, least) in limits {
            if let Some(limit) = limit.filter(|limit| *limit < least) {
                let message = format!("{limit} of {key} is too little for any container");
                let help = format!("`{key}` wants at least \"{least}\"; a number without a unit is bytes");
                self.report(report, &self.path().key(key), message, &help);
            }
        }
    }

    fn published_without_bridge(&self, report: &mut Report) {
        let (message, help) = match &self.container.network_mode {
            _ if self.container.ports.is_empty() => return,
            NetworkMode::Bridge => return,
            NetworkMode::Host => {
                ("the container has the machine's network, its ports are the machine's", "leave `ports` out")
            }
            NetworkMode::None => {
                ("the container has no network, it cannot have ports", "leave `ports` or `network_mode` out")
            }
            NetworkMode::Container(_) => {
                ("the container has the network of another one", "give `ports` to the container whose network it is")
            }
        };
        self.report(report, &self.path().key("ports"), message.to_owned(), help);
    }

    /// Volumes and directories in memory at the same place, or at one that is the kernel's.
    fn destinations(&self, report: &mut Report) {
        let volumes = self.container.volumes.iter().map(|volume| volume.destination()).enumerate();
        let tmpfs = self.container.tmpfs.iter().map(|mount| mount.destination()).enumerate();
        let all = volumes
            .map(|(index, path)| ("volumes", index, path))
            .chain(tmpfs.map(|(index, path)| ("tmpfs", index, path)));
        let mut seen: BTreeMap<&str, Path> = BTreeMap::new();
        for (key, index, destination) in all {
            let destination = destination.as_str().trim_end_matches('/');
            let path = self.path().key(key).index(index);
            if destination == "/proc" || destination.starts_with("/proc/") {
                self.report(report, &path, "/proc is the kernel's".to_owned(), "choose another directory");
            }
            if let Some(first) = seen.get(destination) {
                let message = format!("something else already appears at {destination}");
                let mistake = report.about(self.root, &path, message).help("leave one of them out");
                report.add(report.relate(mistake, self.root, first, "this"));
            } else {
                seen.insert(destination, path);
            }
        }
    }
}
