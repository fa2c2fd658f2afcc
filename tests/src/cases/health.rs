//! Health checks: by a program, a page and a port; and who waits for them.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::archive::Image;
use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::programs;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "health/program", memory: 256, run: program },
    Case { name: "health/page-and-port", memory: 256, run: page_and_port },
    Case { name: "health/program-that-hangs", memory: 256, run: hangs },
    Case { name: "health/program-that-floods", memory: 256, run: floods },
    Case { name: "health/readiness", memory: 256, run: readiness },
    Case { name: "health/of-the-image", memory: 256, run: of_the_image },
];

/// Waits until the container's health is this.
fn wait_for_health(machine: &mut Machine, name: &str, health: &str) -> Result<()> {
    let script = format!("until berth inspect {name} | grep -q '\"health\": \"{health}\"'; do :; done");
    machine.guest.shell(&script).map(drop)
}

/// Until `a` is unhealthy, and says why.
fn wait_for_the_missing_file(machine: &mut Machine) -> Result<()> {
    machine.guest.wait()?;
    wait_for_health(machine, "a", "unhealthy")?;
    let a = machine.guest.container("a")?;
    ensure!(a["state"] == "unhealthy" && a["reason"].to_string().contains("the file is missing"), "{a}");
    Ok(())
}

fn program(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n\
        [containers.a.health]\nexec = [\"sh\", \"-c\", \"echo the file is missing; test -e /tmp/well\"]\n\
        interval = \"200ms\"\nretries = 2\n\
        [containers.b]\nimage = \"localhost/a:1\"\ndepends_on = [\"a\"]\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    wait_for_the_missing_file(&mut machine)?;
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

/// What sd_notify(3) does: AF_UNIX and SOCK_DGRAM are 1 and 2, and so is the family in the address.
const SAYS_READY: &str =
    "socket(S, 1, 2, 0) && send(S, \"STATUS=up\\nREADY=1\", 0, pack(\"S a* x\", 1, $ENV{NOTIFY_SOCKET})) or die $!";

/// One that is to say that it is ready, one that listens when it is, and one that waits for the latter.
fn readiness(bench: &Bench) -> Result<()> {
    // Busybox has nothing that sends to a datagram socket.
    let perl = programs::layer(&["perl"], &bench.path("perl"))?;
    let archive = bench.web_image("localhost/a:1", "page")?.layer(perl).docker_archive();
    let container = |name: &str, keys: &str| format!("[containers.{name}]\nimage = \"localhost/a:1\"\n{keys}\n");
    let script = "until [ -e /tmp/go ]; do usleep 50000; done; exec httpd -f -p 80 -h /www";
    let configuration = container("says", "readiness = \"notify\"\nentrypoint = [\"sleep\", \"100000\"]")
        + &container("listens", &format!("readiness = \"listening:80\"\nentrypoint = [\"sh\", \"-c\", \"{script}\"]"))
        + &container("waits", "depends_on = [\"listens\"]");
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.guest.wait()?;
    for (name, reason) in [("says", "READY=1"), ("listens", "port 80")] {
        machine.guest.shell(&format!("until berth exec {name} true 2>/dev/null; do :; done"))?;
        let container = machine.guest.container(name)?;
        ensure!(container["state"] == "starting" && container["reason"].to_string().contains(reason), "{container}");
    }
    let socket = "berth exec says sh -c 'test -S $NOTIFY_SOCKET -a -w $NOTIFY_SOCKET'";
    machine.guest.shell(socket)?;
    let waits = machine.guest.container("waits")?;
    ensure!(waits["state"] == "waiting" && waits["reason"].to_string().contains("not ready yet"), "{waits}");
    // The next program of PID 1 goes on waiting.
    machine.guest.shell("berth reexec; berth exec listens touch /tmp/go")?;
    machine.guest.wait_for_state("listens", "running")?;
    machine.guest.wait_for_state("waits", "running")?;
    ensure!(machine.guest.container("says")?["state"] == "starting", "nobody has said it");
    machine.guest.shell(&format!("berth exec says /usr/bin/perl -e '{SAYS_READY}'"))?;
    machine.guest.wait_for_state("says", "running")?;
    Ok(())
}

fn hangs(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n\
        [containers.a.health]\nexec = [\"sh\", \"-c\", \"sleep 54321 | cat\"]\ninterval = \"200ms\"\ntimeout = \"500ms\"\nretries = 6\n";
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

/// One that prints more than its container has memory ends as it wants, and its container does not.
fn floods(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\nmemory = \"16M\"\nuser = \"1000\"\n\
        [containers.a.health]\ninterval = \"200ms\"\ntimeout = \"5m\"\nretries = 1\n\
        exec = [\"sh\", \"-c\", \"echo it begins > /dev/stdout; head -c 24000000 /dev/zero || exit 3; exit 42\"]\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.guest.wait()?;
    machine.guest.shell("until berth exec a true 2> /dev/null; do :; done")?;
    let pid = machine.guest.container("a")?["pid"].clone();
    wait_for_health(&mut machine, "a", "unhealthy")?;
    let a = machine.guest.container("a")?;
    let reason = a["reason"].to_string();
    ensure!(reason.contains("with code 42: it begins"), "{a}");
    ensure!(a["pid"] == pid && a["restarts"] == 0, "its health check has ended it: {a}");
    Ok(())
}

/// What an image says of its health counts, unless the configuration says something else.
fn of_the_image(bench: &Bench) -> Result<()> {
    let check = ["CMD-SHELL", "echo the file is missing; test -e /tmp/well"];
    let process = json!({
        "Cmd": ["sleep", "100000"],
        "Env": ["PATH=/bin"],
        "Healthcheck": { "Test": check, "Interval": 200_000_000, "StartInterval": 200_000_000, "Timeout": 20_000_000_000_u64, "Retries": 2 },
    });
    let archive = bench.with_busybox(Image::with_process("localhost/a:1", process))?.docker_archive();
    let configuration = "[containers.a]\nimage = \"localhost/a:1\"\n\
        [containers.none]\nimage = \"localhost/a:1\"\n[containers.none.health]\ndisable = true\n";
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    wait_for_the_missing_file(&mut machine)?;
    machine.guest.shell("berth exec a touch /tmp/well")?;
    wait_for_health(&mut machine, "a", "healthy")?;
    let none = machine.guest.container("none")?;
    ensure!(none["state"] == "running" && none["health"] == "none", "{none}");
    Ok(())
}
