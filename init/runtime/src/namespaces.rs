//! Which namespaces are new and which are joined.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, SystemError};
use crate::spec::{Namespace, NamespaceKind};
use crate::sys;

/// Why the namespaces cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The same kind twice.
    #[error("linux.namespaces names {kind:?} more than once")]
    Duplicate {
        /// Which.
        kind: NamespaceKind,
    },
    /// Mounting in the caller's namespace would change the host.
    #[error("linux.namespaces must contain mount")]
    NoMount,
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Kinds and their `CLONE_NEW…` flags. Joined in this order: the user namespace last, because joining the others
/// takes the caller's privileges over them.
const KINDS: [(NamespaceKind, libc::c_int); 8] = [
    (NamespaceKind::Ipc, libc::CLONE_NEWIPC),
    (NamespaceKind::Uts, libc::CLONE_NEWUTS),
    (NamespaceKind::Network, libc::CLONE_NEWNET),
    (NamespaceKind::Pid, libc::CLONE_NEWPID),
    (NamespaceKind::Cgroup, libc::CLONE_NEWCGROUP),
    (NamespaceKind::Time, libc::CLONE_NEWTIME),
    (NamespaceKind::Mount, libc::CLONE_NEWNS),
    (NamespaceKind::User, libc::CLONE_NEWUSER),
];

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    new: u64,
    joined: Vec<(NamespaceKind, u64, OwnedFd, String)>,
}

impl Namespaces {
    /// Opens what is to be joined.
    pub(crate) fn open(namespaces: &[Namespace]) -> Result<Self, NamespaceError> {
        for (position, namespace) in namespaces.iter().enumerate() {
            if namespaces.iter().skip(position + 1).any(|other| other.kind == namespace.kind) {
                return Err(NamespaceError::Duplicate { kind: namespace.kind });
            }
        }
        let mut new = 0;
        let mut joined = Vec::new();
        for (kind, flag) in KINDS {
            let Some(namespace) = namespaces.iter().find(|namespace| namespace.kind == kind) else { continue };
            let flag = u64::try_from(flag).unwrap_or_default();
            match &namespace.path {
                None => new |= flag,
                Some(path) => {
                    let text = path.display().to_string();
                    let descriptor = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .on("open namespace", &text)?;
                    joined.push((kind, flag, descriptor, text));
                }
            }
        }
        let this = Self { new, joined };
        if this.has(NamespaceKind::Mount) { Ok(this) } else { Err(NamespaceError::NoMount) }
    }

    /// Whether the container has its own, new or joined.
    pub(crate) fn has(&self, kind: NamespaceKind) -> bool {
        self.is_new(kind) || self.joined(kind).is_some()
    }

    /// Whether it is made for the container.
    pub(crate) fn is_new(&self, kind: NamespaceKind) -> bool {
        self.new & flag(kind) != 0
    }

    /// Whether any is joined.
    pub(crate) fn any_joined(&self) -> bool {
        !self.joined.is_empty()
    }

    /// The one to join.
    pub(crate) fn joined(&self, kind: NamespaceKind) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|(joined, ..)| *joined == kind).map(|(_, _, descriptor, _)| descriptor.as_fd())
    }

    /// The flags for clone3(2). The cgroup namespace is left to [`Self::enter_late`]: its root is where its maker is,
    /// and a process is in its cgroup only after the clone. So is the time namespace: its offsets are written
    /// before anything runs in it.
    pub(crate) fn clone_flags(&self) -> u64 {
        self.new & !(flag(NamespaceKind::Cgroup) | flag(NamespaceKind::Time))
    }

    /// Whether the container's process itself joins the cgroup namespace, once it is in its cgroup: with the option
    /// `nsdelegate` of cgroup2 the kernel makes no process in a cgroup outside of its maker's namespace. A process in a
    /// user namespace has no right to join; its launcher does, and it is let into its cgroup afterwards.
    fn joins_late(&self, kind: NamespaceKind) -> bool {
        kind == NamespaceKind::Cgroup && !self.has(NamespaceKind::User)
    }

    /// Whether the launcher is in a cgroup namespace that the container's cgroup may be outside of.
    pub(crate) fn launcher_joins_cgroup(&self) -> bool {
        self.joined(NamespaceKind::Cgroup).is_some() && !self.joins_late(NamespaceKind::Cgroup)
    }

    /// Enters those that are joined early; the calling process's children will be in them.
    pub(crate) fn join(&self) -> Result<(), NamespaceError> {
        self.set(|kind| !self.joins_late(kind))
    }

    fn set(&self, wanted: impl Fn(NamespaceKind) -> bool) -> Result<(), NamespaceError> {
        for (_, flag, descriptor, path) in self.joined.iter().filter(|(kind, ..)| wanted(*kind)) {
            sys::clone::setns(descriptor.as_fd(), *flag).on("setns", path)?;
        }
        Ok(())
    }

    /// In the container's first process: those that are left to it.
    pub(crate) fn join_late(&self) -> Result<(), NamespaceError> {
        self.set(|kind| self.joins_late(kind))
    }

    /// In the container's first process: the namespaces that [`Self::clone_flags`] leaves out.
    pub(crate) fn enter_late(&self) -> Result<(), NamespaceError> {
        let late = self.new & (flag(NamespaceKind::Cgroup) | flag(NamespaceKind::Time));
        if late != 0 {
            sys::clone::unshare(late).on("unshare", "cgroup and time namespaces")?;
        }
        Ok(())
    }
}

/// The `CLONE_NEW…` flag of a kind.
pub(crate) fn flag(kind: NamespaceKind) -> u64 {
    KINDS.iter().find(|(known, _)| *known == kind).and_then(|(_, flag)| u64::try_from(*flag).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: NamespaceKind) -> Namespace {
        Namespace { kind, path: None }
    }

    #[test]
    fn cgroup_and_time_namespaces_are_not_made_by_the_clone() {
        let kinds = [NamespaceKind::Mount, NamespaceKind::Cgroup, NamespaceKind::Time].map(new);
        let namespaces = Namespaces::open(&kinds).unwrap();
        assert_eq!(namespaces.clone_flags(), libc::CLONE_NEWNS as u64);
        assert!(namespaces.is_new(NamespaceKind::Cgroup));
    }

    #[test]
    fn a_kind_named_twice_is_an_error() {
        let kinds = [NamespaceKind::Mount, NamespaceKind::Mount].map(new);
        assert!(matches!(Namespaces::open(&kinds), Err(NamespaceError::Duplicate { .. })));
    }

    #[test]
    fn a_missing_path_is_named() {
        let joined = Namespace { kind: NamespaceKind::Network, path: Some("/no/such/namespace".into()) };
        let error = Namespaces::open(&[new(NamespaceKind::Mount), joined]).unwrap_err();
        assert_eq!(error.to_string(), "open namespace /no/such/namespace");
    }
}
