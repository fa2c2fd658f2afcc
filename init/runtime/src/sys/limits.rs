//! What a process gets: prlimit(2), sched_setattr(2), ioprio_set(2), personality(2), set_mempolicy(2).
#![allow(unsafe_code)]

use rustix::io::Errno;

use super::check;

/// Sets a resource limit of the process `pid`, 0 for the caller.
pub(crate) fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: prlimit64(2) reads one rlimit64 from this stack; the old limit is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::from_ref(&limit), old) }).map(drop)
}

/// The hard limit of the caller.
pub(crate) fn hard_limit(resource: u32) -> Result<u64, Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = std::ptr::null::<libc::rlimit64>();
    // SAFETY: prlimit64(2) writes one rlimit64 to this stack; no new limit is given.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, std::ptr::from_mut(&mut limit)) })?;
    Ok(limit.rlim_max)
}

/// `struct sched_attr` of linux/sched/types.h, in its first size (48 bytes).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct SchedulerAttributes {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling of the thread `pid`, 0 for the caller.
pub(crate) fn set_scheduler(pid: i32, mut attributes: SchedulerAttributes) -> Result<(), Errno> {
    attributes.size = std::mem::size_of::<SchedulerAttributes>() as u32;
    // SAFETY: sched_setattr(2) reads `size` bytes of the structure, which is what it has; it lives on this stack.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(&attributes), 0) }).map(drop)
}

/// Sets the I/O priority of the thread `pid`, 0 for the caller.
pub(crate) fn set_io_priority(pid: i32, class: u32, level: u32) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_long = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: ioprio_set(2) takes three integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, class << CLASS_SHIFT | level) }).map(drop)
}

/// Sets the execution domain.
pub(crate) fn set_personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: personality(2) takes an integer.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// Sets the NUMA policy; `nodes` is a bit mask.
pub(crate) fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    let bits = nodes.len() * 64 + 1;
    // SAFETY: set_mempolicy(2) reads `bits` - 1 bits from `nodes`, which is what the slice holds.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }).map(drop)
}
