//! Who the program is and what it may do: ids, capabilities, no_new_privs, filter.

use rustix::fs::Mode;
use rustix::thread::{Gid, Uid};

use crate::capabilities::Sets;
use crate::error::{Context, Error, Step};
use crate::seccomp::Installer;
use crate::spec::{Process, User};
use crate::sys::privileges;

/// In a new user namespace every id is nobody's until it is set.
pub(crate) fn become_root() -> Result<(), Error> {
    set_ids(&User::default(), &[])
}

/// Takes away what the program is not to have. The order is the kernel's: the bounding set needs CAP_SETPCAP, ids need
/// CAP_SETUID, a filter without no_new_privs needs CAP_SYS_ADMIN. With no_new_privs the filter comes last of all, by
/// whom this gives it back to.
pub(crate) fn restrict<'a>(
    sets: Sets,
    process: &Process,
    mut filter: Option<Installer<'a>>,
) -> Result<Option<Installer<'a>>, Error> {
    let groups: Vec<Gid> = process.user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    sets.apply_bounding().step("drop capabilities")?;
    privileges::keep_capabilities(true).on("prctl", "PR_SET_KEEPCAPS")?;
    set_ids(&process.user, &groups).step("set user and groups")?;
    // A change of the user may have made the process open to others of that user.
    privileges::set_dumpable(false).on("prctl", "PR_SET_DUMPABLE")?;
    if process.no_new_privileges {
        privileges::no_new_privileges().on("prctl", "PR_SET_NO_NEW_PRIVS")?;
    } else if let Some(filter) = filter.take() {
        let permitted = privileges::permitted_capabilities().on("capget", "own process")?;
        privileges::set_capabilities(permitted, permitted, sets.inheritable).on("capset", "own process")?;
        filter.install()?;
    }
    privileges::keep_capabilities(false).on("prctl", "PR_SET_KEEPCAPS")?;
    sets.apply().step("set capabilities")?;
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));
    Ok(filter)
}

fn set_ids(user: &User, groups: &[Gid]) -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match rustix::thread::set_thread_groups(groups) {
        // Denied in the user namespace; then there are none to get rid of either, unless some are wanted.
        Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        result => result.on("setgroups", "additional groups")?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("setresgid", || user.gid.to_string())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("setresuid", || user.uid.to_string())?;
    Ok(())
}
