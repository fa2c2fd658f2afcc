//! A container's place in the cgroup v2 tree: made, limited, killed, removed.
//!
//! Every path here is absolute and below a mounted cgroup2 file system. Nothing here waits; the blocking forms are in
//! [`remove`] and say so.

pub(crate) mod devices;
pub(crate) mod limits;
mod ownership;
mod remove;
mod update;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, SystemError};
use crate::spec::{Device, Resources};

pub use limits::LimitError;
pub(crate) use ownership::wanted_owner;
pub use remove::{Removal, kill, remove, remove_blocking};
pub use update::update;

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const MAGIC: u64 = 0x6367_7270;

/// Why a cgroup cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path is elsewhere.
    #[error("{} is not below a cgroup2 mount", path.display())]
    NotCgroup2 {
        /// The path.
        path: PathBuf,
    },
    /// A limit needs a controller that is not there.
    #[error("the limit {file} needs the cgroup controller {controller}, which {} does not have", path.display())]
    NoController {
        /// The limit's file.
        file: String,
        /// The controller.
        controller: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The controller is there, but without this limit: an older kernel, or one built without it.
    #[error("the limit {file} is not one that this kernel's cgroup controller {controller} has")]
    NoFile {
        /// The limit's file.
        file: String,
        /// The controller.
        controller: String,
    },
    /// Somebody is in it.
    #[error("the cgroup {} is in use", path.display())]
    InUse {
        /// The cgroup.
        path: PathBuf,
    },
    /// A limit that cannot be expressed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// A cgroup that exists.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: OwnedFd,
    path: PathBuf,
    made: bool,
}

impl Cgroup {
    /// Makes the cgroup (and its parents) and sets its limits, without the device rules.
    pub(crate) fn create(path: &Path, resources: Option<&Resources>) -> Result<Self, CgroupError> {
        let root = root_of(path)?;
        let empty = Resources::default();
        let resources = resources.unwrap_or(&empty);
        let settings = limits::settings(resources)?;
        let made = make(&root, path)?;
        let this = Self::open(path, made)?;
        match this.limit(&root, &settings) {
            Ok(()) => Ok(this),
            Err(error) => {
                this.discard();
                Err(error)
            }
        }
    }

    /// Puts the device rules in force. `nodes` are allowed besides what the rules say.
    pub(crate) fn restrict_devices(&self, resources: Option<&Resources>, nodes: &[Device]) -> Result<(), CgroupError> {
        let rules = resources.map(|resources| resources.devices.as_slice()).unwrap_or_default();
        devices::restrict(self.as_fd(), &self.path, rules, nodes).map(drop)
    }

    fn open(path: &Path, made: bool) -> Result<Self, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).context("open", || path.display().to_string())?;
        let this = Self { directory, path: path.to_owned(), made };
        if !made && read_at(this.as_fd(), "cgroup.events").is_ok_and(|text| text.contains("populated 1")) {
            return Err(CgroupError::InUse { path: path.to_owned() });
        }
        Ok(this)
    }

    fn limit(&self, root: &Path, settings: &[limits::Setting]) -> Result<(), CgroupError> {
        enable(root, &self.path, settings)?;
        apply(self.as_fd(), &self.path, settings)
    }

    /// A way into it for a process that is there already. Whoever opens it must be allowed to; not who uses it.
    pub(crate) fn admission(&self) -> Result<OwnedFd, SystemError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(&self.directory, "cgroup.procs", flags, Mode::empty());
        procs.context("open", || self.path.join("cgroup.procs").display().to_string())
    }

    /// Removes it again if it is ours; after a failure that is reported already.
    pub(crate) fn discard(&self) {
        if self.made {
            // The first failure is what the caller hears of.
            let _ = remove_blocking(&self.path, std::time::Duration::from_secs(2));
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Lets the children of `path` have every controller that `path` itself has. For whoever lays out the tree.
pub fn delegate(path: &Path) -> Result<(), CgroupError> {
    let controllers = read(&path.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        let file = path.join("cgroup.subtree_control");
        crate::idmap::write_file(&file.display().to_string(), format!("+{controller}").as_bytes())?;
    }
    Ok(())
}

/// The topmost directory of the cgroup2 mount that `path` is or will be in.
pub(crate) fn root_of(path: &Path) -> Result<PathBuf, CgroupError> {
    let is_cgroup2 = |directory: &&Path| rustix::fs::statfs(*directory).is_ok_and(|stat| stat.f_type as u64 == MAGIC);
    let mut inside = path.ancestors().skip_while(|ancestor| !is_cgroup2(ancestor)).take_while(is_cgroup2);
    let first = inside.next().ok_or_else(|| CgroupError::NotCgroup2 { path: path.to_owned() })?;
    Ok(inside.last().unwrap_or(first).to_owned())
}

/// Makes the directories between `root` and `path`; says whether the last one is new.
fn make(root: &Path, path: &Path) -> Result<bool, CgroupError> {
    let mut made = false;
    let below = path.strip_prefix(root).map_err(|_| CgroupError::NotCgroup2 { path: path.to_owned() })?;
    // The usual case: only the last one is missing.
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdir(path, mode) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => return Ok(false),
        Err(_) => {}
    }
    let mut directory = root.to_owned();
    for component in below.components() {
        directory.push(component);
        made = match rustix::fs::mkdir(&directory, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            failed => {
                failed.context("mkdir", || directory.display().to_string())?;
                false
            }
        };
    }
    Ok(made)
}

/// Enables the controllers that `settings` need in every directory above `path`.
fn enable(root: &Path, path: &Path, settings: &[limits::Setting]) -> Result<(), CgroupError> {
    let mut wanted: Vec<&str> =
        settings.iter().filter(|setting| !setting.optional).map(|setting| setting.controller()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|controller| *controller != "cgroup");
    if wanted.is_empty() {
        return Ok(());
    }
    let present = read(&path.join("cgroup.controllers"))?;
    wanted.retain(|controller| !present.split_whitespace().any(|has| has == *controller));
    if wanted.is_empty() {
        return Ok(());
    }
    let mut parents: Vec<&Path> = path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(root)).collect();
    parents.reverse();
    for parent in parents {
        let enabled = read(&parent.join("cgroup.subtree_control"))?;
        let available = read(&parent.join("cgroup.controllers"))?;
        for controller in &wanted {
            if enabled.split_whitespace().any(|has| has == *controller) {
                continue;
            }
            if !available.split_whitespace().any(|has| has == *controller) {
                let needs = settings.iter().find(|setting| setting.controller() == *controller);
                return Err(CgroupError::NoController {
                    file: needs.map(|setting| setting.file.clone()).unwrap_or_default(),
                    controller: (*controller).to_owned(),
                    path: parent.to_owned(),
                });
            }
            let file = parent.join("cgroup.subtree_control").display().to_string();
            crate::idmap::write_file(&file, format!("+{controller}").as_bytes())?;
        }
    }
    Ok(())
}

fn apply(directory: BorrowedFd<'_>, path: &Path, settings: &[limits::Setting]) -> Result<(), CgroupError> {
    for setting in settings {
        let subject = || format!("{} to {}", setting.value, path.join(&setting.file).display());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(directory, setting.file.as_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) if setting.optional => continue,
            Err(Errno::NOENT) => {
                let (file, controller) = (setting.file.clone(), setting.controller().to_owned());
                return Err(CgroupError::NoFile { file, controller });
            }
            failed => failed.context("open for writing", subject)?,
        };
        match rustix::io::write(&file, setting.value.as_bytes()) {
            Err(_) if setting.optional => {}
            result => drop(result.context("write", subject)?),
        }
    }
    Ok(())
}

/// A small file's text.
pub(crate) fn read(path: &Path) -> Result<String, SystemError> {
    std::fs::read_to_string(path).context("read", || path.display().to_string())
}

fn read_at(directory: BorrowedFd<'_>, name: &str) -> Result<String, SystemError> {
    let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", name)?;
    let mut buffer = [0; 512];
    let length = rustix::io::read(&file, &mut buffer).on("read", name)?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}
