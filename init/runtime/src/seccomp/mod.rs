//! The system-call filter: from the specification's profile to classic BPF.
//!
//! [`Filter::compile`] does all the work that can fail for the profile's sake, before the container's process is
//! made; installing it is one system call.

mod compile;
mod default;
mod table;

use std::os::fd::OwnedFd;

use crate::error::{Context, SystemError};
use crate::spec::{Action, Seccomp};
use crate::sys::privileges::{Instruction, install_filter};

pub use default::default_profile;

/// The kernel takes at most this many instructions (BPF_MAXINSNS of linux/bpf_common.h).
const MAXIMUM_INSTRUCTIONS: usize = 4096;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Not a name that we know.
    #[error("linux.seccomp.architectures: {name} is not supported")]
    Architecture {
        /// As given.
        name: String,
    },
    /// Not a flag that we know.
    #[error("linux.seccomp.flags: {name} is not supported")]
    Flag {
        /// As given.
        name: String,
    },
    /// There are six arguments.
    #[error("linux.seccomp.syscalls[].args[].index must be from 0 to 5, not {index}")]
    ArgumentIndex {
        /// As given.
        index: u32,
    },
    /// The kernel's limit.
    #[error("the seccomp profile has {count} instructions, the kernel takes at most 4096")]
    TooLong {
        /// Its length.
        count: usize,
    },
    /// `SCMP_ACT_NOTIFY` as the default would stop the notification itself.
    #[error("linux.seccomp: {reason}")]
    Listener {
        /// What is wrong.
        reason: &'static str,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    instructions: Vec<Instruction>,
    flags: u64,
}

/// Names and values of `SECCOMP_FILTER_FLAG_*` (linux/seccomp.h).
const FLAGS: &[(&str, u64)] = &[
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32),
];
const NEW_LISTENER: u64 = 8;

impl Filter {
    /// Compiles a profile for this machine.
    pub fn compile(profile: &Seccomp) -> Result<Self, SeccompError> {
        let mut flags = 0;
        for name in &profile.flags {
            let known = FLAGS.iter().find(|(flag, _)| flag == name);
            flags |= known.map(|(_, value)| *value).ok_or_else(|| SeccompError::Flag { name: name.clone() })?;
        }
        let notifies = profile.syscalls.iter().any(|rule| rule.action == Action::Notify);
        if notifies {
            flags |= NEW_LISTENER;
            if profile.listener_path.is_none() {
                return Err(SeccompError::Listener { reason: "SCMP_ACT_NOTIFY needs a listenerPath" });
            }
        } else {
            flags &= !32;
        }
        if profile.default_action == Action::Notify {
            return Err(SeccompError::Listener { reason: "SCMP_ACT_NOTIFY cannot be the default action" });
        }
        let instructions = compile::program(profile)?;
        if instructions.len() > MAXIMUM_INSTRUCTIONS {
            return Err(SeccompError::TooLong { count: instructions.len() });
        }
        Ok(Self { instructions, flags })
    }

    /// The program.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Puts the filter in force for the calling process, for good. A profile with `SCMP_ACT_NOTIFY` gives a listener.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, SeccompError> {
        Ok(install_filter(&self.instructions, self.flags).on("seccomp", "install the filter")?)
    }
}

/// Flags, actions, operators and architectures that profiles may use, for `features`.
#[must_use]
pub fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Architectures that profiles may name on this machine.
#[must_use]
pub fn known_architectures() -> Vec<&'static str> {
    compile::known_architectures()
}
