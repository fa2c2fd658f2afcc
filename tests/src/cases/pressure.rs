//! Containers that take more than there is: the machine answers, and who is to blame is named.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "pressure/memory-hog", memory: 256, run: memory_hog },
    Case { name: "pressure/fork-bomb", memory: 256, run: fork_bomb },
    Case { name: "pressure/descriptor-hog", memory: 256, run: descriptor_hog },
    Case { name: "pressure/log-flood", memory: 256, run: log_flood },
    Case { name: "pressure/memory-is-reserved", memory: 256, run: reserved },
];

/// A machine with a container that behaves and one that does what `script` says once /tmp/go is there.
fn beside(bench: &Bench, script: &str) -> Result<Machine> {
    let waits = format!("while [ ! -e /tmp/go ]; do usleep 50000; done; {script}");
    let hog = bench.shell_image("localhost/hog:1", &waits)?.docker_archive();
    let good = bench.shell_image("localhost/good:1", "echo done > /tmp/done; exec sleep 100000")?.docker_archive();
    let configuration = "[containers.hog]\nimage = \"localhost/hog:1\"\nrestart = \"no\"\n\
                         [containers.good]\nimage = \"localhost/good:1\"\n";
    let files =
        Files::new().with("berth.toml", configuration).with("images/hog.tar", hog).with("images/good.tar", good);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("good", "/tmp/done")?;
    Ok(machine)
}

fn go(machine: &mut Machine) -> Result<()> {
    machine.guest.wait_for_state("hog", "running")?;
    // By the container's own hand: the machine's root has no id in there.
    machine.guest.shell("berth exec hog touch /tmp/go").map(drop)
}

/// The API answers, system containers were not restarted, and the other container lives.
fn is_well(machine: &mut Machine) -> Result<()> {
    machine.guest.berth(&["status"])?;
    let list = machine.guest.berth(&["ps", "--all"])?;
    for container in list.as_array().into_iter().flatten().filter(|container| container["name"] != "hog") {
        ensure!(container["restarts"] == 0, "{container}");
        ensure!(container["state"] == "running", "{container}");
    }
    Ok(())
}

/// The shell on the console does what is typed there.
fn console_answers(machine: &mut Machine) -> Result<()> {
    let mark = machine.console.mark();
    // What is typed is echoed; the sum is not in it.
    machine.console.type_text("echo sum $((40 + 2))\r")?;
    machine.console.wait_for(mark, wait::ANSWER, "sum 42").map(drop)
}

/// Asks again and again until the hog has ended, and looks that everything else is well each time.
fn until_it_ends(machine: &mut Machine) -> Result<Value> {
    // What eats memory bit by bit takes emulated processors minutes, beside those questions.
    let deadline = Instant::now() + 3 * wait::BOOT;
    loop {
        is_well(machine)?;
        console_answers(machine)?;
        let hog = machine.guest.container("hog")?;
        if hog["state"] == "failed" {
            return Ok(hog);
        }
        ensure!(Instant::now() < deadline, "the hog lives on: {hog}");
    }
}

fn memory_hog(bench: &Bench) -> Result<()> {
    // Anonymous memory, a MiB after the other, as a leak grows.
    let mut machine = beside(bench, "exec tail /dev/zero")?;
    go(&mut machine)?;
    let hog = until_it_ends(&mut machine)?;
    let reason = hog["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("machine ran out of memory: it used 1"), "{hog}");
    // By PID 1's choice, before the kernel had to make one.
    let console = machine.console.text();
    ensure!(console.contains("container hog is killed: the machine runs out of memory"), "PID 1 was too slow");
    ensure!(!console.contains("Out of memory"), "the kernel had to kill");
    is_well(&mut machine)
}

/// Inside a container it fills the limit of 2,048 tasks that every container has, and goes on trying.
fn fork_bomb(bench: &Bench) -> Result<()> {
    stays_well(bench, "bomb() { bomb | bomb & }; bomb; while true; do bomb; done")
}

fn descriptor_hog(bench: &Bench) -> Result<()> {
    let opens = "ulimit -n 524288; i=3; while eval \"exec $i< /dev/null\"; do i=$((i+1)); done; exec sleep 100000";
    stays_well(bench, &format!("for n in 1 2 3 4; do ({opens}) & done; wait"))
}

fn log_flood(bench: &Bench) -> Result<()> {
    stays_well(bench, "exec yes this line comes again and again")
}

/// The machine answers beside a container that does this, and lets it be ended.
fn stays_well(bench: &Bench, script: &str) -> Result<()> {
    let mut machine = beside(bench, script)?;
    go(&mut machine)?;
    for _ in 0..10 {
        is_well(&mut machine)?;
    }
    machine.guest.shell("berth exec good true; berth kill hog")?;
    machine.guest.wait_for_state("hog", "stopped")?;
    is_well(&mut machine)
}

fn reserved(bench: &Bench) -> Result<()> {
    let mut machine = beside(bench, "true")?;
    let mut number = |path: &str| -> Result<u64> { Ok(machine.guest.read(path)?.trim().parse()?) };
    let reserve = number("/sys/fs/cgroup/system/memory.min")?;
    let most = number("/sys/fs/cgroup/user/memory.max")?;
    ensure!(reserve >= 16 << 20, "{reserve} bytes are reserved");
    ensure!(most + reserve < 256 << 20, "{most} bytes for user containers beside {reserve}");
    ensure!(number("/sys/fs/cgroup/user/memory.high")? < most, "nobody is slowed down");
    let pid = machine.guest.container("good")?["pid"].clone();
    ensure!(machine.guest.read(&format!("/proc/{pid}/oom_score_adj"))?.trim() == "100", "good's score");
    let pid = machine.guest.container("control")?["pid"].clone();
    ensure!(machine.guest.read(&format!("/proc/{pid}/oom_score_adj"))?.trim() == "-900", "control's score");
    // The next program of PID 1 watches too.
    machine.guest.shell("berth reexec")?;
    machine.guest.shell("berth start hog; berth status").map(drop)
}
