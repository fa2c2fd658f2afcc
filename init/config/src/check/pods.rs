//! Containers that run in namespaces of others: each of them must be one that can lend its own.

use std::collections::{BTreeMap, BTreeSet};

use super::container_path;
use crate::configuration::Configuration;
use crate::container::{Container, IpcMode, NetworkMode, PidMode};
use crate::load::Report;
use crate::names::ContainerName;
use crate::tree::Node;

pub(super) fn check(configuration: &Configuration, root: &Node, report: &mut Report) {
    let (containers, alone) = (&configuration.containers, report.alone);
    for (name, container) in containers {
        let mut refuse = |key: &str, message: String, help: &str| {
            report.add(report.about(root, &container_path(name).key(key), message).help(help));
        };
        for (key, target) in container.targets().filter(|_| !alone) {
            if let Some((message, help)) = obstacle(containers, (name, container), key, target) {
                refuse(key, message, help);
            }
        }
        if let (Some(ipc), Some(pid)) = (container.ipc.target(), container.pid.target())
            && ipc != pid
        {
            let message = format!("it cannot be in the user namespaces of both \"{ipc}\" and \"{pid}\"");
            refuse("pid", message, "name the same container in `ipc` and `pid`");
        }
        if container.ipc.target().is_some() && container.shm_size.is_some() {
            let message = "the container has the /dev/shm of another one".to_owned();
            refuse("shm_size", message, "give `shm_size` to the container whose it is");
        }
    }
}

/// Why a container cannot run in the namespaces that it names of others, and what to do, in one sentence.
pub fn pod_obstacle(
    containers: &BTreeMap<ContainerName, Container>,
    name: &ContainerName,
    container: &Container,
) -> Option<String> {
    container.targets().find_map(|(key, target)| {
        let (message, help) = obstacle(containers, (name, container), key, target)?;
        Some(format!("`{key}` = \"container:{target}\": {message}; {help}"))
    })
}

/// Why a container cannot run in the namespace of another one, and what to do.
fn obstacle(
    containers: &BTreeMap<ContainerName, Container>,
    (name, container): (&ContainerName, &Container),
    key: &str,
    target: &ContainerName,
) -> Option<(String, &'static str)> {
    let what = match key {
        "network_mode" => "network",
        "ipc" => "IPC namespace",
        _ => "PID namespace",
    };
    let Some(other) = containers.get(target) else {
        return Some(("there is no such container".to_owned(), "name one that is declared"));
    };
    let has_none = match key {
        "network_mode" => matches!(other.network_mode, NetworkMode::Container(_)),
        "ipc" => matches!(other.ipc, IpcMode::Container(_)),
        _ => matches!(other.pid, PidMode::Container(_)),
    };
    if has_none {
        let message = format!("\"{target}\" has no {what} of its own either");
        return Some((message, "name the one that \"container:\" of it names"));
    }
    if key == "ipc" && other.ipc != IpcMode::Shareable {
        let message = format!("\"{target}\" shares its IPC namespace with nobody");
        return Some((message, "give that one `ipc = \"shareable\"`"));
    }
    if other.replicas.is_some() {
        return Some((format!("there are replicas of \"{target}\""), "declare it without `replicas`"));
    }
    if other.has_timer() {
        return Some((format!("\"{target}\" runs only when its time comes"), "name one that always runs"));
    }
    if waits_for(containers, target, name) {
        let message = format!("\"{target}\" waits for this one, and this one needs its {what}");
        return Some((message, "leave the dependency out"));
    }
    if key != "network_mode" {
        if other.security.user_namespace != container.security.user_namespace {
            let message = format!("it has another kind of user namespace than \"{target}\"");
            return Some((message, "give both the same `security.user_namespace`"));
        }
        if other.ipc.target().is_some() || other.pid.target().is_some() {
            let message = format!("\"{target}\" is in the user namespace of another container");
            return Some((message, "name that one in `ipc` and `pid`"));
        }
    }
    None
}

/// Whether one container starts only after another, by whatever chain.
fn waits_for(containers: &BTreeMap<ContainerName, Container>, one: &ContainerName, other: &ContainerName) -> bool {
    let (mut reached, mut open) = (BTreeSet::new(), vec![one]);
    while let Some(name) = open.pop() {
        if reached.insert(name)
            && let Some(container) = containers.get(name)
        {
            open.extend(container.depends_on.iter().map(|(name, _)| name));
            open.extend(container.targets().map(|(_, name)| name));
        }
    }
    one == other || reached.contains(other)
}
