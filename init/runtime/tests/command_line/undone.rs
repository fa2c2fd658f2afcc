//! What is left of a container that did not come to be: nothing, whatever stopped it.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::bench::Bench;

/// No state, no cgroup, no process whose root is the bundle's, no mount of it, no pid file.
fn assert_nothing_is_left(bench: &Bench, id: &str, what: &str) {
    assert!(!bench.path("state").join(id).exists(), "{what}: the state directory is left");
    assert!(!bench.cgroup(id).exists(), "{what}: the cgroup is left");
    assert!(!bench.path("pid").exists(), "{what}: the pid file is left");
    let bundle = bench.path("bundle");
    let bundle = bundle.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle), "{what}: a mount is left");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let own = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let text = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let mine = own && (text("cmdline").contains(id) || text("cgroup").contains(id));
        assert!(!mine || text("stat").contains(") Z "), "{what}: process {} is left", text("cmdline"));
    }
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
