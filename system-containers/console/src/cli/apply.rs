//! `berth plan`, `berth apply`, `berth confirm`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use berth_config::{Action, Change, ContainerPlan, Plan, TimeSpan};
use clap::Args;
use nix::sys::memfd::{MFdFlags, memfd_create};
use zbus::wire::OwnedFd;

use super::api::Api;
use super::error::Error;
use super::{json_text, told};

/// Configuration files.
#[derive(Debug, Args)]
pub struct Files {
    /// The files, in the order in which they are merged; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What to put in force, and for how long.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Take it back after this time, such as 60s, unless `berth confirm` comes first
    #[arg(long, value_name = "TIME")]
    confirm: Option<TimeSpan>,
}

/// Says what would happen.
pub async fn plan(api: &Api, files: &Files, json: bool) -> Result<String, Error> {
    let read = files.read()?;
    let answer = api.machine.plan_files(sheet(&read)?).await?;
    show(&answer, json)
}

/// Lets it happen.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let read = arguments.files.read()?;
    put_in_force(api, arguments, &read, json).await
}

async fn put_in_force(
    api: &Api,
    arguments: &Arguments,
    read: &[(String, String)],
    json: bool,
) -> Result<String, Error> {
    let time = arguments.confirm.map(|time| time.duration().as_millis().max(1));
    let milliseconds = time.map_or(0, |time| u64::try_from(time).unwrap_or(u64::MAX));
    let answer = api.machine.apply_files(sheet(read)?, milliseconds).await?;
    let mut text = show(&answer, json)?;
    if let Some(time) = arguments.confirm.filter(|_| !json && !is_empty(&answer)) {
        let _ = writeln!(text, "It is taken back in {time}, unless you say `berth confirm`.");
    }
    Ok(text)
}

/// The same for files that change nothing but networks.
pub async fn run_for_network(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let read = arguments.files.read()?;
    let plan = parse(&api.machine.plan_files(sheet(&read)?).await?)?;
    if let Some(other) = beside_networks(&plan) {
        return Err(Error::Refused(format!("this changes more than networks ({other}): use `berth apply`")));
    }
    put_in_force(api, arguments, &read, json).await
}

/// The first change that is not one of networks. Containers that a change of their network starts anew are no change of
/// theirs.
fn beside_networks(plan: &Plan) -> Option<&str> {
    let of_networks = |key: &str| key.starts_with("network.") || key.starts_with("networks.");
    let setting = plan.settings.iter().map(|change| change.key.as_str()).find(|key| !of_networks(key));
    let is_changed = |container: &&ContainerPlan| container.action != Action::Restart || !container.changes.is_empty();
    setting.or_else(|| plan.containers.iter().find(is_changed).map(|container| container.name.as_str()))
}

/// Lets what was applied on trial stay.
pub async fn confirm(api: &Api, json: bool) -> Result<String, Error> {
    api.machine.confirm().await?;
    told(json, serde_json::json!({ "confirmed": true }), String::new())
}

impl Files {
    fn read(&self) -> Result<Vec<(String, String)>, Error> {
        let read = |path: &PathBuf| {
            let mut text = String::new();
            let result = match path == Path::new("-") {
                true => std::io::stdin().read_to_string(&mut text).map(|_| text),
                false => std::fs::read_to_string(path),
            };
            let text = result.map_err(|source| Error::Read { path: path.clone(), source })?;
            Ok((path.display().to_string(), text))
        };
        self.files.iter().map(read).collect()
    }
}

/// The files in memory: a message may be too small for them.
fn sheet(files: &[(String, String)]) -> Result<OwnedFd, Error> {
    let failed = |error: std::io::Error| Error::Refused(format!("pass the files on: {error}"));
    let memory = memfd_create("configuration", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut memory = File::from(memory);
    let text = serde_json::to_vec(files).map_err(|error| failed(error.into()))?;
    memory.write_all(&text).map_err(failed)?;
    Ok(std::os::fd::OwnedFd::from(memory).into())
}

fn parse(answer: &str) -> Result<Plan, Error> {
    serde_json::from_str(answer).map_err(|error| Error::Refused(format!("the answer is no plan: {error}")))
}

fn is_empty(answer: &str) -> bool {
    parse(answer).is_ok_and(|plan| plan.is_empty())
}

fn show(answer: &str, json: bool) -> Result<String, Error> {
    let plan = parse(answer)?;
    if json { json_text(&plan) } else { Ok(render(&plan)) }
}

fn render(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for container in &plan.containers {
        let (mark, what) = match container.action {
            Action::Create => ('+', "is new"),
            Action::Replace => ('~', "is new; the one made by hand ends and is forgotten with its log"),
            Action::Recreate => ('~', "is made anew"),
            Action::Update => ('=', "runs on with another definition"),
            Action::Restart => ('~', "is started anew"),
            Action::Start => ('~', "is started again, as its new restart policy has it"),
            Action::Remove => ('-', "ends and is forgotten"),
        };
        let _ = writeln!(text, "{mark} container {} {what}", container.name);
        container.changes.iter().for_each(|change| write_change(&mut text, "    ", change));
    }
    let mut link = "";
    for change in &plan.settings {
        match link_and_key(&change.key) {
            Some((name, key)) => {
                if name != link {
                    let _ = writeln!(text, "~ link {name} is set up anew");
                    link = name;
                }
                write_change(&mut text, "    ", &Change { key: key.to_owned(), ..change.clone() });
            }
            None => write_change(&mut text, "~ ", change),
        }
    }
    for conflict in &plan.conflicts {
        let _ = writeln!(text, "! {conflict}");
    }
    if plan.is_empty() {
        text.push_str("Nothing changes.\n");
        return text;
    }
    if !plan.untouched.is_empty() {
        let _ = writeln!(text, "Untouched: {}", plan.untouched.join(", "));
    }
    match plan.reboot.as_slice() {
        [] => text.push_str("No reboot is needed.\n"),
        reasons => {
            let _ = writeln!(text, "Not all of it without a reboot: {}", reasons.join("; "));
        }
    }
    text
}

/// The parts of `network.links.eth0.dhcp`.
fn link_and_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("network.links.")?.split_once('.')
}

fn write_change(text: &mut String, indent: &str, change: &Change) {
    let Change { key, old, new } = change;
    let _ = match (old.as_str(), new.as_str()) {
        ("", new) => writeln!(text, "{indent}{key} = {new}"),
        (old, "") => writeln!(text, "{indent}{key} was {old}"),
        (old, new) => writeln!(text, "{indent}{key}: {old} -> {new}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_confirmation_is_told_to_programs() {
        for (json, told) in [(true, "{\n  \"confirmed\": true\n}\n"), (false, "")] {
            let (api, mut peer) = crate::cli::api::peer::pair().await;
            let (confirmed, ()) = tokio::join!(confirm(&api, json), peer.answer("Confirm", &()));
            assert_eq!(confirmed.unwrap(), told);
        }
    }

    #[test]
    fn a_plan_says_what_happens_to_whom_and_why() {
        let change = |key: &str, old: &str, new: &str| Change { key: key.into(), old: old.into(), new: new.into() };
        let container = |name: &str, action, changes| ContainerPlan { name: name.into(), action, changes };
        let plan = Plan {
            containers: vec![
                container("db", Action::Update, vec![change("restart", "", "\"no\"")]),
                container("job", Action::Replace, Vec::new()),
                container("old", Action::Remove, Vec::new()),
                container("web", Action::Recreate, vec![change("image", "\"a\"", "\"b\"")]),
            ],
            untouched: vec!["cache".into(), "queue".into()],
            settings: vec![
                change("hostname", "\"a\"", ""),
                change("network.links.eth0.dhcp", "true", "false"),
                change("network.links.eth0.mtu", "", "1400"),
            ],
            reboot: Vec::new(),
            conflicts: vec!["port 80 leads elsewhere".into()],
        };
        let expected = "= container db runs on with another definition\n    restart = \"no\"\n\
            ~ container job is new; the one made by hand ends and is forgotten with its log\n\
            - container old ends and is forgotten\n~ container web is made anew\n    image: \"a\" -> \"b\"\n\
            ~ hostname was \"a\"\n~ link eth0 is set up anew\n    dhcp: true -> false\n    mtu = 1400\n! port 80 leads elsewhere\nUntouched: cache, queue\nNo reboot is needed.\n";
        assert_eq!(render(&plan), expected);
        assert_eq!(render(&Plan::default()), "Nothing changes.\n");
        assert_eq!(beside_networks(&plan), Some("hostname"));
        let links = change("network.links.eth0.mtu", "", "9000");
        assert_eq!(beside_networks(&Plan { settings: vec![links.clone()], ..Plan::default() }), None);
        let containers = vec![container("db", Action::Restart, Vec::new())];
        let with_it = Plan { settings: vec![links.clone()], containers, ..Plan::default() };
        assert!(render(&with_it).starts_with("~ container db is started anew\n"));
        assert_eq!(beside_networks(&with_it), None);
        assert_eq!(beside_networks(&Plan { settings: vec![links], ..plan }), Some("db"));
    }
}
