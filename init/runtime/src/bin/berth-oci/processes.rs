//! ps: the processes of a container.

use std::path::Path;
use std::process::Command;

use crate::arguments::{Format, Ps};
use crate::container::{Failure, during};
use crate::store::Store;

/// Every process in a cgroup and below, in the caller's numbers.
pub fn of(cgroup: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(of(&entry.path()));
        }
    }
    pids
}

pub fn ps(store: &Store, options: &Ps) -> Result<u8, Failure> {
    let record = store.load(&options.id)?;
    let pids = record.cgroup.as_deref().map(of).unwrap_or_default();
    if options.format == Format::Json {
        println!("{}", serde_json::json!(pids));
        return Ok(0);
    }
    let default = ["-ef".to_owned()];
    let arguments = if options.arguments.is_empty() { &default[..] } else { &options.arguments };
    let output = Command::new("ps").args(arguments).output().map_err(during("run", Path::new("ps")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title.split_whitespace().position(|word| word == "PID").ok_or_else(|| Failure::Option {
        option: "ps",
        must: "must print a column PID with these arguments".to_owned(),
    })?;
    println!("{title}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}
