//! The system calls that rustix and nix do not have: project IDs and quotas, fs-verity.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// FS_XFLAG_*.
    pub flags: u32,
    pub extent_size: u32,
    pub extents: u32,
    /// What the space of the file is counted to.
    pub project: u32,
    pub copy_extent_size: u32,
    pub padding: [u8; 8],
}

/// FS_XFLAG_PROJINHERIT: what is made in the directory has its project.
pub const PROJECT_INHERITED: u32 = 0x200;

/// FS_IOC_FSGETXATTR, see ioctl_xfs_fsgetxattr(2).
pub fn attributes(file: BorrowedFd<'_>) -> nix::Result<Attributes> {
    let mut attributes = Attributes::default();
    let request = nix::request_code_read!(b'X', 31, size_of::<Attributes>());
    // SAFETY: the request writes one `struct fsxattr` through the third argument; `Attributes` has its layout and lives
    // until the call returns. The descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut attributes) };
    Errno::result(result)?;
    Ok(attributes)
}

/// FS_IOC_FSSETXATTR.
pub fn set_attributes(file: BorrowedFd<'_>, attributes: &Attributes) -> nix::Result<()> {
    let request = nix::request_code_write!(b'X', 32, size_of::<Attributes>());
    let attributes: *const Attributes = attributes;
    // SAFETY: the request reads one `struct fsxattr` through the third argument; `Attributes` has its layout and lives
    // until the call returns. The descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, attributes) };
    Errno::result(result).map(drop)
}

/// quotactl_fd(2) with Q_SETQUOTA: the most bytes of a project on the file system that `place` is on; 0 is no limit.
pub fn limit_project(place: BorrowedFd<'_>, project: u32, bytes: u64) -> nix::Result<()> {
    let blocks = bytes.div_ceil(QUOTA_BLOCK);
    // SAFETY: `dqblk` is a C struct of integers, for which zeros are a value.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    limits.dqb_bhardlimit = blocks;
    limits.dqb_bsoftlimit = blocks;
    limits.dqb_valid = libc::QIF_BLIMITS;
    quota(place, libc::Q_SETQUOTA, project, &mut limits)
}

/// quotactl_fd(2) with Q_GETQUOTA: the bytes that a project uses, and the most that it may, 0 being no limit.
pub fn project_use(place: BorrowedFd<'_>, project: u32) -> nix::Result<(u64, u64)> {
    // SAFETY: `dqblk` is a C struct of integers, for which zeros are a value.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    quota(place, libc::Q_GETQUOTA, project, &mut limits)?;
    Ok((limits.dqb_curspace, limits.dqb_bhardlimit.saturating_mul(QUOTA_BLOCK)))
}

/// In which limits are counted (QIF_DQBLKSIZE).
const QUOTA_BLOCK: u64 = 1024;

fn quota(place: BorrowedFd<'_>, command: libc::c_int, project: u32, limits: &mut libc::dqblk) -> nix::Result<()> {
    /// PRJQUOTA of linux/quota.h, in the lowest byte as QCMD puts it.
    const PROJECT: libc::c_int = 2;
    let limits: *mut libc::dqblk = limits;
    // SAFETY: quotactl_fd(2) takes a descriptor, a command, an ID and, for both commands that come here, a pointer to one
    // `struct dqblk`, which lives until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, place.as_raw_fd(), (command << 8) | PROJECT, project, limits) };
    Errno::result(result).map(drop)
}

/// FS_IOC_ENABLE_VERITY with SHA-256 and blocks of 4096 bytes, or of the file system's size if that is smaller, see Linux's Documentation/filesystems/fsverity.rst: from
/// then on the file cannot be written, and what was changed on the disk is an error to whoever reads it. The file is open
/// for reading, and nobody has it open for writing. Reads all of it, and waits for the disk.
pub fn enable_verity(file: BorrowedFd<'_>) -> nix::Result<()> {
    /// A page, which is the most that the kernel takes.
    const LARGEST_BLOCK: u32 = 4096;
    /// `struct fsverity_enable_arg` of linux/fsverity.h, without salt and signature.
    #[repr(C)]
    struct Wanted {
        version: u32,
        hash_algorithm: u32,
        block_size: u32,
        others: [u32; 29],
    }
    let found = nix::sys::stat::fstat(file)?.st_blksize;
    let block_size = u32::try_from(found).unwrap_or(LARGEST_BLOCK).min(LARGEST_BLOCK);
    let wanted = Wanted { version: 1, hash_algorithm: VERITY_SHA256, block_size, others: [0; 29] };
    let request = nix::request_code_write!(b'f', 133, size_of::<Wanted>());
    // SAFETY: the request reads one `struct fsverity_enable_arg` of 128 bytes through the third argument; `Wanted` has its
    // layout and lives until the call returns. With sizes of 0 it follows none of the pointers in it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const wanted) };
    Errno::result(result).map(drop)
}

/// FS_VERITY_HASH_ALG_SHA256.
const VERITY_SHA256: u32 = 1;

/// FS_IOC_MEASURE_VERITY: the digest of a file that is protected; ENODATA of one that is not. Takes as long for every
/// file.
pub fn measure_verity(file: BorrowedFd<'_>) -> nix::Result<[u8; 32]> {
    /// `struct fsverity_digest` with room for SHA-256.
    #[repr(C)]
    struct Measured {
        algorithm: u16,
        size: u16,
        digest: [u8; 32],
    }
    let mut measured = Measured { algorithm: 0, size: 32, digest: [0; 32] };
    let request = nix::request_code_readwrite!(b'f', 134, 4_usize);
    // SAFETY: the request reads and writes the 4 bytes that `struct fsverity_digest` begins with, and writes at most
    // `size` bytes behind them, for which there is room; `measured` lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut measured) };
    Errno::result(result)?;
    if u32::from(measured.algorithm) == VERITY_SHA256 && measured.size == 32 {
        Ok(measured.digest)
    } else {
        Err(Errno::EBADMSG)
    }
}
