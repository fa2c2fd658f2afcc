//! Loop devices, see loop(4) and linux/loop.h: a file as a disk.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::check;

/// LOOP_CTL_GET_FREE of /dev/loop-control.
const GET_FREE: u64 = 0x4C82;
/// LOOP_CONFIGURE, since Linux 5.8.
const CONFIGURE: u64 = 0x4C0A;
/// LO_FLAGS_READ_ONLY and LO_FLAGS_AUTOCLEAR: the device lets go of its file with its last user.
const READ_ONLY_AND_AUTOCLEAR: u32 = 1 | 4;

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    /// lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit.
    places: [u64; 5],
    /// lo_number, lo_encrypt_type, lo_encrypt_key_size.
    numbers: [u32; 3],
    flags: u32,
    /// lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init.
    names: [u8; 64 + 64 + 32 + 16],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// A device that reads this file, and its path. It is there as long as the descriptor or a mount of it is.
pub(crate) fn attach(file: &File, block_size: u32) -> Result<(OwnedFd, String), Errno> {
    let control = open("/dev/loop-control", OFlags::RDWR)?;
    loop {
        // SAFETY: the request takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) }.into())?;
        let path = format!("/dev/loop{number}");
        let device = open(&path, OFlags::RDONLY)?;
        match configure(&device, file, block_size) {
            // Somebody else was faster with this one.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok((device, path)),
        }
    }
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

fn configure(device: &OwnedFd, file: &File, block_size: u32) -> Result<(), Errno> {
    let config = Config {
        file: file.as_fd().as_raw_fd().try_into().map_err(|_| Errno::BADF)?,
        block_size,
        places: [0; 5],
        numbers: [0; 3],
        flags: READ_ONLY_AND_AUTOCLEAR,
        names: [0; 176],
        reserved: [0; 8],
    };
    // SAFETY: the request reads one `struct loop_config`, whose layout `config` has; it lives until the call returns.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) }.into())?;
    Ok(())
}
