//! Networks of containers: who finds and reaches whom, and where published ports lead.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Nic};
use crate::page;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "network/names-and-isolation", memory: 256, run: names_and_isolation },
    Case { name: "network/replicas-behind-one-port", memory: 256, run: replicas },
    Case { name: "network/macvlan-and-ipvlan-on-cards", memory: 256, run: on_cards },
];

/// Serves a page with its own name, and has all that clients need.
const SERVER: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

/// What a container gets from a server; an error if nothing comes.
fn fetch(machine: &mut Machine, from: &str, url: &str) -> Result<String> {
    Ok(machine.guest.shell(&format!("berth exec {from} wget -q -T 5 -O - {url}"))?.trim().to_owned())
}

fn names_and_isolation(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", SERVER)?.docker_archive();
    let configuration = "
        [networks.front]
        [networks.back]
        subnets = [\"10.88.0.0/24\"]
        internal = true
        [containers.web]
        image = \"localhost/a:1\"
        networks = [\"front\", \"back\"]
        [containers.client]
        image = \"localhost/a:1\"
        networks = [\"front\"]
        [containers.db]
        image = \"localhost/a:1\"
        networks = { back = { ipv4_address = \"10.88.0.7\", aliases = [\"sql\"] } }
        [containers.side]
        image = \"localhost/a:1\"
        command = [\"sleep\", \"100000\"]
        network_mode = \"container:db\"
        [containers.alone]
        image = \"localhost/a:1\"
        network_mode = \"none\"
    ";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for (from, to, answer) in [
        ("client", "web", "web"),
        ("web", "sql", "db"),
        ("db", "web", "web"),
        ("side", "127.0.0.1", "db"),
        ("alone", "127.0.0.1", "alone"),
    ] {
        let page = fetch(&mut machine, from, &format!("http://{to}/"))?;
        ensure!(page == answer, "{from} asked {to} and got {page:?}");
    }
    let shut = |machine: &mut Machine, from: &str, url: &str| fetch(machine, from, url).is_err();
    ensure!(shut(&mut machine, "client", "http://db/"), "the name of another network is known");
    ensure!(shut(&mut machine, "client", "http://10.88.0.7/"), "another network is reached");
    let links = machine.guest.shell("berth exec alone sh -c 'cd /sys/class/net; echo */'")?;
    ensure!(links.trim() == "lo/", "who has no network has {links:?}");
    let web = machine.guest.container("web")?["addresses"][0].as_str().unwrap_or_default().to_owned();
    ensure!(fetch(&mut machine, "client", &format!("http://{web}/"))? == "web", "web is not at {web}");
    for place in ["web", &web] {
        ensure!(shut(&mut machine, "alone", &format!("http://{place}/")), "who has no network reaches {place}");
    }
    let outside = machine.guest.shell("berth exec client busybox nslookup -type=a example.invalid 2>&1; true")?;
    ensure!(
        outside.contains("NXDOMAIN") || outside.contains("can't find"),
        "no server of the host's answered: {outside}"
    );
    // The next `network` finds all of it again.
    let pid = machine.guest.container("network")?["pid"].clone();
    machine
        .guest
        .shell(&format!("kill -KILL {pid}; until berth inspect network | grep -q '\"restarts\": 1'; do :; done"))?;
    machine.guest.wait_for_state("network", "running")?;
    ensure!(fetch(&mut machine, "client", "http://web/")? == "web", "the name is lost");
    ensure!(machine.guest.container("web")?["restarts"] == 0, "a container noticed");
    // What is another network now starts its containers anew, and those in their networks.
    let other = configuration.replace("10.88.0.", "10.89.0.");
    machine
        .guest
        .shell(&format!("cat > /run/berth/other.toml <<'END'\n{other}\nEND\nberth apply /run/berth/other.toml"))?;
    machine.guest.shell("until berth inspect db | grep -q 10.89.0.7; do :; done")?;
    for name in ["web", "db", "side"] {
        machine.guest.wait_for_state(name, "running")?;
    }
    machine.guest.shell("until berth exec web wget -q -T 5 -O - http://sql/ | grep -q db; do :; done")?;
    machine.guest.shell("until berth exec side wget -q -T 5 -O - http://127.0.0.1/ | grep -q db; do :; done")?;
    Ok(())
}

fn replicas(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", SERVER)?.docker_archive();
    let configuration = "
        [containers.web]
        image = \"localhost/a:1\"
        replicas = 3
        ports = [\"8080:80\"]
        [containers.web.health]
        exec = [\"sh\", \"-c\", \"! test -e /ill\"]
        interval = \"200ms\"
        retries = 1
    ";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.forward(8080).start()?;
    machine.wait_until_ready()?;
    let address = machine.forwarded(8080)?;
    let seen = || (0..6).map(|_| page::fetch(address, "/", wait::ANSWER)).collect::<Result<BTreeSet<String>>>();
    let healthy = |machine: &mut Machine, name: &str, health: &str| {
        let script = format!("until berth inspect {name} | grep -q '\"health\": \"{health}\"'; do :; done");
        machine.guest.shell(&script).map(drop)
    };
    for name in ["web-1", "web-2", "web-3"] {
        healthy(&mut machine, name, "healthy")?;
    }
    ensure!(seen()?.len() == 3, "not all replicas answer: {:?}", seen()?);
    machine.guest.shell("berth exec web-2 touch /ill")?;
    healthy(&mut machine, "web-2", "unhealthy")?;
    // `network` is told in the same moment as everybody else; a name is looked up after it has done what came before.
    machine.guest.shell(
        "until [ $(berth exec web-1 busybox nslookup -type=a web | grep -c '^Address: [0-9.]*$') = 2 ]; do :; done",
    )?;
    let answers = seen()?;
    ensure!(answers.len() == 2 && !answers.contains("web-2\n"), "one that is ill gets connections: {answers:?}");
    Ok(())
}

/// Two cables with a card of the machine at either end: containers hang on the one, the machine itself is at the other.
const CARDS: &str = r#"
    [network]
    inbound = [8080]
    [network.links.eth1]
    dhcp = false
    [network.links.eth2]
    addresses = ["10.77.0.1/24"]
    [network.links.eth3]
    dhcp = false
    [network.links.eth4]
    addresses = ["10.78.0.1/24"]
    [networks.cards]
    driver = "macvlan"
    parent = "eth1"
    subnets = ["10.77.0.0/24"]
    gateways = ["10.77.0.1"]
    [networks.shared]
    driver = "ipvlan"
    parent = "eth3"
    subnets = ["10.78.0.0/24"]
    gateways = ["10.78.0.1"]
    [containers.peer]
    image = "localhost/peer:1"
    network_mode = "host"
    [containers.card]
    image = "localhost/a:1"
    networks = { cards = { ipv4_address = "10.77.0.7", mac_address = "02:00:00:00:77:07" } }
    [containers.share]
    image = "localhost/a:1"
    networks = ["shared"]
"#;

fn on_cards(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", SERVER)?.docker_archive();
    let nics = vec![Nic::default(), Nic::at_hub(0), Nic::at_hub(0), Nic::at_hub(1), Nic::at_hub(1)];
    // The first ports of the machine's own network are not for containers.
    let peer = bench.shell_image("localhost/peer:1", &SERVER.replace("-p 80", "-p 8080"))?.docker_archive();
    let files = Files::new().with("berth.toml", CARDS).with("images/a.tar", archive).with("images/peer.tar", peer);
    let mut machine = bench.machine().nics(nics).user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let share = machine.guest.container("share")?["addresses"][0].as_str().unwrap_or_default().to_owned();
    ensure!(share.starts_with("10.78.0."), "share has the address {share:?}");
    let peer = fetch(&mut machine, "peer", "http://127.0.0.1:8080/")?;
    let both_ways = |machine: &mut Machine| {
        for (container, address, host) in [("card", "10.77.0.7", "10.77.0.1"), ("share", &share, "10.78.0.1")] {
            let page = fetch(machine, "peer", &format!("http://{address}/"))?;
            ensure!(page == container, "the machine asked {container} and got {page:?}");
            let page = fetch(machine, container, &format!("http://{host}:8080/"))?;
            ensure!(page == peer, "{container} asked the machine and got {page:?}");
        }
        Ok(())
    };
    both_ways(&mut machine)?;
    // The one is known by a hardware address of its own, the other by that of its card.
    let neighbours = machine.guest.read("/proc/net/arp")?;
    let card = machine.guest.read("/sys/class/net/eth3/address")?;
    for (address, mac) in [("10.77.0.7", "02:00:00:00:77:07"), (share.as_str(), card.trim())] {
        let line = neighbours.lines().find(|line| line.starts_with(&format!("{address} "))).unwrap_or_default();
        ensure!(line.contains(mac), "{address} is not at {mac}: {neighbours}");
    }
    // The next `network` leaves them alone, and a container's next run has its addresses.
    let pid = machine.guest.container("network")?["pid"].clone();
    machine
        .guest
        .shell(&format!("kill -KILL {pid}; until berth inspect network | grep -q '\"restarts\": 1'; do :; done"))?;
    machine.guest.wait_for_state("network", "running")?;
    both_ways(&mut machine)?;
    for name in ["card", "share"] {
        ensure!(machine.guest.container(name)?["restarts"] == 0, "{name} noticed");
        machine.guest.shell(&format!("berth restart {name}"))?;
        machine.guest.wait_for_state(name, "running")?;
    }
    both_ways(&mut machine)?;
    Ok(())
}
