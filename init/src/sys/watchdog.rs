//! The requests of a watchdog's device (Documentation/watchdog/watchdog-api.rst).

use std::os::fd::{AsFd, AsRawFd};

use nix::libc::c_int;

/// `struct watchdog_info` (linux/watchdog.h).
#[repr(C)]
struct Information {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

mod request {
    use super::{Information, c_int};

    nix::ioctl_read!(support, b'W', 0, Information);
    nix::ioctl_read!(boot_status, b'W', 2, c_int);
    nix::ioctl_read!(keep_alive, b'W', 5, c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
}

/// The timer has reset the machine: the status has this bit.
const CARD_RESET: c_int = 0x20;

/// What the driver calls itself.
pub fn identity(device: impl AsFd) -> nix::Result<String> {
    let mut information = Information { options: 0, firmware_version: 0, identity: [0; 32] };
    // SAFETY: WDIOC_GETSUPPORT writes one watchdog_info, whose layout this is, and which outlives the call.
    unsafe { request::support(device.as_fd().as_raw_fd(), &raw mut information) }?;
    Ok(String::from_utf8_lossy(&information.identity).trim_end_matches('\0').to_owned())
}

/// Whether this boot began because the timer had run out. False too for drivers that do not know.
pub fn has_reset(device: impl AsFd) -> bool {
    let mut status = 0;
    // SAFETY: WDIOC_GETBOOTSTATUS writes one int, which outlives the call.
    let known = unsafe { request::boot_status(device.as_fd().as_raw_fd(), &raw mut status) };
    known.is_ok() && status & CARD_RESET != 0
}

/// Winds the timer up.
pub fn keep_alive(device: impl AsFd) -> nix::Result<()> {
    let mut unused = 0;
    // SAFETY: WDIOC_KEEPALIVE is declared to write one int, which outlives the call; the kernel does not touch it.
    unsafe { request::keep_alive(device.as_fd().as_raw_fd(), &raw mut unused) }.map(drop)
}

/// From now on the timer runs out after so many seconds; the driver's choice near it is the result.
pub fn set_timeout(device: impl AsFd, seconds: u32) -> nix::Result<u32> {
    let mut seconds = c_int::try_from(seconds).map_err(|_| nix::Error::EINVAL)?;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, which outlives the call.
    unsafe { request::set_timeout(device.as_fd().as_raw_fd(), &raw mut seconds) }?;
    u32::try_from(seconds).map_err(|_| nix::Error::EINVAL)
}
