//! Another configuration while the machine runs: `berth plan`, `berth apply`, `berth confirm`.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "apply/only-what-differs", memory: 256, run: only_what_differs },
    Case { name: "apply/mistakes-change-nothing", memory: 256, run: mistakes },
    Case { name: "apply/unconfirmed-is-taken-back", memory: 256, run: unconfirmed },
    Case { name: "apply/a-trial-loses-nothing", memory: 256, run: trial },
    Case { name: "apply/survives-a-reboot", memory: 256, run: survives },
];

fn start(bench: &Bench, configuration: &str) -> Result<Machine> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 100000")?.docker_archive();
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

/// With these containers and keys of theirs.
fn configuration(containers: &[(&str, &str)]) -> String {
    let container = |(name, keys): &(&str, &str)| format!("[containers.{name}]\nimage = \"localhost/a:1\"\n{keys}");
    containers.iter().map(container).collect()
}

fn apply(machine: &mut Machine, text: &str, arguments: &str) -> Result<String> {
    machine.guest.write("/run/new.toml", text)?;
    machine.guest.shell(&format!("berth {arguments} /run/new.toml"))
}

fn only_what_differs(bench: &Bench) -> Result<()> {
    let old = configuration(&[("changed", ""), ("gone", ""), ("kept", ""), ("updated", "")]);
    let mut machine = start(bench, &old)?;
    let pid = |machine: &mut Machine, name: &str| Ok::<_, anyhow::Error>(machine.guest.container(name)?["pid"].clone());
    let before = [pid(&mut machine, "kept")?, pid(&mut machine, "updated")?, pid(&mut machine, "changed")?];
    ensure!(
        apply(&mut machine, &old, "apply")? == "Nothing changes.\n",
        "the running configuration is something to do"
    );
    // As large as no message.
    let large = format!("{old}{}", "# Nothing but a remark.\n".repeat(4000));
    ensure!(apply(&mut machine, &large, "apply")? == "Nothing changes.\n", "remarks are something to do");
    let new = configuration(&[
        ("changed", "environment = { A = \"1\" }\n"),
        ("kept", ""),
        ("new", ""),
        ("updated", "restart = \"no\"\n"),
    ]);
    let expected = "~ container changed is made anew\n    environment.A = \"1\"\n\
        - container gone ends and is forgotten\n+ container new is new\n\
        = container updated runs on with another definition\n    restart = \"no\"\n\
        Untouched: kept\nNo reboot is needed.\n";
    let planned = apply(&mut machine, &new, "plan")?;
    ensure!(planned == expected, "{planned}");
    ensure!(pid(&mut machine, "changed")? == before[2], "a plan has changed something");
    ensure!(apply(&mut machine, &new, "apply")? == expected, "what is applied is not what was planned");
    machine.guest.wait_for_state("new", "running")?;
    machine.guest.shell("until berth exec changed sh -c '[ \"$A\" = 1 ]'; do :; done")?;
    ensure!(pid(&mut machine, "kept")? == before[0], "an untouched container was touched");
    ensure!(pid(&mut machine, "updated")? == before[1], "a container that was to run on was not let to");
    ensure!(machine.guest.container("gone").is_err(), "a container that is not declared is there");
    // The new policy holds.
    machine.guest.shell("kill -9 $(berth inspect updated | grep '\"pid\"' | tr -dc 0-9)")?;
    machine.guest.wait_for_state("updated", "failed").map(drop)
}

fn mistakes(bench: &Bench) -> Result<()> {
    let mut machine = start(bench, &configuration(&[("a", "")]))?;
    let before = machine.guest.shell("berth config show")?;
    for (text, reason) in [
        ("[containers.a]\nimag = \"x\"\n", "/run/new.toml:2:1"),
        ("[sysctls]\n\"vm.swappiness\" = \"much\"\n[containers.b]\nimage = \"localhost/a:1\"\n", "vm.swappiness"),
    ] {
        machine.guest.write("/run/new.toml", text)?;
        let output = machine.guest.run(&["/usr/bin/berth", "apply", "/run/new.toml"])?;
        ensure!(output.code == 1 && output.stderr.contains(reason), "{output:?}");
        ensure!(machine.guest.shell("berth config show")? == before, "{text}");
    }
    ensure!(machine.guest.container("b").is_err(), "half of a configuration was applied");
    ensure!(machine.guest.container("a")?["state"] == "running", "the last good configuration is not in force");
    Ok(())
}

fn unconfirmed(bench: &Bench) -> Result<()> {
    let mut machine = start(bench, &configuration(&[("a", "")]))?;
    let swappiness = "/proc/sys/vm/swappiness";
    let before = machine.guest.read(swappiness)?;
    let other = format!("{}[sysctls]\n\"vm.swappiness\" = 7\n", configuration(&[("b", "")]));
    // Over another program of PID 1 as well.
    let said = apply(&mut machine, &other, "apply --confirm 3s")?;
    ensure!(said.contains("taken back in 3s"), "{said}");
    machine.guest.shell("berth reexec")?;
    machine.guest.shell("until berth inspect a > /dev/null 2>&1 && ! berth inspect b > /dev/null 2>&1; do :; done")?;
    machine.guest.wait_for_state("a", "running")?;
    ensure!(machine.guest.read(swappiness)? == before, "the kernel keeps what nobody has confirmed");
    apply(&mut machine, &other, "apply --confirm 60s")?;
    ensure!(machine.guest.read(swappiness)?.trim() == "7", "the kernel's parameter is not in force");
    let again = machine.guest.run(&["/usr/bin/berth", "apply", "/run/new.toml"])?;
    ensure!(again.code == 1 && again.stderr.contains("berth confirm"), "{again:?}");
    machine.guest.shell("berth confirm; berth inspect b")?;
    let nothing = machine.guest.run(&["/usr/bin/berth", "confirm"])?;
    ensure!(nothing.code == 1 && nothing.stderr.contains("nothing to confirm"), "{nothing:?}");
    Ok(())
}

/// What a container has written before a configuration is tried is there when that is taken back, and after a reset.
fn trial(bench: &Bench) -> Result<()> {
    let before = configuration(&[("a", "")]);
    let mut machine = start(bench, &before)?;
    machine.guest.shell("berth exec a sh -c 'echo precious > /data; sync'")?;
    let other = configuration(&[("a", "environment = { TRIED = \"1\" }\n")]);
    let is_tried =
        "until berth exec a sh -c '[ \"$TRIED\" = 1 ]' 2> /dev/null; do :; done; berth exec a sh -c '[ ! -e /data ]'";
    apply(&mut machine, &other, "apply --confirm 600s")?;
    machine.guest.shell(is_tried)?;
    // Everything is prepared again for the next program of PID 1, and once more for another container.
    let again = "berth reexec; berth create --name b localhost/a:1; berth start b; berth restart a";
    machine.guest.shell(&format!("{again}; {is_tried}; sync"))?;
    let mark = machine.console.mark();
    machine.qmp.reset()?;
    machine.wait_until_settled_after(mark)?;
    machine.guest.wait()?;
    ensure!(machine.guest.read_in("a", "/data")?.trim() == "precious", "the reset has found another file");

    apply(&mut machine, &other, "apply --confirm 20s")?;
    machine.guest.shell(is_tried)?;
    machine.guest.shell("until berth exec a sh -c '[ -z \"$TRIED\" ]' 2> /dev/null; do :; done")?;
    ensure!(machine.guest.read_in("a", "/data")?.trim() == "precious", "what is taken back has found another file");

    apply(&mut machine, &other, "apply --confirm 600s")?;
    machine.guest.shell(is_tried)?;
    let one = "until [ $(ls /var/lib/berth/containers/a | wc -l) = 1 ]; do usleep 100000; done";
    machine.guest.shell(&format!("berth confirm; {one}; {is_tried}")).map(drop)
}

fn survives(bench: &Bench) -> Result<()> {
    let mut machine = start(bench, &configuration(&[("a", "")]))?;
    apply(&mut machine, &configuration(&[("b", "")]), "apply")?;
    machine.reboot()?;
    machine.guest.wait_for_state("b", "running")?;
    ensure!(machine.guest.container("a").is_err(), "what was on the user data is in force");
    let sources = machine.guest.berth(&["status"])?["configuration_sources"].to_string();
    ensure!(sources.contains("berth apply"), "{sources}");
    Ok(())
}
