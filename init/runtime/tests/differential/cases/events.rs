//! `events`: what a container uses, as those read it who were made for runc. crun has no such command.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, Runtime, Tool, by_commands, skip, skip_without_runc};

pub const CASES: &[Test] = &[
    ("events_have_runcs_keys", events_have_runcs_keys),
    ("events_count_what_is_used", events_count_what_is_used),
    ("events_come_again_until_the_end", events_come_again_until_the_end),
    ("a_death_for_want_of_memory_is_an_event", a_death_for_want_of_memory_is_an_event),
    ("events_want_an_interval", events_want_an_interval),
];

const LACKING: (Runtime, &str) = (Crun, "has no such command");

fn sleeper() -> Bundle {
    Bundle::new("exec sleep 100")
}

/// Every path of keys with the kind of its value.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), out));
            "array"
        }
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| shape(value, &format!("{path}/{key}"), out));
            "object"
        }
    };
    out.insert(format!("{path} {kind}"));
}

fn statistics(tool: &Tool) -> Value {
    let said = tool.say(&["events", "--stats", &tool.id]);
    assert_eq!(said.code, 0, "{:?}: {}", tool.runtime, said.error);
    serde_json::from_str(&said.out).unwrap()
}

/// All that runc's has is there, of the same kind. runc leaves out numbers that are zero, so ours has more.
fn events_have_runcs_keys() {
    if skip_without_runc() {
        return;
    }
    let model = Tool::of(Runc, &sleeper());
    model.start();
    let mut expected = BTreeSet::new();
    shape(&statistics(&model), "", &mut expected);
    assert!(expected.contains("/data/cpu/usage/total number"), "{expected:?}");
    by_commands(&sleeper(), "missing ", &[LACKING], |tool| {
        if tool.runtime == Crun {
            return "none".to_owned();
        }
        tool.start();
        let mut found = BTreeSet::new();
        shape(&statistics(tool), "", &mut found);
        format!("missing {}", expected.difference(&found).cloned().collect::<Vec<_>>().join(", "))
    });
}

fn events_count_what_is_used() {
    by_commands(&sleeper(), "stats true 1 true", &[LACKING], |tool| {
        if tool.runtime == Crun {
            return "none".to_owned();
        }
        tool.start();
        let event = statistics(tool);
        let data = &event["data"];
        let (own, total) = (event["id"] == tool.id.as_str(), data["cpu"]["usage"]["total"].as_u64() > Some(0));
        // A limit that is not there is the largest number where there is the controller, else 0.
        let limit = data["memory"]["usage"]["limit"].as_u64();
        let controlled = tool.cgroup().join("memory.max").exists();
        let right = limit == Some(if controlled { u64::MAX } else { 0 });
        format!("{} {own} {} {}", event["type"].as_str().unwrap(), data["pids"]["current"], total && right)
    });
}

/// The command ends with the container.
fn events_come_again_until_the_end() {
    let wants = (Runc, "wants the memory controller for more than one event");
    by_commands(&Bundle::new("exec sleep 1"), "0 stats stats", &[LACKING, wants], |tool| {
        if tool.runtime == Crun {
            return "none".to_owned();
        }
        tool.start();
        let said = tool.say(&["events", "--interval", "10ms", &tool.id]);
        let events = serde_json::Deserializer::from_str(&said.out).into_iter::<Value>();
        let kinds: Vec<_> = events.map(|event| event.unwrap()["type"].as_str().unwrap().to_owned()).take(2).collect();
        format!("{} {}", said.code, kinds.join(" "))
    });
    by_commands(&Bundle::new("true"), "1", &[], |tool| {
        tool.start();
        tool.await_end();
        tool.say(&["events", &tool.id]).code.to_string()
    });
}

/// Where there is a memory controller; its limit is refused where there is none, see the cases of cgroups.
fn a_death_for_want_of_memory_is_an_event() {
    if !std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap().contains("memory") {
        skip("needs a memory controller");
        return;
    }
    // The container outlives its victim, and ends when it was seen.
    let script = "read -r line </notes/go; (tail /dev/zero); read -r line </notes/go";
    let limits = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
    let bundle = Bundle::new(script).prepare("mkfifo notes/go").set("/linux/resources/memory", limits);
    by_commands(&bundle, "oom", &[LACKING], |tool| {
        if tool.runtime == Crun {
            return "none".to_owned();
        }
        tool.start();
        let mut command = tool.command(&["events", "--interval", "10ms", &tool.id]);
        let mut events = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
        let go = || std::fs::write(tool.bundle.join("notes/go"), "\n").unwrap();
        let mut kinds = lines.map(|line| {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            event["type"].as_str().unwrap().to_owned()
        });
        // The first one: it watches.
        kinds.next();
        go();
        let found = kinds.find(|kind| kind == "oom").unwrap_or_default();
        go();
        kinds.for_each(drop);
        events.wait().unwrap();
        found
    });
}

fn events_want_an_interval() {
    for (interval, code) in [("100ms", "0"), ("1m30s", "0"), ("0s", "1"), ("5", "1"), ("soon", "1"), ("-1s", "1")] {
        by_commands(&sleeper(), code, if code == "0" { &[LACKING] } else { &[] }, |tool| {
            tool.start();
            tool.say(&["events", "--stats", "--interval", interval, &tool.id]).code.to_string()
        });
    }
}
