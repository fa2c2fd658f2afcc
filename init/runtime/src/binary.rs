//! The runtime's own program file, which a container must not get hold of.
//!
//! Until its program runs, a container's first process executes ours, and `/proc/PID/exe` leads to it; an image whose
//! program is `#!/proc/self/exe` even runs it. Whoever keeps a descriptor of it could write it once nobody executes it
//! any more (CVE-2019-5736). So a command that makes processes in containers first becomes itself again from a place
//! that cannot be written: a read-only mount of its file that is attached nowhere, and belongs to no mount namespace
//! as soon as it is executed, so that nobody can change it; or, where mounting is not allowed, a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Step, SystemError};
use crate::mounts::attach;
use crate::sys;

const OWN: &str = "/proc/self/exe";

/// What keeps the file from being changed through the process that executes it.
const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Executes this program again from where it cannot be written, with the same arguments. Returns where that is not
/// needed: it is there already, its file system is read-only, or the calling user could not write it anyway. For
/// processes with one thread, at their beginning.
pub fn protect() -> Result<(), Error> {
    if is_safe().step("look at the runtime's own program")? {
        return Ok(());
    }
    let program = match read_only_mount() {
        Err(SystemError { source: Errno::PERM | Errno::NOSYS | Errno::INVAL, .. }) => sealed_copy(),
        result => result,
    };
    let program = program.step("protect the runtime's own program")?;
    let text = |text: OsString| CString::new(text.into_vec()).ok();
    let arguments: Vec<CString> = std::env::args_os().filter_map(text).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            CString::new(variable).ok()
        })
        .collect();
    let errno = sys::exec::execute_descriptor(program.as_fd(), &arguments, &environment);
    Err(errno).on("execveat", OWN).step("protect the runtime's own program")?
}

fn is_safe() -> Result<bool, SystemError> {
    let flags = rustix::fs::statvfs(OWN).on("statfs", OWN)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let user = rustix::process::geteuid();
    if !user.is_root() {
        let owner = rustix::fs::stat(OWN).on("stat", OWN)?.st_uid;
        let writable = rustix::fs::accessat(CWD, OWN, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        if owner != user.as_raw() && !writable {
            return Ok(true);
        }
    }
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", OWN)?;
    // Only files in memory have seals.
    Ok(rustix::fs::fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SEALS)))
}

fn read_only_mount() -> Result<OwnedFd, SystemError> {
    let own = rustix::fs::open(OWN, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", OWN)?;
    let tree = attach::clone_of(own.as_fd(), false, OWN)?;
    attach::make_read_only(&tree, false, OWN)?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd, SystemError> {
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", OWN)?;
    let copy = rustix::fs::memfd_create("berth-oci", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .on("memfd_create", OWN)?;
    while rustix::fs::sendfile(&copy, &own, None, 1 << 30).on("sendfile", OWN)? > 0 {}
    rustix::fs::fcntl_add_seals(&copy, SEALS).on("fcntl F_ADD_SEALS", OWN)?;
    Ok(copy)
}
