//! The machine's clock: who sets it.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "clock/set-by-a-server", memory: 256, run: set_by_a_server },
    Case { name: "clock/steered-by-a-server", memory: 256, run: steered_by_a_server },
];

/// The machine's time server is a container.
const CONFIGURATION: &str = "
    [network]
    time_servers = [\"10.88.0.7\"]
    [networks.front]
    subnets = [\"10.88.0.0/24\"]
    [containers.clock]
    image = \"localhost/clock:1\"
    networks = { front = { ipv4_address = \"10.88.0.7\" } }
";

/// Answers each question of SNTP with noon of 2027-07-01.
const ANSWER: &str = r#"#!/bin/sh
origin=$(head -c 48 | tail -c 8 | busybox hexdump -v -e '1/1 "\\x%02x"')
noon='\xef\xd0\xb3\x40\x00\x00\x00\x00' nothing='\x00\x00\x00\x00'
printf "\x24\x02\x06\xec$nothing$nothing$nothing$nothing$nothing$origin$noon$noon"
"#;

fn set_by_a_server(bench: &Bench) -> Result<()> {
    let programs = programs::layer(&["socat"], &bench.path("root"))?.file("answer", 0o755, ANSWER.as_bytes());
    let image = bench.image("localhost/clock:1", &["/usr/bin/socat", "UDP-RECVFROM:123,fork", "SYSTEM:/answer"])?;
    let archive = image.layer(programs).docker_archive();
    let files = Files::new().with("berth.toml", CONFIGURATION).with("images/clock.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.clock("1970-01-01T00:00:00").start()?;
    // Degraded, for the clock is wrong.
    machine.wait_until_settled()?;
    machine.guest.shell("until [ $(date +%Y-%m) = 2027-07 ]; do sleep 1; done")?;
    machine.guest.shell("until berth logs init | grep -q 'the clock was [0-9]* s slow'; do sleep 1; done")?;
    let status = machine.guest.shell("berth status")?;
    ensure!(!status.contains("the clock is wrong"), "{status}");
    Ok(())
}

/// A server for a clock that is only a little behind, and a look at how that clock is brought to its time.
const AHEAD: &str = include_str!("clock/ahead.pl");

fn steered_by_a_server(bench: &Bench) -> Result<()> {
    let programs = programs::layer(&["perl"], &bench.path("root"))?.file("ahead.pl", 0o644, AHEAD.as_bytes());
    let archive = bench.image("localhost/clock:1", &["/usr/bin/perl", "/ahead.pl"])?.layer(programs).docker_archive();
    let files = Files::new().with("berth.toml", CONFIGURATION).with("images/clock.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.shell("until berth logs clock | grep -q '^the clock: '; do sleep 1; done")?;
    let seen = machine.guest.shell("berth logs clock")?;
    ensure!(seen.ends_with("the clock: steered\n"), "{seen}");
    let log = machine.guest.shell("berth logs init")?;
    ensure!(!log.contains("the clock was"), "it was set: {log}");
    Ok(())
}
