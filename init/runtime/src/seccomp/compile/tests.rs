use proptest::prelude::*;

use super::*;
use crate::seccomp::architecture::{AARCH64_MACHINE, X86_64_MACHINE};
use crate::seccomp::table::SYSCALLS;

const X86_64: u32 = 0xc000_003e;

/// The kernel's interpreter, for the few instructions that we use.
fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = vec![number, architecture, 0, 0];
    data.extend(arguments.iter().flat_map(|value| [*value as u32, (*value >> 32) as u32]));
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let step = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { step.jump_true } else { step.jump_false });
        match step.code {
            LOAD_WORD => accumulator = data[step.operand as usize / 4],
            AND => accumulator &= step.operand,
            JUMP => at += step.operand as usize,
            JUMP_EQUAL => branch(accumulator == step.operand),
            JUMP_GREATER => branch(accumulator > step.operand),
            JUMP_GREATER_OR_EQUAL => branch(accumulator >= step.operand),
            RETURN => return step.operand,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn profile(syscalls: Vec<SyscallRule>) -> Seccomp {
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into()],
        flags: vec![],
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn rule(names: &[&str], action: Action, args: Vec<ArgumentRule>) -> SyscallRule {
    SyscallRule { names: names.iter().map(|name| (*name).to_owned()).collect(), action, errno_ret: None, args }
}

#[test]
fn a_number_means_what_its_architecture_says() {
    let program = program(&profile(vec![rule(&["read", "write", "mseal"], Action::Allow, vec![])])).unwrap();
    assert_eq!(run(&program, X86_64, 0, [0; 6]), RETURN_ALLOW);
    assert_eq!(run(&program, X86_64, 3, [0; 6]), RETURN_ERRNO | 1);
    assert_eq!(run(&program, 0x4000_0003, 3, [0; 6]), RETURN_ALLOW);
    assert_eq!(run(&program, 0x4000_0003, 0, [0; 6]), RETURN_ERRNO | 1);
    assert_eq!(run(&program, 0xc000_00b7, 63, [0; 6]), RETURN_KILL_PROCESS);
    assert_eq!(run(&program, X86_64, X32_BIT, [0; 6]), RETURN_KILL_PROCESS);
}

#[test]
fn arm_has_calls_far_above_its_table() {
    let mut profile = profile(vec![rule(&["read", "cacheflush"], Action::Allow, vec![])]);
    profile.architectures = vec!["SCMP_ARCH_ARM".into()];
    let program = program_for(&profile, AARCH64_MACHINE).unwrap();
    let outcomes = [3, 4, 0xf_0001, 0xf_0002, 0xf_0005].map(|number| run(&program, 0x4000_0028, number, [0; 6]));
    let (allow, denied, missing) = (RETURN_ALLOW, RETURN_ERRNO | 1, RETURN_ERRNO | 38);
    assert_eq!(outcomes, [allow, missing, denied, allow, missing]);
    assert_eq!(run(&program, 0xc000_00b7, 63, [0; 6]), allow);
}

#[test]
fn x32_has_numbers_of_its_own() {
    let mut profile = profile(vec![rule(&["ioctl", "write"], Action::Allow, vec![])]);
    profile.architectures = vec!["SCMP_ARCH_X32".into()];
    let program = program_for(&profile, X86_64_MACHINE).unwrap();
    let outcomes = [16, X32_BIT | 16, X32_BIT | 514, X32_BIT | 1].map(|number| run(&program, X86_64, number, [0; 6]));
    assert_eq!(outcomes, [RETURN_ALLOW, RETURN_ERRNO | 1, RETURN_ALLOW, RETURN_ALLOW]);
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist() {
    let program = program(&profile(vec![rule(&["read", "mseal"], Action::Allow, vec![])])).unwrap();
    assert_eq!(run(&program, X86_64, 463, [0; 6]), RETURN_ERRNO | 38);
    assert_eq!(run(&program, X86_64, 461, [0; 6]), RETURN_ERRNO | 1);
}

#[test]
fn conditions_come_before_the_rule_without_any() {
    let condition = ArgumentRule { index: 0, value: 8, value_two: 0, op: Operator::Equal };
    let rules =
        vec![rule(&["personality"], Action::Trap, vec![condition]), rule(&["personality"], Action::Allow, vec![])];
    let program = program(&profile(rules)).unwrap();
    let number = u32::try_from(libc::SYS_personality).unwrap();
    assert_eq!(run(&program, X86_64, number, [8, 0, 0, 0, 0, 0]), RETURN_TRAP);
    assert_eq!(run(&program, X86_64, number, [8 | 1 << 32, 0, 0, 0, 0, 0]), RETURN_ALLOW);
}

#[test]
fn an_argument_that_does_not_exist_is_an_error() {
    let condition = ArgumentRule { index: 6, value: 8, value_two: 0, op: Operator::Equal };
    let rules = vec![rule(&["read"], Action::Allow, vec![condition])];
    assert!(matches!(program(&profile(rules)), Err(SeccompError::ArgumentIndex { index: 6 })));
}

/// What the rules mean, written down plainly.
fn meant(rules: &[SyscallRule], name: &str, arguments: [u64; 6]) -> u32 {
    let holds = |condition: &ArgumentRule| {
        let argument = arguments[condition.index as usize];
        match condition.op {
            Operator::NotEqual => argument != condition.value,
            Operator::Less => argument < condition.value,
            Operator::LessOrEqual => argument <= condition.value,
            Operator::Equal => argument == condition.value,
            Operator::GreaterOrEqual => argument >= condition.value,
            Operator::Greater => argument > condition.value,
            Operator::MaskedEqual => argument & condition.value == condition.value_two,
        }
    };
    rules
        .iter()
        .find(|rule| rule.names.iter().any(|known| known == name) && rule.args.iter().all(holds))
        .map_or(RETURN_ERRNO | 1, |rule| action(rule.action, rule.errno_ret))
}

/// Values around the edges of the halves.
fn value() -> impl Strategy<Value = u64> {
    let edges = vec![0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX];
    prop_oneof![proptest::sample::select(edges), any::<u64>()]
}

fn condition() -> impl Strategy<Value = ArgumentRule> {
    let operators = vec![
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Equal,
        Operator::GreaterOrEqual,
        Operator::Greater,
        Operator::MaskedEqual,
    ];
    (0_u32..6, value(), value(), proptest::sample::select(operators))
        .prop_map(|(index, value, value_two, op)| ArgumentRule { index, value, value_two, op })
}

fn any_rule() -> impl Strategy<Value = SyscallRule> {
    let all: Vec<&str> = SYSCALLS.iter().filter(|(_, number, ..)| *number >= 0).map(|(name, ..)| *name).collect();
    let names = proptest::collection::vec(proptest::sample::select(all), 1..60);
    let actions = vec![Action::Allow, Action::Trap, Action::Log, Action::KillThread];
    (names, proptest::sample::select(actions), proptest::collection::vec(condition(), 0..4))
        .prop_map(|(names, action, args)| rule(&names, action, args))
}

proptest! {
    #[test]
    fn the_program_says_what_the_profile_means(
        rules in proptest::collection::vec(any_rule(), 1..12),
        arguments in proptest::array::uniform6(value()),
    ) {
        let program = program(&profile(rules.clone())).unwrap();
        let named = SYSCALLS.iter().filter(|(name, number, ..)| {
            *number >= 0 && rules.iter().any(|rule| rule.names.iter().any(|known| known == name))
        });
        let last = named.map(|(_, number, ..)| *number).max().unwrap();
        for (name, number, ..) in SYSCALLS.iter().filter(|(_, number, ..)| (0..=last).contains(number)) {
            let number = u32::try_from(*number).unwrap();
            prop_assert_eq!(run(&program, X86_64, number, arguments), meant(&rules, name, arguments), "{}", name);
        }
    }
}

#[test]
fn a_search_takes_few_steps() {
    let all: Vec<&str> = SYSCALLS.iter().step_by(2).map(|(name, ..)| *name).collect();
    let program = program(&profile(vec![rule(&all, Action::Allow, vec![])])).unwrap();
    assert!(program.len() < 1200, "{}", program.len());
}
