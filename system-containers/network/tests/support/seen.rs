//! All that the service has made, as others see it: links, addresses, routes, neighbours, rules and the packet filter of
//! the machine, the insides of containers, its files, and what its resolver answers. Without what differs each time,
//! such as the numbers of links, two runs that made the same look the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::{Namespace, PATIENCE};

/// By what it is a part of.
pub type Seen = BTreeMap<String, Value>;

/// What `ip` is asked for, by its options.
const ASKED: [(&str, &[&str]); 2] = [
    ("", &["link show", "address show", "route show table all", "rule show", "neighbour show nud permanent"]),
    ("-6", &["route show table all", "rule show"]),
];

/// Given anew each time, or counted.
const PASSING: [&str; 12] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "link",
    "handle",
    "no",
    "id",
    "designated_port",
    "fdb_n_learned",
    "packets",
    "bytes",
    "valid_life_time",
];

/// A namespace's part of it.
pub fn of_namespace(name: &str, namespace: &Namespace) -> Seen {
    let mut seen = Seen::new();
    for (family, questions) in ASKED {
        // One process for all of them: much is asked for.
        let lines = questions.join("\\n");
        let text = super::run(&format!("printf '{lines}\\n' | ip -n {} -d -j {family} -batch -", namespace.name));
        let answers = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        for (question, answer) in questions.iter().zip(answers) {
            let answer = answer.unwrap_or_else(|error| panic!("{question}: {error}: {text}"));
            seen.insert(format!("{name}: {family} {question}"), plain(answer));
        }
    }
    seen
}

/// The packet filter of a namespace.
pub fn filter(namespace: &Namespace) -> Seen {
    let mut listed: Value = serde_json::from_str(&namespace.run("nft -j list ruleset")).unwrap();
    let mut list = listed["nftables"].take();
    let mut places = BTreeMap::new();
    for each in list.as_array_mut().into_iter().flatten() {
        // What the order of rules says would be lost with it.
        if let Some(rule) = each.get_mut("rule").and_then(Value::as_object_mut) {
            let place: &mut u32 = places.entry(format!("{} {}", rule["table"], rule["chain"])).or_default();
            *place += 1;
            rule.insert("place".to_owned(), (*place).into());
        }
    }
    [("nft".to_owned(), plain(list))].into()
}

/// The files of a folder.
pub fn files(name: &str, folder: &Path) -> Seen {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let read = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (format!("{name}: {}", entry.file_name().display()), value)
    };
    entries.map(read).collect()
}

/// What a resolver answers to all questions.
pub fn names(from: &Namespace, server: &str, questions: &str) -> Seen {
    // No answer is none at all: whoever compares asks again.
    let output = from.try_run(&format!("dig +noall +answer +nottlid +time=3 +tries=3 @{server} {questions}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let answers = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").into()).collect();
    [("names".to_owned(), plain(Value::Array(answers)))].into()
}

/// Waits until all is as it should be.
pub fn wait_for(what: &str, wanted: &Seen, look: impl Fn() -> Seen) {
    let end = Instant::now() + PATIENCE;
    loop {
        let there = look();
        if there == *wanted {
            return;
        }
        assert!(Instant::now() < end, "{what}:\n{}", difference(wanted, &there));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn difference(wanted: &Seen, there: &Seen) -> String {
    let mut lines = Vec::new();
    for name in wanted.keys().chain(there.keys().filter(|name| !wanted.contains_key(*name))) {
        let [wanted, there] = [wanted, there].map(|seen| match seen.get(name) {
            Some(Value::Array(list)) => list.iter().map(Value::to_string).collect(),
            Some(value) => vec![value.to_string()],
            None => Vec::new(),
        });
        let missing = wanted.iter().filter(|line| !there.contains(line)).map(|line| format!("{name}: missing: {line}"));
        let left = there.iter().filter(|line| !wanted.contains(line)).map(|line| format!("{name}: left over: {line}"));
        lines.extend(missing.chain(left));
    }
    lines.join("\n")
}

/// Without what passes; lists in the order of their text.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(plain).collect();
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        Value::Object(object) => {
            // The kernel's end of a cable on the machine has an address by chance.
            let by_chance = object.get("master").is_some_and(Value::is_string);
            let passes =
                |key: &str| PASSING.contains(&key) || key.ends_with("_timer") || (by_chance && key == "address");
            let kept = object.into_iter().filter(|(key, _)| !passes(key));
            Value::Object(kept.map(|(key, value)| (key, plain(value))).collect::<Map<_, _>>())
        }
        other => other,
    }
}
