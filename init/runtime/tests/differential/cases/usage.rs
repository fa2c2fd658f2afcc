//! Words on the command line that are wrong: runc's exit codes, and the log has them too.

use serde_json::Value;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runtime, Tool, by_commands};

pub const CASES: &[Test] = &[
    ("unknown_commands_have_code_3", unknown_commands_have_code_3),
    ("wrong_words_have_code_1", wrong_words_have_code_1),
    ("wrong_values_have_code_1", wrong_values_have_code_1),
    ("wrong_words_are_in_the_log", wrong_words_are_in_the_log),
    ("no_words_are_a_wish_for_help", no_words_are_a_wish_for_help),
    ("help_is_no_error", help_is_no_error),
    ("global_flags_are_taken", global_flags_are_taken),
    ("no_checkpoint_is_made", no_checkpoint_is_made),
    ("signal_0_asks_whether_there_is_somebody", signal_0_asks_whether_there_is_somebody),
];

const OWN_CODES: (Runtime, &str) = (Crun, "has codes of its own for these");

fn sleeper() -> Bundle {
    Bundle::new("exec sleep 100")
}

fn coded(tool: &Tool, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| if *word == "ID" { tool.id.as_str() } else { word }).collect();
    let said = tool.say(&words);
    format!("{} {}", said.code, if said.error.is_empty() { "silent" } else { "error" })
}

fn unknown_commands_have_code_3() {
    for words in [&["no-such-command"][..], &["help", "no-such-command"]] {
        by_commands(&sleeper(), "3 error", &[OWN_CODES], |tool| coded(tool, words));
    }
}

fn wrong_words_have_code_1() {
    for words in [
        &["--none"][..],
        &["--none", "list"],
        &["state", "--none", "ID"],
        &["create", "--none", "ID"],
        &["create", "ID", "more"],
        &["create"],
        &["run"],
        &["start"],
        &["start", "ID", "more"],
        &["state"],
        &["state", "ID", "more"],
        &["kill"],
        &["kill", "ID", "TERM", "more"],
        &["delete"],
        &["exec"],
        &["exec", "--none", "ID", "true"],
        &["ps"],
        &["pause"],
        &["pause", "ID", "more"],
        &["resume"],
        &["update"],
        &["update", "ID", "more"],
        &["events"],
        &["events", "ID", "more"],
        &["spec", "more"],
        &["features", "more"],
        &["list", "more"],
    ] {
        let own = words.contains(&"--none") || words[0] == "features";
        by_commands(&sleeper(), "1 error", if own { &[OWN_CODES] } else { &[] }, |tool| coded(tool, words));
    }
}

fn wrong_values_have_code_1() {
    for words in [
        &["--log-format", "xml", "list"][..],
        &["list", "--format", "xml"],
        &["ps", "--format", "xml", "ID"],
        &["kill", "ID", "NOSUCH"],
        &["kill", "ID", "65"],
        &["exec", "--preserve-fds", "x", "ID", "true"],
        &["exec", "-g", "x", "ID", "true"],
        &["update", "--memory", "x", "ID"],
        &["update", "--memory", "5zz", "ID"],
        &["update", "--cpu-share", "x", "ID"],
        &["update", "--cpu-share", "-1", "ID"],
        &["update", "--pids-limit", "x", "ID"],
        &["update", "--blkio-weight", "x", "ID"],
        &["spec", "--bundle", "/none"],
    ] {
        let own = ["-g", "--pids-limit", "--cpu-share"].contains(&words[1]) && words[2] == "x";
        let differing = [(Crun, "takes what is no number for one, and knows no -g")];
        by_commands(&sleeper(), "1 error", if own { &differing } else { &[] }, |tool| {
            tool.start();
            coded(tool, words)
        });
    }
}

/// One object, of the level error, with words and a time.
fn wrong_words_are_in_the_log() {
    for words in [&["no-such-command"][..], &["state"], &["create", "a", "b"], &["exec", "--none", "x"], &["kill"]] {
        by_commands(&sleeper(), "1 error true true", &[(Crun, "does not log these")], |tool| {
            tool.say(&[&["--log", "log", "--log-format", "json"], words].concat());
            let text = std::fs::read_to_string(tool.bundle.join("log")).unwrap_or_default();
            let entries: Vec<Value> =
                serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect();
            let Some(entry) = entries.first() else { return "nothing".to_owned() };
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {} {}", entries.len(), text("level"), !text("msg").is_empty(), text("time").ends_with('Z'))
        });
    }
}

fn no_words_are_a_wish_for_help() {
    by_commands(&sleeper(), "0 silent true", &[OWN_CODES], |tool| {
        let said = tool.say(&[]);
        format!(
            "{} {} {}",
            said.code,
            if said.error.is_empty() { "silent" } else { "error" },
            said.out.contains("create")
        )
    });
}

fn help_is_no_error() {
    for words in [&["--help"][..], &["help"], &["help", "state"], &["state", "--help"], &["exec", "-h"]] {
        let lacking = [(Crun, "has no help and no -h")];
        let differing = if words.contains(&"--help") { &[][..] } else { &lacking };
        by_commands(&sleeper(), "0 silent", differing, |tool| coded(tool, words));
    }
}

fn global_flags_are_taken() {
    for flags in [
        &["--debug"][..],
        &["--rootless", "auto"],
        &["--rootless=true"],
        &["--log", "/dev/null", "--log", "log"],
        &["--log-format=text"],
        &["--debug=false"],
    ] {
        let value = [(Crun, "takes no value for a flag")];
        let differing = if flags == ["--debug=false"] { &value[..] } else { &[] };
        by_commands(&sleeper(), "0 running", differing, |tool| {
            tool.start();
            let said = tool.say(&[flags, &["state", &tool.id]].concat());
            let state: Value = serde_json::from_str(&said.out).unwrap_or_default();
            format!("{} {}", said.code, state["status"].as_str().unwrap_or("none"))
        });
    }
}

/// The peers need a program that is not there for it; berth-oci says that it does not do it.
fn no_checkpoint_is_made() {
    for words in [&["checkpoint", "ID"][..], &["checkpoint", "--image-path", "/tmp", "--leave-running", "ID"]] {
        by_commands(&sleeper(), "1 error running", &[], |tool| {
            tool.start();
            format!("{} {}", coded(tool, words), tool.status())
        });
    }
    by_commands(&sleeper(), "1 error none", &[], |tool| {
        format!("{} {}", coded(tool, &["restore", "ID"]), tool.status())
    });
}

fn signal_0_asks_whether_there_is_somebody() {
    by_commands(&sleeper(), "0 silent running", &[], |tool| {
        tool.start();
        format!("{} {}", coded(tool, &["kill", "ID", "0"]), tool.status())
    });
}
