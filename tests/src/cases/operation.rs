//! A machine at work: power, processes, sockets.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Mark, Nic};
use crate::page;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "operation/powers-off-in-time", memory: 256, run: powers_off_in_time },
    Case { name: "operation/ends-in-reverse-order", memory: 256, run: reverse_order },
    Case { name: "operation/poweroff-on-the-console", memory: 256, run: poweroff_on_the_console },
    Case { name: "operation/ctrl-alt-del", memory: 256, run: ctrl_alt_del },
    Case { name: "operation/orphans-are-reaped", memory: 256, run: orphans },
    Case { name: "operation/nothing-listens", memory: 256, run: nothing_listens },
    Case { name: "operation/only-what-is-published-listens", memory: 256, run: only_published },
    Case { name: "operation/no-network-card", memory: 256, run: no_network_card },
    Case { name: "operation/several-network-cards", memory: 256, run: several_network_cards },
    Case { name: "operation/guest-agent-s-clients-come-and-go", memory: 256, run: agent_clients },
    Case { name: "operation/without-a-guest-agent", memory: 256, run: without_guest_agent },
];

/// From the request to the end of QEMU, with a container that does not listen.
const POWER_OFF: Duration = Duration::from_secs(10);

fn powers_off_in_time(bench: &Bench) -> Result<()> {
    let script = "trap '' TERM INT HUP; echo done > /tmp/done; while true; do sleep 1; done";
    let archive = bench.shell_image("localhost/deaf:1", script)?.docker_archive();
    let files = Files::new()
        .with("berth.toml", "[containers.deaf]\nimage = \"localhost/deaf:1\"\n")
        .with("images/deaf.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("deaf", "/tmp/done")?;
    machine.guest.shutdown("powerdown")?;
    machine.wait_until_off(POWER_OFF)?;
    Ok(())
}

fn reverse_order(bench: &Bench) -> Result<()> {
    // The one that the others need is the quickest to end, so that only the order can make it the last.
    let script = "trap 'usleep $PAUSE; exit 0' TERM; echo done > /tmp/done; while true; do sleep 1000 & wait; done";
    let archive = bench.shell_image("localhost/a:1", script)?.docker_archive();
    let container = |name: &str, pause: u32, needs: &str| {
        format!(
            "[containers.{name}]\nimage = \"localhost/a:1\"\ndepends_on = [{needs}]\n\
             environment = {{ PAUSE = \"{pause}\" }}\nstop_grace_period = \"30s\"\n"
        )
    };
    let configuration = container("front", 1_000_000, "\"web\", \"db\"")
        + &container("web", 500_000, "\"db\"")
        + &container("db", 0, "");
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    for name in ["front", "web", "db"] {
        machine.guest.read_in(name, "/tmp/done")?;
    }
    let mark = machine.console.mark();
    machine.qmp.press_power_button()?;
    let mut left = vec!["container front exited", "container web exited", "container db exited"];
    while let Some(next) = left.first().copied() {
        let is_end = |line: &str| left.iter().any(|end| line.contains(end));
        let line = machine.console.wait_for_line(mark, wait::ANSWER, is_end)?;
        ensure!(line.contains(next), "{line} comes before {next}");
        left.remove(0);
    }
    machine.wait_until_off(wait::ANSWER).map(drop)
}

fn poweroff_on_the_console(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    // The prompt may be followed by the shell's question to the terminal for the cursor's place.
    let is_prompt = |line: &str| line.contains("@berth:") && line.contains("# ");
    machine.console.wait_for_line(Mark::default(), wait::ANSWER, is_prompt)?;
    machine.console.type_text("poweroff\r")?;
    machine.wait_until_off(wait::ANSWER)?;
    Ok(())
}

/// The keys start the machine again in order, and the next boot knows.
fn ctrl_alt_del(bench: &Bench) -> Result<()> {
    let archive = bench
        .shell_image("localhost/a:1", "trap 'exit 0' TERM; echo > /tmp/done; while true; do usleep 100000; done")?;
    let files = Files::new()
        .with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n")
        .with("images/a.tar", archive.docker_archive());
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    // Before it has set its trap, its end would be another.
    machine.guest.read_in("a", "/tmp/done")?;
    let mark = machine.console.mark();
    machine.qmp.press_ctrl_alt_del()?;
    machine.console.wait_for(mark, wait::ANSWER, "container a exited with code 0")?;
    machine.wait_until_settled_after(mark)?;
    machine.guest.wait()?;
    let boots = machine.guest.berth(&["boot", "--list"])?;
    ensure!(boots[0]["reason"] == "reboot, by Ctrl-Alt-Del", "{boots}");
    Ok(())
}

fn orphans(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().processors(2).start()?;
    machine.wait_until_settled()?;
    // Each inner shell ends and leaves 1,000 children at once to PID 1, nearly all of them dead: 100,000 in all, for which
    // emulated processors would need half an hour (`berth-bench host` leaves so many to PID 1 on this host's).
    let leave = "i=0; while [ $i -lt 1000 ]; do : & i=$((i+1)); done";
    for _ in 0..if bench.is_emulated() { 5 } else { 50 } {
        machine.guest.shell(&format!("sh -c '{leave}' & sh -c '{leave}'; wait"))?;
        machine.guest.berth(&["status"])?;
    }
    let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ' || true";
    let deadline = std::time::Instant::now() + wait::ANSWER;
    loop {
        let left = machine.guest.shell(zombies)?;
        if left.trim() == "0" {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{} zombies are left", left.trim());
    }
}

/// Sockets of /proc/net that take packets from elsewhere, as `protocol address:port` in the kernel's hexadecimal form.
const LISTENERS: &str = "for p in tcp tcp6 udp udp6 raw raw6; do [ -e /proc/net/$p ] && \
    while read n local remote state rest; do case $p/$state in tcp*/0A|udp*/07|raw*/07) echo $p $local;; esac; done \
    < /proc/net/$p; done; true";

/// The DHCP clients' ports, 68 and 546: where answers to what the machine itself asked arrive.
const DHCP_CLIENTS: [&str; 2] = ["0044", "0222"];

fn listeners(machine: &mut crate::machine::Machine) -> Result<Vec<String>> {
    let text = machine.guest.shell(LISTENERS)?;
    let is_client = |line: &str| {
        line.starts_with("udp") && line.rsplit_once(':').is_some_and(|(_, port)| DHCP_CLIENTS.contains(&port))
    };
    // The machine's own resolver, at 127.0.0.53: nothing comes there from elsewhere.
    let is_local = |line: &str| line.ends_with(" 3500007F:0035");
    Ok(text.lines().filter(|line| !is_client(line) && !is_local(line)).map(str::to_owned).collect())
}

fn nothing_listens(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    let found = listeners(&mut machine)?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

fn only_published(bench: &Bench) -> Result<()> {
    let files = Files::new()
        .with("berth.toml", "[containers.web]\nimage = \"localhost/web:1\"\nports = [\"8080:80\"]\n")
        .with("images/web.tar", bench.web_image("localhost/web:1", "page")?.docker_archive());
    let mut machine = bench.machine().user_data(&files)?.forward(8080).forward(80).start()?;
    machine.wait_until_ready()?;
    let (published, other) = (machine.forwarded(8080)?, machine.forwarded(80)?);
    ensure!(page::fetch(published, "/", wait::ANSWER)? == "page", "the published port");
    ensure!(page::fetch(other, "/", Duration::from_secs(5)).is_err(), "the container's port is open on the machine");
    // The containers' resolver: port 53 (0x35) of the bridge's two addresses, over UDP and TCP, bound to the bridge.
    // 172.30.0.1 and fd…::1, as /proc/net has them.
    let of_bridge = |line: &str| line.contains(" 01001EAC:") || line.contains("FD0000") && line.contains("01000000:");
    let (resolver, found): (Vec<String>, Vec<String>) =
        listeners(&mut machine)?.into_iter().partition(|line| line.ends_with(":0035") && of_bridge(line));
    ensure!(found.is_empty() && resolver.len() == 4, "{found:?} {resolver:?}");
    Ok(())
}

fn no_network_card(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "echo done > /tmp/done; exec sleep 100000")?.docker_archive();
    let files =
        Files::new().with("berth.toml", "[containers.a]\nimage = \"localhost/a:1\"\n").with("images/a.tar", archive);
    let mut machine = bench.machine().nics(Vec::new()).user_data(&files)?.start()?;
    let line = machine.wait_until_settled()?;
    ensure!(line.contains("degraded"), "the machine finds nothing wrong: {line}");
    let status = machine.guest.berth(&["status"])?;
    ensure!(status["problems"].to_string().contains("no network card"), "{status}");
    machine.guest.read_in("a", "/tmp/done")?;
    Ok(())
}

fn several_network_cards(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().nics(vec![Nic::default(), Nic::default(), Nic::default()]).start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_leases(3)
}

fn without_guest_agent(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().without_guest_agent().start()?;
    machine.wait_until_ready()?;
    ensure!(machine.qmp.status()? == "running", "the machine does not run");
    Ok(())
}

/// The kernel learns of a client and of its first bytes through different queues; an agent that answers the bytes
/// before it knows of the client must not lose the answer (it did, about once in ten times).
fn agent_clients(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    for _ in 0..60 {
        machine.guest.wait()?;
    }
    ensure!(machine.guest.repeated == 0, "{} questions were not answered", machine.guest.repeated);
    Ok(())
}
