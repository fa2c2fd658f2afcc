//! Containers that take more than there is: the machine answers, and who is to blame is named.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::archive::Image;
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Builder, Machine, Mark};
use crate::programs;
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "pressure/memory-hog", memory: 256, run: memory_hog },
    Case { name: "pressure/own-memory-limit", memory: 256, run: own_limit },
    Case { name: "pressure/fork-bomb", memory: 256, run: fork_bomb },
    Case { name: "pressure/descriptor-hog", memory: 256, run: descriptor_hog },
    Case { name: "pressure/descriptors-are-memory", memory: 128, run: descriptors_are_memory },
    Case { name: "pressure/log-flood", memory: 256, run: log_flood },
    Case { name: "pressure/memory-is-reserved", memory: 256, run: reserved },
];

/// The image of a container that does what `script` says once /tmp/go is there.
fn hog(bench: &Bench, script: &str) -> Result<Image> {
    bench.shell_image("localhost/hog:1", &format!("while [ ! -e /tmp/go ]; do usleep 50000; done; {script}"))
}

/// A machine with a container that behaves and one of this image, with these settings.
fn beside(bench: &Bench, hog: &Image, settings: &str) -> Result<Machine> {
    beside_in(bench.machine(), bench, hog, settings)
}

fn beside_in(machine: Builder, bench: &Bench, hog: &Image, settings: &str) -> Result<Machine> {
    let hog = hog.docker_archive();
    let good = bench.shell_image("localhost/good:1", "echo done > /tmp/done; exec sleep 100000")?.docker_archive();
    let configuration = format!(
        "[containers.hog]\nimage = \"localhost/hog:1\"\nrestart = \"no\"\n{settings}\
         [containers.good]\nimage = \"localhost/good:1\"\n"
    );
    let files = Files::new()
        .with("berth.toml", configuration.as_str())
        .with("images/hog.tar", hog)
        .with("images/good.tar", good);
    let mut machine = machine.user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.read_in("good", "/tmp/done")?;
    Ok(machine)
}

/// Where the hog's limits and counts are.
const CGROUP: &str = "/sys/fs/cgroup/user/hog";

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

/// What PID 1 says when it ends the hog for the machine's memory.
const KILLED: &str = "container hog is killed: the machine runs out of memory";

/// Looks that PID 1 has ended the hog for the machine's memory, before the kernel had to choose.
fn was_ended_for_memory(machine: &mut Machine) -> Result<()> {
    let hog = until_it_ends(machine)?;
    let reason = hog["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("machine ran out of memory: it used 1"), "{hog}");
    let console = machine.console.text();
    ensure!(console.contains(KILLED), "PID 1 was too slow");
    ensure!(!console.contains("Out of memory"), "the kernel had to kill");
    is_well(machine)
}

fn memory_hog(bench: &Bench) -> Result<()> {
    // Anonymous memory, a MiB after the other, as a leak grows.
    let mut machine = beside(bench, &hog(bench, "exec tail /dev/zero")?, "")?;
    go(&mut machine)?;
    was_ended_for_memory(&mut machine)
}

fn own_limit(bench: &Bench) -> Result<()> {
    // A text that becomes twice as long each time: at the limit long before PID 1 could look.
    let mut machine = beside(bench, &hog(bench, "x=x; while true; do x=$x$x; done")?, "memory = \"16M\"\n")?;
    go(&mut machine)?;
    let hog = until_it_ends(&mut machine)?;
    ensure!(hog["exit_code"] == 137, "{hog}");
    ensure!(hog["reason"] == "was killed by SIGKILL: it reached its memory limit", "{hog}");
    let why = machine.guest.shell("berth why hog")?;
    ensure!(why.contains("it reached its memory limit"), "{why}");
    ensure!(why.contains("memory = \"16M\" (berth.toml:4)"), "{why}");
    let console = machine.console.text();
    ensure!(!console.contains("the machine runs out of memory"), "PID 1 took it for the machine's limit");
    is_well(&mut machine)
}

/// So many tasks the bomb may have. Those that it may have without this would take more memory than the machine has.
const TASKS: &str = "256";

/// Inside a container it fills the limit of tasks, and goes on trying: a shell would end when it cannot fork.
fn fork_bomb(bench: &Bench) -> Result<()> {
    let bomb =
        hog(bench, "exec /usr/bin/perl -e 'fork while 1'")?.layer(programs::layer(&["perl"], &bench.path("root"))?);
    let mut machine = beside(bench, &bomb, &format!("pids_limit = {TASKS}\n"))?;
    go(&mut machine)?;
    machine.guest.shell(&format!("until grep -q 'max [1-9]' {CGROUP}/pids.events; do usleep 100000; done"))?;
    let tasks = machine.guest.read(&format!("{CGROUP}/pids.current"))?;
    ensure!(tasks.trim() == TASKS, "it has {tasks} tasks");
    stays_well(&mut machine)
}

/// So many processes of [`DESCRIPTORS`] …
const PROCESSES: usize = 4;

/// … with so many files each have more than the kernel lets a machine of 256 MiB have, if nobody sets `fs.file-max`.
const FILES: usize = 16_384;

/// Opens all that it may.
const DESCRIPTORS: &str = include_str!("pressure/descriptors.pl");

/// Many of that, each of which may open so many files.
fn descriptors(bench: &Bench, processes: usize, files: usize) -> Result<Image> {
    let script = format!(
        "ulimit -n {files}; i=0; while [ $((i+=1)) -le {processes} ]; do /usr/bin/perl /descriptors.pl & done; wait"
    );
    let layer = programs::layer(&["perl"], &bench.path("root"))?;
    Ok(hog(bench, &script)?.layer(layer.file("descriptors.pl", 0o644, DESCRIPTORS.as_bytes())))
}

fn descriptor_hog(bench: &Bench) -> Result<()> {
    let mut machine = beside(bench, &descriptors(bench, PROCESSES, FILES)?, "")?;
    go(&mut machine)?;
    let all_have =
        format!("until [ $(berth logs hog | grep -c files) = {PROCESSES} ]; do sleep 1; done; berth logs hog");
    let said = machine.guest.shell(&all_have)?;
    // Its own limit has stopped each, and not the machine's, of which others would have nothing left.
    ensure!(said.lines().all(|line| line.ends_with("files: Too many open files")), "{said}");
    let open = machine.guest.read("/proc/sys/fs/file-nr")?;
    let open: usize = open.split_whitespace().next().unwrap_or_default().parse()?;
    ensure!(open > PROCESSES * (FILES - 16), "only {open} files are open");
    stays_well(&mut machine)
}

/// Who has so many files that the machine has no more memory is ended as any other that takes it, and nobody else. The less
/// memory, the fewer files; and nobody asks meanwhile, for the emulated processor has enough to do with those.
fn descriptors_are_memory(bench: &Bench) -> Result<()> {
    let hog = descriptors(bench, 8, 524_288)?;
    let mut machine = beside_in(bench.machine().memory(128), bench, &hog, "")?;
    go(&mut machine)?;
    machine.console.wait_for(Mark::default(), 3 * wait::BOOT, KILLED)?;
    let hog = machine.guest.wait_for_state("hog", "failed")?;
    ensure!(hog["reason"].as_str().is_some_and(|reason| reason.contains("machine ran out of memory")), "{hog}");
    ensure!(!machine.console.text().contains("Out of memory"), "the kernel had to kill");
    is_well(&mut machine)
}

/// The most that the log of one container may take, in bytes.
const LOG: u64 = 1 << 20;

fn log_flood(bench: &Bench) -> Result<()> {
    // Many lines, and much that does not become smaller by compression, or the bound would not be reached for hours.
    let flood = "echo begin; while true; do yes this line comes again | head -n 10000; \
                 head -c 100000 /dev/urandom | base64; done";
    let mut machine = beside(bench, &hog(bench, flood)?, &format!("[logs]\nsize = {LOG}\n"))?;
    go(&mut machine)?;
    // Once the oldest is gone it has been at its bound, and stays there.
    machine.guest.shell("until berth logs hog | head -n 1 | grep -qv begin; do usleep 500000; done")?;
    for _ in 0..5 {
        let sizes = machine.guest.shell("cat /var/lib/berth/logs/hog/* | wc -c")?;
        let size: u64 = sizes.trim().parse()?;
        // A piece of it is an eighth; the one that is being compressed is there twice.
        ensure!((LOG / 2..=LOG + LOG / 4).contains(&size), "{size} bytes of a log that may have {LOG}");
    }
    stays_well(&mut machine)
}

/// The machine answers beside the hog, and lets it be ended.
fn stays_well(machine: &mut Machine) -> Result<()> {
    for _ in 0..10 {
        is_well(machine)?;
    }
    machine.guest.shell("berth exec good true; berth logs --tail 3 hog; berth kill hog")?;
    machine.guest.wait_for_state("hog", "stopped")?;
    is_well(machine)
}

fn reserved(bench: &Bench) -> Result<()> {
    let mut machine = beside(bench, &hog(bench, "true")?, "")?;
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
