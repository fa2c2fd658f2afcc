//! Switches of the kernel's network that only /proc/sys/net has.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// A switch that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set {} to {value}", path.display())]
pub struct SysctlError {
    path: PathBuf,
    value: String,
    #[source]
    source: io::Error,
}

/// Sets a switch below /proc/sys/net, unless it has the value already.
fn set(path: PathBuf, value: &str) -> Result<(), SysctlError> {
    if fs::read_to_string(&path).is_ok_and(|present| present.trim_end() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| SysctlError { path, value: value.to_owned(), source })
}

/// A switch of one link: `net.FAMILY.conf.LINK.KEY`. A link's name may hold dots, so the path is put together here.
pub fn set_link(family: &str, link: &str, key: &str, value: &str) -> Result<(), SysctlError> {
    set(PathBuf::from("/proc/sys/net").join(family).join("conf").join(link).join(key), value)
}

/// The same for some keys and values of one link of the namespace that this thread is in.
///
/// The kernel finds the folders of all namespaces in one list of each /proc (proc_sys_compare), which would be searched longer for
/// every container that was looked into. So this goes by a /proc of its own, which ends with it.
pub fn set_link_inside(family: &str, link: &str, switches: &[(&str, &str)]) -> Result<(), SysctlError> {
    let own = proc();
    let root = own.as_ref().map(|own| format!("/proc/self/fd/{}", own.as_raw_fd()));
    // Where there can be none, the machine's does as well, if slower.
    let folder =
        PathBuf::from(root.unwrap_or_else(|_| "/proc".to_owned())).join("sys/net").join(family).join("conf").join(link);
    switches.iter().try_for_each(|(key, value)| set(folder.join(key), value))
}

/// A new /proc, which is nowhere in the tree.
fn proc() -> rustix::io::Result<OwnedFd> {
    let new = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(new.as_fd())?;
    fsmount(new.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Keeps a link from having IPv6 addresses. A kernel without IPv6 is fine.
pub fn disable_ipv6(link: &str) -> Result<(), SysctlError> {
    match set_link("ipv6", link, "disable_ipv6", "1") {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Lets a link take further routes from routers (RFC 4191), of whichever length: by itself the kernel takes none. One that cannot
/// is fine.
pub fn accept_routes(link: &str) -> Result<(), SysctlError> {
    match set_link("ipv6", link, "accept_ra_rt_info_max_plen", "128") {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Keeps what crosses a bridge out of the IP layer's packet filter. With the kernel's default a packet's address is
/// changed back before IPv6 looks at it, which then drops what goes to ::1. A kernel without the switches is fine.
pub fn disable_bridge_filter() -> Result<(), SysctlError> {
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        match set(PathBuf::from("/proc/sys/net/bridge").join(key), "0") {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// Lets the machine pass packets on between links.
pub fn enable_forwarding() -> Result<(), SysctlError> {
    set(PathBuf::from("/proc/sys/net/ipv4/ip_forward"), "1")?;
    set_link("ipv6", "all", "forwarding", "1")
}
