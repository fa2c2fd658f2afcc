//! `linux.seccomp`: the system-call filter.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// For what no rule names.
    pub default_action: Action,
    /// EPERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// As `SCMP_ARCH_X86_64`; the machine's own if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// As `SECCOMP_FILTER_FLAG_LOG`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The socket of who answers SCMP_ACT_NOTIFY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// Passed on to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// The first rule that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SyscallRule>,
}

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The thread dies.
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// The process dies.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread dies.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// An error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// It runs.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It runs and is logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// The listener decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// An action for some system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyscallRule {
    /// Those the architecture does not have are skipped.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// For `Errno` and `Trace`; EPERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<ArgumentRule>,
}

/// A condition on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArgumentRule {
    /// 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask for `MaskedEqual`.
    pub value: u64,
    /// What the masked argument is compared with.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// A comparison, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// !=
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// <
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// <=
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// ==
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// >=
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// >
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// (argument & value) == value_two
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}
