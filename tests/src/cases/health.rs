//! Health checks: by a program, a page and a port; and who waits for them.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "health/program", memory: 256, run: program },
    Case { name: "health/page-and-port", memory: 256, run: page_and_port },
    Case { name: "health/program-that-hangs", memory: 256, run: hangs },
];

/// Waits until the container's health is this.
fn wait_for_health(machine: &mut Machine, name: &str, health: &str) -> Result<()> {
    let script = format!("until berth inspect {name} | grep -q '\"health\": \"{health}\"'; do :; done");
    machine.guest.shell(&script).map(drop)
}

fn program(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n\
        [containers.a.health]\nexec = [\"sh\", \"-c\", \"echo the file is missing; test -e /tmp/well\"]\n\
        interval = \"200ms\"\nretries = 2\n\
        [containers.b]\nimage = \"localhost/a:1\"\ndepends_on = [\"a\"]\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.guest.wait()?;
    wait_for_health(&mut machine, "a", "unhealthy")?;
    let a = machine.guest.container("a")?;
    ensure!(a["state"] == "unhealthy" && a["reason"].to_string().contains("the file is missing"), "{a}");
    let b = machine.guest.container("b")?;
    ensure!(b["state"] == "waiting" && b["reason"].to_string().contains("not healthy yet"), "{b}");
    machine.guest.shell("berth exec a touch /tmp/well")?;
    machine.guest.wait_for_state("b", "running")?;
    let a = machine.guest.container("a")?;
    ensure!(a["state"] == "running" && a["health"] == "healthy" && a["reason"] == "", "{a}");
    // What runs by then does not care.
    machine.guest.shell("berth exec a rm /tmp/well")?;
    wait_for_health(&mut machine, "a", "unhealthy")?;
    ensure!(machine.guest.container("b")?["state"] == "running", "b was stopped");
    let problems = machine.guest.berth(&["status"])?["problems"].to_string();
    ensure!(problems.contains("container a") && problems.contains("health check"), "{problems}");
    Ok(())
}

fn page_and_port(bench: &Bench) -> Result<()> {
    let web = bench.web_image("localhost/web:1", "page")?.docker_archive();
    let container = |name: &str, check: &str| {
        format!(
            "[containers.{name}]\nimage = \"localhost/web:1\"\n[containers.{name}.health]\n{check}\ninterval = \"200ms\"\n"
        )
    };
    let configuration = [
        container("page", "http = \"http://127.0.0.1/\""),
        container("missing", "http = \"http://127.0.0.1/nothing\""),
        container("port", "tcp = 80"),
        container("closed", "tcp = 81"),
    ]
    .concat();
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/web.tar", web);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.guest.wait()?;
    for (name, health, reason) in [
        ("page", "healthy", ""),
        ("port", "healthy", ""),
        ("missing", "unhealthy", "status 404"),
        ("closed", "unhealthy", "refused"),
    ] {
        wait_for_health(&mut machine, name, health)?;
        let container = machine.guest.container(name)?;
        ensure!(container["reason"].to_string().contains(reason), "{container}");
    }
    Ok(())
}

fn hangs(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n\
        [containers.a.health]\nexec = [\"sleep\", \"54321\"]\ninterval = \"200ms\"\ntimeout = \"500ms\"\nretries = 2\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.guest.wait()?;
    wait_for_health(&mut machine, "a", "unhealthy")?;
    let a = machine.guest.container("a")?;
    ensure!(a["reason"].to_string().contains("longer than 500ms"), "{a}");
    // At most the one that is being given up and the present one.
    let left = machine.guest.count_processes("sleep 54321")?;
    ensure!(left <= 2, "{left} checks are there");
    Ok(())
}
