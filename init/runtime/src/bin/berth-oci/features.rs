//! features: what this runtime can do, in the specification's terms.

use berth_runtime::{capability_names, known_mount_options, seccomp};
use serde_json::json;

use crate::container::Failure;

pub fn print() -> Result<u8, Failure> {
    let actions = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ];
    let operators = [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ];
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": berth_runtime::spec::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": known_mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capability_names(),
            "cgroup": { "v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": actions,
                "operators": operators,
                "archs": seccomp::known_architectures(),
                "knownFlags": seccomp::known_flags(),
                "supportedFlags": seccomp::known_flags(),
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
    });
    println!("{}", serde_json::to_string_pretty(&features).unwrap_or_default());
    Ok(0)
}
