//! The command line: what runc's users and the programs above it (engines, scripts) read and rely on.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, Runtime, Said, Tool, by_commands as agree, skip_without_runc};

pub const CASES: &[Test] = &[
    ("the_version_is_told", the_version_is_told),
    ("a_list_is_a_table", a_list_is_a_table),
    ("a_list_as_json", a_list_as_json),
    ("a_list_of_names", a_list_of_names),
    ("processes_are_listed", processes_are_listed),
    ("a_paused_container_waits", a_paused_container_waits),
    ("only_what_runs_is_paused", only_what_runs_is_paused),
    ("a_created_container_can_be_paused", a_created_container_can_be_paused),
    ("changes_come_from_a_file_or_standard_input", changes_come_from_a_file_or_standard_input),
    ("a_limit_without_its_controller_is_refused", a_limit_without_its_controller_is_refused),
    ("a_specimen_is_what_runc_writes", a_specimen_is_what_runc_writes),
    ("features_has_the_specifications_keys", features_has_the_specifications_keys),
    ("errors_are_written_to_the_log", errors_are_written_to_the_log),
    ("the_log_is_made_at_once", the_log_is_made_at_once),
    ("a_log_that_cannot_be_written_is_an_error", a_log_that_cannot_be_written_is_an_error),
    ("what_is_not_there_has_code_1", what_is_not_there_has_code_1),
];

/// Of crun where it goes its own way with no effect on who asked runc.
const OWN_FORMAT: (Runtime, &str) = (Crun, "prints in its own format");

pub fn sleeper() -> Bundle {
    Bundle::new("exec sleep 100")
}

fn refused(said: &Said) -> String {
    let words = if said.error.is_empty() { "silent" } else { "error" };
    format!("{} {words}", said.code)
}

fn the_version_is_told() {
    agree(&sleeper(), "0 version spec:|0 version spec:", &[], |tool| {
        ["--version", "-v"]
            .map(|flag| {
                let said = tool.say(&[flag]);
                let word = said.out.split_whitespace().nth(1).unwrap_or_default().to_owned();
                let spec = said.out.lines().filter_map(|line| line.split(' ').next()).find(|word| *word == "spec:");
                format!("{} {word} {}", said.code, spec.unwrap_or_default())
            })
            .join("|")
    });
}

fn a_list_is_a_table() {
    let expected = "ID PID STATUS BUNDLE CREATED OWNER|ID PID running BUNDLE 6";
    agree(&sleeper(), expected, &[OWN_FORMAT], |tool| {
        tool.start();
        let text = tool.say(&["list"]).out;
        let mut lines = text.lines();
        let title = lines.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let row: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        let named = |position: usize, value: &str, name: &str| {
            if row.get(position) == Some(&value) { name.to_owned() } else { format!("{row:?}") }
        };
        let pid = tool.pid().to_string();
        let bundle = named(3, tool.bundle.to_str().unwrap(), "BUNDLE");
        format!("{title}|{} {} {} {bundle} {}", named(0, &tool.id, "ID"), named(1, &pid, "PID"), row[2], row.len())
    });
}

fn a_list_as_json() {
    let keys = "bundle created id ociVersion owner pid rootfs status";
    agree(&sleeper(), &format!("0 {keys} true running"), &[(Crun, "leaves out ociVersion and rootfs")], |tool| {
        tool.start();
        let said = tool.say(&["list", "--format", "json"]);
        let list: Value = serde_json::from_str(&said.out).unwrap();
        let mut keys: Vec<_> = list[0].as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let same = list[0]["pid"] == json!(tool.pid()) && list[0]["id"] == json!(tool.id);
        format!("{} {} {same} {}", said.code, keys.join(" "), list[0]["status"].as_str().unwrap())
    });
    agree(&sleeper(), "1 error", &[], |tool| refused(&tool.say(&["list", "--format", "xml"])));
}

fn a_list_of_names() {
    let wanted = [(Runc, "wants the directory of its state to be there already")];
    agree(&sleeper(), "0 ''", &wanted, |tool| {
        let said = tool.say(&["list", "-q"]);
        format!("{} '{}'", said.code, said.out)
    });
    agree(&sleeper(), "0 true", &[], |tool| {
        tool.start();
        let said = tool.say(&["list", "-q"]);
        format!("{} {}", said.code, said.out == format!("{}\n", tool.id))
    });
}

/// As JSON, and as ps(1) prints it; crun has no use for ps and prints the numbers alone.
fn processes_are_listed() {
    agree(&sleeper(), "0 true", &[], |tool| {
        tool.start();
        let said = tool.say(&["ps", "--format", "json", &tool.id]);
        let list: Value = serde_json::from_str(&said.out).unwrap();
        format!("{} {}", said.code, list == json!([tool.pid()]))
    });
    agree(&sleeper(), "0 UID PID|1 true", &[(Crun, "prints the numbers alone")], |tool| {
        tool.start();
        let ps = tool.bundle.join("ps");
        let script = "#!/host/bin/sh\necho 'UID PID CMD'\nfor p in /proc/[0-9]*; do echo 0 ${p#/proc/} x; done\n";
        std::fs::write(&ps, script).unwrap();
        std::fs::set_permissions(&ps, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = tool.command(&["ps", &tool.id]);
        command.env("PATH", &tool.bundle);
        let said = tool.finish(command);
        let lines: Vec<Vec<_>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
        let ours = lines.get(1).is_some_and(|words| words.get(1) == Some(&tool.pid().to_string().as_str()));
        let title =
            lines.first().map(|words| words.iter().take(2).copied().collect::<Vec<_>>().join(" ")).unwrap_or_default();
        format!("{} {title}|{} {ours}", said.code, lines.len() - 1)
    });
}

fn a_paused_container_waits() {
    let differing = [(Crun, "has 1 for what exec does not do, and no --ignore-paused")];
    agree(&sleeper(), "0 paused|255 error|0 paused|0 running|0", &differing, |tool| {
        tool.start();
        let paused = format!("{} {}", tool.say(&["pause", &tool.id]).code, tool.status());
        let exec = refused(&tool.say(&["exec", &tool.id, "true"]));
        let signal = format!("{} {}", tool.say(&["kill", &tool.id, "CONT"]).code, tool.status());
        let resumed = format!("{} {}", tool.say(&["resume", &tool.id]).code, tool.status());
        format!("{paused}|{exec}|{signal}|{resumed}|{}", tool.say(&["exec", &tool.id, "true"]).code)
    });
    // What was killed while it was paused can be deleted.
    agree(&sleeper(), "0 none", &[], |tool| {
        tool.start();
        tool.say(&["pause", &tool.id]);
        let code = tool.say(&["delete", "--force", &tool.id]).code;
        format!("{code} {}", tool.status())
    });
}

fn only_what_runs_is_paused() {
    agree(&sleeper(), "1 error|0 silent|1 error", &[(Crun, "does it again without a word")], |tool| {
        tool.start();
        let resumed = refused(&tool.say(&["resume", &tool.id]));
        let paused = refused(&tool.say(&["pause", &tool.id]));
        format!("{resumed}|{paused}|{}", refused(&tool.say(&["pause", &tool.id])))
    });
    agree(&Bundle::new("true"), "1 error|1 error", &[], |tool| {
        tool.start();
        tool.await_end();
        ["pause", "resume"].map(|command| refused(&tool.say(&[command, &tool.id]))).join("|")
    });
}

/// A start would wait for somebody who cannot answer.
fn a_created_container_can_be_paused() {
    agree(&sleeper(), "0 paused|0 created|0 running", &[(Crun, "calls it created still")], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        ["pause", "resume", "start"]
            .map(|command| {
                let code = tool.say(&[command, &tool.id]).code;
                format!("{code} {}", tool.status())
            })
            .join("|")
    });
    let waits = "starts it, and waits";
    agree(&sleeper(), "1 error paused", &[(Crun, waits)], |tool| {
        if tool.runtime == Crun {
            return waits.to_owned();
        }
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        tool.say(&["pause", &tool.id]);
        format!("{} {}", refused(&tool.say(&["start", &tool.id])), tool.status())
    });
}

/// What a runtime says to something on its standard input.
fn tell(tool: &Tool, arguments: &[&str], text: &str) -> Said {
    let path = tool.bundle.join("input");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    let mut command = tool.command(arguments);
    command.stdin(Stdio::from(std::fs::File::open(path).unwrap()));
    tool.finish(command)
}

fn changes_come_from_a_file_or_standard_input() {
    agree(&sleeper(), "0 silent|0 silent|0 silent|1 error|1 error", &[], |tool| {
        tool.start();
        std::fs::write(tool.bundle.join("changes"), "{}").unwrap();
        [
            tool.say(&["update", &tool.id]),
            tell(tool, &["update", "--resources", "-", &tool.id], "{}"),
            tool.say(&["update", "-r", "changes", &tool.id]),
            tell(tool, &["update", "-r", "-", &tool.id], "no JSON"),
            tool.say(&["update", "-r", "no-such-file", &tool.id]),
        ]
        .map(|said| refused(&said))
        .join("|")
    });
    agree(&Bundle::new("true"), "1 error", &[], |tool| {
        tool.start();
        tool.await_end();
        refused(&tool.say(&["update", "--pids-limit", "5", &tool.id]))
    });
}

/// Each flag, on a machine that has the controller or not: done, or refused with words.
fn a_limit_without_its_controller_is_refused() {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    for (controller, flag, value, file, holds) in [
        ("pids", "--pids-limit", "20", "pids.max", "20"),
        ("memory", "--memory", "102400000", "memory.max", "102400000"),
        ("memory", "--memory-reservation", "51200000", "memory.low", "51200000"),
        ("cpu", "--cpu-quota", "50000", "cpu.max", "50000 100000"),
        ("cpu", "--cpu-share", "262144", "cpu.weight", "10000"),
        ("cpuset", "--cpuset-cpus", "0", "cpuset.cpus", "0"),
        ("io", "--blkio-weight", "1000", "io.weight", "default 10000"),
    ] {
        let there = controllers.split_whitespace().any(|name| name == controller);
        let expected = if there { format!("0 silent {holds}") } else { "1 error ".to_owned() };
        agree(&sleeper(), &expected, &[], |tool| {
            tool.start();
            let said = refused(&tool.say(&["update", flag, value, &tool.id]));
            let text = std::fs::read_to_string(tool.cgroup().join(file)).unwrap_or_default();
            format!("{said} {}", text.trim_end())
        });
    }
}

/// But for the name and the capabilities that crun adds.
fn a_specimen_is_what_runc_writes() {
    let specimen = |tool: &Tool, flags: &[&str]| -> Value {
        std::fs::remove_file(tool.bundle.join("config.json")).unwrap();
        let said = tool.say(&[&["spec"], flags].concat());
        assert_eq!(said.code, 0, "{:?}: {}", tool.runtime, said.error);
        let mut value: Value =
            serde_json::from_slice(&std::fs::read(tool.bundle.join("config.json")).unwrap()).unwrap();
        value["hostname"] = Value::Null;
        for mount in value["mounts"].as_array_mut().unwrap() {
            let mount = mount.as_object_mut().unwrap();
            mount.retain(|_, value| *value != json!([]));
        }
        value
    };
    if skip_without_runc() {
        return;
    }
    let model = Tool::of(Runc, &sleeper());
    for flags in [&[][..], &["--rootless"]] {
        let expected = format!("{:#}", specimen(&model, flags));
        std::fs::write(model.bundle.join("config.json"), "").unwrap();
        let own = [(Crun, "has an older version, and gives capabilities to whoever executes")];
        agree(&sleeper(), &expected, &own, |tool| format!("{:#}", specimen(tool, flags)));
    }
    agree(&sleeper(), "1 error", &[], |tool| refused(&tool.say(&["spec"])));
}

/// The keys that features.md and features-linux.md name.
fn features_has_the_specifications_keys() {
    let newer = "is older than memoryPolicy and netDevices";
    agree(&sleeper(), "", &[(Runc, newer), (Crun, newer)], |tool| {
        let features: Value = serde_json::from_str(&tool.say(&["features"]).out).unwrap();
        let missing = [
            "/ociVersionMin",
            "/ociVersionMax",
            "/hooks",
            "/mountOptions",
            "/annotations",
            "/potentiallyUnsafeConfigAnnotations",
            "/linux/namespaces",
            "/linux/capabilities",
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
            "/linux/seccomp/supportedFlags",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
        ];
        missing.into_iter().filter(|key| features.pointer(key).is_none()).collect::<Vec<_>>().join(" ")
    });
}

/// One object an error, in lines or not.
fn logged(tool: &Tool) -> Vec<Value> {
    let text = std::fs::read_to_string(tool.bundle.join("log")).unwrap_or_default();
    serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect()
}

fn errors_are_written_to_the_log() {
    let calls: [&[&str]; 4] =
        [&["state", "none"], &["exec", "none", "true"], &["create", "-b", "/none", "x"], &["delete", "none"]];
    for call in calls {
        let no_bundle = [(Crun, "writes nothing of a bundle that is not there")];
        let other = [(Crun, "has 1 where the program's own code would be, not 255")];
        let (code, differing) = match call[0] {
            "create" => (1, &no_bundle[..]),
            "exec" => (255, &other[..]),
            _ => (1, &[][..]),
        };
        agree(&sleeper(), &format!("{code} 1 level msg time error true true"), differing, |tool| {
            let log = tool.bundle.join("log");
            let said = tool.say(&[&["--log", log.to_str().unwrap(), "--log-format", "json"], call].concat());
            let entries = logged(tool);
            let Some(entry) = entries.first().and_then(Value::as_object) else { return format!("nothing of {call:?}") };
            let mut keys: Vec<_> = entry.keys().map(String::as_str).collect();
            keys.sort_unstable();
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            let time = text("time").len() > 18 && text("time").ends_with('Z') && text("time").contains('T');
            format!(
                "{} {} {} {} {} {time}",
                said.code,
                entries.len(),
                keys.join(" "),
                text("level"),
                !text("msg").is_empty()
            )
        });
    }
    let plain = [(Crun, "writes the bare text")];
    agree(&sleeper(), "true", &plain, |tool| {
        tool.say(&["--log", "log", "state", "none"]);
        let text = std::fs::read_to_string(tool.bundle.join("log")).unwrap();
        (text.starts_with("time=\"") && text.contains("\" level=error msg=\"") && text.lines().count() == 1).to_string()
    });
}

fn the_log_is_made_at_once() {
    agree(&sleeper(), "0 true", &[], |tool| {
        let code = tool.say(&["--log", "log", "features"]).code;
        format!("{code} {}", tool.bundle.join("log").exists())
    });
}

fn a_log_that_cannot_be_written_is_an_error() {
    agree(&sleeper(), "1 error", &[], |tool| refused(&tool.say(&["--log", "/none/log", "list"])));
    agree(&sleeper(), "1 error", &[], |tool| refused(&tool.say(&["--log-format", "xml", "list"])));
}

fn what_is_not_there_has_code_1() {
    agree(&sleeper(), "1 error", &[(Crun, "has a code of its own for this")], |tool| {
        refused(&tool.say(&["ps", "none"]))
    });
    for command in ["state", "start", "kill", "delete", "pause", "resume", "update", "events"] {
        agree(&sleeper(), "1 error", &[], |tool| refused(&tool.say(&[command, "none"])));
    }
}
