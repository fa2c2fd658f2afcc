//! Pods: containers in the network, IPC and PID namespaces of another one.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::Machine;
use crate::runner::Case;

/// The cases of this group.
pub const CASES: &[Case] = &[Case { name: "pods/memory-processes-and-an-end-together", memory: 256, run: together }];

const POD: &str = r#"
    [containers.db]
    image = "localhost/a:1"
    command = ["sleep", "100000"]
    ipc = "shareable"
    shm_size = "1M"
    [containers.side]
    image = "localhost/a:1"
    command = ["sleep", "200000"]
    network_mode = "container:db"
    ipc = "container:db"
    pid = "container:db"
    [containers.alone]
    image = "localhost/a:1"
    command = ["sleep", "300000"]
"#;

/// What a command in a container prints.
fn exec(machine: &mut Machine, container: &str, command: &str) -> Result<String> {
    Ok(machine.guest.shell(&format!("berth exec {container} sh -c '{command}'"))?.trim().to_owned())
}

fn together(bench: &Bench) -> Result<()> {
    let archive = bench.shell_image("localhost/a:1", "exec sleep 1")?.docker_archive();
    let files = Files::new().with("berth.toml", POD).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;

    exec(&mut machine, "db", "echo one > /dev/shm/note; touch /dev/mqueue/jobs")?;
    let note = exec(&mut machine, "side", "cat /dev/shm/note; ls /dev/mqueue; echo two > /dev/shm/answer")?;
    ensure!(note == "one\njobs", "the memory and the queues of db are not those of side: {note:?}");
    ensure!(exec(&mut machine, "db", "cat /dev/shm/answer")? == "two", "db does not see what side has written");
    let size = exec(&mut machine, "side", "df -k /dev/shm")?;
    ensure!(size.contains(" 1024 "), "the size is not that of db: {size}");
    let others = exec(&mut machine, "alone", "ls /dev/shm /dev/mqueue")?;
    ensure!(!others.contains("note") && !others.contains("jobs"), "somebody else sees it: {others}");

    for container in ["db", "side"] {
        let processes = exec(&mut machine, container, "ps")?;
        let both = processes.contains("sleep 100000") && processes.contains("sleep 200000");
        ensure!(both && !processes.contains("sleep 300000"), "{container} sees {processes}");
    }
    // It has the rights that root has among its own.
    exec(&mut machine, "side", "kill -0 1")?;
    let run = "berth run --rm --network container:db --ipc container:db --pid container:db localhost/a:1";
    let by_hand = machine.guest.shell(&format!("{run} sh -c 'cat /dev/shm/note; ps'"))?;
    ensure!(by_hand.starts_with("one") && by_hand.contains("sleep 100000"), "{by_hand}");
    let refused =
        machine.guest.shell("berth run --rm --ipc container:alone localhost/a:1 true 2>&1 && exit 1; true")?;
    ensure!(refused.contains("shares its IPC namespace with nobody"), "{refused}");

    // Everything in its PID namespace ends with it, and begins anew; what was in memory is gone.
    let pid = |machine: &mut Machine, name: &str| Ok::<_, anyhow::Error>(machine.guest.container(name)?["pid"].clone());
    let (db, side) = (pid(&mut machine, "db")?, pid(&mut machine, "side")?);
    machine.guest.shell(&format!("kill -KILL {db}"))?;
    for (name, before) in [("db", &db), ("side", &side)] {
        machine.guest.shell(&format!("while berth inspect {name} | grep -q '\"pid\": {before},'; do :; done"))?;
        machine.guest.wait_for_state(name, "running")?;
    }
    ensure!(exec(&mut machine, "side", "ls /dev/shm /dev/mqueue | grep -c note; true")? == "0", "memory is left over");
    exec(&mut machine, "db", "echo three > /dev/shm/note")?;
    ensure!(exec(&mut machine, "side", "cat /dev/shm/note")? == "three", "they do not share it any more");
    machine.guest.shell("berth stop db")?;
    machine.guest.shell("until berth inspect side | grep -q '\"state\": \"waiting\"'; do :; done")?;
    ensure!(!machine.guest.shell("mount")?.contains("containers/db/shm"), "its memory is mounted still");
    Ok(())
}
