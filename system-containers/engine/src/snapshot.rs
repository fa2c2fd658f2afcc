//! A container's writable layer.
//!
//! `containers/<name>/<hash>.<number>/{upper,work}`; the hash is that of the container's definition and its image's
//! digest, the highest number is the one in use. A restart keeps it; a changed definition or image gets a new one, as
//! with Docker, and the one before stays until the next change, because its container may still be on its way down.
//! Everything that matters is in directory names, so no file has to be synced for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::layer::{EntryPath, LayerError, failed};
use crate::merged::Merged;
use crate::quota::{self, QuotaError};
use crate::removal;

/// How many digits of the hash are kept: enough to tell a container's definitions apart.
const HASH_DIGITS: usize = 16;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories of a writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What the container writes.
    pub upper: PathBuf,
    /// overlayfs's own.
    pub work: PathBuf,
    /// Whether there is a limit to what the container writes.
    pub limited: bool,
}

/// The writable layer of a container, made if it has none for this definition. `definition` is everything that a new
/// layer is due to when it changes; `image` gives the root directory its metadata; `limit` is the most bytes it may
/// hold.
pub fn prepare(
    containers: &Path,
    name: &str,
    definition: &[u8],
    image: &Merged,
    limit: Option<u64>,
) -> Result<Snapshot, LayerError> {
    let folder = containers.join(name);
    crate::store::make_directories(&folder)?;
    let subject = EntryPath::ROOT.join(name.as_bytes());
    let directory = rustix::fs::open(&folder, DIRECTORY, Mode::empty()).map_err(failed("open", &subject))?;
    let generations = generations(&directory).map_err(failed("list", &subject))?;
    let hash: String = Digest::of(definition).hex().chars().take(HASH_DIGITS).collect();
    let (current, keep) = match generations.last() {
        Some(last) if last.hash == hash => (last.clone(), 1),
        last => {
            let new = Generation { hash, number: last.map_or(0, |last| last.number).saturating_add(1) };
            make(directory.as_fd(), &new, image, &subject, limit)?;
            (new, 2)
        }
    };
    let newest = generations.len() + usize::from(keep == 2);
    for old in generations.iter().take(newest.saturating_sub(keep)) {
        // It takes space and harms nobody; the next change tries again.
        if let Err(error) = removal::remove(directory.as_fd(), old.to_string().as_bytes()) {
            eprintln!("engine: remove the old layer {old} of {name}: {error}");
        }
    }
    let path = folder.join(current.to_string());
    let opened = rustix::fs::openat(&directory, current.to_string(), DIRECTORY, Mode::empty());
    let limited = quota::used(opened.map_err(failed("open", &subject))?.as_fd()).is_some();
    Ok(Snapshot { upper: path.join("upper"), work: path.join("work"), limited })
}

/// How many bytes the writable layer in use has on the disk; none without one, and where that is not counted: the file system
/// has no project quotas, or the layer was made before they were used for this.
pub fn written(containers: &Path, name: &str) -> Option<u64> {
    let directory = rustix::fs::open(containers.join(name), DIRECTORY, Mode::empty()).ok()?;
    let (generations, _) = look(&directory).ok()?;
    let current = rustix::fs::openat(&directory, generations.last()?.to_string(), DIRECTORY, Mode::empty()).ok()?;
    quota::counted(current.as_fd())
}

/// Removes the writable layers of a container that is gone.
pub fn forget(containers: &Path, name: &str) -> Result<(), LayerError> {
    let subject = EntryPath::ROOT.join(name.as_bytes());
    let directory = match rustix::fs::open(containers, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(failed("open", &subject))?,
    };
    removal::remove(directory.as_fd(), name.as_bytes()).map_err(failed("remove", &subject))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Generation {
    hash: String,
    number: u64,
}

impl std::fmt::Display for Generation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.hash, self.number)
    }
}

/// The layers there are, the newest last. Half-made ones are removed.
fn generations(directory: &OwnedFd) -> Result<Vec<Generation>, Errno> {
    let (found, broken) = look(directory)?;
    for name in broken {
        removal::remove(directory.as_fd(), name.as_bytes())?;
    }
    Ok(found)
}

/// The layers there are, the newest last, and what has no number: half-made ones.
fn look(directory: &OwnedFd) -> Result<(Vec<Generation>, Vec<String>), Errno> {
    let mut found = Vec::new();
    let mut broken = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.rsplit_once('.').map(|(hash, number)| (hash, number.parse())) {
            Some((hash, Ok(number))) if !hash.is_empty() => found.push(Generation { hash: hash.to_owned(), number }),
            _ if name == "." || name == ".." => {}
            _ => broken.push(name),
        }
    }
    found.sort_by_key(|generation| generation.number);
    Ok((found, broken))
}

fn make(
    directory: BorrowedFd<'_>,
    generation: &Generation,
    image: &Merged,
    subject: &EntryPath,
    limit: Option<u64>,
) -> Result<(), LayerError> {
    const ASIDE: &str = "new";
    let mode = Mode::from_raw_mode(0o711);
    rustix::fs::mkdirat(directory, ASIDE, mode).map_err(failed("make", subject))?;
    let new = rustix::fs::openat(directory, ASIDE, DIRECTORY, Mode::empty()).map_err(failed("open", subject))?;
    match quota::limit(new.as_fd(), limit.unwrap_or(0)) {
        // It runs without: what is wrong is told with the container, see `prepare`.
        Ok(()) | Err(QuotaError::Unsupported) => {}
        Err(QuotaError::System { operation, source }) if limit.is_some() => {
            return Err(failed(operation, subject)(Errno::from_raw_os_error(source as i32)));
        }
        // Its size is not known; that is no reason not to run.
        Err(QuotaError::System { .. }) => {}
    }
    for (part, mode) in [("new/upper", 0o755), ("new/work", 0o700)] {
        rustix::fs::mkdirat(directory, part, Mode::from_raw_mode(mode)).map_err(failed("make", subject))?;
    }
    // What overlayfs shows as the container's root is this directory.
    let upper =
        rustix::fs::openat(directory, "new/upper", DIRECTORY, Mode::empty()).map_err(failed("open", subject))?;
    if let Some(root) = image.root()? {
        crate::copy::metadata(root.top(), upper.as_fd(), subject)?;
    }
    let name = generation.to_string();
    rustix::fs::renameat(directory, ASIDE, directory, &*name).map_err(failed("rename", subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(containers: &Path, definition: &str) -> PathBuf {
        let image = Merged::new(Vec::new()).unwrap();
        prepare(containers, "web", definition.as_bytes(), &image, None).unwrap().upper
    }

    #[test]
    fn a_layer_lasts_as_long_as_its_definition() {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path();
        let first = prepared(containers, "a");
        std::fs::write(first.join("file"), "kept").unwrap();
        assert_eq!(prepared(containers, "a"), first);
        assert!(first.join("file").exists());

        let second = prepared(containers, "b");
        assert_ne!(second, first);
        assert!(first.exists(), "its container may still be running");
        let third = prepared(containers, "a");
        assert_ne!(third, first, "an old layer does not come back");
        assert!(!first.exists() && second.exists());
        prepared(containers, "a");
        assert!(!second.exists() && third.exists());
    }

    #[test]
    fn what_is_forgotten_does_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let first = prepared(directory.path(), "a");
        std::fs::write(first.join("file"), "old").unwrap();
        forget(directory.path(), "web").unwrap();
        forget(directory.path(), "web").unwrap();
        assert!(!directory.path().join("web").exists());
        assert!(!prepared(directory.path(), "a").join("file").exists());
        forget(&directory.path().join("none"), "web").unwrap();
    }

    #[test]
    fn a_half_made_layer_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("web/new/upper")).unwrap();
        assert_eq!(written(directory.path(), "web"), None);
        assert!(directory.path().join("web/new").exists(), "who looks removes nothing");
        assert!(prepared(directory.path(), "a").ends_with("web/ca978112ca1bbdca.1/upper"));
    }
}
