//! Seccomp profiles: whatever compiles, the kernel would take, and it only ever gives answers that the profile has.
#![no_main]

use berth_runtime::seccomp::{Filter, known_architectures};
use berth_runtime::spec::{Action, ArgumentRule, Operator, Seccomp, SyscallRule};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const NAMES: &[&str] = &[
    "read",
    "write",
    "open",
    "openat",
    "close",
    "clone",
    "clone3",
    "mount",
    "socket",
    "socketcall",
    "personality",
    "ptrace",
    "mseal",
    "exit_group",
    "ipc",
    "arch_prctl",
    "cacheflush",
    "futex_wait",
    "no_such_call",
];

const ACTIONS: &[Action] = &[
    Action::Kill,
    Action::KillProcess,
    Action::KillThread,
    Action::Trap,
    Action::Errno,
    Action::Trace,
    Action::Allow,
    Action::Log,
    Action::Notify,
];

const OPERATORS: &[Operator] = &[
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Equal,
    Operator::GreaterOrEqual,
    Operator::Greater,
    Operator::MaskedEqual,
];

fn profile(bytes: &mut Unstructured<'_>) -> Result<Seccomp> {
    let mut syscalls = Vec::new();
    for _ in 0..bytes.int_in_range(0..=40)? {
        syscalls.push(rule(bytes)?);
    }
    let mut architectures = Vec::new();
    for _ in 0..bytes.int_in_range(0..=4)? {
        architectures.push((*bytes.choose(&known_architectures())?).to_owned());
    }
    Ok(Seccomp {
        default_action: *bytes.choose(ACTIONS)?,
        default_errno_ret: bytes.arbitrary()?,
        architectures,
        flags: Vec::new(),
        listener_path: Some("/run/agent".into()),
        listener_metadata: None,
        syscalls,
    })
}

fn rule(bytes: &mut Unstructured<'_>) -> Result<SyscallRule> {
    let mut names = Vec::new();
    for _ in 0..bytes.int_in_range(0..=6)? {
        names.push((*bytes.choose(NAMES)?).to_owned());
    }
    let mut args = Vec::new();
    for _ in 0..bytes.int_in_range(0..=7)? {
        let op = *bytes.choose(OPERATORS)?;
        let (value, value_two) = (bytes.arbitrary()?, bytes.arbitrary()?);
        args.push(ArgumentRule { index: bytes.int_in_range(0..=6)?, value, value_two, op });
    }
    Ok(SyscallRule { names, action: *bytes.choose(ACTIONS)?, errno_ret: bytes.arbitrary()?, args })
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(profile) = profile(&mut bytes) else { return };
    let Ok(filter) = Filter::compile(&profile) else { return };
    while let Ok(call) = bytes.arbitrary::<[u32; 16]>() {
        berth_runtime::fuzzing::filter(&profile, &filter, call);
        if bytes.is_empty() {
            return;
        }
    }
});
