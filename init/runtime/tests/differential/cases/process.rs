//! `process` of config.json, as the program sees it.

use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, agree, by_commands};

pub const CASES: &[Test] = &[
    ("arguments_are_as_given", arguments_are_as_given),
    ("environment_is_as_given", environment_is_as_given),
    ("variables_have_a_name_and_a_value", variables_have_a_name_and_a_value),
    ("the_home_directory_is_the_users", the_home_directory_is_the_users),
    ("the_working_directory_is_made_and_entered", the_working_directory_is_made_and_entered),
    ("the_program_is_searched_in_its_path", the_program_is_searched_in_its_path),
    ("user_and_groups_are_set", user_and_groups_are_set),
    ("the_mask_is_set", the_mask_is_set),
    ("without_a_mask_it_is_022", without_a_mask_it_is_022),
    ("capabilities_of_root", capabilities_of_root),
    ("capabilities_of_a_user", capabilities_of_a_user),
    ("no_capabilities_at_all", no_capabilities_at_all),
    ("unknown_capabilities_are_warned_of", unknown_capabilities_are_warned_of),
    ("no_new_privileges", no_new_privileges),
    ("resource_limits", resource_limits),
    ("the_oom_score", the_oom_score),
    ("without_an_oom_score_it_is_the_callers", without_an_oom_score_it_is_the_callers),
    ("the_scheduler", the_scheduler),
    ("the_io_priority", the_io_priority),
    ("the_personality", the_personality),
    ("descriptors_are_the_first_three", descriptors_are_the_first_three),
    ("signals_are_at_their_defaults", signals_are_at_their_defaults),
    ("the_program_leads_its_session", the_program_leads_its_session),
    ("the_exit_code_is_the_programs", the_exit_code_is_the_programs),
    ("death_by_a_signal_is_128_and_its_number", death_by_a_signal_is_128_and_its_number),
    ("a_console_size_without_a_terminal_is_ignored", a_console_size_without_a_terminal_is_ignored),
];

fn arguments_are_as_given() {
    let args = json!(["/bin/sh", "-c", "printf '%s.' \"$0\" \"$@\"", "zero", "one two", "", "*"]);
    Bundle::new("").set("/process/args", args).prints("zero.one two..*.", &[]);
}

fn environment_is_as_given() {
    let bundle = Bundle::new("").set("/process/args", json!(["/usr/bin/env"]));
    let environment = json!(["PATH=/bin", "EMPTY=", "A=b=c", "HOME=/nowhere"]);
    bundle.set("/process/env", environment).prints("PATH=/bin\nEMPTY=\nA=b=c\nHOME=/nowhere\n", &[]);
}

/// `env` is "the same semantics as IEEE Std 1003.1-2008's environ": NAME=value. crun hands on what it is given.
fn variables_have_a_name_and_a_value() {
    for variable in ["NAME", "", "=value"] {
        let bundle = Bundle::new("true").set("/process/env", json!(["PATH=/bin", variable]));
        bundle.is_refused(&[(Crun, "hands it on, and the program makes of it what it likes")]);
    }
    let bundle = Bundle::new("env | grep ^A=").set("/process/env", json!(["PATH=/bin", "A=1", "A=2"]));
    bundle.prints("A=2\n", &[]);
}

fn the_home_directory_is_the_users() {
    let passwd = "mkdir rootfs/etc; echo 'web:x:33:33::/var/www:/bin/false' >rootfs/etc/passwd";
    let bundle = Bundle::new("echo $HOME").prepare(passwd).set("/process/user", json!({ "uid": 33, "gid": 33 }));
    bundle.prints("/var/www\n", &[]);
    Bundle::new("echo $HOME").prints("/\n", &[]);
}

fn the_working_directory_is_made_and_entered() {
    let bundle = Bundle::new("pwd").set("/process/cwd", json!("/new/deep"));
    bundle.prints("/new/deep\n", &[]);
}

fn the_program_is_searched_in_its_path() {
    let prepare = "mkdir -p rootfs/first rootfs/second; printf '#!/bin/sh\\necho second' >rootfs/second/tool
        echo >rootfs/first/tool; chmod +x rootfs/second/tool";
    let bundle = Bundle::new("").prepare(prepare).set("/process/args", json!(["tool"]));
    bundle.set("/process/env", json!(["PATH=/none:/first:/second:/bin"])).prints("second\n", &[]);
}

fn user_and_groups_are_set() {
    for bundle in [Bundle::new("id -u; id -g; id -G"), Bundle::unprivileged("id -u; id -g; id -G")] {
        let user = json!({ "uid": 33, "gid": 44, "additionalGids": [5, 6] });
        bundle.set("/process/user", user).prints("33\n44\n44 5 6\n", &[]);
    }
}

fn the_mask_is_set() {
    Bundle::new("umask").set("/process/user/umask", json!(0o027)).prints("0027\n", &[]);
}

fn without_a_mask_it_is_022() {
    // The specification would leave the caller's (a "should"); all three have 022.
    agree(&Bundle::new("umask"), "0022\n", &[], |tool| {
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let text = tool.run();
        rustix::process::umask(before);
        text
    });
}

fn capabilities_of_root() {
    for bundle in [Bundle::new("grep Cap /proc/self/status"), Bundle::unprivileged("grep Cap /proc/self/status")] {
        let set = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
        let sets = json!({
            "bounding": set, "permitted": set, "effective": set, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
        let [all, kill] = ["0000000000000421", "0000000000000020"];
        let expected = format!("CapInh:\t{kill}\nCapPrm:\t{all}\nCapEff:\t{all}\nCapBnd:\t{all}\nCapAmb:\t{kill}\n");
        bundle.set("/process/capabilities", sets).prints(&expected, &[]);
    }
}

fn capabilities_of_a_user() {
    for bundle in [Bundle::new("grep Cap /proc/self/status"), Bundle::unprivileged("grep Cap /proc/self/status")] {
        let set = json!(["CAP_CHOWN", "CAP_KILL"]);
        let sets = json!({
            "bounding": set, "permitted": set, "effective": set, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
        let [all, kill] = ["0000000000000021", "0000000000000020"];
        let expected = format!("CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t{all}\nCapAmb:\t{kill}\n");
        let bundle = bundle.set("/process/capabilities", sets).set("/process/user", json!({ "uid": 33, "gid": 33 }));
        bundle.prints(&expected, &[]);
    }
}

fn no_capabilities_at_all() {
    for bundle in [Bundle::new("grep Cap /proc/self/status"), Bundle::unprivileged("grep Cap /proc/self/status")] {
        let none = "0000000000000000";
        let expected =
            ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{none}\n")).concat();
        bundle.set("/process/capabilities", json!({})).prints(&expected, &[]);
    }
}

/// "MUST be logged as a warning by the runtime. Runtimes SHOULD NOT fail".
fn unknown_capabilities_are_warned_of() {
    let set = json!(["CAP_KILL", "CAP_NO_SUCH_THING"]);
    let sets = json!({ "bounding": set, "permitted": set, "effective": set });
    let bundle = Bundle::new("grep CapEff /proc/self/status").set("/process/capabilities", sets);
    let silent = [(Crun, "leaves it out in silence")];
    by_commands(&bundle, "CapEff:\t0000000000000020\nwarned true\n", &silent, |tool| {
        let said = tool.say(&["run", &tool.id]);
        format!("{}warned {}\n", said.out, said.error.contains("CAP_NO_SUCH_THING"))
    });
}

fn no_new_privileges() {
    for value in [true, false] {
        let bundle = Bundle::new("grep NoNewPrivs /proc/self/status").set("/process/noNewPrivileges", json!(value));
        bundle.prints(&format!("NoNewPrivs:\t{}\n", u8::from(value)), &[]);
    }
}

fn resource_limits() {
    // What is not named is the caller's.
    let shown = |line: &&str| {
        ["open files", "core file", "processes", "stack", "cpu time"].iter().any(|name| line.contains(name))
    };
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limited = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["Max", "open", "files", ..] => "Max open files 100 200 files".to_owned(),
        ["Max", "core", ..] => "Max core file size 0 0 bytes".to_owned(),
        ["Max", "cpu", ..] => "Max cpu time 1000 2000 seconds".to_owned(),
        ref words => words.join(" "),
    };
    let expected: String = own.lines().filter(shown).map(|line| limited(line) + "\n").collect();
    let script = "grep -E 'open files|core file|processes|stack|cpu time' /proc/self/limits | tr -s ' ' | sed 's/ $//'";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        let limits = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_CPU", "soft": 1000, "hard": 2000 },
        ]);
        bundle.set("/process/rlimits", limits).prints(&expected, &[]);
    }
    let bundle = Bundle::new("ulimit -Sn; ulimit -Hn");
    bundle
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]))
        .prints("100\n200\n", &[]);
}

fn the_oom_score() {
    for bundle in [Bundle::new("cat /proc/self/oom_score_adj"), Bundle::unprivileged("cat /proc/self/oom_score_adj")] {
        bundle.set("/process/oomScoreAdj", json!(777)).prints("777\n", &[]);
    }
}

/// "If `oomScoreAdj` is not set, the runtime MUST NOT change the value of `oom_score_adj`."
fn without_an_oom_score_it_is_the_callers() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    Bundle::new("cat /proc/self/oom_score_adj").prints(&own, &[]);
}

fn the_scheduler() {
    let bundle = Bundle::new("chrt -p $$ | sed 's/.*: //'; nice");
    bundle.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 })).prints("SCHED_BATCH\n0\n7\n", &[]);
}

fn the_io_priority() {
    let bundle = Bundle::new("ionice -p $$");
    let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    bundle.set("/process/ioPriority", priority).prints("best-effort: prio 6\n", &[]);
}

fn the_personality() {
    let bundle = Bundle::new("cat /proc/self/personality; uname -m");
    bundle.set("/linux/personality", json!({ "domain": "LINUX32" })).prints("00000008\ni686\n", &[]);
}

fn descriptors_are_the_first_three() {
    // ls has one of its own for the directory.
    Bundle::new("ls /proc/self/fd").prints("0\n1\n2\n3\n", &[]);
}

fn signals_are_at_their_defaults() {
    let none = "0000000000000000";
    let expected = format!("SigBlk:\t{none}\nSigIgn:\t{none}\n");
    let reason = "passes on what its caller ignores; the specification says nothing of it";
    Bundle::new("")
        .set("/process/args", json!(["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]))
        .prints(&expected, &[(Crun, reason), (Runc, reason)]);
}

fn the_program_leads_its_session() {
    let script = "cut -d' ' -f 5,6,7 /proc/$$/stat";
    Bundle::new(script).prints("1 1 0\n", &[]);
}

fn the_exit_code_is_the_programs() {
    Bundle::new("exit 42").prints("exit 42\n", &[]);
}

fn death_by_a_signal_is_128_and_its_number() {
    // Inside a PID namespace the first process gets no signal from itself, so without one.
    Bundle::new("kill -KILL $$").sharing("pid").prints("exit 137\n", &[]);
}

/// "Runtimes MUST ignore `consoleSize` if `terminal` is `false` or unset."
fn a_console_size_without_a_terminal_is_ignored() {
    let bundle = Bundle::new("tty || true").set("/process/consoleSize", json!({ "height": 10, "width": 20 }));
    bundle.prints("not a tty\n", &[]);
}
