//! spec: a config.json to begin with.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::arguments::Spec;
use crate::container::{Failure, during};

pub fn write(options: &Spec) -> Result<u8, Failure> {
    let path = options.bundle.join("config.json");
    let mut value = specimen();
    if options.rootless {
        make_rootless(&mut value);
    }
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.map_err(during("create", &path))?;
    writeln!(file, "{text}").map_err(during("write", &path))?;
    Ok(0)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn specimen() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let plain = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": berth_runtime::spec::VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "berth",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &plain),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// In a user namespace whose root is the caller.
fn make_rootless(value: &mut Value) {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("uidMappings".to_owned(), json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
        linux.insert("gidMappings".to_owned(), json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({ "type": "user" }));
        }
    }
    if let Some(mounts) = value.get_mut("mounts").and_then(Value::as_array_mut) {
        for mount in mounts {
            if mount["destination"] == "/sys" {
                // A file system of its own is for the owner of the network namespace, which is shared.
                mount["type"] = json!("none");
                mount["source"] = json!("/sys");
                if let Some(options) = mount["options"].as_array_mut() {
                    options.insert(0, json!("rbind"));
                }
            }
            if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
                // A group that is not mapped.
                options.retain(|option| option != "gid=5");
            }
        }
    }
}
