//! A machine on networks that others run: DHCP by dnsmasq, DHCPv6 by kea, router advertisements by radvd, all on a second
//! machine at the other end of its cables.

use anyhow::{Result, ensure};

use super::links::{has, until};
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Nic};
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[Case { name: "links/served-by-others", memory: 512, run: served }];

const IMAGE: &str = "localhost/servers:1";

/// The other machine: eth0 is in the network that there is and in the one that comes after it.
const ROUTER: &str = r#"
    [network]
    inbound = [53, "53/udp", "67/udp", "547/udp"]
    [network.links.eth0]
    addresses = ["10.50.0.1/24", "10.51.0.1/24"]
    [network.links.eth1]
    addresses = ["fd50::1/64"]
    ipv6 = "static"
    [containers.servers]
    image = "localhost/servers:1"
    command = ["/bin/sh", "/start.sh"]
    network_mode = "host"
    cap_add = ["NET_ADMIN", "NET_RAW"]
    [containers.servers.security]
    user_namespace = "host"
    [containers.router]
    image = "localhost/servers:1"
    command = ["/usr/bin/radvd", "-n", "-C", "/radvd.conf", "-p", "/tmp/radvd.pid", "-m", "stderr"]
    network_mode = "host"
    cap_add = ["NET_ADMIN", "NET_RAW"]
    [containers.router.security]
    user_namespace = "host"
"#;

/// Switches on the machine with the servers.
fn router(bench: &Bench, nics: Vec<Nic>) -> Result<Machine> {
    let layer = programs::layer(&["dnsmasq", "kea-dhcp6", "radvd"], &bench.path("root"))?
        .file("start.sh", 0o644, include_bytes!("servers/start.sh"))
        .file("dnsmasq.conf", 0o644, include_bytes!("servers/dnsmasq.conf"))
        .file("moved.conf", 0o644, include_bytes!("servers/moved.conf"))
        .file("kea.json", 0o644, include_bytes!("servers/kea.json"))
        .file("radvd.conf", 0o644, include_bytes!("servers/radvd.conf"));
    let image = bench.image(IMAGE, &["/bin/sh"])?.layer(layer);
    let files = Files::new().with("berth.toml", ROUTER).with("images/servers.tar", image.docker_archive());
    let mut router = bench.neighbour()?.nics(nics).user_data(&files)?.start()?;
    router.wait_until_ready()?;
    router.guest.wait()?;
    for text in ["DHCP, IP range", "DHCP6_STARTED"] {
        until_says(&mut router, "servers", text)?;
    }
    Ok(router)
}

/// Waits for a text in what a container says; an error with all that it has said if it ends before.
fn until_says(machine: &mut Machine, container: &str, text: &str) -> Result<()> {
    let script = format!(
        "until berth logs {container} 2>&1 | grep -q '{text}'; do \
         berth inspect {container} | grep -q '\"restarts\": 0' || {{ berth logs {container} 2>&1; exit 1; }}; done"
    );
    machine.guest.shell(&script).map(drop)
}

fn served(bench: &Bench) -> Result<()> {
    let [[near0, far0], [near1, far1]] = [bench.wire(0), bench.wire(1)];
    let mut router = router(bench, vec![far0, far1])?;
    let mut machine = bench.machine().nics(vec![near0, near1]).start()?;
    machine.wait_until_settled()?;
    machine.guest.wait()?;
    until(&mut machine, "eth0", |link| has(link, "10.50.0.50/24"))?;
    until(&mut machine, "eth1", |link| has(link, "fd50::50/128") && has(link, "fd51::"))?;
    let mtu = machine.guest.read("/sys/class/net/eth0/mtu")?;
    ensure!(mtu == "1400\n", "eth0 has an MTU of {mtu}");
    machine.guest.shell("until [ \"$(cat /proc/sys/kernel/hostname)\" = dock9 ]; do :; done")?;
    let routes = machine.guest.shell("ip route; ip -6 route")?;
    for route in ["default via 10.50.0.1 ", "10.60.0.0/16 via 10.50.0.7 ", "default via fe80::"] {
        ensure!(routes.contains(route), "there is no {route}: {routes}");
    }
    // By the search list, from the server that DHCP named.
    machine.guest.shell("ping -c 1 -W 5 printer")?;
    machine.guest.shell("until ping -6 -c 1 -W 1 fd50::1; do :; done")?;

    // What it has been given outlasts a boot at which no server answers.
    router.guest.shell("berth stop servers")?;
    machine.reboot()?;
    until(&mut machine, "eth0", |link| has(link, "10.50.0.50/24"))?;
    until(&mut machine, "eth1", |link| has(link, "fd50::50/128"))?;

    // The cable leads to another network now, whose server knows better.
    machine.qmp.plug(0, false)?;
    until(&mut machine, "eth0", |link| link.is_some_and(|link| link["carrier"] == false))?;
    let moved = ROUTER.replace("containers.servers", "containers.moved").replace(
        r#"["/bin/sh", "/start.sh"]"#,
        r#"["/usr/bin/dnsmasq", "--keep-in-foreground", "--conf-file=/moved.conf"]"#,
    );
    router.guest.write("/run/berth/moved.toml", &moved)?;
    router.guest.shell("berth apply /run/berth/moved.toml")?;
    until_says(&mut router, "moved", "DHCP, IP range")?;
    machine.qmp.plug(0, true)?;
    until(&mut machine, "eth0", |link| has(link, "10.51.0.50/24") && !has(link, "10.50.0.50"))?;
    let said = router.guest.shell("berth logs moved 2>&1")?;
    ensure!(said.contains("DHCPNAK"), "the address was not refused: {said}");
    Ok(())
}
