//! What a container's mounts bring from the host, as detached trees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::options::Options;
use super::overlay::{self, Layers, Mapping};
use super::{MountError, attach};
use crate::create::Rootfs;
use crate::idmap;
use crate::spec::{IdMapping, Mount, Spec};

/// Trees of the host, in an order that both sides know: the root first, then each bind mount.
#[derive(Debug)]
pub(crate) struct Sources {
    pub root: OwnedFd,
    /// One for each mount for which [`is_bind`] says yes.
    pub binds: Vec<OwnedFd>,
}

/// Whether a mount brings something from the host; one that only changes another does not.
pub(crate) fn is_bind(mount: &Mount, options: &Options) -> bool {
    !options.remount && (options.bind.is_some() || matches!(mount.kind.as_deref(), Some("bind" | "rbind")))
}

impl Sources {
    /// Opens everything. With `user_namespace`, the container's, this process is not in it and in a mount namespace of
    /// its own.
    pub(crate) fn open(
        spec: &Spec,
        rootfs: &Rootfs,
        bundle: &Path,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Self, MountError> {
        let propagation = root_propagation(spec);
        let root = match rootfs {
            Rootfs::Path(path) => attach::clone_tree(CWD, path, true)?,
            Rootfs::Overlay { layers, upper, work, mapped } => {
                let layers = Layers { lower: layers, upper: upper.as_deref(), work: work.as_deref() };
                let mapping = user_namespace.filter(|_| *mapped);
                overlay::make(layers, mapping.map(|namespace| mapping_to(namespace, spec)))?
            }
        };
        // pivot_root(2) refuses a shared root; it becomes shared when it is in place.
        let at_first = if propagation == libc::MS_SHARED { libc::MS_PRIVATE } else { propagation };
        attach::set_propagation(root.as_fd(), at_first, true, "root")?;
        let mut binds = Vec::new();
        for mount in &spec.mounts {
            let options = Options::parse(mount.options());
            if is_bind(mount, &options) {
                let tree = bind(mount, &options, bundle, propagation, user_namespace).map_err(|error| {
                    let source_name = mount.source.clone().unwrap_or_default();
                    let destination = mount.destination.clone();
                    MountError::Mount { source_name, destination, source: Box::new(error) }
                })?;
                binds.push(tree);
            }
        }
        Ok(Self { root, binds })
    }

    /// For sending to the container's process.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.root.as_fd()).chain(self.binds.iter().map(AsFd::as_fd)).collect()
    }

    /// What [`Self::descriptors`] was, on the other side.
    pub(crate) fn received(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let root = descriptors.next()?;
        Some(Self { root, binds: descriptors.collect() })
    }
}

/// Whether only the launcher can open the sources of these mounts: mapping ids takes the host's privileges, and its
/// /proc with the caller's PID namespace.
pub(crate) fn need_launcher(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        let options = Options::parse(mount.options());
        is_bind(mount, &options) && (options.id_map.is_some() || own_mappings(mount).is_some())
    })
}

fn mapping_to<'a>(user_namespace: BorrowedFd<'a>, spec: &Spec) -> Mapping<'a> {
    let root = |mappings: &[IdMapping]| idmap::to_host(mappings, 0).unwrap_or_default();
    let root = spec.linux.as_ref().map(|linux| (root(&linux.uid_mappings), root(&linux.gid_mappings)));
    Mapping { user_namespace, root: root.unwrap_or_default() }
}

/// How mounts of the container and of the host hear of each other's: as said, or the host's are seen in the container
/// and not the other way round.
pub(crate) fn root_propagation(spec: &Spec) -> u64 {
    match spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref()) {
        Some("shared" | "rshared") => libc::MS_SHARED,
        Some("private" | "rprivate") => libc::MS_PRIVATE,
        // Unbindable mounts cannot be cloned: made so at the end, when the root is in place.
        Some("unbindable" | "runbindable") => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

fn bind(
    mount: &Mount,
    options: &Options,
    bundle: &Path,
    propagation: u64,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, MountError> {
    let source = mount.source.as_deref().unwrap_or_default();
    if source.is_empty() {
        return Err(MountError::Option { option: "bind".to_owned(), reason: "needs a source" });
    }
    // A relative source is one of the bundle.
    let path: PathBuf = bundle.join(source);
    let recursive = options.bind == Some(true) || mount.kind.as_deref() == Some("rbind");
    let tree = attach::clone_tree(CWD, &path, recursive)?;
    // A clone is a peer of its source: without this, what the container mounts below it would appear on the host.
    if propagation != libc::MS_SHARED {
        attach::set_propagation(tree.as_fd(), propagation, true, source)?;
    }
    if let Some(below) = options.id_map.or_else(|| own_mappings(mount).is_some().then_some(false)) {
        match own_mappings(mount) {
            Some((uids, gids)) => {
                let carrier = idmap::carrier(uids, gids)?;
                attach::map_ids(tree.as_fd(), carrier.as_fd(), below)?;
            }
            None => {
                let namespace = user_namespace.ok_or_else(|| MountError::Option {
                    option: "idmap".to_owned(),
                    reason: "needs uidMappings and gidMappings, or a user namespace",
                })?;
                attach::map_ids(tree.as_fd(), namespace, below)?;
            }
        }
    }
    Ok(tree)
}

fn own_mappings(mount: &Mount) -> Option<(&[IdMapping], &[IdMapping])> {
    let uids = mount.uid_mappings.as_deref().filter(|list| !list.is_empty());
    let gids = mount.gid_mappings.as_deref().filter(|list| !list.is_empty());
    match (uids, gids) {
        (None, None) => None,
        (uids, gids) => Some((uids.unwrap_or_default(), gids.unwrap_or_default())),
    }
}
