//! A container's writable layer.
//!
//! `containers/<name>/<hash>.<number>/{upper,work}`; the hash is that of the container's definition and its image's
//! digest, the highest number is the one in use. A restart keeps it; a changed definition or image gets a new one, as
//! with Docker, and the one before stays until the next change, because its container may still be on its way down.
//! Everything that matters is in directory names, so no file has to be synced for it.
//!
//! A configuration on trial may be taken back, or end with a reset that knows nothing of it. So a new layer on trial is made
//! beside a directory `trial`; as long as that is there nothing is removed, and whoever needs a layer from before finds it.

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

/// Beside layers of which the newest was made on trial.
const TRIAL: &str = "trial";

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
/// hold; what is prepared on `trial` may be taken back.
pub fn prepare(
    containers: &Path,
    name: &str,
    definition: &[u8],
    image: &Merged,
    limit: Option<u64>,
    trial: bool,
) -> Result<Snapshot, LayerError> {
    let folder = containers.join(name);
    crate::store::make_directories(&folder)?;
    let subject = EntryPath::ROOT.join(name.as_bytes());
    let directory = rustix::fs::open(&folder, DIRECTORY, Mode::empty()).map_err(failed("open", &subject))?;
    let Layers { mut generations, mut tried, .. } = whole(&directory).map_err(failed("list", &subject))?;
    let hash: String = Digest::of(definition).hex().chars().take(HASH_DIGITS).collect();
    let last = generations.last().cloned();
    let new = Generation { hash, number: last.as_ref().map_or(0, |last| last.number).saturating_add(1) };
    // What was there before a trial that was not confirmed.
    let before = generations.iter().rposition(|generation| tried && !trial && generation.hash == new.hash);
    let (current, keep) = match (last, before) {
        (Some(last), _) if last.hash == new.hash => (last, 1),
        (_, Some(before)) => {
            let before = generations.remove(before);
            rustix::fs::renameat(&directory, before.to_string(), &directory, new.to_string())
                .map_err(failed("rename", &subject))?;
            generations.push(new.clone());
            (new, 2)
        }
        (last, None) => {
            if trial && !tried && last.is_some() {
                rustix::fs::mkdirat(&directory, TRIAL, Mode::from_raw_mode(0o700)).map_err(failed("make", &subject))?;
                tried = true;
            }
            make(directory.as_fd(), &new, image, &subject, limit)?;
            generations.push(new.clone());
            (new, 2)
        }
    };
    let stay = if trial && tried { generations.len() } else { keep };
    let old = generations.iter().take(generations.len().saturating_sub(stay)).map(Generation::to_string);
    for old in (tried && !trial).then(|| TRIAL.to_owned()).into_iter().chain(old) {
        // It takes space and harms nobody; the next change tries again.
        if let Err(error) = removal::remove(directory.as_fd(), old.as_bytes()) {
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
    let layers = look(&directory).ok()?;
    let current =
        rustix::fs::openat(&directory, layers.generations.last()?.to_string(), DIRECTORY, Mode::empty()).ok()?;
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

/// What a container's directory holds.
#[derive(Debug, Default)]
struct Layers {
    /// The newest last.
    generations: Vec<Generation>,
    /// Whether the newest was made on trial, as far as it is known.
    tried: bool,
    /// What has no number: half-made ones.
    broken: Vec<String>,
}

/// The layers there are. Half-made ones are removed.
fn whole(directory: &OwnedFd) -> Result<Layers, Errno> {
    let found = look(directory)?;
    for name in &found.broken {
        removal::remove(directory.as_fd(), name.as_bytes())?;
    }
    Ok(found)
}

fn look(directory: &OwnedFd) -> Result<Layers, Errno> {
    let mut found = Layers::default();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.rsplit_once('.').map(|(hash, number)| (hash, number.parse())) {
            Some((hash, Ok(number))) if !hash.is_empty() => {
                found.generations.push(Generation { hash: hash.to_owned(), number });
            }
            _ if name == "." || name == ".." => {}
            _ if name == TRIAL => found.tried = true,
            _ => found.broken.push(name),
        }
    }
    found.generations.sort_by_key(|generation| generation.number);
    Ok(found)
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
        prepared_as(containers, definition, false)
    }

    fn prepared_as(containers: &Path, definition: &str, trial: bool) -> PathBuf {
        let image = Merged::new(Vec::new()).unwrap();
        prepare(containers, "web", definition.as_bytes(), &image, None, trial).unwrap().upper
    }

    /// The letters that the layers were written with, the oldest first.
    fn written_in(containers: &Path) -> String {
        let directory = rustix::fs::open(containers.join("web"), DIRECTORY, Mode::empty()).unwrap();
        let layers = look(&directory).unwrap().generations;
        let read = |layer: &Generation| std::fs::read_to_string(containers.join(format!("web/{layer}/upper/file")));
        layers.iter().map(|layer| read(layer).unwrap()).collect()
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
    fn what_was_written_before_a_trial_is_there_when_it_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path();
        std::fs::write(prepared(containers, "a").join("file"), "a").unwrap();
        let tried = prepared_as(containers, "b", true);
        assert!(!tried.join("file").exists());
        std::fs::write(tried.join("file"), "b").unwrap();
        // Whatever else is applied or restarted meanwhile, and an image that is pulled anew.
        assert_eq!(prepared_as(containers, "b", true), tried);
        std::fs::write(prepared_as(containers, "c", true).join("file"), "c").unwrap();
        assert_eq!(written_in(containers), "abc");
        let after = prepared(containers, "a");
        assert_eq!(std::fs::read_to_string(after.join("file")).unwrap(), "a");
        assert_eq!(written_in(containers), "ca", "the one on trial may still be on its way down");
        assert_eq!(prepared(containers, "a"), after);
        assert_eq!(written_in(containers), "a");
        // The next trial is as the first.
        std::fs::write(prepared_as(containers, "c", true).join("file"), "c").unwrap();
        assert_eq!(std::fs::read_to_string(prepared(containers, "a").join("file")).unwrap(), "a");
    }

    #[test]
    fn a_trial_that_is_confirmed_leaves_nothing_of_before() {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path();
        std::fs::write(prepared(containers, "a").join("file"), "a").unwrap();
        let tried = prepared_as(containers, "b", true);
        std::fs::write(tried.join("file"), "b").unwrap();
        assert_eq!(prepared(containers, "b"), tried);
        assert_eq!(written_in(containers), "b");
        assert!(!containers.join("web/trial").exists());
        assert!(!prepared(containers, "a").join("file").exists(), "an old layer does not come back");
    }

    #[test]
    fn a_trial_leaves_what_it_does_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let containers = directory.path();
        let first = prepared_as(containers, "a", true);
        std::fs::write(first.join("file"), "a").unwrap();
        assert_eq!(prepared_as(containers, "a", true), first);
        assert!(!containers.join("web/trial").exists());
        // What is tried after a trial whose end nobody has heard of goes back to that one.
        std::fs::write(prepared_as(containers, "b", true).join("file"), "b").unwrap();
        std::fs::write(prepared_as(containers, "a", true).join("file"), "new").unwrap();
        assert_eq!(std::fs::read_to_string(prepared(containers, "b").join("file")).unwrap(), "b");
        assert_eq!(written_in(containers), "newb");
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
