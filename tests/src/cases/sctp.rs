//! Published ports of SCTP. The machine's kernel has no SCTP of its own, only what follows and translates it.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Nic;
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[Case { name: "network/sctp-ports-are-published", memory: 256, run: published }];

/// Both ends of an association's beginning.
const ASSOCIATION: &str = include_str!("sctp/association.pl");

/// A container that is asked, one that is a machine of its own at the other end of a cable, and one in the machine's network.
const CONFIGURATION: &str = r#"
    [network.links.eth1]
    dhcp = false
    [network.links.eth2]
    addresses = ["10.77.0.1/24", "fd00:77::1/64"]
    [networks.cards]
    driver = "macvlan"
    parent = "eth1"
    subnets = ["10.77.0.0/24", "fd00:77::/64"]
    gateways = ["10.77.0.1", "fd00:77::1"]
    [containers.web]
    image = "localhost/a:1"
    command = ["/usr/bin/perl", "/association.pl", "7001"]
    ports = ["7000:7001/sctp"]
    cap_add = ["NET_RAW"]
    [containers.outside]
    image = "localhost/a:1"
    networks = { cards = { ipv4_address = "10.77.0.7", ipv6_address = "fd00:77::7" } }
    cap_add = ["NET_RAW"]
    [containers.inside]
    image = "localhost/a:1"
    network_mode = "host"
    cap_add = ["NET_RAW"]
    [containers.inside.security]
    user_namespace = "host"
"#;

fn published(bench: &Bench) -> Result<()> {
    let layer = programs::layer(&["perl"], &bench.path("root"))?;
    let layer = layer.file("association.pl", 0o644, ASSOCIATION.as_bytes());
    let archive = bench.image("localhost/a:1", &["sleep", "100000"])?.layer(layer).docker_archive();
    let files = Files::new().with("berth.toml", CONFIGURATION).with("images/a.tar", archive);
    let nics = vec![Nic::default(), Nic::at_hub(0), Nic::at_hub(0)];
    let mut machine = bench.machine().nics(nics).user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for (number, (from, address)) in [
        ("outside", "10.77.0.1"),
        ("inside", "127.0.0.1"),
        ("web", "10.77.0.1"),
        ("outside", "fd00:77:0:0:0:0:0:1"),
        ("inside", "0:0:0:0:0:0:0:1"),
        ("web", "fd00:77:0:0:0:0:0:1"),
    ]
    .into_iter()
    .enumerate()
    {
        let own = 50_000 + number;
        let command = format!("berth exec {from} /usr/bin/perl /association.pl {address} 7000 {own} 2>&1");
        let answer = machine.guest.shell(&command)?;
        ensure!(answer == format!("answered by {address} 7000\n"), "{from} is {answer}");
    }
    let asked = machine.guest.shell("berth logs web")?;
    for source in ["10.77.0.7 50000", "fd00:77:0:0:0:0:0:7 50003"] {
        ensure!(asked.contains(&format!("asked by {source}")), "the source is not kept: {asked}");
    }
    Ok(())
}
