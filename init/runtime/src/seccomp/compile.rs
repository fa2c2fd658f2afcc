//! The compiler.
//!
//! ```text
//! load architecture ─ one of the profile's? ─ no: kill
//!   └ load number ─ binary search over ranges of numbers with the same outcome ─ return, or check arguments, return
//! ```
//! Every block ends with a return on all of its paths, so blocks are put one after the other without fix-ups. A jump
//! that is too long for its 8 bits goes by an unconditional one, which has 32.

use super::SeccompError;
use super::architecture::{ARM_PRIVATE_BASE, Call, Machine, Numbers, THIS_MACHINE, X32_BIT, call, chosen};
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
    let named = |rule| move |name: &String| Some((call(name)?, rule));
    let calls: Vec<(Call, &SyscallRule)> =
        profile.syscalls.iter().flat_map(|rule| rule.names.iter().filter_map(named(rule))).collect();
    let mut out = vec![load(OFFSET_ARCHITECTURE)];
    let mut done = Vec::new();
    for (_, audit, _) in &wanted {
        if done.contains(audit) {
            continue;
        }
        done.push(*audit);
        let sharing: Vec<Numbers> =
            wanted.iter().filter(|(_, other, _)| other == audit).map(|(.., numbers)| *numbers).collect();
        let ranges = Ranges::of(profile, &calls, &sharing)?;
        out.extend(skip_unless(JUMP_EQUAL, *audit, 1 + ranges.size(&ranges.points)));
        out.push(load(OFFSET_NUMBER));
        ranges.search(&ranges.points, &mut out);
    }
    out.push(give(RETURN_KILL_PROCESS));
    Ok(out)
}

/// A range of numbers: the first one, and where the block that decides is in the code.
type Point = (u32, std::ops::Range<usize>);

/// All numbers, in ranges with the same outcome. The first begins at 0, each ends where the next one begins.
#[derive(Default)]
struct Ranges {
    points: Vec<Point>,
    code: Vec<Instruction>,
}

impl Ranges {
    fn of(profile: &Seccomp, calls: &[(Call, &SyscallRule)], sharing: &[Numbers]) -> Result<Self, SeccompError> {
        let default = action(profile.default_action, profile.default_errno_ret);
        let unknown = unknown_action(profile, default);
        let each = |(call, rule)| sharing.iter().filter_map(move |numbers| Some((Call::number(call, *numbers)?, rule)));
        let mut rules: Vec<(u32, &SyscallRule)> = calls.iter().flat_map(|(call, rule)| each((call, *rule))).collect();
        // Stable: the rules for one number stay in their order.
        rules.sort_by_key(|(number, _)| *number);
        let mut this = Self::default();
        // A table, what arm has beyond its own, and the table of x32.
        for (base, end) in [(0, ARM_PRIVATE_BASE), (ARM_PRIVATE_BASE, X32_BIT), (X32_BIT, u32::MAX)] {
            match base {
                ARM_PRIVATE_BASE if !sharing.contains(&Numbers::Arm) => continue,
                X32_BIT if sharing.contains(&Numbers::X32) => {}
                X32_BIT if sharing.contains(&Numbers::X86_64) => {
                    // Calls of an ABI that the profile does not name.
                    this.give_from(base, RETURN_KILL_PROCESS);
                    continue;
                }
                X32_BIT => continue,
                _ => {}
            }
            let within = rules.partition_point(|(number, _)| *number < base)..;
            let within = rules.get(within).unwrap_or_default();
            let mut next = base;
            for same in within.chunk_by(|one, other| one.0 == other.0) {
                let Some((number, _)) = same.first().filter(|(number, _)| *number < end) else { break };
                if *number > next {
                    this.give_from(next, default);
                }
                let start = this.code.len();
                decide(same.iter().map(|(_, rule)| *rule), default, &mut this.code)?;
                this.add(*number, start);
                next = number + 1;
            }
            this.give_from(next, unknown);
        }
        Ok(this)
    }

    fn give_from(&mut self, number: u32, value: u32) {
        let start = self.code.len();
        self.code.push(give(value));
        self.add(number, start);
    }

    /// A range whose block is the code from `start` on, unless the range before has the same.
    fn add(&mut self, number: u32, start: usize) {
        let block = start..self.code.len();
        let of = |block: &std::ops::Range<usize>| self.code.get(block.clone()).unwrap_or_default();
        if self.points.last().is_some_and(|(_, last)| of(last) == of(&block)) {
            self.code.truncate(start);
        } else {
            self.points.push((number, block));
        }
    }

    /// How many instructions [`Self::search`] makes.
    fn size(&self, points: &[Point]) -> usize {
        match points {
            [] => 0,
            [(_, block)] => block.len(),
            _ => {
                let (left, right) = points.split_at(points.len() / 2);
                let left = self.size(left);
                left + self.size(right) + if u8::try_from(left).is_ok() { 1 } else { 2 }
            }
        }
    }

    /// A binary search: at each step the number is compared with the first one of the right half.
    fn search(&self, points: &[Point], out: &mut Vec<Instruction>) {
        let (left, right) = points.split_at(points.len() / 2);
        match (left, right) {
            ([], [(_, block)]) => out.extend_from_slice(self.code.get(block.clone()).unwrap_or_default()),
            (_, [(pivot, _), ..]) => {
                let size = self.size(left);
                match u8::try_from(size) {
                    Ok(distance) => out.push(test(JUMP_GREATER_OR_EQUAL, *pivot, distance, 0)),
                    Err(_) => out.extend([test(JUMP_GREATER_OR_EQUAL, *pivot, 0, 1), jump(size)]),
                }
                self.search(left, out);
                self.search(right, out);
            }
            (_, []) => {}
        }
    }
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
fn decide<'a>(
    rules: impl Iterator<Item = &'a SyscallRule>,
    default: u32,
    out: &mut Vec<Instruction>,
) -> Result<(), SeccompError> {
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
    Ok(())
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

/// Goes into the block of `size` that follows if the test holds, and over it otherwise.
fn skip_unless(code: u16, operand: u32, size: usize) -> Vec<Instruction> {
    match u8::try_from(size) {
        Ok(distance) => vec![test(code, operand, 0, distance)],
        Err(_) => vec![test(code, operand, 1, 0), jump(size)],
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
