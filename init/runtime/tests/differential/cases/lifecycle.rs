//! create, start, state, kill, delete, exec and the others: what they do, print and return.

use serde_json::{Value, json};

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, agree, by_commands};

pub const CASES: &[Test] = &[
    ("a_container_goes_through_its_states", a_container_goes_through_its_states),
    ("the_state_is_complete", the_state_is_complete),
    ("later_changes_of_the_configuration_have_no_effect", later_changes_of_the_configuration_have_no_effect),
    ("an_id_is_taken_once", an_id_is_taken_once),
    ("invalid_ids_are_refused", invalid_ids_are_refused),
    ("what_is_not_there_is_an_error", what_is_not_there_is_an_error),
    ("commands_without_an_id_are_refused", commands_without_an_id_are_refused),
    ("only_a_created_container_starts", only_a_created_container_starts),
    ("a_stopped_container_gets_no_signal", a_stopped_container_gets_no_signal),
    ("signals_have_names_and_numbers", signals_have_names_and_numbers),
    ("a_created_container_can_be_killed", a_created_container_can_be_killed),
    ("a_running_container_is_not_deleted", a_running_container_is_not_deleted),
    ("delete_by_force_ends_it", delete_by_force_ends_it),
    ("delete_by_force_of_nothing_is_fine", delete_by_force_of_nothing_is_fine),
    ("an_id_can_be_used_again", an_id_can_be_used_again),
    ("delete_leaves_what_it_did_not_make", delete_leaves_what_it_did_not_make),
    ("errors_are_refused_with_code_1", errors_are_refused_with_code_1),
    ("a_failed_create_leaves_nothing", a_failed_create_leaves_nothing),
    ("unknown_properties_are_ignored", unknown_properties_are_ignored),
    ("versions_of_the_specification", versions_of_the_specification),
    ("invalid_values_are_refused", invalid_values_are_refused),
    (
        "seccomp_profiles_that_contradict_themselves_are_refused",
        seccomp_profiles_that_contradict_themselves_are_refused,
    ),
    ("a_limit_named_twice_is_refused", a_limit_named_twice_is_refused),
    ("a_container_without_a_process_does_not_start", a_container_without_a_process_does_not_start),
];

fn sleeper() -> Bundle {
    Bundle::new("exec sleep 100")
}

fn a_container_goes_through_its_states() {
    agree(&sleeper(), "created running stopped none", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let created = tool.status();
        assert_eq!(tool.say(&["start", &tool.id]).code, 0);
        let running = tool.status();
        assert_eq!(tool.say(&["kill", &tool.id, "KILL"]).code, 0);
        tool.await_end();
        let stopped = tool.status();
        assert_eq!(tool.say(&["delete", &tool.id]).code, 0);
        format!("{created} {running} {stopped} {}", tool.status())
    });
}

/// "The state of a container includes" ociVersion, id, status, pid, bundle, annotations.
fn the_state_is_complete() {
    let bundle = sleeper().set("/annotations", json!({ "a.key": "value", "empty": "" }));
    let own = "says the version that it was made for itself";
    by_commands(&bundle, "1.2.0 true running true true value ''", &[(Crun, own), (Runc, own)], |tool| {
        tool.start();
        let state = tool.query();
        let name = std::fs::read_to_string(format!("/proc/{}/comm", state["pid"])).unwrap_or_default();
        let text = |key: &str| state[key].as_str().unwrap_or("none").to_owned();
        format!(
            "{} {} {} {} {} {} '{}'",
            text("ociVersion"),
            text("id") == tool.id,
            text("status"),
            !name.is_empty(),
            text("bundle") == tool.bundle.to_str().unwrap(),
            state["annotations"]["a.key"].as_str().unwrap_or("none"),
            state["annotations"]["empty"].as_str().unwrap_or("none"),
        )
    });
}

/// "Any updates to `config.json` after this step MUST NOT affect the container."
fn later_changes_of_the_configuration_have_no_effect() {
    agree(&Bundle::new("echo first >/notes/notes"), "first\n", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let other = Bundle::new("echo second >/notes/notes");
        std::fs::write(tool.bundle.join("config.json"), other.config.to_string()).unwrap();
        assert_eq!(tool.say(&["start", &tool.id]).code, 0);
        tool.await_end();
        tool.notes()
    });
}

/// "If the ID provided is not unique … a new container MUST NOT be created."
fn an_id_is_taken_once() {
    by_commands(&sleeper(), "1 created true", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let pid = tool.pid();
        let code = tool.say(&["create", &tool.id]).code;
        format!("{code} {} {}", tool.status(), tool.pid() == pid)
    });
}

fn invalid_ids_are_refused() {
    for id in ["", ".", "..", "a/b", "../a", "a b", "ä"] {
        by_commands(&Bundle::new("true"), "refused", &[], |tool| {
            if tool.say(&["run", id]).code == 0 { "taken".to_owned() } else { "refused".to_owned() }
        });
    }
}

/// "Attempting to query/start/kill/delete a container that does not exist MUST generate an error."
fn what_is_not_there_is_an_error() {
    for command in [&["state"][..], &["start"], &["kill"], &["delete"], &["pause"], &["resume"], &["ps"], &["update"]] {
        by_commands(&Bundle::new("true"), "true true", &[], |tool| {
            let said = tool.say(&[command, &["no-such-container"]].concat());
            format!("{} {}", said.code != 0, !said.error.is_empty())
        });
    }
    by_commands(&Bundle::new("true"), "true", &[], |tool| {
        (tool.say(&["exec", "no-such-container", "true"]).code != 0).to_string()
    });
}

/// "This operation MUST generate an error if it is not provided the container ID."
fn commands_without_an_id_are_refused() {
    for command in ["state", "create", "start", "kill", "delete", "exec", "run"] {
        by_commands(&Bundle::new("true"), "true", &[], |tool| (tool.say(&[command]).code != 0).to_string());
    }
}

/// "Attempting to `start` a container that is not `created` MUST have no effect on the container".
fn only_a_created_container_starts() {
    by_commands(&sleeper(), "1 running 1 stopped", &[], |tool| {
        tool.start();
        let again = format!("{} {}", tool.say(&["start", &tool.id]).code, tool.status());
        tool.say(&["kill", &tool.id, "KILL"]);
        tool.await_end();
        format!("{again} {} {}", tool.say(&["start", &tool.id]).code, tool.status())
    });
}

/// "Attempting to send a signal to a container that is neither `created` nor `running` MUST … generate an error."
fn a_stopped_container_gets_no_signal() {
    by_commands(&Bundle::new("true"), "1 stopped", &[], |tool| {
        tool.start();
        tool.await_end();
        format!("{} {}", tool.say(&["kill", &tool.id, "TERM"]).code, tool.status())
    });
}

fn signals_have_names_and_numbers() {
    let script = "trap 'echo usr1 >>/notes/notes; exit' USR1; echo ready >/notes/notes; while :; do sleep 0.01; done";
    for signal in ["USR1", "SIGUSR1", "10", "usr1"] {
        let bundle = Bundle::new(script);
        let differing: &[_] = if signal == "usr1" { &[(Crun, "wants capital letters")] } else { &[] };
        by_commands(&bundle, "0 ready\nusr1\n", differing, |tool| {
            tool.start();
            while tool.notes().is_empty() {
                std::thread::yield_now();
            }
            let code = tool.say(&["kill", &tool.id, signal]).code;
            if code == 0 {
                tool.await_end();
            }
            format!("{code} {}", tool.notes())
        });
    }
    by_commands(&sleeper(), "1 running", &[], |tool| {
        tool.start();
        format!("{} {}", tool.say(&["kill", &tool.id, "NOSUCH"]).code, tool.status())
    });
}

fn a_created_container_can_be_killed() {
    agree(&sleeper(), "0 stopped", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let code = tool.say(&["kill", &tool.id, "KILL"]).code;
        tool.await_end();
        format!("{code} {}", tool.status())
    });
}

/// "Attempting to `delete` a container that is not `stopped` MUST have no effect on the container and MUST generate an
/// error."
fn a_running_container_is_not_deleted() {
    by_commands(&sleeper(), "1 running", &[], |tool| {
        tool.start();
        format!("{} {}", tool.say(&["delete", &tool.id]).code, tool.status())
    });
    // All three end a container that was only created, as callers of runc expect.
    by_commands(&sleeper(), "0 none", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        format!("{} {}", tool.say(&["delete", &tool.id]).code, tool.status())
    });
}

fn delete_by_force_ends_it() {
    agree(&sleeper(), "0 none true", &[], |tool| {
        tool.start();
        let pid = tool.pid();
        let code = tool.say(&["delete", "--force", &tool.id]).code;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        format!("{code} {} {}", tool.status(), stat.is_empty() || stat.contains(") Z ") || stat.contains(") X "))
    });
}

fn delete_by_force_of_nothing_is_fine() {
    by_commands(&Bundle::new("true"), "0", &[], |tool| {
        tool.say(&["delete", "--force", "no-such-container"]).code.to_string()
    });
}

fn an_id_can_be_used_again() {
    agree(&Bundle::new("echo ran"), "ran\nran\n", &[], |tool| format!("{}{}", tool.run(), tool.run()));
}

/// "resources associated with the container, but not created by this container, MUST NOT be deleted".
fn delete_leaves_what_it_did_not_make() {
    let bundle = Bundle::new("touch /notes/made /made").prepare("echo kept >notes/kept");
    agree(&bundle, "true true true true", &[], |tool| {
        tool.run();
        let there = |name: &str| tool.bundle.join(name).exists().to_string();
        ["notes/kept", "notes/made", "rootfs/made", "config.json"].map(there).join(" ")
    });
}

fn errors_are_refused_with_code_1() {
    let args = |args: Value| Bundle::new("").set("/process/args", args);
    args(json!(["/no/such/program"])).is_refused(&[]);
    args(json!(["no-such-program"])).is_refused(&[]);
    args(json!(["/etc"])).prepare("mkdir rootfs/etc").is_refused(&[]);
    args(json!(["/file"])).prepare("touch rootfs/file").is_refused(&[]);
    args(json!(["/text"])).prepare("echo 'no script' >rootfs/text; chmod +x rootfs/text").is_refused(&[]);
    args(json!(["/script"])).prepare("echo '#!/no/such/shell' >rootfs/script; chmod +x rootfs/script").is_refused(&[]);
    args(json!([])).is_refused(&[]);
    args(json!([""])).is_refused(&[]);
    let relative = [(Crun, "takes it as relative to the root; the value MUST be absolute")];
    Bundle::new("true").set("/process/cwd", json!("usr")).is_refused(&relative);
    Bundle::new("true").set("/process/cwd", json!("")).is_refused(&[]);
    Bundle::new("true").set("/process/cwd", json!("/file")).prepare("touch rootfs/file").is_refused(&[]);
    let both = [(Crun, "enters it with the rights that the user does not have"), (Runc, "as crun")];
    let closed =
        Bundle::new("true").set("/process/cwd", json!("/closed")).set("/process/user", json!({ "uid": 33, "gid": 33 }));
    closed.prepare("mkdir -m 700 rootfs/closed").is_refused(&both);
}

/// "generating an error MUST leave the state of the environment as if the operation were never attempted".
fn a_failed_create_leaves_nothing() {
    let bundle = Bundle::new("").set("/process/args", json!(["/no/such/program"]));
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let differing = [(Crun, "leaves a directory of locks")];
    agree(&bundle, "true none false true 0", &differing, |tool| {
        let before = mounts();
        let code = tool.say(&["create", &tool.id]).code;
        let state = std::fs::read_dir(format!("/run/{}", tool.id)).map_or(0, Iterator::count);
        format!("{} {} {} {} {state}", code != 0, tool.status(), tool.cgroup().exists(), mounts() == before)
    });
}

/// "Runtimes MAY log unknown properties but MUST otherwise ignore them."
fn unknown_properties_are_ignored() {
    let bundle = Bundle::new("echo ran").set("/unknown", json!({ "a": 1 })).set("/process/unknown", json!([]));
    let bundle = bundle.set("/linux/unknown", json!("x")).set("/root/unknown", json!(null));
    bundle.set("/annotations", json!({ "org.opencontainers.unknown": "x" })).prints("ran\n", &[]);
}

/// `ociVersion` "MUST be in SemVer v2.0.0 format".
fn versions_of_the_specification() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+build", "1.2.1", "1.3.0"] {
        Bundle::new("echo ran").set("/ociVersion", json!(version)).prints("ran\n", &[]);
    }
    for version in ["", "1", "1.2", "one", "2.0.0", "1.2.x", "1.02.0"] {
        let any = "takes any version";
        Bundle::new("true").set("/ociVersion", json!(version)).is_refused(&[(Crun, any), (Runc, any)]);
    }
}

/// "Runtimes MUST generate an error when invalid or unsupported values are encountered."
fn invalid_values_are_refused() {
    let limit = |kind: &str| json!({ "type": kind, "soft": 1, "hard": 2 });
    for (pointer, value) in [
        ("/process/rlimits", json!([limit("RLIMIT_NOSUCH")])),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 3, "hard": 2 }])),
        ("/process/oomScoreAdj", json!(2000)),
        ("/process/scheduler", json!({ "policy": "SCHED_NOSUCH" })),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_NOSUCH", "priority": 0 })),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 })),
        ("/linux/personality", json!({ "domain": "NOSUCH" })),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOSUCH" })),
        ("/linux/resources/pids", json!({ "limit": "many" })),
        ("/mounts/0", json!({ "type": "proc" })),
    ] {
        let text = [(Crun, "takes words for no limit")];
        let differing = if pointer == "/linux/resources/pids" { &text[..] } else { &[] };
        Bundle::new("true").set(pointer, value).is_refused(differing);
    }
}

/// "When the action doesn't support an errno, the runtime MUST print and error and fail"; "`names` MUST contain at least
/// one entry"; `listenerMetadata` "MUST NOT be set if `listenerPath` is not set".
fn seccomp_profiles_that_contradict_themselves_are_refused() {
    let rule = |rule: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    for (profile, reason) in [
        (rule(json!({ "names": ["getcwd"], "action": "SCMP_ACT_KILL", "errnoRet": 1 })), "ignores the number"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }), "ignores the number"),
        (rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })), "ignores the rule"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }), "ignores the text"),
    ] {
        let bundle = Bundle::new("true").set("/linux/seccomp", profile);
        bundle.is_refused(&[(Crun, reason), (Runc, reason)]);
    }
}

/// "If `rlimits` contains duplicated entries with same `type`, the runtime MUST generate an error."
fn a_limit_named_twice_is_refused() {
    let limit = json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 2 });
    let last = "takes the last one";
    Bundle::new("true").set("/process/rlimits", json!([limit, limit])).is_refused(&[(Crun, last), (Runc, last)]);
}

/// "`process` … is REQUIRED when `start` is called": start "MUST generate an error if `process` was not set".
fn a_container_without_a_process_does_not_start() {
    let nothing = (Crun, "starts nothing, says that all is well, and the container is gone");
    let early = (Runc, "refuses it at create, where it is not required yet");
    by_commands(
        &Bundle::new("").without("", "process"),
        "0 created|1 error created|0 none",
        &[nothing, early],
        |tool| {
            let create = format!("{} {}", tool.say(&["create", &tool.id]).code, tool.status());
            let said = tool.say(&["start", &tool.id]);
            let words = if said.error.is_empty() { "silent" } else { "error" };
            let start = format!("{} {words} {}", said.code, tool.status());
            format!("{create}|{start}|{} {}", tool.say(&["delete", "--force", &tool.id]).code, tool.status())
        },
    );
    Bundle::new("").without("", "process").is_refused(&[]);
}
