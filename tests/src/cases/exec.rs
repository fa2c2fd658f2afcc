//! Further programs in running containers: `berth exec`.

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "exec/program", memory: 256, run: program },
    Case { name: "exec/is-confined-like-the-container", memory: 256, run: confined },
    Case { name: "exec/terminal", memory: 256, run: terminal },
    Case { name: "exec/goes-on-without-control", memory: 256, run: without_control },
];

fn running(bench: &Bench, settings: &str) -> Result<Machine> {
    let archive =
        bench.shell_image("localhost/a:1", "trap 'exit 0' TERM; while true; do sleep 1; done")?.docker_archive();
    let configuration = format!("[containers.a]\nimage = \"localhost/a:1\"\n{settings}");
    let files = Files::new().with("berth.toml", configuration.as_str()).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

fn program(bench: &Bench) -> Result<()> {
    let mut machine = running(bench, "environment = { FROM = \"configuration\" }\n")?;
    // What the shell of the machine is told to do, its exit code, what it prints.
    let cases = [
        ("berth exec a echo one two", 0, "one two\n"),
        ("berth exec a sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null", 7, "out\n"),
        ("berth exec a sh -c 'kill -9 $$'", 137, ""),
        ("echo typed | berth exec -i a cat", 0, "typed\n"),
        ("echo typed | berth exec a cat", 0, ""),
        ("berth exec -e KEY=value a sh -c 'echo $KEY $FROM'", 0, "value configuration\n"),
        ("berth exec -w /tmp a sh -c pwd", 0, "/tmp\n"),
        ("berth exec -u 1000:7 a sh -c 'id -u; id -g; id -G'", 0, "1000\n7\n7\n"),
        ("berth exec -u web a sh -c 'id -u; id -g; echo $HOME'", 0, "1000\n1000\n/\n"),
        ("berth exec -u nobody a true 2>&1 | grep -c /etc/passwd", 0, "1\n"),
        ("berth exec -d a touch /tmp/detached && until berth exec a sh -c 'test -e /tmp/detached'; do :; done", 0, ""),
        ("echo FILE=read > /tmp/e; berth exec --env-file /tmp/e a sh -c 'echo $FILE'", 0, "read\n"),
        ("berth exec a hostname", 0, "a\n"),
        // A file does not go over itself, and yet all of it arrives, whoever else keeps the pipe.
        ("berth exec a readlink /proc/self/fd/1 > /tmp/o; cut -c 1-5 /tmp/o", 0, "pipe:\n"),
        ("berth exec a sh -c 'sleep 1000 & echo ended' > /tmp/o 2>&1; cat /tmp/o", 0, "ended\n"),
        ("head -c 3000000 /dev/urandom > /tmp/i; berth exec -i a cat < /tmp/i > /tmp/o; cmp /tmp/i /tmp/o", 0, ""),
        ("berth exec a cat /etc/passwd 2>&1 > /dev/full | grep -o 'write the output'", 0, "write the output\n"),
        ("berth exec a /no/such/program 2>/dev/null", 127, ""),
        ("berth exec a /etc 2>/dev/null", 126, ""),
        ("berth exec -d a /no/such/program 2>/dev/null", 127, ""),
        ("berth exec -d -u 1000 a /etc 2>/dev/null", 126, ""),
        ("berth exec nobody true 2>/dev/null", 1, ""),
    ];
    for (script, code, expected) in cases {
        let output = machine.guest.run(&["/bin/sh", "-c", script])?;
        ensure!((output.code, output.stdout.as_str()) == (code, expected), "{script}: {output:?}");
    }
    machine.guest.shell("berth stop a")?;
    let output = machine.guest.run(&["/usr/bin/berth", "exec", "a", "true"])?;
    ensure!(output.code == 1 && output.stderr.contains("is not running"), "{output:?}");
    Ok(())
}

fn confined(bench: &Bench) -> Result<()> {
    let mut machine = running(bench, "memory = \"64M\"\ncap_drop = [\"MKNOD\"]\n")?;
    let pid = machine.guest.container("a")?["pid"].clone();
    let facts = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/%/status; cat /proc/%/uid_map; cat /proc/%/cgroup; \
        for n in cgroup ipc mnt net pid user uts; do readlink /proc/%/ns/$n; done";
    // The container's own process as the machine sees it, but for its cgroup, which reads otherwise from inside.
    let own = machine.guest.shell(&facts.replace('%', &pid.to_string()).replace("cat /proc/1/cgroup;", ""))?;
    let inside = machine.guest.run(&["/usr/bin/berth", "exec", "a", "sh", "-c", &facts.replace('%', "self")])?;
    let comparable =
        |text: &str| text.lines().filter(|line| !line.starts_with("0::")).map(str::to_owned).collect::<Vec<_>>();
    ensure!(comparable(&own) == comparable(&inside.stdout), "{own}\n-- and by exec --\n{}", inside.stdout);
    ensure!(inside.stdout.lines().any(|line| line == "0::/"), "another cgroup: {}", inside.stdout);
    Ok(())
}

fn terminal(bench: &Bench) -> Result<()> {
    let mut machine = running(bench, "")?;
    let is_prompt = |line: &str| line.contains("@berth:") && line.contains("# ");
    machine.console.wait_for_line(Mark::default(), wait::ANSWER, is_prompt)?;
    let mark = machine.console.mark();
    machine.console.type_text("stty rows 33 columns 99; berth exec -it a sh -c 'tty; stty size; read word; echo got $word; exit 3'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "/dev/pts/0")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "33 99")?;
    machine.console.type_text("something\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "got something")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "code 3")?;
    // Ctrl-C is for the program, not for the command. The program dies of it at any moment from its start.
    let mark = machine.console.mark();
    machine.console.type_text("berth exec -it a sh -c 'echo waits; exec cat'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "waits")?;
    machine.console.type_text("\u{3}")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.ends_with("code 130"))?;
    // Without -t the program has no part of this terminal, only what is typed for it.
    let mark = machine.console.mark();
    machine.console.type_text("berth exec -i a sh -c 'tty; sed s/^/got./'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "not a tty")?;
    machine.console.type_text("something\r\u{4}")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "got.something")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "code 0")?;
    // Another size of the terminal is the program's too.
    let mark = machine.console.mark();
    machine.console.type_text("berth exec -it a sh -c 'trap \"stty size; exit 4\" WINCH; echo waits; while :; do usleep 100000; done'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "waits")?;
    machine.guest.shell("stty -F /dev/ttyS0 rows 44 columns 111")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "44 111")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "code 4")?;
    Ok(())
}

fn without_control(bench: &Bench) -> Result<()> {
    let mut machine = running(bench, "")?;
    let script = "berth exec a sh -c 'echo begun > /tmp/begun; while [ ! -e /tmp/go ]; do sleep 1; done; echo ended > /tmp/ended' > /dev/null 2>&1 &";
    machine.guest.shell(script)?;
    machine.guest.read_in("a", "/tmp/begun")?;
    let before = machine.guest.container("control")?["pid"].clone();
    machine.guest.shell(&format!("kill -9 {before}"))?;
    machine.guest.shell("until berth ps > /dev/null 2>&1; do true; done")?;
    ensure!(machine.guest.container("control")?["pid"] != before, "control was not killed");
    machine.guest.shell("berth exec a touch /tmp/go")?;
    ensure!(machine.guest.read_in("a", "/tmp/ended")? == "ended\n", "the program did not go on");
    Ok(())
}
