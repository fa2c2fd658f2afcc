//! Containers that no configuration declares: `berth run`, `create`, `attach`, `pause`, `rm`.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::disks::Files;
use crate::machine::{Machine, Mark};
use crate::runner::Case;
use crate::wait;

/// The cases of this group.
pub const CASES: &[Case] = &[
    Case { name: "run/program", memory: 256, run: program },
    Case { name: "run/detached", memory: 256, run: detached },
    Case { name: "run/terminal", memory: 256, run: terminal },
    Case { name: "run/attach", memory: 256, run: attach },
    Case { name: "run/pause", memory: 256, run: pause },
    Case { name: "run/outlives-control-and-reexec", memory: 256, run: outlives },
    Case { name: "run/survives-a-reboot", memory: 256, run: survives_a_reboot },
    Case { name: "run/replicas", memory: 256, run: replicas },
    Case { name: "run/parts-of-the-api", memory: 256, run: parts },
];

/// Prints numbered lines until it is told to end, and then ends with 9.
const COUNTS: &str = "trap 'exit 9' TERM; i=0; while true; do echo line $i; i=$((i+1)); usleep 50000; done";

/// A machine with an image of busybox, `a`, and nothing that runs it unless the configuration says so.
fn machine(bench: &Bench, configuration: &str) -> Result<Machine> {
    let archive = bench.image("localhost/a:1", &["/bin/sh"])?.docker_archive();
    let files = Files::new().with("berth.toml", configuration).with("images/a.tar", archive);
    let mut machine = bench.machine().user_data(&files)?.start()?;
    machine.wait_until_ready()?;
    machine.guest.wait()?;
    Ok(machine)
}

/// What the shell of the machine is told to do, its exit code, what it prints.
fn check(machine: &mut Machine, cases: &[(&str, i64, &str)]) -> Result<()> {
    for (script, code, expected) in cases {
        let script = script.replace("IMAGE", "localhost/a:1");
        let output = machine.guest.run(&["/bin/sh", "-c", &script])?;
        ensure!((output.code, output.stdout.as_str()) == (*code, *expected), "{script}: {output:?}");
    }
    Ok(())
}

fn program(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let cases = [
        ("berth run --rm IMAGE echo one two", 0, "one two\n"),
        ("berth run --rm IMAGE sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null", 7, "out\n"),
        ("berth run --rm IMAGE sh -c 'echo out; echo err >&2' 2>&1 >/dev/null", 0, "err\n"),
        ("berth run --rm IMAGE sh -c 'kill -9 $$; exit 3'", 3, ""),
        ("echo typed | berth run --rm -i IMAGE cat", 0, "typed\n"),
        ("echo typed | berth run --rm IMAGE cat", 0, ""),
        ("head -c 2000000 /dev/zero | berth run --rm -i IMAGE cat | wc -c", 0, "2000000\n"),
        ("berth run --rm -e KEY=value IMAGE sh -c 'echo $KEY'", 0, "value\n"),
        ("berth run --rm -w /tmp -u 1000:7 IMAGE sh -c 'pwd; id -u; id -g'", 0, "/tmp\n1000\n7\n"),
        ("berth run --rm --name job IMAGE hostname", 0, "job\n"),
        ("berth run --rm --name job --entrypoint echo IMAGE -n --rm", 0, "--rm"),
        ("berth run --rm -m 32m IMAGE cat /sys/fs/cgroup/memory.max", 0, "33554432\n"),
        (
            "berth run --rm -v keep:/d IMAGE sh -c 'echo kept > /d/f'; berth run --rm -v keep:/d:ro IMAGE cat /d/f",
            0,
            "kept\n",
        ),
        ("berth run --rm IMAGE /no/such/program 2>/dev/null", 127, ""),
        ("berth run --rm IMAGE no-such-program 2>/dev/null", 127, ""),
        ("berth run --rm IMAGE /etc 2>/dev/null", 126, ""),
        ("berth run --rm --name engine IMAGE true 2>/dev/null", 125, ""),
        ("berth run --rm --no-such-flag IMAGE true 2>/dev/null", 125, ""),
        // A signal goes to the program.
        (
            "berth run --rm --name t IMAGE sh -c 'trap \"exit 9\" TERM; echo up; while :; do usleep 100000; done' > /tmp/up & \
          until [ -s /tmp/up ]; do usleep 10000; done; kill -TERM $!; wait $!",
            9,
            "",
        ),
        ("berth ps -aq | grep -E 'job|^t$'; ls /var/lib/berth/containers", 0, ""),
    ];
    check(&mut machine, &cases)?;
    let output = machine.guest.run(&["/usr/bin/berth", "run", "--rm", "nosuch:1"])?;
    ensure!(output.code == 125 && output.stderr.contains("nosuch"), "{output:?}");
    Ok(())
}

fn detached(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let run = format!("berth run -d --name job IMAGE sh -c \"{COUNTS}\"").replace("$", "\\$");
    check(&mut machine, &[(&run, 0, "job\n"), ("berth run --name job IMAGE true 2>/dev/null", 125, "")])?;
    let job = machine.guest.container("job")?;
    ensure!(job["state"] == "running" && job["kind"] == "user", "{job}");
    machine.guest.shell("until berth logs job | grep -q 'line 3'; do usleep 50000; done")?;
    check(
        &mut machine,
        &[
            ("berth rm job 2>&1 | grep -c 'rm -f job'", 0, "1\n"),
            ("berth stop job", 0, "job\n"),
            ("berth start job", 0, "job\n"),
            ("berth exec job touch /tmp/mine", 0, ""),
            ("berth rm -f job", 0, "job\n"),
            ("berth inspect job 2>/dev/null", 1, ""),
            ("berth logs job 2>/dev/null", 1, ""),
            ("berth run -d --name job IMAGE no-such-program 2>/dev/null", 127, ""),
            ("berth rm job", 0, "job\n"),
            // Made under the same name and as before, and yet a new one.
            ("berth create --name job IMAGE sh -c 'ls /tmp; exit 4'", 0, "job\n"),
            ("berth start -a job", 4, ""),
            ("berth logs job", 0, ""),
            ("berth rm job", 0, "job\n"),
            ("berth run -d --rm --name job IMAGE sh -c 'sleep 3; exit 5'; berth wait job", 0, "job\n5\n"),
            // What it is allowed beyond the usual is told as long as it is there.
            ("berth audit | tail -n 1", 0, "Nothing is loosened.\n"),
            ("berth run -d --network host --name job IMAGE sleep 1000", 0, "job\n"),
            ("berth audit | grep -c 'containers.job.network_mode (made by hand) *host'", 0, "1\n"),
            ("berth audit --json | grep -c '\"made\": true'", 0, "1\n"),
            ("berth rm -f job; berth audit | tail -n 1", 0, "job\nNothing is loosened.\n"),
            // A name is made up.
            (
                "name=$(berth run -d --rm IMAGE sleep 1000) && berth exec $name hostname | grep -qx $name && berth rm -f $name | grep -qx $name",
                0,
                "",
            ),
        ],
    )?;
    machine.guest.shell("while [ -n \"$(ls /var/lib/berth/containers)\" ]; do usleep 50000; done")?;
    Ok(())
}

fn terminal(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let is_prompt = |line: &str| line.contains("@berth:") && line.contains("# ");
    // What is typed before the shell asks for it may be lost. The kernel may speak behind the prompt, nobody else has yet.
    let untouched = |rest: &str| rest.is_empty() || rest.starts_with('[');
    let is_new_prompt = |line: &str| is_prompt(line) && line.rsplit("[6n").next().is_some_and(untouched);
    // The kernel, which says that a container runs, may say it within a line of the container's.
    let begins = |text: &'static str| move |line: &str| line.starts_with(text);
    machine.console.wait_for_line(Mark::default(), wait::ANSWER, is_prompt)?;
    let mark = machine.console.mark();
    machine.console.type_text("stty rows 33 columns 99; berth run --rm -it --name job localhost/a:1 sh -c 'tty; stty size; read word; echo got $word; read more; exit 3'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, begins("/dev/pts/0"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, begins("33 99"))?;
    machine.console.type_text("something\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line == "got something")?;
    // Left with the keys, and come back to.
    machine.console.type_text("\u{10}\u{11}")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.ends_with("code 0"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, is_new_prompt)?;
    ensure!(machine.guest.container("job")?["state"] == "running", "it has ended");
    let mark = machine.console.mark();
    machine.console.type_text("berth attach job; echo code $?\r")?;
    machine.console.type_text("end\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, begins("code 3"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, is_new_prompt)?;
    // Ctrl-C is for the program.
    let mark = machine.console.mark();
    machine.console.type_text("berth run --rm -it localhost/a:1 sh -c 'trap \"exit 5\" INT; echo waits; while :; do usleep 100000; done'; echo code $?\r")?;
    machine.console.wait_for_line(mark, wait::ANSWER, begins("waits"))?;
    machine.console.type_text("\u{3}")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.ends_with("code 5"))?;
    machine.console.wait_for_line(mark, wait::ANSWER, is_new_prompt)?;
    // Another size of the terminal is the container's too, also of a client that has come later.
    let mark = machine.console.mark();
    machine.console.type_text("berth run -dt --name size localhost/a:1 sh -c 'trap \"stty size\" WINCH; echo begun; while :; do usleep 100000; done'; berth attach size; echo code $?\r")?;
    machine.guest.shell("until berth logs size 2>/dev/null | grep -q begun; do :; done")?;
    for (rows, columns) in [(44, 111), (22, 66)] {
        let size = format!("{rows} {columns}");
        machine.guest.shell(&format!("stty -F /dev/ttyS0 rows {rows} columns {columns}"))?;
        machine.console.wait_for_line(mark, wait::ANSWER, |line| line == size)?;
    }
    machine.guest.shell("berth rm -f size")?;
    machine.console.wait_for_line(mark, wait::ANSWER, |line| line.contains("code 137"))?;
    // What a terminal prints that nobody is attached to is kept too.
    check(
        &mut machine,
        &[(
            "berth run -dt --name t IMAGE sh -c 'tty; echo printed'; berth wait t; berth logs t | tr -d '\\r'",
            0,
            "t\n0\n/dev/pts/0\nprinted\n",
        )],
    )
}

fn attach(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let run = format!("berth run -d -i --name job IMAGE sh -c \"{COUNTS}\"").replace("$", "\\$");
    check(&mut machine, &[(&run, 0, "job\n")])?;
    // One client, then another one that takes its place.
    machine.guest.shell("berth attach job > /tmp/first 2> /tmp/first.err &")?;
    machine.guest.shell("until [ $(grep -c line /tmp/first) -gt 5 ]; do usleep 50000; done")?;
    machine.guest.shell(
        "berth attach job > /tmp/second 2>&1 & echo $! > /tmp/pid; until [ -s /tmp/second ]; do usleep 50000; done",
    )?;
    machine.guest.shell("until grep -q 'another client' /tmp/first.err; do usleep 50000; done")?;
    // It is killed, and the container runs on; nothing of what it has printed is missing.
    machine.guest.shell("kill -9 $(cat /tmp/pid)")?;
    let last =
        "until [ $(grep -c line /tmp/third) -gt 5 ]; do usleep 50000; done; berth stop job; wait; echo $? > /tmp/code";
    machine
        .guest
        .shell(&format!("berth attach job > /tmp/third 2>&1 & pid=$!; {}", last.replace("wait;", "wait $pid;")))?;
    ensure!(machine.guest.read("/tmp/code")? == "9\n", "{}", machine.guest.read("/tmp/code")?);
    let missing = "berth logs job | awk '$1 != \"line\" { exit 1 } { seen[$2]++ } END { for (i = 0; i < NR; i++) if (seen[i] != 1) { print i, seen[i]; exit 1 } }'";
    machine.guest.shell(missing)?;
    check(
        &mut machine,
        &[("berth attach job 2>&1 | grep -c 'berth start job'", 0, "1\n"), ("berth rm job", 0, "job\n")],
    )?;
    // Standard input of a container that somebody else has started.
    check(
        &mut machine,
        &[
            ("berth run -d -i --name cat IMAGE cat", 0, "cat\n"),
            ("echo typed | berth attach cat", 0, "typed\n"),
            // And of one that is started with its client; the log has both runs.
            ("echo again | berth start -i cat", 0, "again\n"),
            ("berth logs cat", 0, "typed\nagain\n"),
            ("berth start -a cat job 2>&1 | grep -c 'one container at a time'", 0, "1\n"),
        ],
    )
}

fn pause(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let run = format!("berth run -d --name job IMAGE sh -c \"{COUNTS}\"").replace("$", "\\$");
    check(&mut machine, &[(&run, 0, "job\n"), ("berth pause job", 0, "job\n")])?;
    machine.guest.shell("until grep -q 'frozen 1' /sys/fs/cgroup/user/job/cgroup.events; do usleep 10000; done")?;
    let job = machine.guest.container("job")?;
    ensure!(job["state"] == "paused", "{job}");
    check(
        &mut machine,
        &[
            ("berth exec job true 2>&1 | grep -c 'berth unpause job'", 0, "1\n"),
            ("berth pause job 2>/dev/null", 1, ""),
            ("berth pause engine 2>&1 | grep -c 'system container'", 0, "1\n"),
            // The next program of PID 1 knows.
            ("berth reexec >&2; berth ps -a --json | grep -c '\"paused\"'", 0, "1\n"),
            ("berth unpause job", 0, "job\n"),
            ("grep frozen /sys/fs/cgroup/user/job/cgroup.events", 0, "frozen 0\n"),
            ("berth pause job", 0, "job\n"),
            ("berth stop job", 0, "job\n"),
        ],
    )?;
    let job = machine.guest.container("job")?;
    ensure!(job["exit_code"] == 9, "it was not asked to end: {job}");
    Ok(())
}

fn outlives(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    let client = "berth run -i --name job localhost/a:1 sh -c 'echo begun; read word; echo got $word; exit 6' \
        < /tmp/in > /tmp/out; echo $? > /tmp/code";
    machine.guest.shell(&format!(
        "mkfifo /tmp/in; ({client}) & exec 3> /tmp/in; \
        until grep -q begun /tmp/out; do usleep 50000; done; \
        kill -9 $(berth inspect control | grep '\"pid\"' | tr -dc 0-9); \
        until berth reexec 2> /dev/null; do usleep 50000; done; berth reexec; \
        echo word >&3; until [ -s /tmp/code ]; do usleep 50000; done"
    ))?;
    ensure!(machine.guest.read("/tmp/out")? == "begun\ngot word\n", "{}", machine.guest.read("/tmp/out")?);
    ensure!(machine.guest.read("/tmp/code")? == "6\n", "{}", machine.guest.read("/tmp/code")?);
    ensure!(machine.guest.shell("berth logs job")? == "begun\ngot word\n", "the log");
    // Its descriptors went with it.
    let descriptors = "ls -l /proc/1/fd | sed 's/.*-> //; s/[0-9]//g' | sort | uniq -c";
    machine.guest.shell("berth rm job; until [ $(cat /var/lib/berth/configuration/made.json) = '[]' ]; do usleep 50000; done; berth reexec")?;
    let before = machine.guest.shell(descriptors)?;
    machine.guest.shell("for i in 1 2 3; do berth run --rm -i localhost/a:1 true < /dev/null; done")?;
    machine
        .guest
        .shell("berth run -d -t --rm --name t localhost/a:1 sleep 1000; berth reexec; berth rm -f t; berth reexec")?;
    // A client's may still be there, and go.
    let deadline = Instant::now() + wait::ANSWER;
    loop {
        let after = machine.guest.shell(descriptors)?;
        if before == after {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "PID 1 had\n{before}and has\n{after}");
    }
}

fn survives_a_reboot(bench: &Bench) -> Result<()> {
    let mut machine = machine(bench, "")?;
    check(
        &mut machine,
        &[
            (
                "berth run -d --restart always --name stays IMAGE sh -c 'echo up >> /starts; exec sleep 1000'",
                0,
                "stays\n",
            ),
            ("berth run --name ended IMAGE sh -c 'exit 4'", 4, ""),
            ("berth run -d --rm --name gone IMAGE sleep 1000", 0, "gone\n"),
            ("berth run -d --name removed IMAGE sleep 1000; berth rm -f removed", 0, "removed\nremoved\n"),
            (
                "until [ \"$(grep -o 'ended\\|removed\\|gone' /var/lib/berth/configuration/made.json)\" = ended ]; do usleep 50000; done",
                0,
                "",
            ),
        ],
    )?;
    machine.reboot()?;
    machine.guest.wait_for_state("stays", "running")?;
    check(
        &mut machine,
        &[
            (
                "until [ $(berth exec stays wc -l < /dev/null /starts | cut -d' ' -f1) = 2 ]; do usleep 50000; done",
                0,
                "",
            ),
            ("berth ps -aq | grep -E '^(stays|ended|gone|removed)$' | sort", 0, "ended\nstays\n"),
            ("berth start ended >/dev/null; berth wait ended", 0, "4\n"),
        ],
    )?;
    let ended = machine.guest.container("ended")?;
    ensure!(ended["state"] == "failed", "{ended}");
    Ok(())
}

fn replicas(bench: &Bench) -> Result<()> {
    let web = "[containers.web]\nimage = \"localhost/a:1\"\ncommand = [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do usleep 100000; done\"]\nreplicas = 2\n";
    let mut machine = machine(bench, web)?;
    check(
        &mut machine,
        &[
            ("berth stop web", 0, "web-1\nweb-2\n"),
            ("berth start web", 0, "web-1\nweb-2\n"),
            ("berth restart web-2", 0, "web-2\n"),
            ("berth pause web; berth unpause web", 0, "web-1\nweb-2\nweb-1\nweb-2\n"),
            ("berth rm web-1 2>&1 | grep -c 'in the configuration'", 0, "1\n"),
            ("berth stop nobody 2>&1 | grep -c 'berth ps'", 0, "1\n"),
        ],
    )
}

/// A container that may use a part of the control API, with the machine's own command line, which is one static file.
fn parts(bench: &Bench) -> Result<()> {
    let container = |name: &str, more: &str| {
        format!(
            "[containers.{name}]\nimage = \"localhost/a:1\"\ncommand = [\"sleep\", \"100000\"]\n\
             volumes = [\"/usr/bin/berth:/bin/berth:ro\"]\n{more}\n"
        )
    };
    let configuration = container("watcher", "api = [\"containers.list\", \"containers.restart\"]")
        + &container("user", "api = [\"containers.list\"]\nuser = \"1000:1000\"")
        + &container("none", "");
    let mut machine = machine(bench, &configuration)?;
    check(
        &mut machine,
        &[
            ("berth exec none ls /run/berth 2>/dev/null", 1, ""),
            ("berth exec watcher berth ps -q", 0, "none\nuser\nwatcher\n"),
            ("berth exec user berth ps -q", 0, "none\nuser\nwatcher\n"),
            ("berth exec -u 33 user berth ps -q 2>&1 | grep -c 'root alone'", 0, "1\n"),
            ("berth exec watcher berth kill none 2>&1 | grep -c 'containers.kill'", 0, "1\n"),
            ("berth exec watcher berth run --rm IMAGE true 2>&1 | grep -c 'containers.create'", 0, "1\n"),
            ("berth exec watcher berth poweroff 2>&1 | grep -c 'machine.power'", 0, "1\n"),
            ("berth exec watcher berth config show 2>&1 | grep -c 'machine.configuration'", 0, "1\n"),
            // PID 1 keeps the socket for the next `control` and for its own next program.
            (
                "kill -9 $(berth inspect control | grep '\"pid\"' | tr -dc 0-9); until berth reexec >&2; do usleep 50000; done; \
              until berth exec watcher berth ps -q; do usleep 50000; done",
                0,
                "none\nuser\nwatcher\n",
            ),
            ("berth restart watcher && berth exec watcher berth ps -q", 0, "watcher\nnone\nuser\nwatcher\n"),
        ],
    )
}
