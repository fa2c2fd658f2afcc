//! What the runtimes are given: a config.json as `spec` makes it, a root with the host's programs, files beside it.

use std::path::Path;

use serde_json::{Value, json};

use crate::machine::{PROGRAMS, host_shell};
use crate::tool::{self, Runtime, Tool};

/// A bundle to be; every runtime gets one of its own.
#[derive(Clone)]
pub struct Bundle {
    pub config: Value,
    /// Run in the bundle's directory by the host's shell before the runtime.
    preparation: String,
}

fn config(script: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "differential",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "/usr", "type": "bind", "source": PROGRAMS, "options": ["rbind", "ro"] },
            { "destination": "/notes", "type": "bind", "source": "notes", "options": ["bind"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

impl Bundle {
    /// Runs a script with the host's shell.
    pub fn new(script: &str) -> Self {
        Self { config: config(script), preparation: String::new() }
    }

    /// The same in a user namespace that begins at 100000.
    pub fn unprivileged(script: &str) -> Self {
        let mut bundle = Self::new(script).prepare("chown 100000:100000 rootfs notes");
        bundle.namespaces().push(json!({ "type": "user" }));
        let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        bundle.config["linux"]["uidMappings"] = mapping.clone();
        bundle.config["linux"]["gidMappings"] = mapping;
        bundle
    }

    /// Adds to what the host's shell does in the bundle's directory first.
    pub fn prepare(mut self, script: &str) -> Self {
        self.preparation += script;
        self.preparation.push('\n');
        self
    }

    /// Sets what a JSON pointer refers to, with the objects on the way.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match key.parse::<usize>() {
                Ok(number) if place.is_array() => &mut place[number],
                _ => &mut place[key],
            };
        }
        *place = value;
        self
    }

    /// Takes a key of an object away.
    pub fn without(mut self, object: &str, key: &str) -> Self {
        self.config.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(key);
        self
    }

    pub fn namespaces(&mut self) -> &mut Vec<Value> {
        self.config["linux"]["namespaces"].as_array_mut().unwrap()
    }

    /// Without a namespace of this kind.
    pub fn sharing(mut self, kind: &str) -> Self {
        self.namespaces().retain(|namespace| namespace["type"] != kind);
        self
    }

    /// One more mount.
    pub fn mount(mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.config["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Makes the directory.
    pub fn write(&self, directory: &Path) {
        for name in ["rootfs/usr", "notes"] {
            std::fs::create_dir_all(directory.join(name)).unwrap();
        }
        for link in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), directory.join("rootfs").join(link)).unwrap();
        }
        // Hooks outside of the container name the bundle so.
        let config = self.config.to_string().replace("@BUNDLE@", directory.to_str().unwrap());
        std::fs::write(directory.join("config.json"), config).unwrap();
        if self.preparation.is_empty() {
            return;
        }
        let done = host_shell(&self.preparation, directory).status().unwrap();
        assert!(done.success(), "{}", self.preparation);
    }

    /// All print this, but those who have a reason.
    pub fn prints(&self, expected: &str, differing: &[(Runtime, &str)]) {
        tool::agree(self, expected, differing, Tool::run);
    }

    /// All refuse it: exit code 1, something on standard error, nothing from the program, nothing left.
    pub fn is_refused(&self, differing: &[(Runtime, &str)]) {
        tool::agree(self, REFUSED, differing, refusal);
    }

    /// The same of what only a command line looks at.
    pub fn is_refused_by_commands(&self, differing: &[(Runtime, &str)]) {
        tool::by_commands(self, REFUSED, differing, refusal);
    }
}

const REFUSED: &str = "refused\nnone\n";

fn refusal(tool: &Tool) -> String {
    let text = tool.run();
    assert!(!tool.runtime.is_ours() || !tool.cgroup().exists(), "a refused container has left its cgroup");
    format!("{text}{}\n", tool.status())
}
