//! The system calls that PID 1 needs and no safe wrapper has, one thin function each.

#![allow(unsafe_code)]

pub mod clock;
pub mod crash;
pub mod memory;
pub mod watchdog;

use std::os::fd::{AsFd, AsRawFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, Pid};

/// Runs `work` in a forked child, which ends with its return value as exit code and never returns here.
///
/// The child starts with no signal blocked, unlike PID 1. Everything else is PID 1's: descriptors, mount namespace.
pub fn fork(work: impl FnOnce() -> i32) -> nix::Result<Pid> {
    // SAFETY: fork(2) asks of a process with threads that the child calls async-signal-safe functions only. PID 1 and
    // its tasks have a single thread (see the crate's head), so the child may go on as any program.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // A mask that cannot be reset leaves signals blocked, with which the work goes on all the same.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let code = work();
            // SAFETY: _exit(2) has no preconditions. exit(3) would run the parent's exit handlers and flush its buffers.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

/// The argument of BLKPG (linux/blkpg.h).
#[repr(C)]
struct BlockPartitionRequest {
    operation: nix::libc::c_int,
    flags: nix::libc::c_int,
    length: nix::libc::c_int,
    data: *mut BlockPartition,
}

/// `struct blkpg_partition` (linux/blkpg.h).
#[repr(C)]
struct BlockPartition {
    start: i64,
    length: i64,
    number: nix::libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

const BLKPG: nix::libc::c_ulong = 0x1269;
const BLKPG_RESIZE_PARTITION: nix::libc::c_int = 3;

/// Tells the kernel that a partition in use now has this place, in bytes; only its end may differ (linux/blkpg.h).
pub fn resize_partition(disk: impl AsFd, number: i32, start: u64, length: u64) -> nix::Result<()> {
    let too_large = |_| nix::Error::EOVERFLOW;
    let mut partition = BlockPartition {
        start: i64::try_from(start).map_err(too_large)?,
        length: i64::try_from(length).map_err(too_large)?,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let request = BlockPartitionRequest {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        length: i32::try_from(size_of::<BlockPartition>()).map_err(too_large)?,
        data: &mut partition,
    };
    // SAFETY: BLKPG reads a blkpg_ioctl_arg through its argument and a blkpg_partition through that one's `data`; both
    // have the layout of linux/blkpg.h, are initialised, and outlive the call. The kernel writes to neither.
    let result = unsafe { nix::libc::ioctl(disk.as_fd().as_raw_fd(), BLKPG as _, &raw const request) };
    nix::Error::result(result).map(drop)
}

mod ext4 {
    nix::ioctl_write_ptr!(resize, b'f', 16, u64);
}

/// Grows a mounted ext4 to this many blocks: EXT4_IOC_RESIZE_FS (ext4(5), fs/ext4/ioctl.c). Never shrinks.
pub fn resize_ext4(root: impl AsFd, blocks: u64) -> nix::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 through its argument, which outlives the call.
    unsafe { ext4::resize(root.as_fd().as_raw_fd(), &raw const blocks) }.map(drop)
}

mod block {
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
}

/// A block device's size in bytes: BLKGETSIZE64 (linux/fs.h).
pub fn block_device_size(device: impl AsFd) -> nix::Result<u64> {
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 through its argument.
    unsafe { block::size_in_bytes(device.as_fd().as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Whether a CD drive has a disc that can be read: CDROM_DRIVE_STATUS (linux/cdrom.h).
pub fn has_disc(drive: impl AsFd) -> bool {
    const CDROM_DRIVE_STATUS: nix::libc::c_ulong = 0x5326;
    const CDSL_CURRENT: nix::libc::c_int = nix::libc::c_int::MAX;
    const CDS_DISC_OK: nix::libc::c_int = 4;
    // SAFETY: CDROM_DRIVE_STATUS takes the number of a slot as its argument and touches no memory of ours.
    unsafe { nix::libc::ioctl(drive.as_fd().as_raw_fd(), CDROM_DRIVE_STATUS as _, CDSL_CURRENT) == CDS_DISC_OK }
}

mod socket {
    nix::ioctl_read_bad!(unread, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

mod stream {
    nix::ioctl_read_bad!(unread, nix::libc::FIONREAD, nix::libc::c_int);
}

/// How much there is to read in a pipe or of a terminal, in bytes: FIONREAD (pipe(7), ioctl_tty(2)).
pub fn unread(stream: impl AsFd) -> nix::Result<i32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int through its argument, which outlives the call.
    unsafe { stream::unread(stream.as_fd().as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// How much of what was sent over a UNIX socket its other end has not read, in bytes: SIOCOUTQ (unix(7)), by the name that its
/// number has for terminals.
pub fn unread_by_peer(socket: impl AsFd) -> nix::Result<i32> {
    let mut bytes = 0;
    // SAFETY: SIOCOUTQ writes one int through its argument, which outlives the call.
    unsafe { socket::unread(socket.as_fd().as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Closes all descriptors above this one: close_range(2).
pub fn close_above(last: u32) {
    // SAFETY: close_range(2) touches no memory. Whoever owns one of these descriptors in this process is cut off from it,
    // so this is for a child that is about to execute another program.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, last + 1, nix::libc::c_uint::MAX, 0) };
}

/// Makes the terminal the session's own, whoever had it: TIOCSCTTY (ioctl_tty(2)).
pub fn take_terminal(terminal: impl AsFd) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes a number and touches no memory of ours.
    let result = unsafe { nix::libc::ioctl(terminal.as_fd().as_raw_fd(), nix::libc::TIOCSCTTY as _, 1) };
    nix::Error::result(result).map(drop)
}
