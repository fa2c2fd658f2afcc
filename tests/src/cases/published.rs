//! What a second machine reaches of a machine's containers, how fast, and who may reach whom.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "network/ports-from-everywhere", memory: 384, run: ports },
    Case { name: "network/rules-and-limits", memory: 384, run: rules_and_limits },
];

const IMAGE: &str = "localhost/a:1";

/// The machine at the other end of the cable.
const OUTSIDE: &str = r#"
    [network]
    inbound = [7000]
    [network.links.eth0]
    addresses = ["10.60.0.2/24", "10.60.0.3/24", "fd60::2/64"]
    [containers.client]
    image = "localhost/a:1"
    network_mode = "host"
"#;

/// What both machines have at their ends, and who asks on the machine itself.
const INSIDE: &str = r#"
    [network.links.eth0]
    addresses = ["10.60.0.1/24", "fd60::1/64"]
    [networks.front]
    subnets = ["10.88.0.0/24", "fd88::/64"]
    [containers.client]
    image = "localhost/a:1"
    network_mode = "host"
    cap_add = ["NET_ADMIN"]
    [containers.client.security]
    user_namespace = "host"
"#;

/// Answers with its name, over TCP and UDP, and tells its log who asked.
const SERVER: &str = "answer=\"SYSTEM:printf $HOSTNAME; echo asked by \\$SOCAT_PEERADDR >&2\"; \
    /usr/bin/socat UDP6-RECVFROM:53,fork \"$answer\" & exec /usr/bin/socat TCP6-LISTEN:80,fork,reuseaddr \"$answer\"";

/// A container that serves as `SERVER` does, with more of its configuration.
fn server(name: &str, more: &str) -> String {
    format!(
        "[containers.{name}]\nimage = \"{IMAGE}\"\ncommand = ['/bin/sh', '-c', '''{SERVER}''']\n\
         environment = {{ HOSTNAME = \"{name}\" }}\n{more}\n"
    )
}

/// Both machines, with the programs that they ask and serve by.
fn machines(bench: &Bench, inside: &str) -> Result<[Machine; 2]> {
    let layer = programs::layer(&["socat", "iperf3", "nft"], &bench.path("root"))?;
    let archive = bench.image(IMAGE, &["sleep", "100000"])?.layer(layer).docker_archive();
    let files =
        |configuration: &str| Files::new().with("berth.toml", configuration).with("images/a.tar", archive.clone());
    let [near, far] = bench.wire(0);
    let mut machine = bench.machine().nics(vec![near]).user_data(&files(inside))?.start()?;
    let mut outside = bench.neighbour()?.nics(vec![far]).user_data(&files(OUTSIDE))?.start()?;
    for machine in [&mut machine, &mut outside] {
        machine.wait_until_ready()?;
        machine.guest.wait()?;
    }
    Ok([machine, outside])
}

/// What a container of a machine gets from there; an error if nothing comes. As much as `name` is read.
fn ask(machine: &mut Machine, from: &str, protocol: &str, to: &str, name: &str) -> Result<String> {
    let command =
        format!("echo | berth exec -i {from} /usr/bin/socat -t 10 - {protocol}:{to},readbytes={} 2>&1", name.len());
    machine.guest.shell(&command)
}

/// Every published port over every way that leads to it.
fn ports(bench: &Bench) -> Result<()> {
    let published = |first: u16| format!("ports = [\"{first}:80\", \"{first}:53/udp\"]\n");
    let inside = INSIDE.to_owned()
        + &server("usual", &published(8000))
        + &server("own", &(published(9000) + "networks = [\"front\"]"));
    let [mut machine, mut outside] = machines(bench, &inside)?;
    for (name, port) in [("usual", 8000), ("own", 9000)] {
        for protocol in ["TCP", "UDP"] {
            for (from, address) in [
                ("outside", "10.60.0.1"),
                ("outside", "[fd60::1]"),
                ("client", "127.0.0.1"),
                ("client", "[::1]"),
                (name, "10.60.0.1"),
                (name, "[fd60::1]"),
            ] {
                let (asking, from) = if from == "outside" { (&mut outside, "client") } else { (&mut machine, from) };
                let to = format!("{address}:{port}");
                let answer = ask(asking, from, protocol, &to, name)?;
                ensure!(answer == name, "{protocol} {to} from {from} answers {answer:?}");
            }
        }
        let said = machine.guest.shell(&format!("berth logs {name} 2>&1"))?;
        for source in ["0000:0000:0000:0000:0000:ffff:0a3c:0002", "fd60:0000:0000:0000:0000:0000:0000:0002"] {
            let times = said.lines().filter(|line| line.contains(&format!("asked by [{source}]"))).count();
            ensure!(times == 2, "{source} has asked {name} {times} times: {said}");
        }
    }
    let rules = machine.guest.shell("berth exec client /usr/bin/nft list ruleset")?;
    ensure!(rules.contains("8000") && rules.contains("9000"), "nft shows no published port: {rules}");
    Ok(())
}

/// Two clients and a server that lets in only one; a published one that refuses an address; a slow one.
const RULES: &str = r#"
    [containers.friend]
    image = "localhost/a:1"
    networks = ["front"]
    allow_out = [{ container = "db" }]
    [containers.stranger]
    image = "localhost/a:1"
    networks = ["front"]
    [containers.slow]
    image = "localhost/a:1"
    command = ["/usr/bin/iperf3", "-s"]
    ports = ["5201:5201"]
    bandwidth = { ingress = "1M" }
    [containers.quick]
    image = "localhost/a:1"
    command = ["/usr/bin/iperf3", "-s"]
    ports = ["5202:5201"]
"#;

fn rules_and_limits(bench: &Bench) -> Result<()> {
    let inside = INSIDE.to_owned()
        + RULES
        + &server("db", "networks = [\"front\"]\nallow = [{ container = \"friend\", ports = [80] }]")
        + &server("web", "ports = [\"8000:80\"]\ndeny = [{ address = \"10.60.0.3/32\" }]");
    let [mut machine, mut outside] = machines(bench, &inside)?;
    let refused = |machine: &mut Machine, from: &str, to: &str| -> Result<()> {
        let command = format!(
            "berth exec {from} /usr/bin/socat -T 3 -t 3 - TCP:{to},connect-timeout=3 < /dev/null 2>&1; echo $?"
        );
        let said = machine.guest.shell(&command)?;
        ensure!(said.ends_with("\n1\n"), "{to} answers {from}: {said}");
        Ok(())
    };
    ensure!(ask(&mut machine, "friend", "TCP", "db:80", "db")? == "db");
    refused(&mut machine, "stranger", "db:80")?;
    ensure!(ask(&mut machine, "stranger", "TCP", "10.60.0.1:8000", "web")? == "web");
    refused(&mut machine, "friend", "10.60.0.1:8000")?;
    ensure!(ask(&mut outside, "client", "TCP", "10.60.0.1:8000", "web")? == "web");
    refused(&mut outside, "client", "10.60.0.1:8000,bind=10.60.0.3")?;

    // A rule that is taken back counts at once, and starts nobody anew.
    let other = inside.replace("allow = [{ container = \"friend\", ports = [80] }]", "");
    machine.guest.write("/run/berth/other.toml", &other)?;
    machine.guest.shell("berth apply /run/berth/other.toml")?;
    let again = "until echo | berth exec -i stranger /usr/bin/socat -t 10 - TCP:db:80,connect-timeout=1; do :; done";
    ensure!(machine.guest.shell(again)? == "db");
    ensure!(machine.guest.container("db")?["restarts"] == 0, "db was started anew for a rule");

    let [slow, quick] = [5201, 5202].map(|port| received(&mut outside, port));
    let (slow, quick) = (slow?, quick?);
    bench.note(&format!("received with a limit of 1 Mbit/s: {slow:.0} bit/s, without: {quick:.0}"));
    ensure!(slow < 1.3e6 && quick > 2.0 * slow, "received with a limit: {slow} bit/s, without: {quick}");
    Ok(())
}

/// How many bits a second a server got of a client outside.
fn received(outside: &mut Machine, port: u16) -> Result<f64> {
    let said = outside.guest.shell(&format!("berth exec client /usr/bin/iperf3 -c 10.60.0.1 -p {port} -t 5 -J"))?;
    let report: Value = serde_json::from_str(&said).with_context(|| format!("parse {said}"))?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().with_context(|| format!("no rate in {report}"))
}
