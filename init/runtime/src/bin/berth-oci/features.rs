//! features: what this runtime can do, in the specification's terms.

use berth_runtime::{capability_names, known_memory_policies, known_mount_options, seccomp};
use serde_json::json;

use crate::container::Failure;

/// The newest version of the specification whose fields are taken.
const NEWEST: &str = "1.3.0";

pub fn print() -> Result<u8, Failure> {
    println!("{}", serde_json::to_string_pretty(&features()).unwrap_or_default());
    Ok(0)
}

fn features() -> serde_json::Value {
    let (modes, flags) = known_memory_policies();
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
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST,
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
                "supportedFlags": seccomp::supported_flags(),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": modes, "flags": flags },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": { "berth.runtime.version": env!("CARGO_PKG_VERSION") },
        // No annotation changes what the runtime does.
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

#[cfg(test)]
mod tests {
    use berth_runtime::spec::{NamespaceKind, Seccomp};
    use serde_json::Value;

    use super::*;

    fn all(features: &Value, pointer: &str) -> Vec<String> {
        serde_json::from_value(features.pointer(pointer).unwrap().clone()).unwrap()
    }

    #[test]
    fn what_is_printed_is_taken() {
        let features = features();
        let seccomp = |name: &str| all(&features, &format!("/linux/seccomp/{name}"));
        for action in seccomp("actions") {
            for operator in seccomp("operators") {
                let argument = json!({ "index": 0, "value": 1, "op": operator });
                let rule = json!({ "names": ["getcwd"], "action": action, "args": [argument] });
                let profile = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/agent",
                    "architectures": seccomp("archs"), "flags": seccomp("knownFlags"),
                });
                let profile: Seccomp = serde_json::from_value(profile).unwrap();
                berth_runtime::seccomp::Filter::compile(&profile).unwrap();
            }
        }
        for kind in all(&features, "/linux/namespaces") {
            serde_json::from_value::<NamespaceKind>(kind.into()).unwrap();
        }
    }

    #[test]
    fn supported_flags_are_some_of_the_known() {
        let features = features();
        let known = all(&features, "/linux/seccomp/knownFlags");
        let supported = all(&features, "/linux/seccomp/supportedFlags");
        // As old as seccomp(2) itself.
        assert!(supported.contains(&"SECCOMP_FILTER_FLAG_TSYNC".to_owned()), "{supported:?}");
        assert!(supported.iter().all(|flag| known.contains(flag)));
    }
}
