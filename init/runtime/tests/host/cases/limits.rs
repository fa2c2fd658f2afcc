//! How a process runs: scheduling, priorities, processors, memory policy, personality.

use std::os::fd::AsFd;

use berth_runtime::spec::{CpuAffinity, IoPriority, MemoryPolicy, Personality, Scheduler};

use super::Test;
use crate::container::{Case, end};

pub const CASES: &[Test] = &[
    ("a_process_is_scheduled_as_configured", a_process_is_scheduled_as_configured),
    (
        "a_further_process_has_priorities_and_processors_of_its_own",
        a_further_process_has_priorities_and_processors_of_its_own,
    ),
    ("memory_policy_and_personality_are_the_programs", memory_policy_and_personality_are_the_programs),
    ("a_writable_cgroup_belongs_to_the_program", a_writable_cgroup_belongs_to_the_program),
    ("what_cannot_be_is_named", what_cannot_be_is_named),
];

/// Nice value, priority of real time and policy: fields 19, 40 and 41 of proc_pid_stat(5).
const STAT: &str = "cut -d' ' -f19,40,41 /proc/self/stat";

fn scheduler(policy: &str, nice: Option<i32>, priority: Option<i32>) -> Scheduler {
    Scheduler { policy: policy.into(), nice, priority, ..Scheduler::default() }
}

fn io(class: &str, priority: i32) -> IoPriority {
    IoPriority { class: class.into(), priority }
}

fn a_process_is_scheduled_as_configured() {
    let script = format!("{STAT}; ionice -p $$");
    for mut case in [Case::new(&script), Case::unprivileged(&script)] {
        // Better than usual, which a user namespace has no right to give by itself.
        case.process().scheduler = Some(scheduler("SCHED_BATCH", Some(-5), None));
        case.process().io_priority = Some(io("IOPRIO_CLASS_RT", 3));
        assert_eq!(case.run().output, "-5 0 3\nrealtime: prio 3\n");
        case.process().scheduler = Some(scheduler("SCHED_FIFO", None, Some(7)));
        case.process().io_priority = Some(io("IOPRIO_CLASS_IDLE", 0));
        assert_eq!(case.run().output, "0 7 1\nidle\n");
    }
}

fn a_further_process_has_priorities_and_processors_of_its_own() {
    let case = Case::new("exec sleep 100");
    let (created, _reader) = case.create().unwrap();
    let running = created.start().unwrap();
    let mut process = case.spec.process.clone().unwrap();
    process.args[2] = format!("{STAT}; ionice -p $$; grep Cpus_allowed_list /proc/self/status");
    process.scheduler = Some(scheduler("SCHED_BATCH", Some(4), None));
    process.io_priority = Some(io("IOPRIO_CLASS_BE", 6));
    for (initial, last, expected) in [(Some("0"), None, "0"), (Some("0-1"), Some("0"), "0"), (None, Some("0"), "0")] {
        let (initial, last) = (initial.map(str::to_owned), last.map(str::to_owned));
        process.exec_cpu_affinity = Some(CpuAffinity { initial, last });
        let output = case.exec((running.pid, running.pidfd.as_fd()), &process).unwrap().output;
        assert_eq!(output, format!("4 0 3\nbest-effort: prio 6\nCpus_allowed_list:\t{expected}\n"));
    }
    process.exec_cpu_affinity = Some(CpuAffinity { initial: Some("x".into()), last: None });
    let error = case.exec((running.pid, running.pidfd.as_fd()), &process).unwrap_err();
    assert!(crate::container::chain(&error).contains("process.execCPUAffinity must be a list as 0-3,7"), "{error}");
    running.signal(libc::SIGKILL).unwrap();
    end(&running);
    case.remove();
}

fn memory_policy_and_personality_are_the_programs() {
    for mut case in [
        Case::new("uname -m; grep -q bind=static:0 /proc/self/numa_maps && echo bound"),
        Case::unprivileged("uname -m; grep -q bind=static:0 /proc/self/numa_maps && echo bound"),
    ] {
        case.linux().personality = Some(Personality { domain: "LINUX32".into(), flags: vec![] });
        case.linux().memory_policy = Some(MemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0".into(),
            flags: vec!["MPOL_F_STATIC_NODES".into()],
        });
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            print!("(no NUMA in this kernel: only the personality) ");
            case.linux().memory_policy = None;
        }
        let output = case.run().output;
        let mut lines = output.lines();
        assert!(matches!(lines.next(), Some("i686" | "armv8l")), "{output}");
        if case.linux().memory_policy.is_some() {
            assert_eq!(lines.next(), Some("bound"), "{output}");
        }
    }
}

fn what_cannot_be_is_named() {
    type Change = fn(&mut Case);
    let changes: [(&str, Change); 5] = [
        ("process.scheduler.policy is not known: \"SCHED_NONE\"", |case| {
            case.process().scheduler = Some(scheduler("SCHED_NONE", None, None));
        }),
        ("process.ioPriority.priority must be from 0 to 7", |case| {
            case.process().io_priority = Some(io("IOPRIO_CLASS_BE", 8));
        }),
        ("linux.personality.flags must be empty", |case| {
            case.linux().personality = Some(Personality { domain: "LINUX".into(), flags: vec!["x".into()] });
        }),
        ("linux.memoryPolicy.mode is not known", |case| {
            case.linux().memory_policy = Some(MemoryPolicy { mode: "MPOL_ALL".into(), ..MemoryPolicy::default() });
        }),
        ("linux.memoryPolicy.nodes must be a list", |case| {
            case.linux().memory_policy =
                Some(MemoryPolicy { mode: "MPOL_BIND".into(), nodes: "a".into(), flags: vec![] });
        }),
    ];
    for (expected, change) in changes {
        let mut case = Case::new("true");
        change(&mut case);
        let text = case.fails();
        assert!(text.contains(expected), "{text}");
    }
}

fn a_writable_cgroup_belongs_to_the_program() {
    let script = "cd /sys/fs/cgroup; mkdir below && echo $$ > below/cgroup.procs && cat /proc/self/cgroup; \
                  stat -c %u . cgroup.procs cgroup.max.depth";
    for (option, expected) in [("rw", "0::/below\n33\n33\n65534\n"), ("ro", "65534\n65534\n65534\n")] {
        let mut case = Case::unprivileged(script);
        (case.process().user.uid, case.process().user.gid) = (33, 33);
        let mount = case.spec.mounts.iter_mut().find(|mount| mount.destination == "/sys/fs/cgroup").unwrap();
        mount.options = Some(vec![option.to_owned()]);
        let output = case.run().output;
        assert!(output.ends_with(expected), "{option}: {output}");
    }
}
