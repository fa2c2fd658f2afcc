//! Links of the machine: bonds, VLANs and bridges from the configuration, what is missing, and a change that nobody confirms.

mod moved;

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Model, Nic};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "links/nested-and-taken-back", memory: 256, run: nested_and_taken_back },
    Case { name: "links/every-kind-and-every-mode", memory: 256, run: every_kind },
    Case { name: "links/to-a-second-host", memory: 512, run: to_a_second_host },
    Case { name: "links/a-peer-that-moves", memory: 512, run: moved::run },
    Case { name: "links/cards-known-by-driver-and-path", memory: 256, run: by_driver_and_path },
    Case { name: "links/a-card-comes-and-goes", memory: 256, run: comes_and_goes },
];

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
pub fn until(machine: &mut Machine, name: &str, wanted: impl Fn(Option<&Value>) -> bool) -> Result<()> {
    let deadline = Instant::now() + wait::ANSWER;
    loop {
        let found = link(machine, name)?;
        if wanted(found.as_ref()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{name} is not as wanted: {found:?}");
    }
}

pub fn has(link: Option<&Value>, address: &str) -> bool {
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
    ensure!(why.contains("[network.links.away] (berth.toml:9) is for it"), "{why}");

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

/// Files and what they say.
type Read = &'static [(&'static str, &'static str)];

/// Modes of bonds with options of theirs, and the file of the bond that shows each, with what it says.
#[rustfmt::skip]
const BONDS: [(&str, &str, Read); 8] = [
    ("balance-rr", "packets_per_port = 7, resend_igmp = 2, updelay = '200ms', downdelay = '300ms'",
     &[("packets_per_slave", "7"), ("resend_igmp", "2"), ("updelay", "200"), ("downdelay", "300"), ("miimon", "100")]),
    ("active-backup", "primary = 'b1', primary_reselect = 'failure', fail_over_mac = 'active', num_peer_notif = 3, \
      peer_notif_delay = '400ms'",
     &[("primary", "b1"), ("primary_reselect", "failure 2"), ("fail_over_mac", "active 1"), ("num_grat_arp", "3"),
       ("num_unsol_na", "3"), ("peer_notif_delay", "400")]),
    ("balance-xor", "xmit_hash_policy = 'layer2+3', miimon = '50ms'",
     &[("xmit_hash_policy", "layer2+3 2"), ("miimon", "50")]),
    ("broadcast", "min_links = 1", &[("min_links", "1")]),
    // No file shows coupled_control: a kernel that refuses it makes no bond.
    ("802.3ad", "lacp_rate = 'fast', lacp_active = false, ad_select = 'bandwidth', ad_actor_sys_prio = 7, \
      ad_actor_system = '02:00:00:00:77:07', ad_user_port_key = 9, coupled_control = false",
     &[("lacp_rate", "fast 1"), ("lacp_active", "off 0"), ("ad_select", "bandwidth 1"), ("ad_actor_sys_prio", "7"),
       ("ad_actor_system", "02:00:00:00:77:07"), ("ad_user_port_key", "9")]),
    ("balance-tlb", "tlb_dynamic_lb = false, lp_interval = '5s'", &[("tlb_dynamic_lb", "0"), ("lp_interval", "5")]),
    ("balance-alb", "all_ports_active = true", &[("all_slaves_active", "1")]),
    ("active-backup", "arp_interval = '1s', arp_targets = ['10.10.0.2', 'fd10::2'], arp_validate = 'all', \
      arp_all_targets = 'all', missed_max = 3",
     &[("arp_interval", "1000"), ("arp_ip_target", "10.10.0.2"), ("arp_validate", "all 3"), ("arp_all_targets", "all 1"),
       ("arp_missed_max", "3")]),
];

/// Links of the other kinds, and what the kernel calls each.
const KINDS: &str = r#"
    [network.links.red]
    vrf = { table = 100, ports = ["inner"] }
    [network.links.inner]
    dummy = true
    addresses = ["10.20.0.1/24"]
    [network.links.wg0]
    addresses = ["10.9.0.1/24"]
    [network.links.wg0.wireguard]
    private_key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    listen_port = 51820
    peers = [{ public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", allowed_ips = ["10.9.0.2/32"] }]
"#;

fn every_kind(bench: &Bench) -> Result<()> {
    let mut configuration = KINDS.to_owned();
    for (number, (mode, options, _)) in BONDS.iter().enumerate() {
        let (one, two) = (format!("a{number}"), format!("b{number}"));
        configuration += &format!(
            "[network.links.{one}]\ndummy = true\n[network.links.{two}]\ndummy = true\n\
             [network.links.bond{number}]\ndhcp = false\n\
             bond = {{ mode = \"{mode}\", ports = [\"{one}\", \"{two}\"], {options} }}\n"
        );
    }
    let files = Files::new().with("berth.toml", configuration);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    until(&mut machine, "inner", |link| has(link, "10.20.0.1"))?;
    until(&mut machine, "wg0", |link| has(link, "10.9.0.1"))?;
    for (number, (mode, _, files)) in BONDS.iter().enumerate() {
        let bond = format!("bond{number}");
        let folder = format!("/sys/class/net/{bond}/bonding");
        let ports = format!("a{number} b{number}");
        machine.guest.shell(&format!("until [ \"$(cat {folder}/slaves)\" = '{ports}' ]; do :; done"))?;
        let found = machine.guest.read(&format!("{folder}/mode"))?;
        ensure!(found.starts_with(&format!("{mode} ")), "{bond} is {found} instead of {mode}");
        for (file, expected) in *files {
            let found = machine.guest.read(&format!("{folder}/{file}"))?;
            ensure!(found.trim() == *expected, "{file} of {mode} is {found:?}");
        }
    }
    for (link, kind) in [("wg0", "wireguard"), ("bond0", "bond")] {
        let facts = machine.guest.read(&format!("/sys/class/net/{link}/uevent"))?;
        ensure!(facts.contains(&format!("DEVTYPE={kind}\n")), "{link} is no {kind}: {facts}");
    }
    let controller = machine.guest.shell("readlink /sys/class/net/inner/master")?;
    ensure!(controller.trim().ends_with("/red"), "inner is in {controller}");
    let routes = machine.guest.shell("ip route show table 100")?;
    ensure!(routes.contains("10.20.0.0/24"), "the routes of inner are not in the table of red: {routes}");
    // The tunnel's port is the kernel's, and shut for others: no `inbound` is for it.
    let sockets = machine.guest.read("/proc/net/udp")?;
    ensure!(sockets.contains(":CA6C "), "nothing listens on 51820/udp: {sockets}");
    Ok(())
}

/// Key pairs of the two hosts, private and public, of nobody else.
const KEYS: [[&str; 2]; 2] = [
    ["sEVoSRFwSRMa06Dcc+4V3sgxMSY3Xdai3rpGExbOWUY=", "eSNdEMKkPZAFfSob5tsJkWvbge4HmtTQxJqmzBM8pD8="],
    ["uCxWGqYRlXlsOMox/8Nyba/56QC4zY4EL1Mb9hqGdmI=", "6jciKzCmLEDHa7VQ5+3fblMYJz25oHSWISa42r1FAVM="],
];

/// Two cards as one link that both hosts negotiate, a VLAN in it, and a tunnel in that. Only the first host knows where the
/// other is.
fn host(own: usize) -> String {
    let other = 1 - own;
    let endpoint = if own == 0 { "endpoint = \"10.42.0.2:51820\", " } else { "" };
    format!(
        "[network]
        inbound = [\"51820/udp\"]
        [network.links.bond0]
        dhcp = false
        bond = {{ mode = \"802.3ad\", ports = [\"eth0\", \"eth1\"], lacp_rate = \"fast\" }}
        [network.links.tagged]
        vlan = {{ link = \"bond0\", id = 42 }}
        addresses = [\"10.42.0.{0}/24\", \"fd42::{0}/64\"]
        [network.links.wg0]
        addresses = [\"10.9.0.{0}/24\"]
        [network.links.wg0.wireguard]
        private_key = \"{1}\"
        listen_port = 51820
        peers = [{{ public_key = \"{2}\", {endpoint}allowed_ips = [\"10.9.0.{3}/32\"] }}]\n",
        own + 1,
        KEYS[own][0],
        KEYS[other][1],
        other + 1,
    )
}

/// Waits until the other host answers at this address.
fn until_answers(machine: &mut Machine, address: &str) -> Result<()> {
    let command = if address.contains(':') { "ping -6" } else { "ping" };
    let deadline = Instant::now() + wait::ANSWER;
    while let Err(error) = machine.guest.shell(&format!("{command} -c 1 -W 1 {address}")) {
        ensure!(Instant::now() < deadline, "{error}\n{}", machine.guest.read("/proc/net/bonding/bond0")?);
    }
    Ok(())
}

/// LACP, VLANs and WireGuard with somebody at the other end, and what remains when a cable is pulled.
fn to_a_second_host(bench: &Bench) -> Result<()> {
    let [[near0, far0], [near1, far1]] = [bench.wire(0), bench.wire(1)];
    let files = |own| Files::new().with("berth.toml", host(own));
    let mut first = bench.machine().nics(vec![near0, near1]).user_data(&files(0))?.start()?;
    let mut second = bench.neighbour()?.nics(vec![far0, far1]).user_data(&files(1))?.start()?;
    for machine in [&mut first, &mut second] {
        machine.wait_until_settled()?;
        machine.guest.wait()?;
    }
    until_answers(&mut first, "10.42.0.2")?;
    until_answers(&mut second, "fd42::1")?;
    // Each has the other for a partner, on both cards at once.
    for machine in [&mut first, &mut second] {
        let ports = "until grep -q 'Number of ports: 2' /proc/net/bonding/bond0; do usleep 100000; done";
        machine.guest.shell(ports)?;
        let bond = machine.guest.read("/proc/net/bonding/bond0")?;
        ensure!(!bond.contains("Partner Mac Address: 00:00:00:00:00:00"), "{bond}");
    }
    until_answers(&mut first, "10.9.0.2")?;
    // The second has learnt where the first is.
    until_answers(&mut second, "10.9.0.1")?;

    first.qmp.plug(0, false)?;
    until(&mut first, "eth0", |link| link.is_some_and(|link| link["carrier"] == false))?;
    until_answers(&mut first, "10.9.0.2")?;
    first.qmp.plug(0, true)?;
    first.qmp.plug(1, false)?;
    until(&mut first, "eth1", |link| link.is_some_and(|link| link["carrier"] == false))?;
    until_answers(&mut second, "10.9.0.1")?;
    Ok(())
}

/// Three cards: one of another kind, one at a place of its own, and one that nothing is said of.
const CARDS: &str = r#"
    [network.links.old]
    match = { driver = "e1000" }
    rename = "old0"
    addresses = ["10.20.0.1/24"]
    [network.links.placed]
    match = { driver = "virtio*", path = "pci-0000:00:1a.0" }
    rename = "placed0"
    addresses = ["10.21.0.1/24"]
    [network.links.nobody]
    match = { driver = "e1000", path = "pci-0000:00:1a.0" }
    rename = "nobody0"
"#;

fn by_driver_and_path(bench: &Bench) -> Result<()> {
    let files = Files::new().with("berth.toml", CARDS);
    let placed = Nic { slot: Some(0x1a), ..Nic::default() };
    let old = Nic { model: Model::E1000, ..Nic::default() };
    let mut machine = bench.machine().nics(vec![placed, old, Nic::default()]).user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    until(&mut machine, "old0", |link| has(link, "10.20.0.1"))?;
    until(&mut machine, "placed0", |link| has(link, "10.21.0.1"))?;
    machine.guest.wait_for_leases(1)?;
    let about = |machine: &mut Machine, name: &str, file: &str| {
        machine.guest.shell(&format!("readlink -f /sys/class/net/{name}/{file}")).map(|path| path.trim().to_owned())
    };
    let driver = about(&mut machine, "old0", "device/driver")?;
    ensure!(driver.ends_with("/e1000"), "old0 is a card of {driver}");
    let path = about(&mut machine, "placed0", "device")?;
    ensure!(path.contains("/0000:00:1a.0/virtio"), "placed0 is at {path}");
    let names = machine.guest.shell("ls /sys/class/net")?;
    let cards: Vec<&str> = names.split_whitespace().filter(|name| name.starts_with("eth")).collect();
    ensure!(cards.len() == 1 && !names.contains("nobody0"), "there are {names}");
    ensure!(has(link(&mut machine, cards[0])?.as_ref(), "10.0.2.15"), "{names}");
    Ok(())
}

/// The address of a card that is plugged in while the machine runs, and what is said of it.
const LATE: &str = "52:54:00:aa:00:07";
const LATE_CARD: &str = r#"
    [network.links.late]
    match = { mac = "52:54:00:aa:*" }
    rename = "late0"
    addresses = ["fd99::1/64"]
"#;

fn comes_and_goes(bench: &Bench) -> Result<()> {
    let files = Files::new().with("berth.toml", LATE_CARD);
    let mut machine = bench.machine().with_free_slot().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait()?;
    let why = machine.guest.shell("berth why link late")?;
    ensure!(why.contains("no card") || why.contains("no link"), "nothing is said of what is missing: {why}");
    // Twice: what was kept of the first must not hold up the second.
    for _ in 0..2 {
        machine.attach_card(LATE)?;
        until(&mut machine, "late0", |link| has(link, "10.0.2.15") && has(link, "fd99::1/64"))?;
        machine.detach_card()?;
        until(&mut machine, "late0", |link| link.is_none())?;
    }
    let routes = machine.guest.shell("ip route; ip -6 route")?;
    ensure!(!routes.contains("late0"), "routes have outlived their card: {routes}");
    Ok(())
}
