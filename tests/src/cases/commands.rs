//! What the `berth` command tells of containers, and waits for.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "commands/inspect-wait-events", memory: 256, run: follow },
    Case { name: "commands/stats", memory: 256, run: stats },
    Case { name: "commands/logs-of-kernel-and-init", memory: 256, run: system_logs },
];

fn follow(bench: &Bench) -> Result<()> {
    let script = "while [ ! -e /tmp/go ]; do sleep 1; done; exit 3";
    let job = bench.shell_image("localhost/job:1", script)?.docker_archive();
    let other = bench.shell_image("localhost/other:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.job]\nimage = \"localhost/job:1\"\nrestart = \"no\"\n\
        [containers.other]\nimage = \"localhost/other:1\"\n";
    let files =
        Files::new().with("berth.toml", configuration).with("images/job.tar", job).with("images/other.tar", other);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let inspected = machine.guest.berth(&["inspect", "job", "engine"])?;
    ensure!(inspected[0]["state"] == "running" && inspected[1]["kind"] == "system", "{inspected}");
    let (definition, prepared) = (&inspected[0]["definition"], &inspected[0]["prepared"]);
    ensure!(definition["image"] == "localhost/job:1" && definition["restart"] == "no", "{definition}");
    ensure!(prepared["arguments"].is_array() && inspected[1]["definition"].is_object(), "{inspected}");
    let status = machine.guest.shell("berth inspect -f '{{.State.Status}} {{.definition.restart}}' job")?;
    ensure!(status == "running no\n", "{status}");
    // The job's end is told to those who listen, so something happens until the first event has come.
    let script = "berth events --json > /run/events & events=$!; berth wait job > /run/code & wait=$!; \
        until [ -s /run/events ]; do berth restart other > /dev/null; done; \
        berth exec job touch /tmp/go; wait $wait; until grep -q '\"state\":\"failed\"' /run/events; do :; done; \
        kill $events; cat /run/code";
    ensure!(machine.guest.shell(script)?.trim() == "3", "another code");
    let text = machine.guest.read("/run/events")?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let end = events.iter().find(|event| event["name"] == "job").with_context(|| format!("no event: {text}"))?;
    ensure!(end["state"] == "failed" && end["exit_code"] == 3, "{end}");
    // What is over can be asked for.
    let asked = "berth events --json --since 1h --until 0s -f event=failed -f event=running job";
    let past = machine.guest.shell(asked)?;
    let past = past.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let mut states: Vec<_> = past.iter().map(|event| event["state"].as_str().unwrap_or_default()).collect();
    states.dedup();
    ensure!(states == ["running", "failed"] && past.iter().all(|event| event["time"].is_string()), "{past:?}");
    let why = machine.guest.shell("berth why job")?;
    ensure!(why.contains("restart = \"no\" (berth.toml:3)") && why.contains("and exited with code 3"), "{why}");
    // One that has ended is not waited for.
    ensure!(machine.guest.shell("berth wait job")?.trim() == "3", "another code");
    // One that is gone is told of by our word and found by docker's.
    machine.guest.shell("berth create --name tool localhost/job:1 && berth rm tool")?;
    let removed = machine.guest.shell("berth events --since 1h --until 0s -f container=tool -f event=destroy")?;
    ensure!(removed.trim_end().ends_with(" tool removed") && removed.lines().count() == 1, "{removed}");
    Ok(())
}

fn stats(bench: &Bench) -> Result<()> {
    let busy = bench.shell_image("localhost/busy:1", "while true; do :; done")?.docker_archive();
    let idle = bench.shell_image("localhost/idle:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.busy]\nimage = \"localhost/busy:1\"\nmemory = \"32M\"\n\
        [containers.idle]\nimage = \"localhost/idle:1\"\n";
    let files =
        Files::new().with("berth.toml", configuration).with("images/busy.tar", busy).with("images/idle.tar", idle);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    let (busy, idle) = (row(&mut machine, "busy")?, row(&mut machine, "idle")?);
    let percent = |row: &Value| row["cpu_percent"].as_f64().unwrap_or(-1.0);
    ensure!(percent(&busy) > 4.0 * percent(&idle) && percent(&idle) >= 0.0, "{busy} {idle}");
    ensure!(busy["memory_limit_bytes"] == 32 << 20 && idle["memory_limit_bytes"].is_null(), "{busy} {idle}");
    ensure!(idle["tasks"] == 1 && idle["memory_bytes"].as_u64() > Some(4096), "{idle}");
    machine.guest.shell("berth stop idle")?;
    ensure!(row(&mut machine, "idle").is_err(), "it does not run");
    let stopped = machine.guest.berth(&["stats", "--no-stream", "--all", "idle"])?;
    ensure!(stopped[0]["name"] == "idle" && stopped[0]["tasks"] == 0, "{stopped}");
    Ok(())
}

fn row(machine: &mut Machine, name: &str) -> Result<Value> {
    let rows = machine.guest.berth(&["stats", "--no-stream", name])?;
    rows.get(0).cloned().with_context(|| format!("no row for {name}"))
}

fn system_logs(bench: &Bench) -> Result<()> {
    let mut machine = bench.machine().start()?;
    machine.wait_until_settled()?;
    machine.guest.wait()?;
    // Each comes once, also when `logs` was killed in between and begins anew.
    let pid = machine.guest.container("logs")?["pid"].clone();
    machine.guest.shell(&format!("kill -9 {pid}; echo 'from the case' > /dev/kmsg"))?;
    machine.guest.shell("until berth logs kernel 2>/dev/null | grep -q 'from the case'; do :; done")?;
    let kernel = machine.guest.shell("berth logs kernel")?;
    let init = machine.guest.shell("berth logs init")?;
    let count = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
    ensure!(count(&kernel, "Linux version") == 1 && count(&kernel, "from the case") == 1, "{kernel}");
    ensure!(count(&init, "find state partition") == 1 && count(&init, "container logs is ready") == 2, "{init}");
    ensure!(count(&kernel, "container logs is ready") == 0, "PID 1's lines are in the kernel's log");
    // In the order of their times, which are of this year.
    let stamped = machine.guest.shell("berth logs -t init | cut -d' ' -f1")?;
    let mut times: Vec<&str> = stamped.lines().collect();
    let before = times.clone();
    times.sort_unstable();
    ensure!(times == before && times.first().is_some_and(|time| *time > "2020"), "{stamped}");
    Ok(())
}
