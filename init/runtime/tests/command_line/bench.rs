//! A bundle with the host's programs, and a state directory, for the command line under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Copies berth-oci. Not in this process: a child of another test's thread could hold the copy open for writing at the
/// moment when it is to be executed, which the kernel refuses.
pub fn copy_program(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_berth-oci")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A bundle with the host's programs, and a state directory.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// None, and said so, without root.
    pub fn new(arguments: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("ignored, needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { directory };
        let root = bench.path("bundle/rootfs");
        std::fs::create_dir_all(root.join("usr")).unwrap();
        for link in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let made = bench.command(&["spec", "--bundle", bench.path("bundle").to_str().unwrap()]).status().unwrap();
        assert!(made.success());
        bench.change(|config| {
            config["process"]["terminal"] = false.into();
            config["process"]["args"] = arguments.into();
            let usr = serde_json::json!({
                "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"],
            });
            config["mounts"].as_array_mut().unwrap().push(usr);
        });
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn change(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path("bundle/config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-oci"));
        command.arg("--root").arg(self.path("state")).args(arguments);
        if arguments.iter().any(|argument| matches!(*argument, "create" | "run")) {
            command.arg("--bundle").arg(self.path("bundle"));
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Exit code, standard output and standard error.
    pub fn says(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// A name that no other test uses.
    pub fn id(&self, name: &str) -> String {
        format!("{name}-{}-{}", std::process::id(), self.directory.path().file_name().unwrap().to_string_lossy())
            .replace("-.", "-")
    }

    pub fn cgroup(&self, id: &str) -> PathBuf {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        roots.into_iter().find(|root| root.join("cgroup.controllers").exists()).unwrap().join(id)
    }

    pub fn status(&self, id: &str) -> String {
        let state: serde_json::Value = serde_json::from_slice(&self.run(&["state", id]).stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}
