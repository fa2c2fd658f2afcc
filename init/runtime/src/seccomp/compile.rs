//! The compiler.
//!
//! ```text
//! load architecture ─ one of the profile's? ─ no: kill
//!   └ load number ─ binary search over ranges of numbers with the same outcome ─ return, or check arguments, return
//! ```
//! Every block ends with a return on all of its paths, so blocks are put one after the other without fix-ups. A jump
//! that is too long for its 8 bits goes by an unconditional one, which has 32.

use std::collections::BTreeMap;

use super::SeccompError;
use super::architecture::{ARM_PRIVATE_BASE, Machine, Numbers, THIS_MACHINE, X32_BIT, chosen, number};
use crate::spec::{Action, ArgumentRule, Operator, Seccomp, SyscallRule};
use crate::sys::privileges::Instruction;

/// Classic BPF operations of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// `SECCOMP_RET_*` of linux/seccomp.h.
const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_KILL_THREAD: u32 = 0;
const RETURN_TRAP: u32 = 0x0003_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_NOTIFY: u32 = 0x7fc0_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

/// The kernel's largest error number (MAX_ERRNO); larger ones it cuts itself.
const MAXIMUM_ERRNO: u32 = 4095;

/// Compiles a profile for this machine.
pub(super) fn program(profile: &Seccomp) -> Result<Vec<Instruction>, SeccompError> {
    program_for(profile, THIS_MACHINE)
}

fn program_for(profile: &Seccomp, machine: Machine) -> Result<Vec<Instruction>, SeccompError> {
    let wanted = chosen(&profile.architectures, machine)?;
    let mut out = vec![load(OFFSET_ARCHITECTURE)];
    let mut done = Vec::new();
    for (_, audit, _) in &wanted {
        if done.contains(audit) {
            continue;
        }
        done.push(*audit);
        let sharing: Vec<Numbers> =
            wanted.iter().filter(|(_, other, _)| other == audit).map(|(.., numbers)| *numbers).collect();
        let mut block = vec![load(OFFSET_NUMBER)];
        block.extend(search(&ranges(profile, &sharing)?));
        out.extend(skip_unless(JUMP_EQUAL, *audit, &block));
        out.extend(block);
    }
    out.push(give(RETURN_KILL_PROCESS));
    Ok(out)
}

/// Ranges of numbers, by their first one, each with the block that decides. The first begins at 0.
fn ranges(profile: &Seccomp, sharing: &[Numbers]) -> Result<Vec<(u32, Vec<Instruction>)>, SeccompError> {
    let default = action(profile.default_action, profile.default_errno_ret);
    let mut rules: BTreeMap<u32, Vec<&SyscallRule>> = BTreeMap::new();
    for rule in &profile.syscalls {
        for (name, numbers) in rule.names.iter().flat_map(|name| sharing.iter().map(move |numbers| (name, *numbers))) {
            if let Some(number) = number(name, numbers) {
                rules.entry(number).or_default().push(rule);
            }
        }
    }
    let unknown = unknown_action(profile, default);
    let mut points: Vec<(u32, Vec<Instruction>)> = Vec::new();
    let mut add = |start: u32, block: Vec<Instruction>| match points.last_mut() {
        Some((last, old)) if *last == start => *old = block,
        _ => points.push((start, block)),
    };
    // A table, what arm has beyond its own, and the table of x32.
    for (base, end) in [(0, ARM_PRIVATE_BASE), (ARM_PRIVATE_BASE, X32_BIT), (X32_BIT, u32::MAX)] {
        match base {
            ARM_PRIVATE_BASE if !sharing.contains(&Numbers::Arm) => continue,
            X32_BIT if sharing.contains(&Numbers::X32) => {}
            X32_BIT if sharing.contains(&Numbers::X86_64) => {
                // Calls of an ABI that the profile does not name.
                add(base, vec![give(RETURN_KILL_PROCESS)]);
                continue;
            }
            X32_BIT => continue,
            _ => {}
        }
        add(base, vec![give(default)]);
        let mut beyond = base;
        for (number, rules) in rules.range(base..end) {
            add(*number, decide(rules, default)?);
            beyond = *number + 1;
            add(beyond, vec![give(default)]);
        }
        add(beyond, vec![give(unknown)]);
    }
    points.dedup_by(|next, kept| next.1 == kept.1);
    Ok(points)
}

/// What becomes of calls that are newer than every one the profile names: if it answers the unknown with an error,
/// ENOSYS, by which C libraries fall back to the older call. As runc does.
fn unknown_action(profile: &Seccomp, default: u32) -> u32 {
    if profile.default_action == Action::Errno && !profile.syscalls.is_empty() {
        RETURN_ERRNO | libc::ENOSYS.unsigned_abs()
    } else {
        default
    }
}

/// The block for one system call: rules with conditions in their order, then the one without.
fn decide(rules: &[&SyscallRule], default: u32) -> Result<Vec<Instruction>, SeccompError> {
    let mut out = Vec::new();
    let mut otherwise = default;
    for rule in rules {
        let outcome = action(rule.action, rule.errno_ret);
        if rule.args.is_empty() {
            otherwise = outcome;
            break;
        }
        out.extend(conditions(&rule.args, outcome)?);
    }
    out.push(give(otherwise));
    Ok(out)
}

/// Returns `outcome` if all conditions hold and falls through otherwise.
fn conditions(arguments: &[ArgumentRule], outcome: u32) -> Result<Vec<Instruction>, SeccompError> {
    // From the last condition to the first, so that each knows how far it is to the end.
    let mut out = vec![give(outcome)];
    for argument in arguments.iter().rev() {
        if argument.index > 5 {
            return Err(SeccompError::ArgumentIndex { index: argument.index });
        }
        let mut block = condition(argument, out.len());
        block.append(&mut out);
        out = block;
    }
    Ok(out)
}

/// Goes on if the condition holds; otherwise skips the `rest` instructions after the block. A 64-bit comparison is
/// done in halves, the high one first. Six conditions have less than 60 instructions, so offsets fit their 8 bits.
fn condition(argument: &ArgumentRule, rest: usize) -> Vec<Instruction> {
    let low_offset = OFFSET_ARGUMENTS + 8 * argument.index;
    let high_offset = low_offset + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(argument.value);
    let fail = |distance: usize| u8::try_from(rest + distance).unwrap_or(u8::MAX);
    match argument.op {
        Operator::Equal => vec![
            load(high_offset),
            test(JUMP_EQUAL, high, 0, fail(2)),
            load(low_offset),
            test(JUMP_EQUAL, low, 0, fail(0)),
        ],
        Operator::NotEqual => {
            vec![load(high_offset), test(JUMP_EQUAL, high, 0, 2), load(low_offset), test(JUMP_EQUAL, low, fail(0), 0)]
        }
        Operator::MaskedEqual => {
            let (mask_high, mask_low) = (high, low);
            let (high, low) = halves(argument.value_two);
            vec![
                load(high_offset),
                Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask_high },
                test(JUMP_EQUAL, high, 0, fail(3)),
                load(low_offset),
                Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask_low },
                test(JUMP_EQUAL, low, 0, fail(0)),
            ]
        }
        Operator::Greater | Operator::GreaterOrEqual => {
            let last = if argument.op == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
            vec![
                load(high_offset),
                test(JUMP_GREATER, high, 3, 0),
                test(JUMP_EQUAL, high, 0, fail(2)),
                load(low_offset),
                test(last, low, 0, fail(0)),
            ]
        }
        Operator::Less | Operator::LessOrEqual => {
            let last = if argument.op == Operator::Less { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            vec![
                load(high_offset),
                test(JUMP_GREATER, high, fail(3), 0),
                test(JUMP_EQUAL, high, 0, 2),
                load(low_offset),
                test(last, low, fail(0), 0),
            ]
        }
    }
}

/// A binary search: at each step the number is compared with the first one of the right half.
fn search(points: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let (left, right) = points.split_at(points.len() / 2);
    match (left, right) {
        ([], [(_, block)]) => block.clone(),
        (_, [(pivot, _), ..]) => {
            let left = search(left);
            let mut out = match u8::try_from(left.len()) {
                Ok(distance) => vec![test(JUMP_GREATER_OR_EQUAL, *pivot, distance, 0)],
                Err(_) => vec![test(JUMP_GREATER_OR_EQUAL, *pivot, 0, 1), jump(left.len())],
            };
            out.extend(left);
            out.extend(search(right));
            out
        }
        (_, []) => Vec::new(),
    }
}

/// Goes into the block that follows if the test holds, and over it otherwise.
fn skip_unless(code: u16, operand: u32, block: &[Instruction]) -> Vec<Instruction> {
    match u8::try_from(block.len()) {
        Ok(distance) => vec![test(code, operand, 0, distance)],
        Err(_) => vec![test(code, operand, 1, 0), jump(block.len())],
    }
}

const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD_WORD, jump_true: 0, jump_false: 0, operand: offset }
}

const fn test(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

const fn give(value: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: value }
}

fn jump(distance: usize) -> Instruction {
    // A program is at most 4096 instructions long, which is checked when it is whole.
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: u32::try_from(distance).unwrap_or(u32::MAX) }
}

fn action(action: Action, errno: Option<u32>) -> u32 {
    let number = errno.unwrap_or(libc::EPERM.unsigned_abs()).min(MAXIMUM_ERRNO);
    match action {
        Action::Kill | Action::KillThread => RETURN_KILL_THREAD,
        Action::KillProcess => RETURN_KILL_PROCESS,
        Action::Trap => RETURN_TRAP,
        Action::Errno => RETURN_ERRNO | number,
        Action::Trace => RETURN_TRACE | number,
        Action::Allow => RETURN_ALLOW,
        Action::Log => RETURN_LOG,
        Action::Notify => RETURN_NOTIFY,
    }
}

#[cfg(test)]
mod tests;
