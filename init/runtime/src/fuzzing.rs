//! What the fuzz targets ask of the inside of this crate; only there with the feature of that name. Each function panics
//! if a promise is broken.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a broken promise ends the fuzz run")]

use crate::mounts::options::Options;
use crate::seccomp::Filter;
use crate::spec::{Action, IdMapping, Seccomp};
use crate::sys::privileges::Instruction;

/// Id maps that pass are unambiguous in both directions.
pub fn id_maps(mappings: &[IdMapping]) {
    if crate::idmap::check(mappings, "uidMappings").is_err() {
        return;
    }
    for mapping in mappings {
        let last = mapping.size - 1;
        for offset in [0, last / 2, last] {
            let (inside, outside) = (mapping.container_id + offset, mapping.host_id + offset);
            assert_eq!(crate::to_host(mappings, inside), Some(outside));
            let holds = |other: &&IdMapping| (other.host_id..other.host_id + other.size).contains(&outside);
            assert_eq!(mappings.iter().filter(holds).count(), 1, "{outside} is mapped twice");
        }
    }
}

/// Options say each thing once.
pub fn mount_options(words: &[String]) {
    use crate::sys::mount::attribute::ACCESS_TIME;
    let options = Options::parse(words);
    for attributes in [&options.attributes, &options.recursive] {
        assert_eq!(attributes.set & attributes.clear & !ACCESS_TIME, 0, "set and cleared");
        let times = (attributes.set & ACCESS_TIME, attributes.clear & ACCESS_TIME);
        assert!(times.0 == 0 || times.1 == ACCESS_TIME, "the kernel wants all of the field cleared");
    }
    let known = crate::known_mount_options();
    for (key, value) in &options.data {
        assert!(value.is_some() || !known.contains(key), "{key} would reach the file system");
    }
    // The last word has its way.
    let twice: Vec<String> = words.iter().chain(words.last()).cloned().collect();
    let again = Options::parse(&twice);
    assert_eq!(
        (&again.attributes, &again.recursive, again.bind),
        (&options.attributes, &options.recursive, options.bind)
    );
}

/// Checks a filter as seccomp_check_filter() and bpf_check_classic() of the kernel do, and asks it about one call:
/// `call` is `struct seccomp_data` in words.
pub fn filter(profile: &Seccomp, filter: &Filter, call: [u32; 16]) {
    let program = filter.instructions();
    assert!(!program.is_empty() && program.len() <= 4096);
    for (position, step) in program.iter().enumerate() {
        assert!(is_valid(step, program.len() - position - 1), "{position}: {step:?}");
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "the last instruction must return");
    let answer = run(program, call);
    let actions = profile.syscalls.iter().map(|rule| rule.action).chain([profile.default_action]);
    let mut possible: Vec<u32> = actions.map(value).collect();
    // Foreign architectures are killed; calls newer than the profile do not exist.
    possible.extend([0x8000_0000, 0x0005_0000]);
    assert!(possible.contains(&(answer & 0xffff_0000)), "{answer:#x} is no answer of this profile");
}

fn is_valid(step: &Instruction, left: usize) -> bool {
    match step.code {
        // Loads are whole words of seccomp_data.
        0x20 => step.operand.is_multiple_of(4) && step.operand < 64,
        0x54 | 0x06 => true,
        0x05 => (step.operand as usize) < left,
        0x15 | 0x25 | 0x35 => usize::from(step.jump_true) < left && usize::from(step.jump_false) < left,
        _ => false,
    }
}

fn run(program: &[Instruction], call: [u32; 16]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = program[at];
        at += 1;
        let mut branch = |holds| at += usize::from(if holds { step.jump_true } else { step.jump_false });
        match step.code {
            0x20 => accumulator = call[step.operand as usize / 4],
            0x54 => accumulator &= step.operand,
            0x05 => at += step.operand as usize,
            0x15 => branch(accumulator == step.operand),
            0x25 => branch(accumulator > step.operand),
            0x35 => branch(accumulator >= step.operand),
            _ => return step.operand,
        }
    }
}

/// `SECCOMP_RET_*` of linux/seccomp.h.
fn value(action: Action) -> u32 {
    match action {
        Action::Kill | Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000,
        Action::Notify => 0x7fc0_0000,
        Action::Trace => 0x7ff0_0000,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}
