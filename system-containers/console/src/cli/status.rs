//! `berth status`: how the machine is. The console's banner is the same text.

use std::collections::BTreeMap;

use berth_control::message::{Container, Kind, Machine};

use super::api::Api;
use super::error::Error;
use super::{format, json_text};

/// The text to print.
pub async fn run(api: &Api, json: bool) -> Result<String, Error> {
    let machine = api.describe().await?;
    if json {
        return json_text(&machine);
    }
    Ok(render(&machine, &api.list().await?))
}

/// The machine in a few lines.
pub fn render(machine: &Machine, containers: &[Container]) -> String {
    let slot = if machine.slot.is_empty() { String::new() } else { format!(", slot {}", machine.slot) };
    let mut lines = vec![
        ("state", format!("{}, up {}", format::machine_state(machine.state), format::span(machine.uptime_ms / 1_000))),
        ("version", format!("{}{slot}, kernel {}", machine.version, machine.kernel)),
    ];
    for link in &machine.links {
        let addresses = match (link.addresses.is_empty(), link.carrier) {
            (false, _) => link.addresses.join(", "),
            (true, true) => "no address".to_owned(),
            (true, false) => "no carrier".to_owned(),
        };
        lines.push(("network", format!("{}: {addresses}", link.name)));
    }
    lines.push(("storage", machine.state_storage.clone()));
    if !machine.configuration_sources.is_empty() {
        lines.push(("configuration", machine.configuration_sources.join(", ")));
    }
    if !machine.watchdog.is_empty() {
        lines.push(("watchdog", machine.watchdog.clone()));
    }
    lines.push(("containers", counts(containers)));
    lines.extend(machine.problems.iter().map(|problem| ("problem", problem.clone())));

    let mut text = format!("{}\n", machine.hostname);
    let mut last = "";
    for (name, value) in &lines {
        let shown = if *name == last { "" } else { name };
        text.push_str(&format!("  {shown:13}  {value}\n"));
        last = name;
    }
    text
}

/// `2 running, 1 failed`; Berth's own only where they do not run.
fn counts(containers: &[Container]) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for container in containers.iter().filter(|container| container.kind == Kind::User) {
        *states.entry(format::container_state(container.state)).or_default() += 1;
    }
    if states.is_empty() {
        return "none declared".to_owned();
    }
    let words: Vec<String> = states.iter().rev().map(|(state, count)| format!("{count} {state}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::{ContainerState, Link, MachineState};

    #[test]
    fn the_machine_in_a_few_lines() {
        let link = |name: &str, carrier, addresses: &[&str]| Link {
            name: name.into(),
            mac: "52:54:00:12:34:56".into(),
            carrier,
            addresses: addresses.iter().map(|address| (*address).into()).collect(),
            missing: Vec::new(),
        };
        let machine = Machine {
            hostname: "dock1".into(),
            version: "0.1.0".into(),
            kernel: "6.12.90".into(),
            slot: "a".into(),
            state: MachineState::Degraded,
            uptime_ms: 65_000,
            problems: vec!["berth.toml:3:1: unknown key `hostnam`; did you mean `hostname`?".into()],
            links: vec![link("eth0", true, &["10.0.2.15/24", "fec0::5054/64"]), link("eth1", false, &[])],
            networks: Vec::new(),
            watchdog: "i6300ESB timer, 60 s".into(),
            state_storage: "/dev/vda4".into(),
            configuration_sources: vec!["berth.toml".into()],
        };
        let container = |state| Container {
            name: "web".into(),
            kind: Kind::User,
            state,
            health: berth_control::message::Health::None,
            image: String::new(),
            reason: String::new(),
            pid: 0,
            restarts: 0,
            started_us: 0,
            exit_code: -1,
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        let expected = "\
dock1
  state          degraded, up 1m 5s
  version        0.1.0, slot a, kernel 6.12.90
  network        eth0: 10.0.2.15/24, fec0::5054/64
                 eth1: no carrier
  storage        /dev/vda4
  configuration  berth.toml
  watchdog       i6300ESB timer, 60 s
  containers     2 running, 1 failed
  problem        berth.toml:3:1: unknown key `hostnam`; did you mean `hostname`?
";
        let containers = [ContainerState::Running, ContainerState::Failed, ContainerState::Running].map(container);
        assert_eq!(render(&machine, &containers), expected);
    }
}
