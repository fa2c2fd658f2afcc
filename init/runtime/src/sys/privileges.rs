//! What a process may do: capset(2), capability prctls, seccomp(2), keyctl(2).
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: 64 bits in two halves.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets three of the calling thread's sets, bit n for capability n.
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let half = |shift: u32| CapabilityHalf {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: capset(2) reads one header and, for version 3, two halves; the layouts are those of
    // linux/capability.h and both live on this stack.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), halves.as_ptr()) }).map(drop)
}

/// The calling thread's permitted set.
pub(crate) fn permitted_capabilities() -> Result<u64, Errno> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut halves = [CapabilityHalf::default(); 2];
    // SAFETY: capget(2) reads one header and, for version 3, writes two halves; both live on this stack.
    check(unsafe { libc::syscall(libc::SYS_capget, std::ptr::from_ref(&header), halves.as_mut_ptr()) })?;
    let [low, high] = halves;
    Ok(u64::from(low.permitted) | u64::from(high.permitted) << 32)
}

/// Whether the calling thread has CAP_SYS_ADMIN, and with it a way to the host's mounts.
pub(crate) fn is_administrator() -> bool {
    const SYS_ADMIN: u32 = 21;
    permitted_capabilities().is_ok_and(|permitted| permitted & 1 << SYS_ADMIN != 0)
}

/// A prctl(2) that takes integers only.
fn prctl(option: libc::c_int, first: u64, second: u64) -> Result<libc::c_int, Errno> {
    // SAFETY: the callers below pass options whose arguments are integers, so no memory is involved; unused ones must
    // be 0 for some of them, and are.
    let result = unsafe { libc::prctl(option, first, second, 0_u64, 0_u64) };
    check(libc::c_long::from(result)).map(|_| result)
}

/// Takes a capability out of the bounding set; [`Errno::INVAL`] if the kernel does not know it.
pub(crate) fn drop_bounding(capability: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

/// Puts a capability into the ambient set.
pub(crate) fn raise_ambient(capability: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability)).map(drop)
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// The ids that files are made with, and every permitted capability with them: leaving 0 takes some out of force.
pub(crate) fn set_file_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: setfsgid(2) takes an integer. It reports no failure, but fails only without CAP_SETGID.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: setfsuid(2) takes an integer. It reports no failure, but fails only without CAP_SETUID.
    unsafe { libc::setfsuid(uid) };
    let permitted = permitted_capabilities()?;
    set_capabilities(permitted, permitted, 0)
}

/// Whether the permitted set survives a change of the user.
pub(crate) fn keep_capabilities(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0).map(drop)
}

/// For good: no exec gives new privileges.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Whether others of the same user may look into this process.
pub(crate) fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0).map(drop)
}

/// Gives the process a new session keyring without a name. A kernel without keyrings has none to leave.
pub(crate) fn leave_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let none: *const libc::c_char = std::ptr::null();
    // SAFETY: this keyctl(2) operation takes a null pointer for a keyring without a name.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) }) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives the process a session keyring of its own, named `name`: keyctl(2) KEYCTL_JOIN_SESSION_KEYRING.
pub(crate) fn join_session_keyring(name: &std::ffi::CStr) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: this keyctl(2) operation reads a NUL-terminated name that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// One instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jump_true: u8,
    /// Instructions to skip if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Whether the kernel knows a flag of [`install_filter`]: it looks at the flags before the program.
pub(crate) fn knows_filter_flag(flag: u64) -> bool {
    const SET_MODE_FILTER: libc::c_long = 1;
    let none = std::ptr::null::<Program>();
    // SAFETY: seccomp(2) reads a program through the pointer, and a null one gives EFAULT and changes nothing.
    let result = check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flag, none) });
    result == Err(Errno::FAULT)
}

/// Installs a filter for good; with the flag for a listener its descriptor comes back.
pub(crate) fn install_filter(instructions: &[Instruction], flags: u64) -> Result<Option<OwnedFd>, Errno> {
    const NEW_LISTENER: u64 = 1 << 3;
    const SET_MODE_FILTER: libc::c_long = 1;
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?;
    let program = Program { length, instructions: instructions.as_ptr() };
    // SAFETY: seccomp(2) reads the program, whose pointer and length are those of a slice that outlives the call; the
    // layouts are those of linux/filter.h.
    let result =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let number = RawFd::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: with this flag the result is a new descriptor (seccomp(2)), and nobody else knows of it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}
