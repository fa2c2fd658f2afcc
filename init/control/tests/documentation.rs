//! `docs/api.md` is true: it has every method with its arguments, every key and every message of a session, and no other.

use std::collections::{BTreeMap, BTreeSet};

use berth_control::message::{ExecutionEnd, FromClient, SessionStream, ToClient};

const TEXT: &str = include_str!("../../../docs/api.md");
const INTERFACES: &str = include_str!("../src/dbus.rs");
const STRUCTURES: &str = include_str!("../src/dbus/types.rs");
const PROPERTIES: &str = include_str!("../../../system-containers/control/src/machine.rs");

/// `unused_s` as D-Bus has it: `UnusedS`.
fn pascal(name: &str) -> String {
    let upper = |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
    name.split('_').map(upper).collect::<Vec<String>>().concat()
}

/// `Resize(name, rows, columns)` of a line `fn resize(&self, name: &str, rows: u16, columns: u16) -> …`.
fn method(line: &str) -> Option<String> {
    let (name, rest) = line.trim().strip_prefix("fn ")?.split_once("(&self")?;
    let arguments = rest.split_once(") -> Result").map_or(rest, |(arguments, _)| arguments);
    let names = arguments.split(", ").filter_map(|argument| argument.split_once(": ")).map(|(name, _)| name.trim());
    Some(format!("{}({})", pascal(name), names.collect::<Vec<_>>().join(", ")))
}

/// Every interface with its methods and signals.
fn interfaces() -> BTreeMap<&'static str, BTreeSet<String>> {
    let traits = INTERFACES.split("pub trait ").skip(1);
    traits.map(|text| (text.split(' ').next().unwrap(), text.lines().filter_map(method).collect())).collect()
}

/// Every structure with its keys.
fn structures() -> BTreeMap<&'static str, BTreeSet<String>> {
    let keys = |text: &str| {
        let body = text.split("\n}").next().unwrap();
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
        fields.map(|(name, _)| pascal(name)).collect()
    };
    STRUCTURES.split("pub struct ").skip(1).map(|text| (text.split(' ').next().unwrap(), keys(text))).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What the page says of an interface: the rows of its table, and the line of its signals.
fn told(interface: &str) -> BTreeSet<String> {
    let heading = match interface {
        "Images1" | "Volumes1" => format!("| method of {interface} "),
        _ => format!("## `org.berth.{interface}`"),
    };
    let (_, section) = TEXT.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    let rows = section.lines().skip(1).skip_while(|line| line.starts_with("|---") || !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    let signals = section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("Signal"));
    rows.chain(signals).flat_map(quoted).filter(|word| word.contains('(')).map(str::to_owned).collect()
}

#[test]
fn every_method_is_there_with_its_arguments_and_no_other() {
    let interfaces = interfaces();
    assert_eq!(interfaces.len(), 4);
    for (name, methods) in interfaces {
        assert!(!methods.is_empty(), "{name}");
        assert_eq!(told(name), methods, "{name}");
    }
}

#[test]
fn every_key_is_there_and_no_other() {
    let entry = |text: &'static str| {
        let (name, rest) = text.split_once("**")?;
        let text = rest.split("\n- **").next()?.split("\n\n").next()?;
        Some((name, quoted(text).map(str::to_owned).collect::<BTreeSet<_>>()))
    };
    let told: BTreeMap<_, _> = TEXT.split("\n- **").skip(1).filter_map(entry).collect();
    assert_eq!(told, structures());
}

#[test]
fn every_property_is_there_and_no_other() {
    let properties = PROPERTIES.split("#[zbus(property").skip(1).filter_map(|text| {
        let (_, rest) = text.split_once("async fn ")?;
        Some(pascal(rest.split('(').next()?))
    });
    let (_, text) = TEXT.split_once("Properties: ").unwrap();
    let told: BTreeSet<&str> = quoted(text.split("all read-only").next().unwrap()).collect();
    let properties: Vec<String> = properties.collect();
    assert_eq!(told, properties.iter().map(String::as_str).collect());
}

#[test]
fn every_message_of_a_session_is_there() {
    use SessionStream::{Error, Input, Output, Terminal};
    let streams = [Input, Output, Error, Terminal].map(ToClient::Stream);
    let ended = ToClient::Ended(ExecutionEnd { exit_code: 0, reason: String::new() });
    let to_client = streams.iter().chain([&ToClient::Running, &ended, &ToClient::Replaced]).map(serde_json::to_string);
    let from_client = [FromClient::CloseInput, FromClient::Signal(15)];
    for message in to_client.chain(from_client.iter().map(serde_json::to_string)) {
        let message = message.unwrap();
        assert!(TEXT.contains(&format!("`{message}`")), "{message}");
    }
}
