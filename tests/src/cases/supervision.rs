//! Jobs: who waits for them, and containers that run when their time comes.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "supervision/jobs", memory: 256, run: jobs },
    Case { name: "supervision/timers", memory: 256, run: timers },
    Case { name: "supervision/every-state", memory: 256, run: every_state },
];

fn jobs(bench: &Bench) -> Result<()> {
    let job = bench.shell_image("localhost/job:1", "echo run >> /data/runs")?;
    let broken = bench.shell_image("localhost/broken:1", "exit 3")?;
    let web = bench.shell_image("localhost/web:1", "exec sleep 100000")?;
    let configuration = "[containers.migrate]\nimage = \"localhost/job:1\"\nrestart = \"on-failure\"\n\
        volumes = [\"runs:/data\"]\n\
        [containers.broken]\nimage = \"localhost/broken:1\"\nrestart = \"no\"\n\
        [containers.web]\nimage = \"localhost/web:1\"\ndepends_on = { migrate = { condition = \"completed\" } }\n\
        [containers.late]\nimage = \"localhost/web:1\"\n\
        depends_on = { broken = { condition = \"service_completed_successfully\" } }\n";
    let files = Files::new()
        .with("berth.toml", configuration)
        .with("images/job.tar", job.docker_archive())
        .with("images/broken.tar", broken.docker_archive())
        .with("images/web.tar", web.docker_archive());
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait_for_state("web", "running")?;
    let migrate = machine.guest.container("migrate")?;
    ensure!(migrate["state"] == "stopped" && migrate["exit_code"] == 0, "{migrate}");
    machine.guest.wait_for_state("broken", "failed")?;
    let late = machine.guest.wait_for_state("late", "waiting")?;
    ensure!(late["reason"] == "waits for broken, which failed", "{late}");
    let problems = machine.guest.berth(&["status"])?["problems"].to_string();
    ensure!(problems.contains("container broken") && problems.contains("container late"), "{problems}");
    Ok(())
}

fn timers(bench: &Bench) -> Result<()> {
    let job = bench.shell_image("localhost/job:1", "echo run")?.docker_archive();
    let configuration = "[containers.often]\nimage = \"localhost/job:1\"\nevery = \"1s\"\n\
        [containers.daily]\nimage = \"localhost/job:1\"\nschedule = \"0 3 * * *\"\n";
    let files = Files::new().with("berth.toml", configuration).with("images/job.tar", job);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    // Three runs, each after a rest.
    machine.guest.shell("until [ $(berth logs often | grep -c run) -ge 3 ]; do :; done")?;
    let often = machine.guest.wait_for_state("often", "waiting")?;
    ensure!(often["reason"].to_string().contains("next at"), "{often}");
    let daily = machine.guest.container("daily")?;
    ensure!(daily["state"] == "waiting" && daily["reason"].to_string().contains("03:00:00 UTC"), "{daily}");
    // A correction of the clock finds the time anew and makes up for nothing.
    machine.guest.shell("date -u -s '2031-05-05 12:00:00'")?;
    machine.guest.shell("until berth inspect daily | grep -q 'next at 2031-05-06 03:00:00 UTC'; do :; done")?;
    // An hour too early, then a small step over the time.
    machine.guest.shell("date -u -s '2031-05-06 02:00:00'")?;
    machine.guest.shell("until berth inspect daily | grep -q 'next at 2031-05-06 03:00:00 UTC'; do :; done")?;
    let runs = machine.guest.shell("berth logs daily | grep -c run; true")?;
    ensure!(runs.trim() == "0", "daily has run {runs} times");
    machine.guest.shell("date -u -s '2031-05-06 03:00:01'")?;
    machine.guest.shell("until berth inspect daily | grep -q 'next at 2031-05-07 03:00:00 UTC'; do :; done")?;
    let runs = machine.guest.shell("berth logs daily | grep -c run; true")?;
    ensure!(runs.trim() == "1", "daily has run {runs} times");
    Ok(())
}

/// One that is ill or ends when it is told so, one that waits for it, and one that gives up.
const LIFE: &str = r#"
    [containers.life]
    image = "localhost/a:1"
    command = ["sh", "-c", "trap 'exit 0' TERM; while [ ! -e /tmp/end ]; do usleep 50000; done; rm /tmp/end; exit 3"]
    restart = "on-failure"
    [containers.life.health]
    exec = ["sh", "-c", "! test -e /tmp/ill"]
    interval = "200ms"
    retries = 1
    [containers.after]
    image = "localhost/a:1"
    depends_on = { life = { condition = "healthy" } }
    [containers.broken]
    image = "localhost/a:1"
    command = ["sh", "-c", "exit 3"]
    restart = "no"
"#;

/// The states that a container has been in, one after the other.
fn states(machine: &mut Machine, name: &str) -> Result<Vec<String>> {
    let lines = machine.guest.shell(&format!("berth events --since 1d --until 0s --json {name}"))?;
    let state = |line: &str| -> Result<String> {
        Ok(serde_json::from_str::<Value>(line)?["state"].as_str().unwrap_or_default().to_owned())
    };
    let mut states = lines.lines().map(state).collect::<Result<Vec<_>>>()?;
    states.dedup();
    Ok(states)
}

fn every_state(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let files = Files::new().with("berth.toml", LIFE).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_settled()?;
    machine.guest.wait()?;
    machine.guest.wait_for_state("after", "running")?;
    for (command, state) in [
        ("berth exec life touch /tmp/ill", "unhealthy"),
        ("berth exec life rm /tmp/ill", "running"),
        ("berth pause life", "paused"),
        ("berth unpause life", "running"),
        ("berth exec life touch /tmp/end; until berth inspect life | grep -q '\"restarts\": 1'; do :; done", "running"),
        ("berth stop life", "stopped"),
    ] {
        machine.guest.shell(command)?;
        machine.guest.wait_for_state("life", state)?;
    }
    let life = "running unhealthy running paused running backoff running stopping stopped";
    for (name, expected) in [("life", life), ("after", "waiting running"), ("broken", "running failed")] {
        let seen = states(&mut machine, name)?;
        let mut left = seen.iter();
        let in_order = expected.split(' ').all(|state| left.any(|seen| seen == state));
        ensure!(in_order, "{name} has been {seen:?} instead of {expected}");
    }
    Ok(())
}
