use proptest::prelude::*;

use super::*;

/// What the kernel would say: the few instructions that `compile` uses, interpreted.
fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_i32; 10];
    let mut at = 0;
    loop {
        let step = program[at];
        at += 1;
        let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
        match step.code {
            0x61 => registers[to] = context[usize::try_from(step.offset).unwrap() / 4],
            0xb4 => registers[to] = step.immediate,
            0xbc => registers[to] = registers[from],
            0x54 => registers[to] &= step.immediate,
            0x4c => registers[to] |= registers[from],
            0x64 => registers[to] = (registers[to].cast_unsigned() << step.immediate).cast_signed(),
            0x74 => registers[to] = (registers[to].cast_unsigned() >> step.immediate).cast_signed(),
            0x16 if registers[to] == step.immediate => at += usize::try_from(step.offset).unwrap(),
            0x56 if registers[to] != step.immediate => at += usize::try_from(step.offset).unwrap(),
            0x16 | 0x56 => {}
            0x95 => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// The definition: for each access the last rule that matches decides, none means no.
fn expected(rules: &[Rule], kind: i32, access: i32, major: i32, minor: i32) -> bool {
    [MAKE, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|rule| {
                rule.kind.is_none_or(|wanted| wanted == kind)
                    && rule.major.is_none_or(|wanted| wanted == major)
                    && rule.minor.is_none_or(|wanted| wanted == minor)
                    && rule.access & bit != 0
            })
            .is_some_and(|rule| rule.allow)
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let some = |values: std::ops::Range<i32>| proptest::option::of(values);
    (any::<bool>(), some(1..3), some(0..3), some(0..3), 1_i32..8).prop_map(|(allow, kind, major, minor, access)| Rule {
        allow,
        kind,
        major,
        minor,
        access,
    })
}

proptest! {
    #[test]
    fn the_program_says_what_the_rules_say(
        rules in proptest::collection::vec(rule(), 0..12),
        kind in 1_i32..3, access in 1_i32..8, major in 0_i32..3, minor in 0_i32..3,
    ) {
        prop_assert_eq!(run(&compile(&rules), kind, access, major, minor), expected(&rules, kind, access, major, minor));
    }
}

#[test]
fn the_numbers_of_two_devices_are_not_mixed_up() {
    let rule = |major, minor| Rule { allow: true, kind: None, major: Some(major), minor: Some(minor), access: 7 };
    let program = compile(&[rule(1, 3), rule(4095, 1 << 19), rule(0, 1 << 20), rule(1 << 12, 5)]);
    for kind in [BLOCK, CHARACTER] {
        assert!(run(&program, kind, READ, 1, 3));
        assert!(run(&program, kind, READ, 4095, 1 << 19));
        // A minor number that is too wide for a device is not the next major number's.
        assert!(!run(&program, kind, READ, 1, 0));
        assert!(!run(&program, kind, READ, 0, 5));
    }
}

#[test]
fn without_rules_only_the_usual_devices_are_allowed() {
    let program = program(&[], &[]).unwrap().unwrap();
    assert!(run(&program, CHARACTER, READ | WRITE, 1, 3));
    assert!(run(&program, BLOCK, MAKE, 8, 0));
    assert!(!run(&program, BLOCK, READ, 8, 0));
    assert!(!run(&program, CHARACTER, READ, 1, 1));
}

#[test]
fn a_rule_that_allows_everything_needs_no_program() {
    let everything = DeviceRule { allow: true, ..DeviceRule::default() };
    assert_eq!(program(std::slice::from_ref(&everything), &[]).unwrap(), None);
    let denied = DeviceRule { allow: false, kind: Some("b".into()), ..DeviceRule::default() };
    assert!(program(&[everything, denied], &[]).unwrap().is_some());
}

#[test]
fn a_letter_that_is_no_access_is_named() {
    let wrong = DeviceRule { allow: true, access: Some("rx".into()), ..DeviceRule::default() };
    assert!(program(&[wrong], &[]).unwrap_err().to_string().contains("devices[].access"));
}
