//! `berth-oci` as scripts use it: exit codes, outputs, what is left behind. Needs root; ignored visibly without it.

mod activation;
mod bench;
mod cgroups;
mod rootless;
mod undone;

use std::process::Stdio;

use bench::Bench;

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
    let (code, _, error) = bench.says(&["--log", log.to_str().unwrap(), "--log-format", "json", "create", &id]);
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

#[test]
fn a_further_process_runs_below_the_containers_cgroup_and_its_pidfd_is_sent() {
    let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
    let (id, path) = (bench.id("below"), bench.path("pidfd.sock"));
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let run = ["run", "--detach", "--pidfd-socket", path.to_str().unwrap(), &id];
    assert!(bench.command(&run).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let (connection, _) = socket.accept().unwrap();
    let mut name = [0; 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [std::io::IoSliceMut::new(&mut name)];
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    assert_eq!(rustix::net::recvmsg(&connection, parts, &mut control, flags).unwrap().bytes, 5);
    let rustix::net::RecvAncillaryMessage::ScmRights(mut rights) = control.drain().next().unwrap() else {
        panic!("no descriptor")
    };
    let pidfd = rights.next().unwrap();
    let text = |arguments: &[&str]| bench.says(&[&["exec"], arguments].concat());
    let (code, _, error) = text(&["--cgroup", "below", &id, "true"]);
    assert!(code == 255 && error.contains("below"), "{error}");
    std::fs::create_dir(bench.cgroup(&id).join("below")).unwrap();
    let inside = text(&["--cgroup", "/below", &id, "grep", "0::", "/proc/self/cgroup"]);
    assert_eq!(inside, (0, "0::/below\n".to_owned(), String::new()));
    assert!(text(&["--cgroup", "../x", &id, "true"]).2.contains("--cgroup must be below"));
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
}

/// Where mounting is not allowed, the command begins anew from memory: once, not for ever.
#[test]
fn a_user_who_owns_the_binary_executes_a_sealed_copy() {
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("ignored, needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("berth-oci");
    bench::copy_program(&binary);
    for path in [directory.path(), &binary] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
    }
    let mut command = std::process::Command::new(binary);
    command.uid(65_534).gid(65_534).args(["run", "--bundle", "/no/such/bundle", "x"]);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("find the bundle /no/such/bundle"), "{error}");
}
