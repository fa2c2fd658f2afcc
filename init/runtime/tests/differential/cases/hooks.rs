//! `hooks`: order, place, input, failures.

use serde_json::{Value, json};

use super::Test;
use crate::bundle::Bundle;
use crate::machine::PROGRAMS;
use crate::tool::{Crun, Runc, Tool, agree, by_commands};

pub const CASES: &[Test] = &[
    ("hooks_run_in_their_order", hooks_run_in_their_order),
    ("hooks_run_in_their_places", hooks_run_in_their_places),
    ("hooks_get_the_state", hooks_get_the_state),
    ("hooks_get_their_environment_and_arguments", hooks_get_their_environment_and_arguments),
    ("a_hook_need_not_read_the_state", a_hook_need_not_read_the_state),
    ("a_hook_that_does_not_read_ends_in_time", a_hook_that_does_not_read_ends_in_time),
    ("hooks_have_no_blocked_signals", hooks_have_no_blocked_signals),
    ("hooks_have_no_descriptors_of_the_runtime", hooks_have_no_descriptors_of_the_runtime),
    ("a_failing_hook_before_the_start_undoes_the_create", a_failing_hook_before_the_start_undoes_the_create),
    ("a_failing_hook_at_the_start_stops_the_container", a_failing_hook_at_the_start_stops_the_container),
    ("a_failing_poststart_hook_stops_the_container", a_failing_poststart_hook_stops_the_container),
    ("a_failing_poststop_hook_is_warned_of", a_failing_poststop_hook_is_warned_of),
    ("a_hook_that_takes_too_long_fails", a_hook_that_takes_too_long_fails),
    ("a_hook_must_have_an_absolute_path", a_hook_must_have_an_absolute_path),
    ("a_timeout_must_be_above_zero", a_timeout_must_be_above_zero),
    ("the_program_does_not_run_before_the_start", the_program_does_not_run_before_the_start),
];

/// In seconds: so that a hook that hangs fails its case. Others take milliseconds, but the machine may be busy.
const LIMIT: u32 = 60;

const READ: &str = "state=; while read -r line || [ -n \"$line\" ]; do state=\"$state$line\"; line=; done; ";

/// A shell of the runtime's namespaces.
fn outside(script: &str) -> Value {
    let script = format!("notes=@BUNDLE@/notes/notes; {READ}{script}");
    json!({ "path": format!("{PROGRAMS}/bin/dash"), "args": ["dash", "-c", script], "timeout": LIMIT })
}

/// One of the container's, after the root was exchanged.
fn inside(script: &str) -> Value {
    let script = format!("notes=/notes/notes; {READ}{script}");
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": LIMIT })
}

fn write(text: &str) -> String {
    format!("echo {text} >>$notes")
}

/// "Hooks MUST be called in the listed order"; prestart before createRuntime before createContainer, startContainer
/// before the program, poststart after it and before start returns, poststop after delete.
fn hooks_run_in_their_order() {
    let hook = |name: &str| json!([outside(&write(name)), outside(&write(&format!("{name} again")))]);
    // The program and the hook wait for each other, so that the order is certain.
    let program = "echo program >>/notes/notes; echo >/notes/started; timeout 60 cat /notes/finish";
    let hook_after = format!("read -r line <@BUNDLE@/notes/started; {}", write("poststart"));
    let last = format!("{}; echo >@BUNDLE@/notes/finish", write("poststart again"));
    for bundle in [Bundle::new(program), Bundle::unprivileged(program)] {
        let hooks = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"),
            "startContainer": [inside(&write("startContainer")), inside(&write("startContainer again"))],
            "poststart": [outside(&hook_after), outside(&last)],
            "poststop": hook("poststop"),
        });
        let prepare = "mkfifo notes/started notes/finish; touch notes/notes; chmod 666 notes/*";
        let bundle = bundle.prepare(prepare).set("/hooks", hooks);
        let expected = "\nprestart\nprestart again\ncreateRuntime\ncreateRuntime again\ncreateContainer\n\
            createContainer again\nstartContainer\nstartContainer again\nprogram\npoststart\npoststart again\n\
            poststop\npoststop again\n";
        let early = [(Runc, "runs poststart before the program")];
        agree(&bundle, expected, &early, |tool| {
            let said = tool.run();
            format!("{said}{}", tool.notes())
        });
    }
}

fn hooks_run_in_their_places() {
    let place = |name: &str| {
        format!(
            // Numbers are small in a new PID namespace.
            "[ -e /host ] && root=runtime || root=container; [ $$ -lt 30 ] && names=container || names=runtime; echo {name} $root $names >>$notes"
        )
    };
    let out = |name: &str| json!([outside(&place(name))]);
    let hooks = json!({
        "prestart": out("prestart"), "createRuntime": out("createRuntime"), "createContainer": out("createContainer"),
        "startContainer": [inside(&place("startContainer"))], "poststart": out("poststart"), "poststop": out("poststop"),
    });
    let bundle = Bundle::new("true").set("/hooks", hooks);
    let expected = "prestart runtime runtime\ncreateRuntime runtime runtime\ncreateContainer runtime container\n\
        startContainer container container\npoststart runtime runtime\npoststop runtime runtime\n";
    let early = [(Runc, "runs poststart before startContainer"), (Crun, "does not wait for startContainer before it")];
    agree(&bundle, expected, &early, |tool| {
        tool.run();
        tool.notes()
    });
}

/// "The state of the container MUST be passed to hooks over stdin"; its pid is as seen from where the hook runs.
fn hooks_get_the_state() {
    let say = |name: &str| format!("echo \"{name} $state\" >>$notes");
    let out = |name: &str| json!([outside(&say(name))]);
    let hooks = json!({
        "prestart": out("prestart"), "createRuntime": out("createRuntime"), "createContainer": out("createContainer"),
        "startContainer": [inside(&say("startContainer"))], "poststart": out("poststart"), "poststop": out("poststop"),
    });
    let bundle = Bundle::new("exec sleep 100").set("/hooks", hooks).set("/annotations", json!({ "a.key": "value" }));
    let expected = "prestart creating 1.2.0 host true value\ncreateRuntime creating 1.2.0 host true value\n\
        createContainer creating 1.2.0 1 true value\nstartContainer created 1.2.0 1 true value\n\
        poststart running 1.2.0 host true value\npoststop stopped 1.2.0 none true value\n";
    let crun = "has words of its own for the status, and says no pid in the container's namespaces";
    let runc = "runs poststart before startContainer, and says that it is only created";
    agree(&bundle, expected, &[(Crun, crun), (Runc, runc)], |tool| {
        tool.start();
        let pid = tool.pid();
        tool.say(&["delete", "--force", &tool.id]);
        tool.notes().lines().map(|line| described(line, pid, tool)).collect()
    });
}

fn described(line: &str, pid: i32, tool: &Tool) -> String {
    let (name, state) = line.split_once(' ').unwrap_or((line, ""));
    // The peers' start does not wait for startContainer: what ends the container may end the hook as it reads.
    let Ok(state) = serde_json::from_str::<Value>(state) else { return format!("{name} unreadable\n") };
    let right = state["id"] == tool.id.as_str() && state["bundle"] == tool.bundle.to_str().unwrap();
    let pid = match state["pid"].as_i64() {
        None | Some(0) => "none".to_owned(),
        Some(number) if number == i64::from(pid) => "host".to_owned(),
        Some(number) => number.to_string(),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{name} {} {} {pid} {right} {}\n",
        text(&state["status"]),
        text(&state["ociVersion"]),
        text(&state["annotations"]["a.key"])
    )
}

fn hooks_get_their_environment_and_arguments() {
    let script = "echo \"$0 $1 $KEY\" >>@BUNDLE@/notes/notes";
    let hook = json!({
        "path": format!("{PROGRAMS}/bin/dash"), "args": ["name", "-c", script, "zero", "one two"], "env": ["KEY=a=b"],
    });
    let bundle = Bundle::new("true").set("/hooks", json!({ "createRuntime": [hook] }));
    agree(&bundle, "zero one two a=b\n", &[], |tool| {
        tool.run();
        tool.notes()
    });
}

fn a_hook_need_not_read_the_state() {
    let nothing = json!([{ "path": format!("{PROGRAMS}/bin/true") }]);
    let hooks = json!({
        "prestart": nothing, "createRuntime": nothing, "createContainer": nothing,
        "startContainer": [{ "path": "/bin/true" }], "poststart": nothing, "poststop": nothing,
    });
    // More than a pipe takes at once. Without a PID namespace the container's process can be ended by SIGPIPE.
    let ends = [Crun, Runc].map(|peer| (peer, "may be ended by the pipe that nobody reads"));
    for (bundle, differing) in [(Bundle::new("echo ran"), &[][..]), (Bundle::new("echo ran").sharing("pid"), &ends)] {
        let bundle = bundle.set("/hooks", hooks.clone()).set("/annotations", json!({ "long": "x".repeat(200_000) }));
        bundle.prints("ran\n", differing);
    }
}

/// Nor can it be waited for that it takes its state.
fn a_hook_that_does_not_read_ends_in_time() {
    let hook = json!({ "path": format!("{PROGRAMS}/bin/sleep"), "args": ["sleep", "3"], "timeout": 1 });
    let bundle = Bundle::new("true").set("/hooks", json!({ "createRuntime": [hook] }));
    let ends = (Crun, "waits for it, and is ended by the pipe that nobody reads");
    bundle.set("/annotations", json!({ "long": "x".repeat(200_000) })).is_refused(&[ends]);
}

fn hooks_have_no_blocked_signals() {
    let script =
        "while read -r name value; do [ $name = SigBlk: ] && echo $value >>$notes; done </proc/self/status; true";
    let hooks = json!({ "createRuntime": [outside(script)], "createContainer": [outside(script)], "startContainer": [inside(script)], "poststart": [outside(script)] });
    agree(
        &Bundle::new("true").set("/hooks", hooks),
        &"0000000000000000\n".repeat(4),
        &[(Crun, "blocks nearly all")],
        |tool| {
            tool.run();
            tool.notes()
        },
    );
}

fn hooks_have_no_descriptors_of_the_runtime() {
    let script = "for file in /proc/self/fd/*; do number=${file##*/}; [ $number -gt 2 ] && [ -e $file ] && echo $number >>$notes; done; echo end >>$notes; true";
    let hooks = json!({ "createRuntime": [outside(script)], "createContainer": [outside(script)], "startContainer": [inside(script)], "poststart": [outside(script)] });
    agree(&Bundle::new("true").set("/hooks", hooks), &"end\n".repeat(4), &[(Runc, "leaves its own open")], |tool| {
        tool.run();
        tool.notes()
    });
}

/// "If any … hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12":
/// it is destroyed, and poststop hooks run.
fn a_failing_hook_before_the_start_undoes_the_create() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let hooks = json!({ kind: [outside(&format!("{}; exit 3", write("failed"))), outside(&write("next"))], "poststop": [outside(&write("poststop"))] });
        let bundle = Bundle::new("echo program >>/notes/notes").set("/hooks", hooks);
        let ends = [(Crun, "does not run poststop")];
        agree(&bundle, "failed\npoststop\nfailed true none", &ends, |tool| {
            let code = tool.say(&["create", &tool.id]).code;
            format!("{}failed {} {}", tool.notes(), code != 0, tool.status())
        });
    }
}

fn a_failing_hook_at_the_start_stops_the_container() {
    let hooks = json!({ "startContainer": [inside(&format!("{}; exit 3", write("failed"))), inside(&write("next"))] });
    let bundle = Bundle::new("echo program >>/notes/notes").set("/hooks", hooks);
    let silent = "stops the container, but start says that all is well";
    agree(&bundle, "failed\ncode 1 stopped", &[(Crun, silent), (Runc, silent)], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let code = tool.say(&["start", &tool.id]).code;
        tool.await_end();
        format!("{}code {code} {}", tool.notes(), tool.status())
    });
}

/// Version 1.2.1: "If any `poststart` hook fails, the runtime MUST generate an error, stop the container".
fn a_failing_poststart_hook_stops_the_container() {
    let hooks = json!({ "poststart": [outside("exit 3"), outside(&write("next"))] });
    let bundle = Bundle::new("exec sleep 100").set("/hooks", hooks);
    let older = "goes on with a warning, as the specification had it before version 1.2.1";
    agree(&bundle, "code 1 stopped", &[(Crun, older), (Runc, older)], |tool| {
        tool.say(&["create", &tool.id]);
        let code = tool.say(&["start", &tool.id]).code;
        format!("{}code {code} {}", tool.notes(), tool.status())
    });
}

/// "the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded".
fn a_failing_poststop_hook_is_warned_of() {
    let hooks = json!({ "poststop": [outside("exit 3"), outside(&write("next"))] });
    let bundle = Bundle::new("exit 5").set("/hooks", hooks);
    let stops = "does not run the hooks after one that failed";
    by_commands(&bundle, "code 5 warned true next\n", &[(Crun, "says nothing of it"), (Runc, stops)], |tool| {
        let said = tool.say(&["run", &tool.id]);
        format!("code {} warned {} {}", said.code, !said.error.is_empty(), tool.notes())
    });
}

fn a_hook_that_takes_too_long_fails() {
    let mut hook = outside("while :; do read -r line </proc/self/stat; done");
    hook["timeout"] = json!(1);
    let bundle = Bundle::new("true").set("/hooks", json!({ "createRuntime": [hook] }));
    bundle.is_refused(&[]);
}

/// "This specification extends the IEEE standard in that `path` MUST be absolute."
fn a_hook_must_have_an_absolute_path() {
    for kind in ["createRuntime", "startContainer", "poststop"] {
        let bundle = Bundle::new("true").set("/hooks", json!({ kind: [{ "path": "bin/true" }] }));
        let late = [(Crun, "sees it when the hook is run"), (Runc, "as crun")];
        bundle.is_refused(if kind == "createRuntime" { &[] } else { &late });
    }
}

/// "If set, `timeout` MUST be greater than zero."
fn a_timeout_must_be_above_zero() {
    let mut hook = outside("true");
    hook["timeout"] = json!(0);
    let bundle = Bundle::new("true").set("/hooks", json!({ "poststop": [hook] }));
    bundle.is_refused(&[(Crun, "takes it as no limit"), (Runc, "takes it as no limit")]);
}

/// "the user-specified program MUST NOT be run at this time".
fn the_program_does_not_run_before_the_start() {
    agree(&Bundle::new("echo program >>/notes/notes"), "created , then program\n", &[], |tool| {
        assert_eq!(tool.say(&["create", &tool.id]).code, 0);
        let before = format!("{} {}", tool.status(), tool.notes());
        assert_eq!(tool.say(&["start", &tool.id]).code, 0);
        tool.await_end();
        format!("{before}, then {}", tool.notes())
    });
}
