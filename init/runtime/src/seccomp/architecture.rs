//! Architectures: their names in profiles, their marks in the kernel's data, their system calls' numbers.

use super::SeccompError;
use super::table::{ARM_PRIVATE, Row, SYSCALLS, X32};

/// Bit that marks a call of the x32 ABI.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Where arm's own calls begin, far above the table (`__ARM_NR_BASE`).
pub(super) const ARM_PRIVATE_BASE: u32 = 0xf_0000;

/// A column of the table of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    X86_64,
    X32,
    I386,
    Aarch64,
    Arm,
}

/// Name, AUDIT_ARCH value (linux/audit.h) and numbers. x32 shares its value with x86_64.
pub(super) type Architecture = (&'static str, u32, Numbers);

/// What one machine can run, its own architecture first.
pub(super) type Machine = &'static [Architecture];

pub(super) const X86_64_MACHINE: Machine = &[
    ("SCMP_ARCH_X86_64", 0xc000_003e, Numbers::X86_64),
    ("SCMP_ARCH_X32", 0xc000_003e, Numbers::X32),
    ("SCMP_ARCH_X86", 0x4000_0003, Numbers::I386),
];

pub(super) const AARCH64_MACHINE: Machine =
    &[("SCMP_ARCH_AARCH64", 0xc000_00b7, Numbers::Aarch64), ("SCMP_ARCH_ARM", 0x4000_0028, Numbers::Arm)];

pub(super) const THIS_MACHINE: Machine = if cfg!(target_arch = "aarch64") { AARCH64_MACHINE } else { X86_64_MACHINE };

/// Every name of the specification. What this machine cannot run needs no rules: without any, its calls end a process.
const NAMES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Every name that is taken.
pub(super) fn names() -> Vec<&'static str> {
    NAMES.to_vec()
}

/// The architectures that a profile's rules are for: the machine's own, and those of `wanted` that it can run.
pub(super) fn chosen(wanted: &[String], machine: Machine) -> Result<Vec<Architecture>, SeccompError> {
    if let Some(unknown) = wanted.iter().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(SeccompError::Architecture { name: unknown.clone() });
    }
    // The machine's own is asked for first: nearly every call is of it.
    let is_chosen =
        |(position, (name, ..)): &(usize, &Architecture)| *position == 0 || wanted.iter().any(|w| w == name);
    Ok(machine.iter().enumerate().filter(is_chosen).map(|(_, architecture)| *architecture).collect())
}

/// A system call that is known, by its name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call {
    row: Option<&'static Row>,
    x32: Option<i16>,
    arm_private: Option<u32>,
}

/// Looks a name up.
pub(super) fn call(name: &str) -> Option<Call> {
    match SYSCALLS.binary_search_by(|(known, ..)| (*known).cmp(name)) {
        Ok(position) => {
            let own = X32.binary_search_by(|(known, _)| (*known).cmp(name)).ok().and_then(|own| X32.get(own));
            Some(Call { row: SYSCALLS.get(position), x32: own.map(|(_, number)| *number), arm_private: None })
        }
        Err(_) => {
            let (_, number) = ARM_PRIVATE.iter().find(|(known, _)| *known == name)?;
            Some(Call { arm_private: Some(*number), ..Call::default() })
        }
    }
}

impl Call {
    /// Its number; none where the architecture does not have it.
    pub(super) fn number(&self, numbers: Numbers) -> Option<u32> {
        let Some((_, x86_64, i386, aarch64, arm)) = self.row else {
            return self.arm_private.filter(|_| numbers == Numbers::Arm);
        };
        let (number, mark) = match numbers {
            Numbers::X86_64 => (*x86_64, 0),
            Numbers::X32 => (self.x32.unwrap_or(*x86_64), X32_BIT),
            Numbers::I386 => (*i386, 0),
            Numbers::Aarch64 => (*aarch64, 0),
            Numbers::Arm => (*arm, 0),
        };
        u32::try_from(number).ok().map(|number| number | mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_by_name() {
        assert!(SYSCALLS.is_sorted_by(|(one, ..), (next, ..)| one < next));
        assert!(NAMES.is_sorted() && X32.is_sorted() && ARM_PRIVATE.is_sorted());
    }

    fn number(name: &str, numbers: Numbers) -> Option<u32> {
        call(name)?.number(numbers)
    }

    #[test]
    fn numbers_are_those_of_the_architecture() {
        assert_eq!(number("read", Numbers::X86_64), Some(0));
        assert_eq!(number("clone3", Numbers::Aarch64), Some(435));
        assert_eq!(number("openat", Numbers::Arm), Some(322));
        assert_eq!(number("set_tls", Numbers::Arm), Some(0xf_0005));
        assert_eq!(number("set_tls", Numbers::Aarch64), None);
        assert_eq!(number("ioctl", Numbers::X32), Some(X32_BIT | 514));
        assert_eq!(number("read", Numbers::X32), Some(X32_BIT));
    }

    #[test]
    fn the_machines_own_architecture_is_always_there_and_first() {
        let of = |wanted: &[&str], machine| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen(&wanted, machine).map(|all| all.iter().map(|(.., numbers)| *numbers).collect::<Vec<_>>())
        };
        assert_eq!(of(&[], X86_64_MACHINE).unwrap(), [Numbers::X86_64]);
        let all = ["SCMP_ARCH_X86", "SCMP_ARCH_ARM", "SCMP_ARCH_X86_64"];
        assert_eq!(of(&all, X86_64_MACHINE).unwrap(), [Numbers::X86_64, Numbers::I386]);
        assert_eq!(of(&all, AARCH64_MACHINE).unwrap(), [Numbers::Aarch64, Numbers::Arm]);
        assert!(of(&["SCMP_ARCH_VAX"], X86_64_MACHINE).unwrap_err().to_string().contains("SCMP_ARCH_VAX"));
    }
}
