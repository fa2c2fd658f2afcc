//! The five capability sets of a process: from names to bits, and into force.

use crate::error::{Context, SystemError};
use crate::spec::{Capabilities, NamespaceKind, Process, Spec};
use crate::sys::privileges;

/// Names in the order of their numbers (linux/capability.h, Linux 6.18).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Why capabilities cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// CAP_SYS_RESOURCE as a bit of a set.
pub(crate) const SYS_RESOURCE: u64 = 1 << 24;

/// All five sets, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// Every name that this build knows.
#[must_use]
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// The names in a process's configuration that it will not have in a container of `spec`: those that nobody knows, and those that the calling
/// process does not have itself and so cannot give. The specification wants a warning of them, and no error.
#[must_use]
pub fn not_granted<'a>(spec: &Spec, process: &'a Process) -> Vec<&'a str> {
    let Some(wanted) = &process.capabilities else {
        return Vec::new();
    };
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let available = match namespaces.any(|namespace| namespace.kind == NamespaceKind::User) {
        true => u64::MAX,
        false => privileges::permitted_capabilities().unwrap_or(u64::MAX),
    };
    ungranted(wanted, available)
}

fn ungranted(wanted: &Capabilities, available: u64) -> Vec<&str> {
    let sets = [&wanted.bounding, &wanted.effective, &wanted.inheritable, &wanted.permitted, &wanted.ambient];
    let granted = |name: &str| number(name).is_some_and(|number| available & 1 << number != 0);
    let mut names: Vec<&str> = sets.into_iter().flatten().map(String::as_str).filter(|name| !granted(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Sets {
    /// Names that this kernel or build does not know are left out, as the specification asks (a runtime should warn
    /// and go on). `available` bounds all sets: what the caller itself cannot give is left out as well.
    pub(crate) fn from_spec(spec: Option<&Capabilities>, available: u64) -> Self {
        let Some(spec) = spec else { return Self::default() };
        let bits = |names: &[String]| names.iter().filter_map(|name| number(name)).fold(0, |all, bit| all | 1 << bit);
        let permitted = bits(&spec.permitted) & available;
        let inheritable = bits(&spec.inheritable) & available;
        Self {
            bounding: bits(&spec.bounding) & available,
            effective: bits(&spec.effective) & permitted,
            inheritable,
            permitted,
            // The kernel takes an ambient capability only if it is permitted and inheritable.
            ambient: bits(&spec.ambient) & permitted & inheritable,
        }
    }

    /// Takes what is not wanted out of the bounding set; needs CAP_SETPCAP.
    pub(crate) fn apply_bounding(&self) -> Result<(), CapabilityError> {
        for capability in 0..64_u8 {
            if self.bounding & 1 << capability != 0 {
                continue;
            }
            match privileges::drop_bounding(capability) {
                Ok(()) => {}
                // The first number the kernel does not know: none above it either.
                Err(rustix::io::Errno::INVAL) => break,
                failed => failed.on("prctl PR_CAPBSET_DROP", name(capability))?,
            }
        }
        Ok(())
    }

    /// The other four sets; the last thing before the program runs.
    pub(crate) fn apply(&self) -> Result<(), CapabilityError> {
        privileges::clear_ambient().on("prctl", "PR_CAP_AMBIENT_CLEAR_ALL")?;
        privileges::set_capabilities(self.effective, self.permitted, self.inheritable).on("capset", "own process")?;
        for capability in (0..64_u8).filter(|capability| self.ambient & 1 << capability != 0) {
            privileges::raise_ambient(capability).on("prctl PR_CAP_AMBIENT_RAISE", name(capability))?;
        }
        Ok(())
    }
}

fn name(capability: u8) -> &'static str {
    NAMES.get(usize::from(capability)).copied().unwrap_or("a capability without a name")
}

fn number(wanted: &str) -> Option<u32> {
    let position = NAMES.iter().position(|name| name.eq_ignore_ascii_case(wanted))?;
    u32::try_from(position).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Known names, now and then in small letters, and now and then one that nobody knows.
    fn wanted() -> impl Strategy<Value = Vec<String>> {
        let name = (0..NAMES.len() + 3, any::<bool>()).prop_map(|(position, small)| {
            let name = NAMES.get(position).copied().unwrap_or("CAP_NO_SUCH");
            if small { name.to_lowercase() } else { name.to_owned() }
        });
        proptest::collection::vec(name, 0..12)
    }

    /// The definition: a bit is set if its name is in the list.
    fn has(list: &[String], bit: usize) -> bool {
        NAMES.get(bit).is_some_and(|name| list.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))
    }

    proptest! {
        #[test]
        fn each_bit_is_what_the_lists_and_the_kernel_s_rules_say(
            bounding in wanted(), effective in wanted(), inheritable in wanted(), permitted in wanted(),
            ambient in wanted(), available in any::<u64>(),
        ) {
            let spec = Capabilities { bounding, effective, inheritable, permitted, ambient };
            let sets = Sets::from_spec(Some(&spec), available);
            for bit in 0..64 {
                let is_set = |set: u64| set & 1 << bit != 0;
                let given = |list: &[String]| is_set(available) && has(list, bit);
                prop_assert_eq!(is_set(sets.bounding), given(&spec.bounding));
                prop_assert_eq!(is_set(sets.permitted), given(&spec.permitted));
                prop_assert_eq!(is_set(sets.inheritable), given(&spec.inheritable));
                prop_assert_eq!(is_set(sets.effective), given(&spec.effective) && is_set(sets.permitted));
                let allowed = is_set(sets.permitted) && is_set(sets.inheritable);
                prop_assert_eq!(is_set(sets.ambient), given(&spec.ambient) && allowed);
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("cap_checkpoint_restore"), Some(40));
        assert_eq!(number("CAP_NO_SUCH"), None);
    }

    #[test]
    fn a_name_that_cannot_be_granted_is_told_once() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted = Capabilities {
            bounding: list(&["CAP_NO_SUCH", "CAP_CHOWN", "CAP_KILL"]),
            ambient: list(&["CAP_NO_SUCH"]),
            ..Capabilities::default()
        };
        assert_eq!(ungranted(&wanted, 1), ["CAP_KILL", "CAP_NO_SUCH"]);
    }

    #[test]
    fn a_set_never_exceeds_what_the_kernel_would_take() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let spec = Capabilities {
            bounding: list(&["CAP_CHOWN", "CAP_KILL"]),
            effective: list(&["CAP_CHOWN", "CAP_KILL"]),
            permitted: list(&["CAP_CHOWN"]),
            inheritable: vec![],
            ambient: list(&["CAP_CHOWN"]),
        };
        let sets = Sets::from_spec(Some(&spec), u64::MAX);
        assert_eq!(sets.effective, 1);
        assert_eq!(sets.ambient, 0);
        assert_eq!(Sets::from_spec(Some(&spec), 1 << 5).bounding, 1 << 5);
    }
}
