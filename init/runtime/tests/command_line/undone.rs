//! What is left of a container that did not come to be: nothing, whatever stopped it.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};

use crate::bench::Bench;

/// No state, no cgroup, no process whose root is the bundle's, no mount of it, no pid file.
fn assert_nothing_is_left(bench: &Bench, id: &str, what: &str) {
    for pid in processes(id) {
        // One that is ending leaves its cgroup before it is a zombie; and one that makes a container that nobody wants
        // any more has something to take back.
        assert!(ends(pid), "{what}: process {pid} is left");
    }
    assert!(!bench.path("state").join(id).exists(), "{what}: the state directory is left");
    assert!(!bench.cgroup(id).exists(), "{what}: the cgroup is left");
    assert!(!bench.path("pid").exists(), "{what}: the pid file is left");
    let bundle = bench.path("bundle");
    let bundle = bundle.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle), "{what}: a mount is left");
}

/// Those that the container's name is on, by their words or by their cgroup.
fn processes(id: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    pids.filter(|pid| {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        text("cmdline").contains(id) || text("cgroup").contains(id)
    })
    .collect()
}

/// Waits for a process's end; whether it came.
fn ends(pid: Pid) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

type Change = fn(&mut Value);

fn add(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

/// A configuration for every step that one can make fail, in the order of the steps, and what the error says.
const FAILURES: &[(&str, &str, Change)] = &[
    ("parse", "process.cwd must be a string", |config| config["process"]["cwd"] = 5.into()),
    ("check", "process.cwd must be absolute", |config| config["process"]["cwd"] = "x".into()),
    ("the root", "find the root", |config| config["root"]["path"] = "no-such-root".into()),
    ("namespaces", "open namespace /no/such", |config| {
        config["linux"]["namespaces"][1]["path"] = "/no/such/namespace".into();
    }),
    ("the profile", "SCMP_ARCH_VAX", |config| {
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"] });
    }),
    ("the agent", "reach linux.seccomp.listenerPath", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such/agent",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        });
    }),
    ("limits", "the name of a file of cgroup v2", |config| {
        config["linux"]["resources"]["unified"] = json!({ "../x": "1" });
    }),
    ("a controller", "none-such", |config| {
        config["linux"]["resources"]["unified"] = json!({ "none-such.max": "1" });
    }),
    ("device rules", "devices[].access", |config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "q" }]);
    }),
    ("resctrl", "linux.intelRdt", |config| config["linux"]["intelRdt"] = json!({ "closID": "none-such" })),
    ("devices of the network", "linux.netDevices[\"none-such\"]", |config| {
        config["linux"]["netDevices"] = json!({ "none-such": {} });
    }),
    ("a source", "mount /no/such/source on /data", |config| {
        let mount = json!({ "destination": "/data", "source": "/no/such/source", "options": ["bind"] });
        add(&mut config["mounts"], mount);
    }),
    ("id maps", "linux.uidMappings", |config| {
        add(&mut config["linux"]["namespaces"], json!({ "type": "user" }));
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 4_294_967_295_u32, "size": 9 }]);
        config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
    }),
    ("time offsets", "set time offsets", |config| {
        add(&mut config["linux"]["namespaces"], json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": -1_000_000_000 } });
    }),
    ("a file system", "mount none on /data", |config| {
        add(&mut config["mounts"], json!({ "destination": "/data", "type": "none-such", "source": "none" }));
    }),
    ("an option", "mount tmpfs on /data", |config| {
        let mount = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["none=such"] });
        add(&mut config["mounts"], mount);
    }),
    ("a device", "must be c, u, b or p", |config| {
        config["linux"]["devices"] = json!([{ "type": "x", "path": "/dev/x", "major": 1, "minor": 1 }]);
    }),
    ("sysctl", "set sysctl", |config| config["linux"]["sysctl"] = json!({ "net.none.such": "1" })),
    ("createRuntime", "the createRuntime hook /bin/false", |config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    }),
    ("createContainer", "the createContainer hook /bin/false", |config| {
        config["hooks"] = json!({ "createContainer": [{ "path": "/bin/false" }] });
    }),
    ("propagation", "linux.rootfsPropagation", |config| config["linux"]["rootfsPropagation"] = "none".into()),
    ("the scheduler", "process.scheduler.policy", |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_NONE" });
    }),
    ("I/O priority", "process.ioPriority", |config| {
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 });
    }),
    ("personality", "linux.personality.domain", |config| {
        config["linux"]["personality"] = json!({ "domain": "BSD" });
    }),
    ("memory policy", "linux.memoryPolicy", |config| {
        config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_NONE" });
    }),
    ("the user", "set user and groups", |config| {
        add(&mut config["linux"]["namespaces"], json!({ "type": "user" }));
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 10 }]);
        config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
        config["process"]["user"]["uid"] = 77.into();
    }),
    ("the directory", "enter process.cwd", |config| config["process"]["cwd"] = "/bin/sh/x".into()),
    ("the program", "no-such-program", |config| config["process"]["args"][0] = "no-such-program".into()),
    ("limits of the process", "set resource limits", |config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 9, "hard": 5 }]);
    }),
];

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    for (what, expected, change) in FAILURES {
        for command in ["create", "run"] {
            let Some(bench) = Bench::new(&["/bin/true"]) else { return };
            bench.change(change);
            let id = bench.id("failure");
            let (code, output, error) = bench.says(&[command, &id, "--pid-file", bench.path("pid").to_str().unwrap()]);
            assert!(code == 1 && output.is_empty() && error.contains(expected), "{what}: {code} {error}");
            assert_nothing_is_left(&bench, &id, what);
        }
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_undoes_the_container() {
    let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
    let id = bench.id("pid-file");
    let (code, _, error) = bench.says(&["create", &id, "--pid-file", "/no/such/directory/pid"]);
    assert!(code == 1 && error.contains("/no/such/directory"), "{error}");
    assert_nothing_is_left(&bench, &id, "the pid file");
}

/// A hook that says that it runs, and then takes its time. Inside and outside the same file has to be found.
fn slow(fifo: &Path) -> Value {
    let script = format!("echo > {}; exec /bin/sleep 100", fifo.display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

#[test]
fn a_signal_while_a_container_is_made_leaves_nothing() {
    let cases = [
        ("create", "createRuntime", Signal::TERM),
        ("create", "createContainer", Signal::INT),
        ("run", "createRuntime", Signal::INT),
        ("run", "createContainer", Signal::TERM),
        ("run", "startContainer", Signal::TERM),
    ];
    for (command, kind, signal) in cases {
        let Some(bench) = Bench::new(&["/bin/true"]) else { return };
        let (id, fifo) = (bench.id("signal"), bench.path("fifo"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        bench.change(|config| {
            config["hooks"] = json!({ kind: slow(&fifo) });
            let directory = fifo.parent().unwrap().to_str().unwrap();
            add(&mut config["mounts"], json!({ "destination": directory, "source": directory, "options": ["bind"] }));
        });
        let mut running = bench.command(&[command, &id]);
        let mut running = running.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Opening waits for the hook.
        let mut byte = [0];
        std::fs::File::open(&fifo).unwrap().read_exact(&mut byte).unwrap();
        rustix::process::kill_process(Pid::from_child(&running), signal).unwrap();
        let mut error = String::new();
        running.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(1), "{command} {kind}: {error}");
        assert!(error.contains("interrupted by a signal"), "{command} {kind}: {error}");
        assert_nothing_is_left(&bench, &id, kind);
    }
}

/// Somebody kills the command itself: nobody is left to undo anything, so what it has made has to end by itself, and
/// `delete --force` finds the rest. With a namespace that is joined a second process is at it.
#[test]
fn a_create_that_is_killed_leaves_nothing_that_cannot_be_deleted() {
    const MOMENTS: u32 = 75;
    for joined in [false, true] {
        let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
        bench.change(|config| {
            if joined {
                add(&mut config["linux"]["namespaces"], json!({ "type": "time", "path": "/proc/self/ns/time" }));
            }
            config["hooks"] = json!({ "createContainer": [{ "path": "/bin/true" }] });
        });
        let id = bench.id("killed");
        let create = || {
            let mut command = bench.command(&["create", &id]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let begin = Instant::now();
        assert!(create().wait().unwrap().success());
        let whole = begin.elapsed();
        assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
        let mut finished = 0;
        for moment in 0..MOMENTS {
            let mut running = create();
            // The test is of moments, so this is no wait for anything.
            std::thread::sleep(whole * 3 / 2 * moment / MOMENTS);
            running.kill().unwrap();
            finished += u32::from(running.wait().unwrap().success());
            let (code, _, error) = bench.says(&["delete", "--force", &id]);
            assert!(code == 0, "moment {moment}: {error}");
            assert_nothing_is_left(&bench, &id, &format!("moment {moment}"));
        }
        assert!(finished < MOMENTS, "no create was killed");
    }
}

/// The moment that counts: the container waits for its start, and nobody can find it yet. A record that cannot be
/// written keeps the command there.
#[test]
fn a_container_that_nobody_knows_of_ends() {
    for joined in [false, true] {
        let Some(bench) = Bench::new(&["/bin/sleep", "100"]) else { return };
        let id = bench.id("unknown");
        let record = bench.path("state").join(&id).join("state.json.new");
        bench.change(|config| {
            let hook = json!({ "path": "/usr/bin/mkfifo", "args": ["mkfifo", record] });
            config["hooks"] = json!({ "createRuntime": [hook] });
            if joined {
                add(&mut config["linux"]["namespaces"], json!({ "type": "time", "path": "/proc/self/ns/time" }));
            }
        });
        let mut command = bench.command(&["create", &id]);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A pipe opens when both sides are there, and nobody reads.
        let begin = Instant::now();
        let opening = format!("{} ", libc::SYS_openat);
        let path = format!("/proc/{}/syscall", running.id());
        while !(record.exists() && std::fs::read_to_string(&path).unwrap().starts_with(&opening)) {
            assert!(begin.elapsed().as_secs() < 20, "the command does not come to its record");
            std::thread::yield_now();
        }
        running.kill().unwrap();
        running.wait().unwrap();
        for pid in processes(&id) {
            assert!(ends(pid), "process {pid} waits for a start that nobody can give");
        }
        assert_eq!(bench.says(&["delete", "--force", &id]).0, 0);
        assert_nothing_is_left(&bench, &id, "the record");
    }
}
