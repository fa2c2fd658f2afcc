//! A tunnel's peer that is known by a name, which leads to where nobody is, and then to where the peer is.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{KEYS, until, until_answers};
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::{programs, wait};

const IMAGE: &str = "localhost/names:1";

/// The machine with the tunnel. The peer does not know where this one is.
fn caller() -> String {
    format!(
        "[network]
        dns = [\"10.42.0.2\"]
        [network.links.eth0]
        dhcp = false
        addresses = [\"10.42.0.1/24\"]
        [network.links.wg0]
        addresses = [\"10.9.0.1/24\"]
        [network.links.wg0.wireguard]
        private_key = \"{}\"
        peers = [{{ public_key = \"{}\", endpoint = \"peer.example:51820\", allowed_ips = [\"10.9.0.2/32\"], \
                    persistent_keepalive = \"5s\" }}]\n",
        KEYS[0][0], KEYS[1][1],
    )
}

/// The peer, which is the server of names as well: what it says stands in a file that it reads when it is told to.
fn called() -> String {
    format!(
        "[network]
        inbound = [\"51820/udp\", \"53/udp\", 53]
        [network.links.eth0]
        dhcp = false
        addresses = [\"10.42.0.2/24\"]
        [network.links.wg0]
        addresses = [\"10.9.0.2/24\"]
        [network.links.wg0.wireguard]
        private_key = \"{}\"
        listen_port = 51820
        peers = [{{ public_key = \"{}\", allowed_ips = [\"10.9.0.1/32\"] }}]
        [containers.names]
        image = \"{IMAGE}\"
        command = [\"/usr/bin/dnsmasq\", \"--keep-in-foreground\", \"--user=root\", \"--pid-file=\", \"--conf-file=/dev/null\", \
                   \"--no-resolv\", \"--no-hosts\", \"--local=/example/\", \"--addn-hosts=/tmp/hosts\", \"--listen-address=10.42.0.2\", \
                   \"--bind-dynamic\", \"--log-facility=-\"]
        network_mode = \"host\"
        tmpfs = [\"/tmp\"]
        cap_add = [\"NET_ADMIN\", \"NET_RAW\"]
        [containers.names.security]
        user_namespace = \"host\"\n",
        KEYS[1][0], KEYS[0][1],
    )
}

/// Lets the name lead elsewhere.
fn lead(called: &mut Machine, address: &str) -> Result<()> {
    let script = format!("echo {address} peer.example > /tmp/hosts && busybox killall -HUP dnsmasq");
    called.guest.shell(&format!("berth exec names /bin/sh -c '{script}'")).map(drop)
}

/// Waits until the machine has said where it was told that the peer is.
fn until_told(caller: &mut Machine, address: &str) -> Result<()> {
    let deadline = Instant::now() + wait::ANSWER;
    let text = format!("peer.example:51820 is {address}:51820");
    while !caller.guest.shell("berth logs network 2>&1")?.contains(&text) {
        ensure!(Instant::now() < deadline, "{}", caller.guest.shell("berth why link wg0 2>&1; true")?);
    }
    Ok(())
}

pub fn run(bench: &Bench) -> Result<()> {
    let [near, far] = bench.wire(0);
    let layer = programs::layer(&["dnsmasq"], &bench.path("root"))?;
    let image = bench.image(IMAGE, &["/bin/sh"])?.layer(layer);
    let files = Files::new().with("berth.toml", called()).with("images/names.tar", image.docker_archive());
    let mut called = bench.neighbour()?.nics(vec![far]).user_data(&files)?.start()?;
    let files = Files::new().with("berth.toml", caller());
    let mut caller = bench.machine().nics(vec![near]).user_data(&files)?.start()?;
    called.wait_until_ready()?;
    called.guest.wait()?;
    caller.wait_until_settled()?;
    caller.guest.wait()?;

    until_lacks(&mut caller, "peer.example leads nowhere")?;
    lead(&mut called, "10.42.0.9")?;
    until_told(&mut caller, "10.42.0.9")?;
    until_lacks(&mut caller, "at peer.example:51820 does not answer")?;
    lead(&mut called, "10.42.0.2")?;
    until_told(&mut caller, "10.42.0.2")?;
    until_answers(&mut caller, "10.9.0.2")?;
    until_answers(&mut called, "10.9.0.1")?;
    until(&mut caller, "wg0", |link| link.is_some_and(|link| link["missing"].as_array().is_some_and(Vec::is_empty)))
}

fn until_lacks(machine: &mut Machine, text: &str) -> Result<()> {
    until(machine, "wg0", |link| link.is_some_and(|link| link["missing"].to_string().contains(text)))
}
