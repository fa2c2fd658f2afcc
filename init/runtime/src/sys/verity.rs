//! fs-verity, see Linux's Documentation/filesystems/fsverity.rst.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// FS_VERITY_HASH_ALG_SHA256.
const SHA256: u16 = 1;

/// FS_IOC_MEASURE_VERITY: `_IOWR('f', 134, struct fsverity_digest)`, whose fixed part has 4 bytes.
const MEASURE: u64 = 0xC004_6686;

/// `struct fsverity_digest` of linux/fsverity.h with room for SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 32],
}

/// The digest of a file that is protected; ENODATA of one that is not. Takes as long for every file.
pub(crate) fn measure(file: BorrowedFd<'_>) -> Result<[u8; 32], Errno> {
    let mut measured = Measured { algorithm: 0, size: 32, digest: [0; 32] };
    // SAFETY: the request reads and writes the fixed part of the structure, and writes at most `size` bytes behind it, for
    // which there is room; `measured` lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE as _, &raw mut measured) };
    check(result.into())?;
    if measured.algorithm == SHA256 && measured.size == 32 { Ok(measured.digest) } else { Err(Errno::BADMSG) }
}
