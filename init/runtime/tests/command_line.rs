//! `berth-oci` as scripts use it: exit codes, outputs, what is left behind. Needs root; ignored visibly without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A bundle with the host's programs, and a state directory.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// None, and said so, without root.
    fn new(arguments: &[&str]) -> Option<Self> {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn change(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.path("bundle/config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-oci"));
        command.arg("--root").arg(self.path("state")).args(arguments);
        if let Some("create" | "run") = arguments.first().copied() {
            command.arg("--bundle").arg(self.path("bundle"));
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Exit code, standard output and standard error.
    fn says(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// A name that no other test uses.
    fn id(&self, name: &str) -> String {
        format!("{name}-{}-{}", std::process::id(), self.directory.path().file_name().unwrap().to_string_lossy())
            .replace("-.", "-")
    }

    fn cgroup(&self, id: &str) -> PathBuf {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        roots.into_iter().find(|root| root.join("cgroup.controllers").exists()).unwrap().join(id)
    }

    fn status(&self, id: &str) -> String {
        let state: serde_json::Value = serde_json::from_slice(&self.run(&["state", id]).stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}

#[test]
fn run_gives_the_programs_exit_code_and_leaves_nothing() {
    let Some(bench) = Bench::new(&["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]) else { return };
    let id = bench.id("run");
    assert_eq!(bench.says(&["run", &id]), (7, "out\n".to_owned(), "err\n".to_owned()));
    assert!(!bench.path("state").join(&id).exists() && !bench.cgroup(&id).exists());
}

#[test]
fn a_container_goes_through_its_life() {
    let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
    let id = bench.id("life");
    let pid_file = bench.path("pid");
    // The container keeps the output of `create` open, so it is not to be read to its end.
    let mut create = bench.command(&["create", &id, "--pid-file", pid_file.to_str().unwrap()]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(bench.status(&id), "created");
    assert!(bench.says(&["create", &id]).2.contains("already exists"));
    assert_eq!(bench.says(&["start", &id]).0, 0);
    assert_eq!(bench.status(&id), "running");
    assert!(bench.says(&["start", &id]).2.contains("cannot start a container that is running"));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(bench.says(&["ps", "--format", "json", &id]).1, format!("[{pid}]\n"));
    assert_eq!(
        bench.says(&["exec", &id, "sh", "-c", "echo inside; exit 9"]),
        (9, "inside\n".to_owned(), String::new())
    );
    assert_eq!(bench.says(&["pause", &id]).0, 0);
    assert_eq!(bench.status(&id), "paused");
    assert_eq!(bench.says(&["resume", &id]).0, 0);
    assert!(bench.says(&["delete", &id]).2.contains("that is not stopped: running"));
    assert_eq!(bench.says(&["kill", &id, "KILL"]).0, 0);
    assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
    let (code, _, error) = bench.says(&["state", &id]);
    assert!(code == 1 && error.contains("container does not exist"), "{error}");
    assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
}

#[test]
fn a_failed_create_is_logged_and_leaves_nothing() {
    let Some(bench) = Bench::new(&["no-such-program"]) else { return };
    let id = bench.id("fail");
    let log = bench.path("log");
    let (code, _, error) = bench.says(&["create", &id, "--log", log.to_str().unwrap(), "--log-format", "json"]);
    assert!(code == 1 && error.contains("no-such-program: executable file not found in $PATH"), "{error}");
    let line: serde_json::Value = serde_json::from_str(std::fs::read_to_string(log).unwrap().trim()).unwrap();
    assert!(line["level"] == "error" && line["msg"].as_str().unwrap().contains("no-such-program"));
    assert!(!bench.path("state").join(&id).exists() && !bench.cgroup(&id).exists());
}

#[test]
fn a_terminal_is_stood_in_for() {
    let Some(bench) = Bench::new(&["/bin/sh", "-c", "tty; stty size; tty < /dev/console"]) else { return };
    bench.change(|config| {
        config["process"]["terminal"] = true.into();
        config["process"]["consoleSize"] = serde_json::json!({ "height": 33, "width": 77 });
    });
    let (code, output, error) = bench.says(&["run", &bench.id("tty")]);
    assert_eq!((code, output.as_str()), (0, "/dev/pts/0\r\n33 77\r\n/dev/console\r\n"), "{error}");
}

#[test]
fn an_invalid_configuration_is_told_by_its_field() {
    let Some(bench) = Bench::new(&["/bin/true"]) else { return };
    bench.change(|config| config["process"]["rlimits"][0]["hard"] = "many".into());
    let (code, _, error) = bench.says(&["run", &bench.id("invalid")]);
    let expected = "process.rlimits[0].hard must be a whole number from 0 to 18446744073709551615, not string \"many\"";
    assert!(code == 1 && error.contains(expected), "{error}");
}

#[test]
fn device_rules_and_limits_are_changed_in_place() {
    let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
    // A device that no container has by itself, and everybody may open: /dev/net/tun.
    let id = bench.id("update");
    bench.change(|config| {
        config["process"]["capabilities"]["bounding"] = serde_json::json!(["CAP_MKNOD"]);
        config["process"]["capabilities"]["effective"] = serde_json::json!(["CAP_MKNOD"]);
        config["process"]["capabilities"]["permitted"] = serde_json::json!(["CAP_MKNOD"]);
    });
    let mut run = bench.command(&["run", "--detach", &id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let attempt = || bench.says(&["exec", &id, "sh", "-c", "test -e /dev/x || mknod /dev/x c 10 200; : < /dev/x"]);
    assert!(attempt().2.contains("Operation not permitted"), "{:?}", attempt());
    let file = bench.path("resources.json");
    let rules = |allow: bool| {
        let rule = serde_json::json!({ "allow": allow, "type": "c", "major": 10, "minor": 200, "access": "rw" });
        let none = serde_json::json!({ "allow": false, "access": "rwm" });
        std::fs::write(&file, serde_json::json!({ "devices": [none, rule] }).to_string()).unwrap();
        bench.says(&["update", "--resources", file.to_str().unwrap(), &id])
    };
    assert_eq!(rules(true), (0, String::new(), String::new()));
    assert_eq!(attempt().0, 0, "{:?}", attempt());
    assert_eq!(rules(false).0, 0);
    assert!(attempt().2.contains("Operation not permitted"));
    assert!(bench.says(&["update", "--memory", "12 apples", &id]).2.contains("not a number of bytes"));
    let text = bench.says(&["update", "--cpu-rt-runtime", "5", &id]).2;
    assert!(text.contains("cannot be set with cgroup v2"), "{text}");
    assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
}
