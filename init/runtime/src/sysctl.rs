//! `linux.sysctl`: kernel parameters of the container's namespaces, and of nothing else.

use std::os::fd::OwnedFd;

use crate::error::{Error, SystemError};
use crate::mounts::container::write_proc;
use crate::spec::{Linux, NamespaceKind};

/// Parameters that a namespace has for itself: the beginning of their paths below /proc/sys, or the whole.
const OWN: &[(&str, NamespaceKind)] = &[
    ("net/", NamespaceKind::Network),
    ("fs/mqueue/", NamespaceKind::Ipc),
    ("kernel/msgmax", NamespaceKind::Ipc),
    ("kernel/msgmnb", NamespaceKind::Ipc),
    ("kernel/msgmni", NamespaceKind::Ipc),
    ("kernel/msg_next_id", NamespaceKind::Ipc),
    ("kernel/sem", NamespaceKind::Ipc),
    ("kernel/sem_next_id", NamespaceKind::Ipc),
    ("kernel/shmall", NamespaceKind::Ipc),
    ("kernel/shmmax", NamespaceKind::Ipc),
    ("kernel/shmmni", NamespaceKind::Ipc),
    ("kernel/shm_next_id", NamespaceKind::Ipc),
    ("kernel/shm_rmid_forced", NamespaceKind::Ipc),
    ("kernel/hostname", NamespaceKind::Uts),
    ("kernel/domainname", NamespaceKind::Uts),
    ("user/", NamespaceKind::User),
];

/// Every parameter must be one of a namespace that the container does not share with the runtime: any other would be
/// changed for the whole machine.
pub(crate) fn check(linux: &Linux) -> Result<(), Error> {
    for key in linux.sysctl.keys() {
        let path = path(key);
        let field = || format!("linux.sysctl.{key}");
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::configuration(field(), "must be the name of a kernel parameter"));
        }
        let owner = OWN.iter().find(|(own, _)| if own.ends_with('/') { path.starts_with(own) } else { path == *own });
        let Some((_, kind)) = owner else {
            return Err(Error::configuration(field(), "is not a parameter of a namespace: it is the whole machine's"));
        };
        if !linux.namespaces.iter().any(|namespace| namespace.kind == *kind) {
            let kind = format!("{kind:?}").to_lowercase();
            return Err(Error::configuration(field(), format!("needs a {kind} namespace in linux.namespaces")));
        }
    }
    Ok(())
}

/// Writes all of them into the container's procfs.
pub(crate) fn set(linux: &Linux, procfs: &OwnedFd) -> Result<(), SystemError> {
    linux.sysctl.iter().try_for_each(|(key, value)| write_proc(procfs, &format!("sys/{}", path(key)), value.as_bytes()))
}

/// As sysctl(8): with a slash as the first separator it is a path already; else dots and slashes change places, so that
/// a slash in a name (`net.ipv4.conf.eth0/1.forwarding`) is a dot in the file's.
fn path(key: &str) -> String {
    if key.find(['.', '/']).is_some_and(|first| key.get(first..).is_some_and(|rest| rest.starts_with('/'))) {
        return key.to_owned();
    }
    let exchanged = key.chars().map(|character| match character {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    exchanged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Namespace;

    fn refused(key: &str, kinds: &[NamespaceKind]) -> bool {
        let linux = Linux {
            sysctl: [(key.to_owned(), "1".to_owned())].into(),
            namespaces: kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect(),
            ..Linux::default()
        };
        check(&linux).is_err()
    }

    #[test]
    fn the_first_separator_decides_how_a_name_is_read() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn only_parameters_of_own_namespaces_are_taken() {
        assert!(!refused("net.ipv4.ip_forward", &[NamespaceKind::Network]));
        assert!(!refused("kernel.shmmax", &[NamespaceKind::Ipc]));
        assert!(refused("net.ipv4.ip_forward", &[NamespaceKind::Ipc]));
        assert!(refused("vm.swappiness", &[NamespaceKind::Network, NamespaceKind::User]));
        assert!(refused("kernel.shmmax_rest", &[NamespaceKind::Ipc]));
    }

    #[test]
    fn a_name_cannot_leave_the_parameters() {
        for key in ["net/../../1/oom_score_adj", "net//x", "", "net."] {
            assert!(refused(key, &[NamespaceKind::Network]), "{key}");
        }
    }
}
