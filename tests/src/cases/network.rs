//! Networks of containers: who finds and reaches whom, and where published ports lead.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::page;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "network/names-and-isolation", memory: 256, run: names_and_isolation },
    Case { name: "network/replicas-behind-one-port", memory: 256, run: replicas },
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
    ";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for (from, to, answer) in
        [("client", "web", "web"), ("web", "sql", "db"), ("db", "web", "web"), ("side", "127.0.0.1", "db")]
    {
        let page = fetch(&mut machine, from, &format!("http://{to}/"))?;
        ensure!(page == answer, "{from} asked {to} and got {page:?}");
    }
    let shut = |machine: &mut Machine, from: &str, url: &str| fetch(machine, from, url).is_err();
    ensure!(shut(&mut machine, "client", "http://db/"), "the name of another network is known");
    ensure!(shut(&mut machine, "client", "http://10.88.0.7/"), "another network is reached");
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
