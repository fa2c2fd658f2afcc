//! A container can only change kernel settings of its own namespaces.

use super::ContainerCheck;
use crate::container::NetworkMode;
use crate::load::Report;

/// Settings that belong to the IPC namespace, besides everything below `fs.mqueue.`: ipc_namespaces(7).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

pub(super) fn check(container: &ContainerCheck, report: &mut Report) {
    for (name, _) in container.container.sysctls.iter() {
        let network = name.starts_with("net.");
        let mode = &container.container.network_mode;
        let (message, help) = if network && *mode == NetworkMode::Host {
            ("the container has the machine's network, this would change the machine", "put it into [sysctls]")
        } else if network && matches!(mode, NetworkMode::Container(_)) {
            ("the container has the network of another one", "give it to the container whose network it is")
        } else if network {
            continue;
        } else if name.starts_with("fs.mqueue.") || IPC.contains(&name) {
            if container.container.ipc.target().is_none() {
                continue;
            }
            ("the container has the IPC namespace of another one", "give it to the container whose namespace it is")
        } else {
            ("it is a setting of the whole machine", "put it into [sysctls] if the machine is meant")
        };
        container.report(report, &container.path().key("sysctls").key(name), message.to_owned(), help);
    }
}
