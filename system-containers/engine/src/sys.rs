//! The system calls that rustix and nix do not have: project IDs and quotas.

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
