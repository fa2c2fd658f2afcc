//! The system-call filter: from the specification's profile to classic BPF.
//!
//! [`Filter::compile`] does all the work that can fail for the profile's sake, before the container's process is
//! made; installing it is one system call.

mod architecture;
mod cache;
mod compile;
mod default;
mod listener;
mod table;

use std::os::fd::OwnedFd;

use crate::error::{Context, SystemError};
use crate::spec::{Action, Seccomp};
use crate::sys::privileges::{Instruction, install_filter, knows_filter_flag};

pub(crate) use cache::compiled;
pub use default::default_profile;
pub(crate) use listener::{Installer, connect};

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
    /// What does not go together.
    #[error("linux.seccomp.{field} {must}")]
    Profile {
        /// Which.
        field: String,
        /// What it must be.
        must: &'static str,
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
const THREAD_SYNC: u64 = 1;
const NEW_LISTENER: u64 = 8;
const WAIT_KILLABLE: u64 = 32;

/// What the specification forbids, and what could not work.
fn check(profile: &Seccomp) -> Result<(), SeccompError> {
    let wrong = |field: String, must| Err(SeccompError::Profile { field, must });
    let takes_errno = |action| matches!(action, Action::Errno | Action::Trace);
    if profile.default_errno_ret.is_some() && !takes_errno(profile.default_action) {
        return wrong("defaultErrnoRet".into(), "needs SCMP_ACT_ERRNO or SCMP_ACT_TRACE as defaultAction");
    }
    if profile.default_action == Action::Notify {
        return wrong("defaultAction".into(), "must not be SCMP_ACT_NOTIFY: the runtime could not go on after it");
    }
    if profile.listener_metadata.is_some() && profile.listener_path.is_none() {
        return wrong("listenerMetadata".into(), "needs listenerPath");
    }
    for (position, rule) in profile.syscalls.iter().enumerate() {
        let field = |name| format!("syscalls[{position}].{name}");
        if rule.names.is_empty() {
            return wrong(field("names"), "must name a system call");
        }
        if rule.errno_ret.is_some() && !takes_errno(rule.action) {
            return wrong(field("errnoRet"), "needs SCMP_ACT_ERRNO or SCMP_ACT_TRACE as action");
        }
        if rule.action != Action::Notify {
            continue;
        }
        if profile.listener_path.is_none() {
            return wrong(field("action"), "needs listenerPath");
        }
        if rule.names.iter().any(|name| name == "sendmsg") {
            return wrong(field("names"), "must not have sendmsg with SCMP_ACT_NOTIFY: the listener is sent by it");
        }
    }
    Ok(())
}

impl Filter {
    /// Compiles a profile for this machine.
    pub fn compile(profile: &Seccomp) -> Result<Self, SeccompError> {
        let mut flags = 0;
        for name in &profile.flags {
            let known = FLAGS.iter().find(|(flag, _)| flag == name);
            flags |= known.map(|(_, value)| *value).ok_or_else(|| SeccompError::Flag { name: name.clone() })?;
        }
        check(profile)?;
        if profile.syscalls.iter().any(|rule| rule.action == Action::Notify) {
            flags |= NEW_LISTENER;
            // The kernel does not take both; with one thread there is nothing to synchronize.
            flags &= !THREAD_SYNC;
        } else {
            flags &= !WAIT_KILLABLE;
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

    /// Whether somebody has to answer.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// Puts the filter in force for the calling process, for good. A profile with `SCMP_ACT_NOTIFY` gives a listener.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, SeccompError> {
        Ok(install_filter(&self.instructions, self.flags).on("seccomp", "install the filter")?)
    }
}

/// Flags that profiles may use, for `features`.
#[must_use]
pub fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Those of them that this kernel knows.
#[must_use]
pub fn supported_flags() -> Vec<&'static str> {
    // This one goes with a listener only.
    let asked = |flag: u64| if flag == WAIT_KILLABLE { flag | NEW_LISTENER } else { flag };
    let known = FLAGS.iter().filter(|(_, flag)| knows_filter_flag(asked(*flag)));
    known.map(|(name, _)| *name).collect()
}

/// Architectures that profiles may name.
#[must_use]
pub fn known_architectures() -> Vec<&'static str> {
    architecture::names()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Seccomp {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let wrong = [
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}"#, "linux.seccomp.defaultErrnoRet needs"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "linux.seccomp.defaultAction must not be"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}"#, "listenerMetadata needs listenerPath"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NONE"]}"#, "linux.seccomp.flags: NONE"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}"#,
                "linux.seccomp.syscalls[0].names must name",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}"#,
                "linux.seccomp.syscalls[0].errnoRet needs",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]}"#,
                "linux.seccomp.syscalls[0].action needs listenerPath",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                    "syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}"#,
                "syscalls[0].names must not have sendmsg",
            ),
        ];
        for (text, expected) in wrong {
            let error = Filter::compile(&profile(text)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn flags_are_those_that_the_kernel_takes_together() {
        let flags = |action: &str| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                     "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                               "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
                     "syscalls": [{{"names": ["getcwd"], "action": "{action}"}}]}}"#
            );
            Filter::compile(&profile(&text)).unwrap().flags
        };
        assert_eq!(flags("SCMP_ACT_LOG"), 1 | 2 | 4);
        assert_eq!(flags("SCMP_ACT_NOTIFY"), 2 | 4 | 8 | 32);
    }
}
