//! Device rules as a BPF program for a cgroup.
//!
//! The later rule wins, for each kind of access by itself. The program goes through the rules from the last to the
//! first with the set of accesses that no rule has answered yet: a rule that denies one of them ends it with no, one
//! that allows takes its own out, and when none is left it is a yes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::{CgroupError, LimitError};
use crate::error::Context;
use crate::spec::{Device, DeviceRule};
use crate::sys::bpf::{self, Instruction};
use crate::sys::privileges;

/// The most rules that are taken; far more than anybody has, and small enough for 16-bit jumps.
const MAXIMUM_RULES: usize = 2000;

/// `BPF_DEVCG_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// What every container may use: making nodes of any kind (useless without the access), and the devices that the
/// specification wants to be there.
const ALWAYS: &[(char, i64, i64, &str)] = &[
    ('c', -1, -1, "m"),
    ('b', -1, -1, "m"),
    ('c', 1, 3, "rwm"),
    ('c', 1, 5, "rwm"),
    ('c', 1, 7, "rwm"),
    ('c', 1, 8, "rwm"),
    ('c', 1, 9, "rwm"),
    ('c', 5, 0, "rwm"),
    ('c', 5, 2, "rwm"),
    ('c', 136, -1, "rwm"),
];

/// A rule in the kernel's terms; `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// The program, or none if everything is allowed.
pub(crate) fn program(rules: &[DeviceRule], nodes: &[Device]) -> Result<Option<Vec<Instruction>>, LimitError> {
    let mut all = rules.iter().map(from_spec).collect::<Result<Vec<_>, _>>()?;
    let nodes = nodes.iter().filter(|node| node.kind != "p").map(|node| DeviceRule {
        allow: true,
        kind: Some(if node.kind == "b" { "b" } else { "c" }.to_owned()),
        major: Some(node.major),
        minor: Some(node.minor),
        access: None,
    });
    let always = ALWAYS.iter().map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: Some(kind.to_string()),
        major: Some(*major),
        minor: Some(*minor),
        access: Some((*access).to_owned()),
    });
    for rule in nodes.chain(always) {
        all.push(from_spec(&rule)?);
    }
    if all.len() > MAXIMUM_RULES {
        let value = all.len().to_string();
        return Err(LimitError::Value { field: "devices", must: "at most 2000 rules", value });
    }
    // What comes before a rule about everything never has a say.
    let everything = |rule: &Rule| {
        rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none() && rule.access == MAKE | READ | WRITE
    };
    let start = all.iter().rposition(everything).unwrap_or(0);
    let relevant = all.get(start..).unwrap_or_default();
    if relevant.iter().all(|rule| rule.allow) && relevant.first().is_some_and(everything) {
        return Ok(None);
    }
    Ok(Some(compile(relevant)))
}

/// Puts the rules in force for a cgroup, besides what is in force already. Gives the program, if there is need of one.
pub(crate) fn restrict(
    cgroup: BorrowedFd<'_>,
    path: &Path,
    rules: &[DeviceRule],
    nodes: &[Device],
) -> Result<Option<OwnedFd>, CgroupError> {
    let Some(program) = program(rules, nodes)? else { return Ok(None) };
    let program = match bpf::load_device_program(&program) {
        // Who has no right to it is no more than a user, and can make no devices, and open none that are not his.
        Err(Errno::PERM) if !privileges::is_administrator() => return Ok(None),
        result => result.on("bpf", "load the device program")?,
    };
    bpf::attach_device_program(cgroup, program.as_fd())
        .context("bpf", || format!("attach the device program to {}", path.display()))?;
    Ok(Some(program))
}

/// The same in place of what is in force. In between both are, so that nothing is allowed that neither allows.
pub(crate) fn replace(
    cgroup: BorrowedFd<'_>,
    path: &Path,
    rules: &[DeviceRule],
    nodes: &[Device],
) -> Result<(), CgroupError> {
    let subject = || format!("replace the device program of {}", path.display());
    let old = bpf::device_programs(cgroup).context("bpf", subject)?;
    restrict(cgroup, path, rules, nodes)?;
    for program in old {
        bpf::detach_device_program(cgroup, program.as_fd()).context("bpf", subject)?;
    }
    Ok(())
}

fn from_spec(rule: &DeviceRule) -> Result<Rule, LimitError> {
    let wrong = |field, must, value: &str| LimitError::Value { field, must, value: value.to_owned() };
    let kind = match rule.kind.as_deref() {
        None | Some("a" | "") => None,
        Some("b") => Some(BLOCK),
        Some("c" | "u") => Some(CHARACTER),
        Some(other) => return Err(wrong("devices[].type", "a, b or c", other)),
    };
    let number = |value: Option<i64>, field| match value {
        None | Some(-1) => Ok(None),
        Some(number) => i32::try_from(number)
            .ok()
            .filter(|number| *number >= 0)
            .map(Some)
            .ok_or_else(|| wrong(field, "a device number or -1", &number.to_string())),
    };
    let mut access = 0;
    for letter in rule.access.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            _ => return Err(wrong("devices[].access", "of r, w and m", rule.access.as_deref().unwrap_or_default())),
        };
    }
    let (major, minor) = (number(rule.major, "devices[].major")?, number(rule.minor, "devices[].minor")?);
    Ok(Rule { allow: rule.allow, kind, major, minor, access })
}

/// Registers: 1 context, 2 type, 3 accesses not answered yet, 4 major, 5 minor, 6 scratch, 7 both numbers in one.
///
/// The kernel's verifier follows every branch before it takes the program, which is most of what a program costs: so
/// the two types go their own ways at the beginning, and a device's numbers are compared in one go.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let of_kind = |kind| {
        section(rules.iter().filter(move |rule| is_possible(rule) && rule.kind.is_none_or(|wanted| wanted == kind)))
    };
    let (block, character) = (of_kind(BLOCK), of_kind(CHARACTER));
    let mut out = vec![
        load_word(2, 0),
        register(MOVE, 3, 2),
        constant(SHIFT_RIGHT, 3, 16),
        constant(AND, 2, 0xffff),
        load_word(4, 4),
        load_word(5, 8),
        register(MOVE, 7, 4),
        constant(SHIFT_LEFT, 7, MINOR_BITS),
        register(OR, 7, 5),
        // At most 2000 rules of seven instructions, so the length fits.
        jump(JUMP_NOT_EQUAL, 2, BLOCK, i16::try_from(block.len()).unwrap_or(i16::MAX)),
    ];
    out.extend(block);
    out.extend(character);
    out
}

/// The rules of one type, which they do not ask for any more.
fn section<'a>(rules: impl DoubleEndedIterator<Item = &'a Rule>) -> Vec<Instruction> {
    const EVERY_ACCESS: i32 = MAKE | READ | WRITE;
    let mut out = Vec::new();
    for rule in rules.rev() {
        let test = test(rule);
        let body = match (rule.allow, rule.access) {
            (allow, EVERY_ACCESS) => vec![constant(MOVE, 0, i32::from(allow)), EXIT],
            (true, access) => {
                vec![constant(AND, 3, !access), jump(JUMP_NOT_EQUAL, 3, 0, 2), constant(MOVE, 0, 1), EXIT]
            }
            (false, access) => vec![
                register(MOVE, 6, 3),
                constant(AND, 6, access),
                jump(JUMP_EQUAL, 6, 0, 2),
                constant(MOVE, 0, 0),
                EXIT,
            ],
        };
        // At most five instructions.
        let skip = i16::try_from(body.len()).unwrap_or(i16::MAX);
        out.extend(test.map(|(number, wanted)| jump(JUMP_NOT_EQUAL, number, wanted, skip)));
        out.extend(body);
        if test.is_none() && rule.access == EVERY_ACCESS {
            // What would follow is never reached, which the verifier does not take.
            return out;
        }
    }
    out.extend([constant(MOVE, 0, 0), EXIT]);
    out
}

/// Whether there can be such a device; rules about others would only be in the way.
fn is_possible(rule: &Rule) -> bool {
    rule.major.is_none_or(|major| major < 1 << MAJOR_BITS) && rule.minor.is_none_or(|minor| minor < 1 << MINOR_BITS)
}

/// The register that tells a rule's devices, and its value; none for a rule about all devices.
fn test(rule: &Rule) -> Option<(u8, i32)> {
    match (rule.major, rule.minor) {
        (None, None) => None,
        (Some(major), None) => Some((4, major)),
        (None, Some(minor)) => Some((5, minor)),
        (Some(major), Some(minor)) => Some((7, major << MINOR_BITS | minor)),
    }
}

/// How wide a device's numbers are inside the kernel: linux/kdev_t.h.
const MAJOR_BITS: i32 = 12;
const MINOR_BITS: i32 = 20;

/// Operation codes of linux/bpf.h: BPF_ALU (32 bits) and BPF_JMP32, with BPF_K or BPF_X.
const MOVE: u8 = 0xb0;
const AND: u8 = 0x50;
const OR: u8 = 0x40;
const SHIFT_LEFT: u8 = 0x60;
const SHIFT_RIGHT: u8 = 0x70;
const JUMP_EQUAL: u8 = 0x10;
const JUMP_NOT_EQUAL: u8 = 0x50;
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

const fn load_word(to: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: 1 << 4 | to, offset, immediate: 0 }
}

const fn constant(operation: u8, to: u8, immediate: i32) -> Instruction {
    Instruction { code: operation | 0x04, registers: to, offset: 0, immediate }
}

const fn register(operation: u8, to: u8, from: u8) -> Instruction {
    Instruction { code: operation | 0x0c, registers: from << 4 | to, offset: 0, immediate: 0 }
}

const fn jump(operation: u8, number: u8, immediate: i32, offset: i16) -> Instruction {
    Instruction { code: operation | 0x06, registers: number, offset, immediate }
}

#[cfg(test)]
mod tests;
