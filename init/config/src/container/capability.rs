//! Capabilities by name, as capabilities(7) has them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// A name that is none of capabilities(7).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no capability {name:?}")]
pub struct CapabilityError {
    /// As written.
    pub name: String,
}

/// In the order of their numbers in <linux/capability.h>, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability. Written without `CAP_`; read with or without it, in any case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

text_value!(Capability, "a capability of capabilities(7), such as \"NET_ADMIN\"");

impl Capability {
    /// What a user container has if nothing is said: Docker's set without AUDIT_WRITE, MKNOD and NET_RAW, which is
    /// also Podman's. ping works without NET_RAW (net.ipv4.ping_group_range).
    pub const DEFAULT: [Self; 11] = [
        Self(0),  // CHOWN
        Self(1),  // DAC_OVERRIDE
        Self(3),  // FOWNER
        Self(4),  // FSETID
        Self(5),  // KILL
        Self(6),  // SETGID
        Self(7),  // SETUID
        Self(8),  // SETPCAP
        Self(10), // NET_BIND_SERVICE
        Self(18), // SYS_CHROOT
        Self(31), // SETFCAP
    ];

    /// Every capability that this version knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }

    /// Its number in <linux/capability.h>.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// `CAP_NET_ADMIN`, as the OCI runtime specification writes it.
    pub fn full_name(self) -> String {
        format!("CAP_{self}")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(NAMES.get(usize::from(self.0)).unwrap_or(&""))
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let position = NAMES.iter().position(|known| *known == name);
        match position.map(u8::try_from) {
            Some(Ok(number)) => Ok(Self(number)),
            _ => Err(CapabilityError { name: text.to_owned() }),
        }
    }
}

/// One capability or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapabilityChoice {
    /// `ALL`.
    All,
    /// A name.
    One(Capability),
}

text_value!(CapabilityChoice, "a capability of capabilities(7), such as \"NET_ADMIN\", or \"ALL\"");

impl CapabilityChoice {
    /// The capability if it is just one.
    pub fn one(&self) -> Option<Capability> {
        match self {
            Self::All => None,
            Self::One(capability) => Some(*capability),
        }
    }
}

impl FromStr for CapabilityChoice {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.eq_ignore_ascii_case("all") { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl fmt::Display for CapabilityChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("ALL"),
            Self::One(capability) => fmt::Display::fmt(capability, formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_read_as_it_is_shown() {
        for capability in Capability::all() {
            assert_eq!(capability.full_name().parse(), Ok(capability));
            assert_eq!(capability.to_string().to_lowercase().parse(), Ok(capability));
        }
        // From capabilities(7) and the kernel's header.
        for (name, number) in
            [("CHOWN", 0), ("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("SETFCAP", 31), ("CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(name.parse::<Capability>().map(Capability::number), Ok(number));
        }
    }

    #[test]
    fn the_default_ones_are_those_that_the_documentation_names() {
        let names: Vec<String> = Capability::DEFAULT.iter().map(ToString::to_string).collect();
        let wanted = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "SETFCAP",
        ];
        assert_eq!(names, wanted);
    }
}
