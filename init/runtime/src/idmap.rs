//! Id mappings: their text for the kernel, their arithmetic, and user namespaces that exist only to carry one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::error::{Context, SystemError};
use crate::spec::IdMapping;
use crate::sys;
use crate::sys::clone::{PidfdNamespace, Side};

/// The kernel takes at most this many lines (user_namespaces(7), since Linux 4.15).
const MAXIMUM_LINES: usize = 340;

/// Why ids cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// Needed with a new user namespace, or for `idmap`.
    #[error("{field} must not be empty with a new user namespace")]
    Empty {
        /// Which list.
        field: &'static str,
    },
    /// Beyond what the kernel takes.
    #[error("{field} has {count} entries, the kernel takes at most 340")]
    TooMany {
        /// Which list.
        field: &'static str,
        /// Its length.
        count: usize,
    },
    /// Ranges that are empty, overlap or leave the numbers.
    #[error("{field}[{position}] must be a range of at least one id that overlaps no other one")]
    Range {
        /// Which list.
        field: &'static str,
        /// Which entry.
        position: usize,
    },
    /// Without the right to map ids, a program that has it is asked.
    #[error("{program}, which maps ids for who is not root, said: {message}")]
    Helper {
        /// newuidmap or newgidmap.
        program: &'static str,
        /// Its words.
        message: String,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Refuses what the kernel would refuse, by name.
pub(crate) fn check(mappings: &[IdMapping], field: &'static str) -> Result<(), IdMapError> {
    if mappings.is_empty() {
        return Err(IdMapError::Empty { field });
    }
    if mappings.len() > MAXIMUM_LINES {
        return Err(IdMapError::TooMany { field, count: mappings.len() });
    }
    let overlap = |first: u32, other: u32, first_size: u32, other_size: u32| {
        u64::from(first) < u64::from(other) + u64::from(other_size)
            && u64::from(other) < u64::from(first) + u64::from(first_size)
    };
    for (position, mapping) in mappings.iter().enumerate() {
        let fits = |start: u32| u64::from(start) + u64::from(mapping.size) <= u64::from(u32::MAX);
        let clash = mappings.iter().take(position).any(|other| {
            overlap(mapping.container_id, other.container_id, mapping.size, other.size)
                || overlap(mapping.host_id, other.host_id, mapping.size, other.size)
        });
        if mapping.size == 0 || !fits(mapping.container_id) || !fits(mapping.host_id) || clash {
            return Err(IdMapError::Range { field, position });
        }
    }
    Ok(())
}

/// The host's id of a container's id.
#[must_use]
pub fn to_host(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id)?;
        if offset < mapping.size { mapping.host_id.checked_add(offset) } else { None }
    })
}

/// The text for /proc/PID/uid_map.
fn text(mappings: &[IdMapping]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for mapping in mappings {
        // A String takes every text.
        let _ = writeln!(out, "{} {} {}", mapping.container_id, mapping.host_id, mapping.size);
    }
    out
}

/// Writes both maps of the process `pid`, which is alone in a new user namespace.
pub(crate) fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), IdMapError> {
    for (name, program, mappings) in [("uid_map", "newuidmap", uids), ("gid_map", "newgidmap", gids)] {
        let path = format!("/proc/{pid}/{name}");
        match write_file(&path, text(mappings).as_bytes()) {
            Err(error) if error.source == Errno::PERM => {
                // Its own group alone everybody may map who gives up setgroups(2).
                let own = rustix::process::getegid().as_raw();
                if name == "gid_map" && matches!(mappings, [IdMapping { host_id, size: 1, .. }] if *host_id == own) {
                    write_file(&format!("/proc/{pid}/setgroups"), b"deny")?;
                    write_file(&path, text(mappings).as_bytes())?;
                } else {
                    by_helper(program, pid, mappings)?;
                }
            }
            result => result?,
        }
    }
    Ok(())
}

/// newuidmap(1), newgidmap(1): what /etc/subuid and /etc/subgid give to the calling user.
fn by_helper(program: &'static str, pid: i32, mappings: &[IdMapping]) -> Result<(), IdMapError> {
    let numbers = mappings.iter().flat_map(|mapping| [mapping.container_id, mapping.host_id, mapping.size]);
    let mut command = std::process::Command::new(program);
    command.arg(pid.to_string()).args(numbers.map(|number| number.to_string()));
    sys::exec::with_default_signals(&mut command);
    let output = command.output().on("run", program)?;
    if output.status.success() {
        return Ok(());
    }
    Err(IdMapError::Helper { program, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Writes a file of procfs or cgroupfs in one write, as these take their values.
pub(crate) fn write_file(path: &str, content: &[u8]) -> Result<(), SystemError> {
    let file =
        rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).on("open", path)?;
    match rustix::io::write(&file, content).context("write", || path)? {
        written if written == content.len() => Ok(()),
        _ => Err(SystemError { call: "write", subject: path.to_owned(), source: Errno::IO }),
    }
}

/// The user namespace that the process of `pidfd` is in.
pub(crate) fn user_namespace(pid: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, SystemError> {
    namespace(pid, pidfd, PidfdNamespace::User, "user")
}

/// A namespace of a process, by its pidfd or, on kernels before 6.11, by /proc.
pub(crate) fn namespace(
    pid: i32,
    pidfd: BorrowedFd<'_>,
    which: PidfdNamespace,
    name: &str,
) -> Result<OwnedFd, SystemError> {
    match sys::clone::namespace_of(pidfd, which) {
        Ok(descriptor) => Ok(descriptor),
        Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => {
            let path = format!("/proc/{pid}/ns/{name}");
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", &path)
        }
        Err(source) => Err(SystemError { call: "ioctl PIDFD_GET_NAMESPACE", subject: name.to_owned(), source }),
    }
}

/// A user namespace with these mappings and nobody in it, for an id-mapped mount.
///
/// Makes a child for the moment; so the caller must be allowed to (and be a single thread).
pub(crate) fn carrier(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, IdMapError> {
    check(uids, "uidMappings")?;
    check(gids, "gidMappings")?;
    let new_user = crate::namespaces::flag(crate::spec::NamespaceKind::User);
    match sys::clone::clone3(new_user, None).on("clone3", "user namespace of a mount")? {
        Side::Child => loop {
            // Killed by the parent as soon as it has the namespace; a parent that dies first is noticed here.
            if rustix::process::getppid().is_none_or(|parent| parent == rustix::process::Pid::INIT) {
                sys::clone::exit_now(0);
            }
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            // Interrupted or not, the loop goes on.
            let _ = rustix::event::poll(&mut [], Some(&second));
        },
        Side::Parent { pid, pidfd } => {
            let result = write(pid, uids, gids).and_then(|()| Ok(user_namespace(pid, pidfd.as_fd())?));
            // The child is ours and not yet waited for, so the signal reaches it.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let wait = rustix::process::WaitId::PidFd(pidfd.as_fd());
            rustix::process::waitid(wait, rustix::process::WaitIdOptions::EXITED)
                .context("waitid", || format!("pidfd {}", pidfd.as_raw_fd()))?;
            result
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapping(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn an_id_is_found_in_its_range() {
        let mappings = [mapping(0, 100_000, 1000), mapping(5000, 7, 1)];
        assert_eq!(to_host(&mappings, 999), Some(100_999));
        assert_eq!(to_host(&mappings, 1000), None);
        assert_eq!(to_host(&mappings, 5000), Some(7));
    }

    #[test]
    fn overlaps_and_empty_ranges_are_refused() {
        assert!(check(&[mapping(0, 10, 5), mapping(4, 100, 1)], "uidMappings").is_err());
        assert!(check(&[mapping(0, 10, 5), mapping(5, 14, 1)], "uidMappings").is_err());
        assert!(check(&[mapping(0, 10, 0)], "uidMappings").is_err());
        assert!(check(&[mapping(0, u32::MAX, 2)], "uidMappings").is_err());
        assert!(check(&[mapping(0, 10, 5), mapping(5, 15, 1)], "uidMappings").is_ok());
    }

    proptest! {
        #[test]
        fn what_passes_the_check_maps_each_id_to_its_own(
            starts in proptest::collection::vec((0_u32..50, 0_u32..50, 1_u32..10), 1..6),
        ) {
            let mappings: Vec<_> = starts.iter().map(|(inside, outside, size)| mapping(*inside, *outside, *size)).collect();
            if check(&mappings, "uidMappings").is_ok() {
                let mut seen = std::collections::BTreeSet::new();
                for id in 0..100 {
                    if let Some(host) = to_host(&mappings, id) {
                        prop_assert!(seen.insert(host));
                    }
                }
                let total: u32 = mappings.iter().map(|mapping| mapping.size).sum();
                prop_assert_eq!(seen.len(), total as usize);
            }
        }
    }
}
