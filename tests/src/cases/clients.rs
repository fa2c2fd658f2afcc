//! Programs that use the control API of a machine, and containers that misuse it.

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "api/programs-of-d-bus", memory: 256, run: programs_of_d_bus },
    Case { name: "api/hostile-containers", memory: 256, run: hostile_containers },
];

const IMAGE: &str = "localhost/a:1";

fn programs_of_d_bus(bench: &Bench) -> Result<()> {
    let layer = programs::layer(&["busctl", "gdbus"], &bench.path("root"))?;
    let archive = bench.image(IMAGE, &["sleep", "100000"])?.layer(layer).docker_archive();
    let configuration =
        "[containers.watcher]\nimage = \"localhost/a:1\"\napi = [\"containers.list\", \"machine.describe\"]\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let mut asked = |words: &str| machine.guest.shell(&format!("berth exec watcher /usr/bin/{words} 2>&1 || true"));
    let seen = asked("busctl --address=unix:path=/run/berth/control.sock introspect org.berth /org/berth")?;
    for expected in ["org.berth.Machine1", "org.berth.Containers1", ".Inspect", ".ContainerChanged"] {
        ensure!(seen.contains(expected), "busctl sees no {expected}: {seen}");
    }
    let address = "--address unix:path=/run/berth/control.sock --dest org.berth --object-path /org/berth";
    let seen = asked(&format!("gdbus call {address} --method org.berth.Containers1.Inspect watcher"))?;
    ensure!(seen.contains("'running'"), "gdbus says {seen}");
    let seen = asked(&format!("gdbus call {address} --method org.berth.Containers1.Stop watcher"))?;
    ensure!(seen.contains("org.berth.Error"), "what was not granted is not refused: {seen}");
    Ok(())
}

/// What is sent before the first message: root, and descriptors (D-Bus specification, "Authentication Protocol").
const BEGIN: &str = "\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";

/// A call without arguments (D-Bus specification, "Message Format"), with a body of this many bytes announced.
fn call(member: &str, body: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    let named = [(1, b'o', "/org/berth"), (2, b's', "org.berth.Containers1"), (3, b's', member)];
    for (code, kind, value) in named {
        fields.resize(usize::next_multiple_of(fields.len(), 8), 0);
        fields.extend([code, 1, kind, 0]);
        fields.extend(u32::try_from(value.len()).unwrap_or_default().to_le_bytes());
        fields.extend(value.as_bytes());
        fields.push(0);
    }
    let mut message = vec![b'l', 1, 0, 1];
    message.extend(body.to_le_bytes());
    message.extend(1_u32.to_le_bytes());
    message.extend(u32::try_from(fields.len()).unwrap_or_default().to_le_bytes());
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message
}

/// The attacks: a file that is sent, and whether the connection stays open after it. Nobody reads an answer.
fn attacks() -> [(&'static str, Vec<u8>); 5] {
    let begun = |rest: Vec<u8>| [BEGIN.as_bytes(), &rest].concat();
    let whole = call("List", 0);
    [
        ("flood", begun(whole.repeat(20_000))),
        ("half", begun(whole[..20].to_vec())),
        ("long", begun(call("List", 127 << 20))),
        ("zero", begun(vec![0; 1 << 20])),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

/// Each attack by eight clients at once, over and over.
const HOSTILE: &str = "cd /attacks; for one in *; do for i in 1 2 3 4 5 6 7 8; do \
    (while true; do (cat $one; sleep 5) | /usr/bin/socat -u - UNIX-CONNECT:/run/berth/control.sock; done) 2>/dev/null & \
    done; done; touch /tmp/begun; wait";

/// What PID 1 has in memory, in KiB.
fn resident(machine: &mut Machine) -> Result<u64> {
    let status = machine.guest.read("/proc/1/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a line VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn hostile_containers(bench: &Bench) -> Result<()> {
    let mut layer = programs::layer(&["socat"], &bench.path("root"))?.folder("attacks");
    for (name, bytes) in attacks() {
        layer = layer.file(&format!("attacks/{name}"), 0o644, &bytes);
    }
    let archive = bench.image(IMAGE, &["sleep", "100000"])?.layer(layer).docker_archive();
    let configuration = "[containers.hostile]\nimage = \"localhost/a:1\"\napi = [\"containers.list\", \"events\"]\n\
        [containers.hostile.security]\nuser_namespace = \"host\"\n\
        [containers.good]\nimage = \"localhost/a:1\"\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    // That it is let in at all: otherwise the rest shows nothing.
    let greeted = "berth exec hostile sh -c '(cat /attacks/half; sleep 1) | /usr/bin/socat - UNIX-CONNECT:/run/berth/control.sock'";
    let greeted = machine.guest.shell(greeted)?;
    ensure!(greeted.contains("OK ") && greeted.contains("AGREE_UNIX_FD"), "the server says {greeted:?}");
    machine.guest.berth(&["ps", "--all"])?;
    let before = resident(&mut machine)?;
    machine.guest.shell(&format!("berth exec --detach hostile sh -c '{HOSTILE}'"))?;
    machine.guest.shell("until berth exec hostile ls /tmp/begun; do :; done")?;
    for _ in 0..20 {
        let good = machine.guest.container("good")?;
        ensure!(good["state"] == "running", "{good}");
    }
    machine.guest.shell("berth restart good")?;
    machine.guest.wait_for_state("good", "running")?;
    let after = resident(&mut machine)?;
    bench.note(&format!("PID 1 has {before} KiB before and {after} KiB under attack"));
    ensure!(after < before + 1024, "PID 1 grew from {before} to {after} KiB");
    let control = machine.guest.container("control")?;
    ensure!(control["restarts"] == 0, "{control}");
    machine.guest.shell("berth kill hostile")?;
    machine.guest.wait_for_state("hostile", "running")?;
    Ok(())
}
