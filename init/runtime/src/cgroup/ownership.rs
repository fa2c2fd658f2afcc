//! Giving a container its cgroup, so that it can make others below: the specification's "cgroup ownership".

use rustix::fs::{AtFlags, Uid};
use rustix::io::Errno;

use super::{Cgroup, CgroupError};
use crate::error::Context;
use crate::spec::{NamespaceKind, Spec};

/// Files that belong to who may manage a cgroup, for kernels that do not list them.
const FALLBACK: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The host's user whom the cgroup is to belong to: the program's, where the container has a cgroup namespace of its
/// own and may write to the file system.
pub(crate) fn wanted_owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let new = |kind| linux.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_none());
    let writable = spec.mounts.iter().any(|mount| {
        mount.source.as_deref() == Some("cgroup")
            && mount.destination == "/sys/fs/cgroup"
            && !mount.options().iter().any(|option| option == "ro")
    });
    if !writable || !new(NamespaceKind::Cgroup) {
        return None;
    }
    let user = spec.process.as_ref()?.user.uid;
    match new(NamespaceKind::User) {
        true => crate::idmap::to_host(&linux.uid_mappings, user),
        false => Some(user),
    }
}

impl Cgroup {
    /// Changes the owner of the directory and of the files for managing it; limits stay the host's.
    pub(crate) fn give_to(&self, user: u32) -> Result<(), CgroupError> {
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let listed = listed.unwrap_or_else(|_| FALLBACK.to_owned());
        let user = Some(Uid::from_raw(user));
        let subject = |name: &str| format!("{}/{name}", self.path.display());
        rustix::fs::fchown(&self.directory, user, None).context("chown", || subject(""))?;
        for name in listed.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
            match rustix::fs::chownat(&self.directory, name, user, None, AtFlags::SYMLINK_NOFOLLOW) {
                // Not every kernel or controller has every file.
                Ok(()) | Err(Errno::NOENT) => {}
                failed => failed.context("chown", || subject(name))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{IdMapping, Linux, Mount, Namespace, Process};

    fn spec(option: &str, kinds: &[NamespaceKind]) -> Spec {
        let mount = Mount {
            destination: "/sys/fs/cgroup".into(),
            source: Some("cgroup".into()),
            options: Some(vec![option.to_owned()]),
            ..Mount::default()
        };
        let namespaces = kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
        let uid_mappings = vec![IdMapping { container_id: 0, host_id: 1000, size: 10 }];
        let linux = Linux { namespaces, uid_mappings, ..Linux::default() };
        let mut process = Process::default();
        process.user.uid = 5;
        Spec { linux: Some(linux), process: Some(process), mounts: vec![mount], ..Spec::default() }
    }

    #[test]
    fn only_a_writable_tree_of_its_own_is_given_away() {
        use NamespaceKind::{Cgroup, User};
        assert_eq!(wanted_owner(&spec("rw", &[Cgroup, User])), Some(1005));
        assert_eq!(wanted_owner(&spec("rw", &[Cgroup])), Some(5));
        assert_eq!(wanted_owner(&spec("ro", &[Cgroup, User])), None);
        assert_eq!(wanted_owner(&spec("rw", &[User])), None);
    }
}
