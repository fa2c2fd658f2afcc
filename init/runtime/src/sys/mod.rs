//! The system calls that rustix does not have, one thin function each. The only files with unsafe code.

pub(crate) mod adopt;
pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod limits;
pub(crate) mod loop_device;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod privileges;
pub(crate) mod verity;

use rustix::io::Errno;

/// The result of a raw system call: -1 means that errno tells.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    } else {
        Ok(result)
    }
}
