//! `replicas`: as many containers with names of their own.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::container_path;
use crate::configuration::Configuration;
use crate::container::EndpointMode;
use crate::load::Report;
use crate::names::ContainerName;
use crate::tree::Node;

/// Each has a range of ids and a network address of its own, of which a machine has some tens of thousands.
const MOST: u32 = 1000;

/// Each has at least one of the slots that the packet filter shares connections out by.
pub(super) const MOST_WITH_PORTS: u32 = 256;

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    // Who has which name.
    let mut owners: BTreeMap<String, &ContainerName> =
        configuration.containers.keys().map(|name| (name.to_string(), name)).collect();
    for (name, container) in &configuration.containers {
        if container.endpoint_mode == EndpointMode::Vip && container.replicas.is_none() {
            let path = container_path(name).key("endpoint_mode");
            let help = "say how many there are with `replicas`, or leave it out";
            report.add(report.about(root, &path, "only replicas have a common address").help(help));
        }
        let Some(count) = container.replicas.map(NonZeroU32::get) else { continue };
        let mut refuse = |message: String, help: &str| {
            let path = container_path(name).key("replicas");
            report.add(report.about(root, &path, message).help(help));
        };
        if count > MOST {
            refuse(format!("{count} replicas are too many"), &format!("{MOST} are the most"));
            continue;
        }
        let shared = !container.ports.is_empty() || container.endpoint_mode == EndpointMode::Vip;
        if count > MOST_WITH_PORTS && shared {
            let message = format!("connections are shared out among {MOST_WITH_PORTS} containers at most");
            refuse(message, "let there be fewer of them, or leave `ports` and `endpoint_mode` out");
        }
        let last = format!("{name}-{count}");
        if last.parse::<ContainerName>().is_err() {
            refuse(format!("\"{last}\" is too long for a container's name"), "give the container a shorter name");
        }
        for instance in container.instances(name.as_str()) {
            if let Some(owner) = owners.get(&instance).filter(|owner| **owner != name) {
                let message = format!("one of the replicas has the name \"{instance}\", as has one of \"{owner}\"");
                refuse(message, "give one of them another name");
                break;
            }
            owners.insert(instance, name);
        }
    }
}
