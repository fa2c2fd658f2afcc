//! From a `container.toml` to what the runtime runs: a system container's specification.

use std::path::{Path, PathBuf};

use berth_config::{Capability, Condition, HostNamespace, SystemContainer, View};
use berth_control::channel::CHANNEL_VARIABLE;
use berth_runtime::seccomp::default_profile;
use berth_runtime::spec::{
    Capabilities, DeviceRule, Linux, Memory, Mount, Namespace, NamespaceKind, Process, ResourceLimit, Resources, Root,
    Spec, VERSION,
};

use super::devices;
use super::user_spec::mount;

/// The number of the channel's descriptor in a system container.
pub const CHANNEL_DESCRIPTOR: i32 = 3;

/// The machine's root without anything mounted on it: a bind mount made at boot.
pub const BARE_ROOT: &str = "/run/berth/root";

/// The file system that the container starts from.
pub fn root(definition: &SystemContainer) -> &'static Path {
    Path::new(if definition.view == View::Host { "/" } else { BARE_ROOT })
}

/// The specification.
pub fn build(definition: &SystemContainer) -> Result<Spec, String> {
    let host = definition.view == View::Host;
    let nodes = definition.devices.iter().map(|path| devices::node(path.as_ref(), path.as_ref()));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    Ok(Spec {
        oci_version: VERSION.to_owned(),
        process: Some(process(definition)),
        root: Some(Root { path: PathBuf::from(root(definition)), readonly: !host }),
        mounts: mounts(definition, host),
        linux: Some(Linux {
            namespaces: namespaces(definition),
            resources: Some(resources(definition)),
            seccomp: definition.seccomp.then(|| default_profile(&capability_names(definition))),
            // What is mounted on the machine later appears in a container that sees the whole machine.
            rootfs_propagation: host.then(|| "slave".to_owned()),
            devices: nodes,
            ..Linux::default()
        }),
        ..Spec::default()
    })
}

fn process(definition: &SystemContainer) -> Process {
    let capabilities = capability_names(definition);
    let mut environment =
        vec!["PATH=/usr/bin:/usr/sbin".to_owned(), "HOME=/run/root".to_owned(), "TERM=linux".to_owned()];
    if definition.role.is_some() {
        environment.push(format!("{CHANNEL_VARIABLE}={CHANNEL_DESCRIPTOR}"));
    }
    Process {
        args: definition.command.clone(),
        env: environment,
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        }),
        rlimits: vec![ResourceLimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 524_288, soft: 65_536 }],
        // The guest agent and the shells run whatever the operator says; the others never need more than they have.
        no_new_privileges: definition.view == View::Minimal,
        // Behind PID 1 itself, which the kernel never chooses, the last to be killed when memory runs out.
        oom_score_adj: Some(-900),
        ..Process::default()
    }
}

fn capability_names(definition: &SystemContainer) -> Vec<String> {
    definition.capabilities.iter().copied().map(Capability::full_name).collect()
}

fn namespaces(definition: &SystemContainer) -> Vec<Namespace> {
    let all = [
        (NamespaceKind::Pid, HostNamespace::Pid),
        (NamespaceKind::Ipc, HostNamespace::Ipc),
        (NamespaceKind::Uts, HostNamespace::Uts),
        (NamespaceKind::Network, HostNamespace::Network),
        (NamespaceKind::Cgroup, HostNamespace::Cgroup),
    ];
    let own = all.into_iter().filter(|(_, host)| !definition.host_namespaces.contains(host)).map(|(kind, _)| kind);
    own.chain([NamespaceKind::Mount]).map(|kind| Namespace { kind, path: None }).collect()
}

fn mounts(definition: &SystemContainer, host: bool) -> Vec<Mount> {
    let mut mounts = if host {
        // A bind mount on /dev tells the runtime that the devices are there.
        vec![mount("/dev", "bind", "/dev", &["rbind"])]
    } else {
        minimal_mounts(definition)
    };
    for entry in &definition.mounts {
        let mut options = vec!["rbind", "nosuid"];
        options.push(if entry.read_only { "rro" } else { "rw" });
        mounts.push(mount(entry.destination().as_ref(), "bind", entry.source.as_ref(), &options));
    }
    mounts
}

fn minimal_mounts(definition: &SystemContainer) -> Vec<Mount> {
    let own_cgroup = !definition.host_namespaces.contains(&HostNamespace::Cgroup);
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=1m"]),
    ];
    // Small: these hold mount points and sockets. What a service keeps goes to its own mounts.
    for folder in ["/run", "/tmp", "/var"] {
        mounts.push(mount(folder, "tmpfs", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=1m"]));
    }
    if own_cgroup {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    mounts
}

fn resources(definition: &SystemContainer) -> Resources {
    let bytes = |size: Option<berth_config::Size>| size.and_then(|size| i64::try_from(size.bytes()).ok());
    let (limit, reserve) = (bytes(definition.memory.limit), bytes(definition.memory.reserve));
    let memory = Memory { limit, reservation: reserve, ..Memory::default() };
    // Who sees the whole machine uses its devices; for the others the runtime allows the default ones and their own.
    let everything = DeviceRule { allow: true, access: Some("rwm".to_owned()), ..DeviceRule::default() };
    Resources {
        devices: if definition.view == View::Host { vec![everything] } else { Vec::new() },
        memory: (limit.is_some() || reserve.is_some()).then_some(memory),
        ..Resources::default()
    }
}

/// What is missing for a container to be started; `None` if nothing is.
pub fn unmet_condition(condition: &Condition) -> Option<String> {
    if let Some(port) = &condition.virtio_port
        && !has_virtio_port(port)
    {
        return Some(format!("the machine has no virtio-serial port {port}"));
    }
    let path: &str = condition.path.as_ref()?.as_ref();
    (!Path::new(path).exists()).then(|| format!("the machine has no {path}"))
}

fn has_virtio_port(name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir("/sys/class/virtio-ports") else { return false };
    let names = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("name")).ok());
    names.into_iter().any(|found| found.trim() == name)
}
