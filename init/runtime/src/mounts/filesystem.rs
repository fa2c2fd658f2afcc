//! New file systems: fsopen(2), fsconfig(2), fsmount(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};

use super::MountError;
use super::options::Options;
use crate::error::Context;

/// File systems whose superblock others share: read-only is for the mount only.
const SHARED: &[&str] = &["proc", "sysfs", "cgroup2", "mqueue", "devpts"];

/// fsconfig(2) takes values of at most this many bytes, without the final NUL.
const MAXIMUM_VALUE: usize = 255;

/// A file system that is being configured.
#[derive(Debug)]
pub(crate) struct Filesystem {
    context: OwnedFd,
    kind: String,
}

impl Filesystem {
    /// `kind` as in /proc/filesystems.
    pub(crate) fn open(kind: &str) -> Result<Self, MountError> {
        let context =
            rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen", || format!("type {kind}"))?;
        Ok(Self { context, kind: kind.to_owned() })
    }

    /// `key=value`.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), MountError> {
        let result = rustix::mount::fsconfig_set_string(&self.context, key, value);
        self.explain(result, || format!("{key}={value}"))
    }

    /// `key`.
    pub(crate) fn set_flag(&self, key: &str) -> Result<(), MountError> {
        self.explain(rustix::mount::fsconfig_set_flag(&self.context, key), || key.to_owned())
    }

    /// What the options say to the file system itself.
    fn set_all(&self, options: &Options) -> Result<(), MountError> {
        for flag in &options.superblock {
            self.set_flag(flag)?;
        }
        for (key, value) in &options.data {
            match value {
                None => self.set_flag(key)?,
                // An overlay's list of directories may be longer than a value can be: one by one, then.
                Some(list) if self.kind == "overlay" && key == "lowerdir" && list.len() > MAXIMUM_VALUE => {
                    for directory in list.split(':') {
                        self.set("lowerdir+", directory)?;
                    }
                }
                Some(value) => self.set(key, value)?,
            }
        }
        Ok(())
    }

    /// Makes the superblock and a detached mount of it.
    pub(crate) fn mount(self, attributes: u64) -> Result<OwnedFd, MountError> {
        self.explain(rustix::mount::fsconfig_create(&self.context), || "create".to_owned())?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or_default());
        let mount = rustix::mount::fsmount(self.context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        self.explain(mount, || "fsmount".to_owned())
    }

    /// Adds what the kernel wrote into the context's log.
    fn explain<T>(&self, result: Result<T, Errno>, subject: impl FnOnce() -> String) -> Result<T, MountError> {
        result.context("fsconfig", subject).map_err(|source| match messages(self.context.as_fd()) {
            message if message.is_empty() => source.into(),
            message => MountError::Filesystem { kind: self.kind.clone(), message, source },
        })
    }
}

/// The error and warning lines of a context, without their `e ` and `w `.
fn messages(context: BorrowedFd<'_>) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut buffer = [0; 1024];
    // A line a read; the kernel keeps at most eight.
    for _ in 0..8 {
        let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) else { break };
        let line = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let line = line.trim();
        if let Some(text) = line.strip_prefix("e ").or_else(|| line.strip_prefix("w ")) {
            out.push(text.to_owned());
        }
    }
    out.join("; ")
}

/// A file system of the configuration as a detached mount.
pub(crate) fn make(kind: &str, source: Option<&str>, options: &Options) -> Result<OwnedFd, MountError> {
    let filesystem = Filesystem::open(kind)?;
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        filesystem.set("source", source)?;
    }
    filesystem.set_all(options)?;
    let mut attributes = options.attributes.set | options.recursive.set;
    if is_late(kind) {
        attributes &= !crate::sys::mount::attribute::READ_ONLY;
    } else if options.read_only() && !SHARED.contains(&kind) {
        filesystem.set_flag("ro")?;
    }
    filesystem.mount(attributes)
}

/// Other options for the file system of a mount. Read-only is for the mount alone where others share the file system.
pub(crate) fn reconfigure(mount: BorrowedFd<'_>, kind: &str, options: &Options) -> Result<(), MountError> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(mount, "", flags).context("fspick", || format!("type {kind}"))?;
    let filesystem = Filesystem { context, kind: kind.to_owned() };
    filesystem.set_all(options)?;
    if !is_late(kind) && !SHARED.contains(&kind) {
        let read_only = crate::sys::mount::attribute::READ_ONLY;
        for (bits, flag) in [(options.attributes.set, "ro"), (options.attributes.clear, "rw")] {
            if bits & read_only != 0 {
                filesystem.set_flag(flag)?;
            }
        }
    }
    filesystem.explain(rustix::mount::fsconfig_reconfigure(&filesystem.context), || "reconfigure".to_owned())
}

/// Whether a read-only file system of this kind becomes so only when everything in it is in its place: an empty one is
/// where mount points and device nodes are made.
pub(crate) fn is_late(kind: &str) -> bool {
    kind == "tmpfs"
}
