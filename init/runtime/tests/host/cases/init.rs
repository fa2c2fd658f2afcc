//! The small init that stays as a container's first process.

use std::io::{BufRead as _, BufReader, Read as _};

use berth_runtime::Running;

use super::Test;
use crate::container::{Case, chain, end, read};

pub const CASES: &[Test] = &[
    ("with_an_init_the_program_is_another_process", with_an_init_the_program_is_another_process),
    ("an_init_forwards_signals_and_ends_as_the_program", an_init_forwards_signals_and_ends_as_the_program),
    ("an_init_collects_orphans", an_init_collects_orphans),
    ("an_init_in_another_containers_pids_collects_its_own", an_init_in_another_containers_pids_collects_its_own),
    ("an_init_keeps_neither_memory_nor_descriptors", an_init_keeps_neither_memory_nor_descriptors),
    ("a_program_that_an_init_cannot_execute_is_reported", a_program_that_an_init_cannot_execute_is_reported),
];

fn with_init(mut case: Case) -> Case {
    case.init = true;
    case
}

/// Runs, and has printed one line.
fn begun(case: &Case) -> (Running, BufReader<std::fs::File>) {
    let (created, reader) = case.create().unwrap();
    let running = created.start().unwrap();
    let mut reader = BufReader::new(std::fs::File::from(reader));
    assert_eq!(reader.by_ref().lines().next().unwrap().unwrap(), "begun");
    (running, reader)
}

fn with_an_init_the_program_is_another_process() {
    let script = "echo $$ $PPID $(ps -o pgid= -p $$) $(cat /proc/1/comm); grep SigBlk /proc/self/status; exit 7";
    for case in [Case::new(script), Case::unprivileged(script)] {
        let outcome = with_init(case).run();
        assert_eq!((outcome.output.as_str(), outcome.code), ("2 1 2 init\nSigBlk:\t0000000000000000\n", 7));
    }
}

fn an_init_forwards_signals_and_ends_as_the_program() {
    let trap = "trap 'echo asked; kill $!; exit 4' TERM; sleep 100 & echo begun; wait";
    for (script, signal, code, output) in [
        (trap, libc::SIGTERM, 4, "asked\n"),
        ("echo begun; exec sleep 100", libc::SIGTERM, 128 + libc::SIGTERM, ""),
        ("echo begun; exec sleep 100", 40, 128 + 40, ""),
        // The kernel's, of the init itself.
        ("echo begun; exec sleep 100", libc::SIGKILL, 128 + libc::SIGKILL, ""),
    ] {
        let case = with_init(Case::unprivileged(script));
        let (running, mut reader) = begun(&case);
        running.signal(signal).unwrap();
        assert_eq!(end(&running), code, "{script} after signal {signal}");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, output);
        case.remove();
    }
}

/// Leaves a process behind, says whose it is then and lets it end, and looks whether it is collected; so often that it must
/// have been.
const ORPHAN: &str = "
    mkfifo /end
    orphan=$(sh -c 'cat /end >/dev/null & echo $!')
    grep PPid /proc/$orphan/status
    : >/end
    left=100000
    while [ -e /proc/$orphan ] && [ $left -gt 0 ]; do left=$((left - 1)); done
    grep State /proc/$orphan/status 2>/dev/null || echo collected";

fn an_init_collects_orphans() {
    assert_eq!(with_init(Case::new(ORPHAN)).run().output, "PPid:\t1\ncollected\n");
}

fn an_init_in_another_containers_pids_collects_its_own() {
    // A first process that collects nothing.
    let other = Case::new("echo begun; exec sleep 100");
    let (running, _reader) = begun(&other);
    let mut case = with_init(Case::new(ORPHAN));
    let namespaces = &mut case.linux().namespaces;
    let pids = namespaces.iter_mut().find(|namespace| namespace.kind == berth_runtime::spec::NamespaceKind::Pid);
    pids.unwrap().path = Some(format!("/proc/{}/ns/pid", running.pid).into());
    assert_eq!(case.run().output, "PPid:\t2\ncollected\n");
    running.signal(libc::SIGKILL).unwrap();
    end(&running);
    other.remove();
}

fn an_init_keeps_neither_memory_nor_descriptors() {
    let of_the_maker = vec![1_u8; 16 << 20];
    let case = with_init(Case::unprivileged("exec sleep 100 >/dev/null 2>&1"));
    let (created, reader) = case.create().unwrap();
    let running = created.start().unwrap();
    // Its end means that neither has it any more, which the init does last.
    assert_eq!(read(reader), "");
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", running.pid)).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let kib: u32 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    // Addresses that the linker of this test, which is no static program, has written into it: some 300 KiB.
    assert!(kib < 1024, "{rollup}");
    assert_eq!(std::fs::read_dir(format!("/proc/{}/fd", running.pid)).unwrap().count(), 0);
    running.signal(libc::SIGTERM).unwrap();
    assert_eq!(end(&running), 128 + libc::SIGTERM);
    case.remove();
    assert!(of_the_maker.iter().all(|byte| *byte == 1));
}

fn a_program_that_an_init_cannot_execute_is_reported() {
    let mut case = with_init(Case::new(""));
    let program = case.root().join("program");
    std::fs::write(&program, "no program").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    case.process().args = vec!["/program".into()];
    let (created, _reader) = case.create().unwrap();
    let running = created.start().unwrap();
    assert_eq!(chain(&running.wait_executed().unwrap_err()), "exec /program: exec format error");
    assert_eq!(end(&running), 1);
    case.remove();
}
