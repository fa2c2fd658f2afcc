//! From what the configuration asks and the engine prepared to what the runtime runs: a user container's specification.
//!
//! Secure until told otherwise: every namespace is its own, the default capabilities and system call filter apply, and
//! whatever loosens that stands in the container's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_config::{Capability, Container, Device, Group, NetworkMode, ReadyWhen, Seccomp, Size, UserNamespace};
use berth_control::message::PreparedImage;
use berth_runtime::seccomp::default_profile;
use berth_runtime::spec::{
    Capabilities, Cpu, DeviceRule, IdMapping, Linux, Memory, Mount, Namespace, NamespaceKind, Pids, Process,
    ResourceLimit, Resources, Root, Spec, User, VERSION,
};

use super::network::{SharedNetwork, resolver_file};
use super::pods::{Pod, common_memory};
use super::{devices, readiness};

/// How many ids a container's user namespace has: all that an image made for a whole machine can name (0 to 65,534)
/// and the overflow id.
pub const IDS: u32 = 65_536;

/// When the whole machine runs out of memory, the kernel takes user containers before all that an operator runs (0) and
/// before system containers: a tenth of all memory is added to what each of their processes uses (proc(5)).
const OOM_SCORE: i32 = 100;

/// What a container may not read: as Docker has it since 27, for the same reasons (kernel addresses, hardware state).
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container may not write.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices that every container has: null, zero, full, random, urandom, tty, console, ptmx; and pts/*.
const DEFAULT_DEVICES: &[(i64, Option<i64>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Where PID 1 keeps the files of /etc that are the container's own.
pub fn files_folder(name: &str) -> PathBuf {
    PathBuf::from("/run/berth/containers").join(name)
}

/// Where a container is among others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// The range of host ids of a container with a user namespace.
    pub ids: u32,
    /// The network of another container that it runs in.
    pub network: Option<&'a SharedNetwork>,
    /// Other namespaces of another container that it runs in.
    pub pod: Option<&'a Pod>,
}

/// The specification.
pub fn build(name: &str, container: &Container, image: &PreparedImage, place: Place<'_>) -> Result<Spec, String> {
    let mapped = container.security.user_namespace == UserNamespace::Auto;
    let devices = container
        .devices
        .iter()
        .map(|device| devices::node(device.source().as_ref(), device.destination().as_ref()))
        .collect::<Result<Vec<_>, _>>()?;
    let mappings = if mapped { vec![id_mapping(place.ids)] } else { Vec::new() };
    Ok(Spec {
        oci_version: VERSION.to_owned(),
        process: Some(process(container, image)),
        root: Some(Root { path: PathBuf::from("rootfs"), readonly: container.read_only }),
        hostname: (container.network_mode != NetworkMode::Host)
            .then(|| container.hostname.as_ref().map_or_else(|| name.to_owned(), ToString::to_string)),
        mounts: mounts((name, container, image), mapped, place.network),
        linux: Some(Linux {
            uid_mappings: mappings.clone(),
            gid_mappings: mappings,
            sysctl: container.sysctls.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            resources: Some(resources(container, &devices)),
            namespaces: namespaces(container, mapped, place),
            devices,
            seccomp: match container.security.seccomp {
                Seccomp::Default => Some(default_profile(&capability_names(container))),
                Seccomp::Unconfined => None,
            },
            masked_paths: MASKED.iter().map(ToString::to_string).collect(),
            readonly_paths: READ_ONLY.iter().map(ToString::to_string).collect(),
            ..Linux::default()
        }),
        annotations: image.labels.clone(),
        ..Spec::default()
    })
}

/// The range of a slot: above everything that the machine itself uses.
pub(super) fn id_mapping(slot: u32) -> IdMapping {
    IdMapping { container_id: 0, host_id: (slot + 1).saturating_mul(IDS), size: IDS }
}

/// The machine's user ID of the container's process. Its output pipes belong to it, because programs open them again
/// by name, as nginx does with /dev/stderr.
pub fn host_uid(container: &Container, image: &PreparedImage, slot: u32) -> u32 {
    match container.security.user_namespace {
        UserNamespace::Auto => id_mapping(slot).host_id.saturating_add(image.uid),
        UserNamespace::Host => image.uid,
    }
}

fn process(container: &Container, image: &PreparedImage) -> Process {
    let capabilities = capability_names(container);
    // Without root nothing is effective until a program with file capabilities runs, as with Docker.
    let effective = if image.uid == 0 { capabilities.clone() } else { Vec::new() };
    // Those by name are among the image's.
    let more_groups = container.group_add.iter().filter_map(Group::number);
    let additional_gids = image.additional_gids.iter().copied().chain(more_groups).collect();
    Process {
        user: User { uid: image.uid, gid: image.gid, umask: None, additional_gids },
        args: image.arguments.clone(),
        env: environment(container, image),
        cwd: image.working_directory.clone(),
        capabilities: Some(Capabilities {
            bounding: capabilities,
            permitted: effective.clone(),
            effective,
            ..Capabilities::default()
        }),
        rlimits: rlimits(container),
        no_new_privileges: container.security.no_new_privileges,
        oom_score_adj: Some(container.oom_score_adj.map_or(OOM_SCORE, |score| score.number().cast_signed())),
        ..Process::default()
    }
}

/// The image's and the configuration's, and where the program is to say that it is ready.
fn environment(container: &Container, image: &PreparedImage) -> Vec<String> {
    let mut environment = image.environment.clone();
    if container.readiness == ReadyWhen::Notify {
        environment.push(format!("NOTIFY_SOCKET={}", readiness::NOTIFY_SOCKET));
    }
    environment
}

fn capability_names(container: &Container) -> Vec<String> {
    container.capabilities().into_iter().map(Capability::full_name).collect()
}

/// Limits as configured; 1,024 open files that a program may raise to 524,288, as systemd's default is.
fn rlimits(container: &Container) -> Vec<ResourceLimit> {
    let mut limits = BTreeMap::from([("RLIMIT_NOFILE".to_owned(), (1024, 524_288))]);
    for (name, limit) in &container.ulimits {
        let unlimited = nix::libc::RLIM_INFINITY;
        limits.insert(name.rlimit().to_owned(), (limit.soft.unwrap_or(unlimited), limit.hard.unwrap_or(unlimited)));
    }
    limits.into_iter().map(|(kind, (soft, hard))| ResourceLimit { kind, hard, soft }).collect()
}

fn namespaces(container: &Container, mapped: bool, place: Place<'_>) -> Vec<Namespace> {
    let own_network = container.network_mode != NetworkMode::Host;
    let wanted = [
        (NamespaceKind::User, mapped),
        (NamespaceKind::Pid, true),
        (NamespaceKind::Mount, true),
        (NamespaceKind::Ipc, true),
        (NamespaceKind::Cgroup, true),
        (NamespaceKind::Uts, own_network),
        (NamespaceKind::Network, own_network),
    ];
    let path = |kind| match kind {
        NamespaceKind::Network => place.network.map(|shared| shared.namespace.clone()),
        _ => place.pod.and_then(|pod| pod.namespace(kind)),
    };
    wanted.into_iter().filter(|(_, own)| *own).map(|(kind, _)| Namespace { kind, path: path(kind) }).collect()
}

fn mounts(
    (name, container, image): (&str, &Container, &PreparedImage),
    mapped: bool,
    shared: Option<&SharedNetwork>,
) -> Vec<Mount> {
    let shm = format!("size={}", container.shm_size().bytes());
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        match common_memory(name, &container.ipc) {
            Some(common) => {
                mount("/dev/shm", "bind", &common.to_string_lossy(), &["bind", "nosuid", "noexec", "nodev"])
            }
            None => mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        },
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // sysfs shows the network namespace's links, so the kernel lets only the namespace's owner mount it.
    if mapped && (shared.is_some() || container.network_mode == NetworkMode::Host) {
        mounts.push(mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "rro"]));
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    let first = mounts.len();
    let folder = files_folder(name);
    for file in ["hosts", "hostname"] {
        let source = folder.join(file);
        mounts.push(mount(
            &format!("/etc/{file}"),
            "bind",
            &source.to_string_lossy(),
            &["bind", "ro", "nosuid", "noexec", "nodev"],
        ));
    }
    mounts.push(mount(
        "/etc/resolv.conf",
        "bind",
        &resolver_file(name, container, shared).to_string_lossy(),
        &["bind", "ro", "nosuid", "noexec", "nodev"],
    ));
    if !container.api.is_empty() {
        let source = super::api::socket_path(name);
        let options = ["bind", "nosuid", "noexec", "nodev"];
        mounts.push(mount(berth_control::SOCKET_PATH, "bind", &source.to_string_lossy(), &options));
    }
    if container.readiness == ReadyWhen::Notify {
        let source = readiness::socket_path(name);
        let options = ["bind", "nosuid", "noexec", "nodev"];
        mounts.push(mount(readiness::NOTIFY_SOCKET, "bind", &source.to_string_lossy(), &options));
    }
    for prepared in &image.mounts {
        let mut options = vec!["rbind", "nodev", if prepared.read_only { "rro" } else { "rw" }];
        if mapped && prepared.owned {
            options.push("idmap");
        }
        mounts.push(mount(&prepared.destination, "bind", &prepared.source.to_string_lossy(), &options));
    }
    for temporary in &container.tmpfs {
        let mut options =
            vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={:o}", temporary.mode().unwrap_or(0o1777))];
        options.extend(temporary.size().map(|size| format!("size={}", size.bytes())));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        mounts.push(mount(temporary.destination().as_ref(), "tmpfs", "tmpfs", &options));
    }
    // As Docker's, so that none hides what belongs into it.
    let depth = |mount: &Mount| mount.destination.split('/').filter(|part| !part.is_empty()).count();
    mounts.get_mut(first..).unwrap_or_default().sort_by_key(depth);
    mounts
}

/// A mount of the specification.
pub(super) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: Some(options.iter().map(ToString::to_string).collect()),
        ..Mount::default()
    }
}

fn resources(container: &Container, devices: &[berth_runtime::spec::Device]) -> Resources {
    /// The scheduler's period in microseconds, the kernel's default.
    const PERIOD: u32 = 100_000;
    let bytes = |size: Option<Size>| size.and_then(|size| i64::try_from(size.bytes()).ok());
    let (limit, reservation) = (bytes(container.memory), bytes(container.mem_reservation));
    Resources {
        devices: device_rules(&container.devices, devices),
        // No swap on top: `memory` is what the container may use, wherever it lies.
        memory: limit.or(reservation).map(|_| Memory { limit, swap: limit, reservation, ..Memory::default() }),
        cpu: (container.cpus.is_some() || container.cpu_shares.is_some() || container.cpuset.is_some()).then(|| Cpu {
            shares: container.cpu_shares.map(|shares| u64::from(shares.number())),
            quota: container.cpus.and_then(|cpus| i64::try_from(cpus.quota(PERIOD)).ok()),
            period: container.cpus.map(|_| u64::from(PERIOD)),
            cpus: container.cpuset.as_ref().map(ToString::to_string),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: Some(i64::from(container.pids_limit().get())) }),
        // The whole container ends, not a part of it that leaves the rest in a state nobody planned for.
        unified: BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())]),
        ..Resources::default()
    }
}

/// Deny all, then allow the default devices, node creation (useless without access) and the configured ones.
fn device_rules(configured: &[Device], nodes: &[berth_runtime::spec::Device]) -> Vec<DeviceRule> {
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
        allow,
        kind: Some(kind.to_owned()),
        major,
        minor,
        access: Some(access.to_owned()),
    };
    let mut rules =
        vec![rule(false, "a", None, None, "rwm"), rule(true, "c", None, None, "m"), rule(true, "b", None, None, "m")];
    rules.extend(DEFAULT_DEVICES.iter().map(|(major, minor)| rule(true, "c", Some(*major), *minor, "rwm")));
    let granted = configured.iter().zip(nodes);
    rules.extend(
        granted.map(|(device, node)| rule(true, &node.kind, Some(node.major), Some(node.minor), &device.access())),
    );
    rules
}

#[cfg(test)]
mod tests {
    use berth_control::message::PreparedMount;

    use super::*;

    #[test]
    fn no_mount_hides_what_belongs_into_it() {
        let text =
            r#"{ "image": "x", "tmpfs": ["/run", "/srv/a/b"], "api": ["containers.list"], "readiness": "notify" }"#;
        let container: Container = serde_json::from_str(text).unwrap();
        let volume = |destination: &str| PreparedMount {
            source: "/volume".into(),
            destination: destination.to_owned(),
            read_only: false,
            owned: true,
        };
        let mounts = ["/etc", "/run/app", "/srv/a"].map(volume).to_vec();
        let image = PreparedImage { mounts, ..PreparedImage::default() };
        let spec = build("a", &container, &image, Place::default()).unwrap();
        let places: Vec<&str> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
        for (at, place) in places.iter().enumerate() {
            let hidden = places.iter().take(at).find(|before| std::path::Path::new(before).starts_with(place));
            assert_eq!(hidden, None, "{place} is mounted over it");
        }
        assert!(places.contains(&"/run/app") && places.contains(&berth_control::SOCKET_PATH));
    }

    #[test]
    fn groups_and_processors_are_added() {
        let text = r#"{ "image": "x", "group_add": [44, "video"], "cpuset": "0-1" }"#;
        let container: Container = serde_json::from_str(text).unwrap();
        let image = PreparedImage { additional_gids: vec![7], ..PreparedImage::default() };
        let spec = build("a", &container, &image, Place::default()).unwrap();
        assert_eq!(spec.process.unwrap().user.additional_gids, [7, 44]);
        let cpu = spec.linux.unwrap().resources.unwrap().cpu.unwrap();
        assert_eq!((cpu.cpus.as_deref(), cpu.quota, cpu.period), (Some("0-1"), None, None));
    }

    #[test]
    fn what_it_keeps_and_how_it_stands_beside_others_is_passed_on() {
        let text = r#"{ "image": "x", "mem_reservation": "1M", "cpu_shares": 512, "oom_score_adj": 7 }"#;
        let spec = |text| build("a", &serde_json::from_str(text).unwrap(), &PreparedImage::default(), Place::default());
        let (given, without) = (spec(text).unwrap(), spec(r#"{ "image": "x" }"#).unwrap());
        let score = |spec: &Spec| spec.process.as_ref().unwrap().oom_score_adj;
        assert_eq!((score(&given), score(&without)), (Some(7), Some(OOM_SCORE)));
        let resources = |spec: Spec| spec.linux.unwrap().resources.unwrap();
        let (given, without) = (resources(given), resources(without));
        let memory = given.memory.unwrap();
        assert_eq!((memory.reservation, memory.limit, memory.swap), (Some(1 << 20), None, None));
        assert_eq!(given.cpu.unwrap().shares, Some(512));
        assert!(without.memory.is_none() && without.cpu.is_none());
    }
}
