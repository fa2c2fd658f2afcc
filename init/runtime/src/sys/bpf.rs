//! bpf(2): loading a cgroup device program, attaching it, and finding and detaching those that are there.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// One instruction: `struct bpf_insn` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub code: u8,
    /// Destination in the low half, source in the high one.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD needs.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH needs.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    const PROG_LOAD: libc::c_long = 5;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    let license = c"Apache-2.0";
    let load = Load {
        program_type: TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"berth_devices\0\0\0",
    };
    // SAFETY: bpf(2) reads `size_of::<Load>()` bytes, the layout is the kernel's; the pointers in it are those of a
    // slice with its length and of a static NUL-terminated text, and outlive the call.
    let result = check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, std::ptr::from_ref(&load), std::mem::size_of::<Load>())
    })?;
    let number = RawFd::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: the result is a new descriptor (bpf(2)), closed on exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `BPF_CGROUP_DEVICE` of linux/bpf.h.
const CGROUP_DEVICE: u32 = 6;

/// The part of `union bpf_attr` that BPF_PROG_QUERY needs, in its first size.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    identifiers: u64,
    count: u32,
    padding: u32,
}

/// Attaches a program to a cgroup, in place of one that an ancestor allows to be overridden. The cgroup keeps it.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    const PROG_ATTACH: libc::c_long = 8;
    const ALLOW_MULTI: u32 = 2;
    let number = |descriptor: BorrowedFd<'_>| u32::try_from(descriptor.as_raw_fd()).map_err(|_| Errno::BADF);
    let attach =
        Attach { target: number(cgroup)?, program: number(program)?, attach_type: CGROUP_DEVICE, flags: ALLOW_MULTI };
    // SAFETY: bpf(2) reads `size_of::<Attach>()` bytes, the layout is the kernel's; there are no pointers in it.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, std::ptr::from_ref(&attach), std::mem::size_of::<Attach>())
    })
    .map(drop)
}

/// The device programs that are attached to this very cgroup.
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    const PROG_QUERY: libc::c_long = 16;
    /// The kernel attaches at most this many (BPF_CGROUP_MAX_PROGS).
    const MAXIMUM: usize = 64;
    let mut identifiers = [0_u32; MAXIMUM];
    let mut query = Query {
        target: u32::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?,
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        identifiers: identifiers.as_mut_ptr() as u64,
        count: MAXIMUM as u32,
        padding: 0,
    };
    // SAFETY: bpf(2) reads and writes `size_of::<Query>()` bytes, the layout is the kernel's; it writes at most `count`
    // numbers to `identifiers`, which is as long, and sets `count` to how many there are.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_QUERY, std::ptr::from_mut(&mut query), std::mem::size_of::<Query>())
    })?;
    identifiers.iter().take(query.count as usize).map(|identifier| program(*identifier)).collect()
}

/// The program of a number.
fn program(identifier: u32) -> Result<OwnedFd, Errno> {
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    // The identifier, the next one (unused) and flags.
    let wanted = [identifier, 0, 0];
    // SAFETY: bpf(2) reads as many bytes as the array has, in the kernel's layout for this command.
    let result = check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_GET_FD_BY_ID, wanted.as_ptr(), std::mem::size_of_val(&wanted))
    })?;
    let number = RawFd::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: the result is a new descriptor (bpf(2)), closed on exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes a device program off a cgroup.
pub(crate) fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    const PROG_DETACH: libc::c_long = 9;
    let number = |descriptor: BorrowedFd<'_>| u32::try_from(descriptor.as_raw_fd()).map_err(|_| Errno::BADF);
    let attach = Attach { target: number(cgroup)?, program: number(program)?, attach_type: CGROUP_DEVICE, flags: 0 };
    // SAFETY: bpf(2) reads `size_of::<Attach>()` bytes, the layout is the kernel's; there are no pointers in it.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_DETACH, std::ptr::from_ref(&attach), std::mem::size_of::<Attach>())
    })
    .map(drop)
}
