//! Links of the machine: bonds, VLANs and bridges from the configuration, what is missing, and a change that nobody confirms.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Nic};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[Case { name: "links/nested-and-taken-back", memory: 256, run: nested_and_taken_back }];

const NESTED: &str = r#"
    [network.links.bond0]
    bond = { mode = "active-backup", ports = ["eth1", "eth2"], primary = "eth2" }
    [network.links.tagged]
    vlan = { link = "bond0", id = 10 }
    [network.links.lan]
    bridge = { ports = ["tagged"] }
    addresses = ["10.10.0.1/24"]
    [network.links.away]
    vlan = { link = "eth7", id = 7 }
"#;

fn link(machine: &mut Machine, name: &str) -> Result<Option<Value>> {
    let links = machine.guest.berth(&["network"])?;
    Ok(links.as_array().into_iter().flatten().find(|link| link["name"] == name).cloned())
}

/// Waits until a link is as wanted.
fn until(machine: &mut Machine, name: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Result<()> {
    let deadline = Instant::now() + wait::ANSWER;
    loop {
        let found = link(machine, name)?;
        if wanted(found.as_ref()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{name} is not as wanted: {found:?}");
    }
}

fn has(link: Option<&Value>, address: &str) -> bool {
    link.is_some_and(|link| link["addresses"].to_string().contains(address))
}

fn nested_and_taken_back(bench: &Bench) -> Result<()> {
    let files = Files::new().with("berth.toml", NESTED);
    let nics = vec![Nic::default(), Nic::default(), Nic::default()];
    let mut machine = bench.machine().nics(nics).user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    until(&mut machine, "eth0", |link| has(link, "10.0.2.15"))?;
    until(&mut machine, "bond0", |link| has(link, "10.0.2.15"))?;
    until(&mut machine, "lan", |link| has(link, "10.10.0.1"))?;
    let bond = machine.guest.read("/proc/net/bonding/bond0")?;
    ensure!(bond.contains("Currently Active Slave: eth2") && bond.contains("Slave Interface: eth1"), "{bond}");
    let why = machine.guest.shell("berth why link away")?;
    ensure!(why.contains("there is no link eth7"), "{why}");

    // A change that cuts the bond off, and that nobody confirms.
    let without = "[network.links.eth1]\ndhcp = false\n[network.links.eth2]\ndhcp = false\n";
    machine.guest.write("/run/berth/without.toml", without)?;
    machine.guest.shell("berth network apply --confirm 5s /run/berth/without.toml")?;
    until(&mut machine, "bond0", |link| link.is_none())?;
    until(&mut machine, "bond0", |link| has(link, "10.0.2.15"))?;
    until(&mut machine, "lan", |link| has(link, "10.10.0.1"))?;

    // One with a mistake changes nothing, and one that is about more is refused.
    machine.guest.write("/run/berth/bad.toml", "[network.links.lan]\nbridge = { ports = [\"lan\"] }\n")?;
    let refused = machine.guest.shell("berth network apply /run/berth/bad.toml 2>&1 && exit 1; true")?;
    ensure!(refused.contains("stands on itself"), "{refused}");
    machine.guest.write("/run/berth/more.toml", "hostname = \"other\"\n[network.links.lan]\ndummy = true\n")?;
    let refused = machine.guest.shell("berth network apply /run/berth/more.toml 2>&1 && exit 1; true")?;
    ensure!(refused.contains("changes more than networks"), "{refused}");
    ensure!(has(link(&mut machine, "bond0")?.as_ref(), "10.0.2.15"), "the bond is gone");
    Ok(())
}
