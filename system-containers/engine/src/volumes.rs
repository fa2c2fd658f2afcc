//! Volumes: named ones, the ones that an image asks for, and directories of the machine.
//!
//! A volume is a directory `volumes/<name>`. It is filled once, when it is made, with what the image has at its
//! destination; made aside, synced and renamed, so that a power cut leaves a whole volume or none. Volumes outlive
//! their containers; only those that an image asks for go with one that was made by hand, if that is wanted. What people
//! do with volumes by command is in `kept`, who uses them in `users`.

mod kept;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_config::{Container, Volume};
use berth_control::message::PreparedMount;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

pub use self::kept::answer;
pub use self::users::{Leaving, Users};
use crate::copy::Check;
use crate::digest::Digest;
use crate::layer::{self, EntryPath, LayerError, failed};
use crate::limits;
use crate::merged::{Found, Merged};
use crate::oci;
use crate::room::Room;
use crate::store::make_directories;

/// Berth's own directories. A container that writes there is no container.
const FORBIDDEN: &[&str] = &["/var/lib/berth", "/run/berth"];

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Not there.
    #[error("the path {path:?} of `volumes` does not exist; the user-data partition is at {user_data:?}")]
    Missing {
        /// On the machine.
        path: String,
        /// Where the user's own files are.
        user_data: PathBuf,
    },
    /// Berth's own.
    #[error("the path {path:?} of `volumes` belongs to Berth; name a volume instead, or a path below {user_data:?}")]
    Forbidden {
        /// On the machine.
        path: String,
        /// Where the user's own files are.
        user_data: PathBuf,
    },
    /// The image wants a volume at a place that is none.
    #[error("the image asks for a volume at {path:?}, which is not an absolute path")]
    Destination {
        /// As the image has it.
        path: String,
    },
    /// The image wants too many.
    #[error("the image asks for {count} volumes; at most {} are made", limits::IMAGE_VOLUMES)]
    Many {
        /// How many.
        count: usize,
    },
    /// Removing it failed.
    #[error("remove the volume {name}")]
    Remove {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Making or filling it failed.
    #[error("make the volume {name}")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: LayerError,
    },
}

/// Where volumes are made and looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Of all volumes.
    pub volumes: PathBuf,
    /// The mounted user-data partition.
    pub user_data: PathBuf,
}

/// The mounts of a container, those nearer to the root first. Missing volumes are made, and what is copied into them leaves
/// `room`.
pub fn prepare(
    places: &Places,
    name: &str,
    container: &Container,
    wishes: &oci::Process,
    image: &Merged,
    room: Room,
) -> Result<Vec<PreparedMount>, VolumeError> {
    let mut mounts = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    taken.extend(container.tmpfs.iter().map(|mount| plain(mount.destination().as_str())));
    for volume in &container.volumes {
        let destination = plain(volume.destination().as_str());
        let (source, owned) = match volume {
            Volume::Named { name, .. } => (make(places, name.as_str(), &destination, image, room)?, true),
            Volume::Host { source, id_mapped, .. } => (host_path(places, source.as_str())?, *id_mapped),
        };
        taken.insert(destination.clone());
        mounts.push(PreparedMount { source, destination, read_only: volume.read_only(), owned });
    }
    let count = wishes.volumes.as_ref().map_or(0, BTreeMap::len);
    if count > limits::IMAGE_VOLUMES {
        return Err(VolumeError::Many { count });
    }
    for wanted in wishes.volumes.iter().flatten().map(|(destination, _)| destination) {
        let destination = plain(wanted);
        if !wanted.starts_with('/') || destination == "/" || destination.split('/').any(|part| part == "..") {
            return Err(VolumeError::Destination { path: wanted.clone() });
        }
        if !taken.contains(&destination) {
            let source = make(places, &anonymous(name, &destination), &destination, image, room)?;
            mounts.push(PreparedMount { source, destination, read_only: false, owned: true });
        }
    }
    mounts.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    Ok(mounts)
}

/// The name of a volume that only an image asks for: no name of the configuration begins with an underscore.
fn anonymous(container: &str, destination: &str) -> String {
    let hash: String = Digest::of(destination.as_bytes()).hex().chars().take(12).collect();
    format!("_{container}.{hash}")
}

/// The container whose image alone has asked for the volume of this name.
fn owner(volume: &str) -> Option<&str> {
    volume.strip_prefix('_')?.rsplit_once('.').map(|(container, _)| container)
}

/// Removes the volumes that only the image of a container asked for.
pub fn forget(places: &Places, container: &str) -> Result<(), VolumeError> {
    let failed = |name: &str, source| VolumeError::Remove { name: name.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(&places.volumes, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(|error| failed(container, error))?,
    };
    for entry in rustix::fs::Dir::read_from(&directory).map_err(|error| failed(container, error))? {
        let entry = entry.map_err(|error| failed(container, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Another container's name may begin with this one's and a dot.
        if owner(&name) == Some(container) {
            crate::removal::remove(directory.as_fd(), name.as_bytes()).map_err(|error| failed(&name, error))?;
        }
    }
    Ok(())
}

/// A path without empty and `.` components.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

fn host_path(places: &Places, path: &str) -> Result<PathBuf, VolumeError> {
    let source = PathBuf::from(plain(path));
    let user_data = || places.user_data.clone();
    if !source.starts_with(&places.user_data) {
        if FORBIDDEN.iter().any(|own| source.starts_with(own) || Path::new(own).starts_with(&source)) {
            return Err(VolumeError::Forbidden { path: path.to_owned(), user_data: user_data() });
        }
        // The engine does not see the rest of the machine; PID 1 finds out when it mounts it.
        return Ok(source);
    }
    // A link on the user's partition could lead anywhere; what is mounted is what was checked.
    let Ok(resolved) = source.canonicalize() else {
        return Err(VolumeError::Missing { path: path.to_owned(), user_data: user_data() });
    };
    let inside = places.user_data.canonicalize().is_ok_and(|root| resolved.starts_with(root));
    if inside { Ok(resolved) } else { Err(VolumeError::Forbidden { path: path.to_owned(), user_data: user_data() }) }
}

/// A volume's directory, made and filled if there is none or nobody has used it yet.
fn make(places: &Places, name: &str, destination: &str, image: &Merged, room: Room) -> Result<PathBuf, VolumeError> {
    let path = places.volumes.join(name);
    let failed = |source| VolumeError::Make { name: name.to_owned(), source };
    make_directories(&places.volumes).map_err(|error| failed(error.into()))?;
    // A volume with a limit tells of its own room instead of the disk's.
    let place = rustix::fs::open(&places.volumes, DIRECTORY, Mode::empty());
    let place = place.map_err(|error| failed(layer::failed("open", &EntryPath::ROOT)(error)))?;
    let check = |wanted| room.check(place.as_fd(), wanted);
    let fill = |target: BorrowedFd<'_>| fill(target, destination, image, &check);
    if path.is_dir() {
        kept::fill_fresh(&path, fill).map_err(failed)?;
    } else {
        make_new(&places.volumes, name, fill).map_err(failed)?;
    }
    Ok(path)
}

/// What an image has at a place.
fn fill(target: BorrowedFd<'_>, destination: &str, image: &Merged, check: Check<'_>) -> Result<(), LayerError> {
    if let Some(Found::Directory(content)) = image.find(destination.as_bytes())? {
        crate::copy::directory(&content, target, &EntryPath::ROOT, check)?;
        rustix::fs::syncfs(target).map_err(failed("sync", &EntryPath::ROOT))?;
    }
    Ok(())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a volume's directory aside, lets `fill` see to its content, and gives it its name. Of one that is not filled nothing
/// is left.
fn make_new(
    volumes: &Path,
    name: &str,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    make_directories(volumes)?;
    let subject = EntryPath::ROOT.join(name.as_bytes());
    let directory = rustix::fs::open(volumes, DIRECTORY, Mode::empty()).map_err(failed("open", &subject))?;
    // No name of a volume begins with a dot.
    let aside = format!(".{name}");
    let clear = || crate::removal::remove(directory.as_fd(), aside.as_bytes());
    clear().map_err(failed("remove", &subject))?;
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(&directory, &*aside, mode).map_err(failed("make", &subject))?;
    let target: OwnedFd =
        rustix::fs::openat(&directory, &*aside, DIRECTORY, Mode::empty()).map_err(failed("open", &subject))?;
    if let Err(error) = fill(target.as_fd()) {
        clear().unwrap_or_else(|error| eprintln!("engine: remove the half of the volume {name}: {error}"));
        return Err(error);
    }
    match rustix::fs::renameat_with(&directory, &*aside, &directory, name, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(failed("rename", &subject)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        let user_data = directory.join("user-data");
        std::fs::create_dir_all(&user_data).unwrap();
        Places { volumes: directory.join("volumes"), user_data }
    }

    fn mounts(directory: &Path, volumes: &str, wishes: &str) -> Result<Vec<PreparedMount>, VolumeError> {
        mounts_with(Room::new(Some(0)), directory, volumes, wishes)
    }

    fn mounts_with(
        room: Room,
        directory: &Path,
        volumes: &str,
        wishes: &str,
    ) -> Result<Vec<PreparedMount>, VolumeError> {
        let container: Container = serde_json::from_str(&format!(r#"{{"image":"x","volumes":{volumes}}}"#)).unwrap();
        let image = Merged::with_file("data/sub/file", b"from the image");
        prepare(&places(directory), "web", &container, &serde_json::from_str(wishes).unwrap(), &image, room)
    }

    #[test]
    fn what_is_to_be_left_of_the_disk_is_no_volumes_and_no_half_stays() {
        let directory = tempfile::tempdir().unwrap();
        let none = Room::new(Some(u64::MAX));
        let error = mounts_with(none, directory.path(), r#"["v:/data"]"#, "{}").unwrap_err();
        assert!(matches!(error, VolumeError::Make { source: LayerError::NoSpace { .. }, .. }), "{error}");
        assert_eq!(std::fs::read_dir(directory.path().join("volumes")).unwrap().count(), 0);
        // What the image has nothing for takes no room.
        mounts_with(none, directory.path(), r#"["v:/elsewhere"]"#, "{}").unwrap();
    }

    #[test]
    fn a_new_volume_has_the_images_content_and_keeps_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let first = mounts(directory.path(), r#"["v:/data"]"#, "{}").unwrap();
        let file = directory.path().join("volumes/v/sub/file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "from the image");
        std::fs::write(&file, "changed").unwrap();
        assert_eq!(mounts(directory.path(), r#"["v:/data:ro"]"#, "{}").unwrap()[0].source, first[0].source);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "changed");
    }

    #[test]
    fn volumes_of_the_image_are_the_containers_unless_something_is_mounted_there() {
        let directory = tempfile::tempdir().unwrap();
        let wishes = r#"{"Volumes":{"/data/":{},"/other":{}}}"#;
        let mounts = mounts(directory.path(), r#"["v:/data"]"#, wishes).unwrap();
        assert_eq!(mounts.iter().map(|mount| &*mount.destination).collect::<Vec<_>>(), ["/data", "/other"]);
        assert!(mounts[1].source.file_name().unwrap().to_str().unwrap().starts_with("_web."));
        assert!(mounts[1].owned && mounts[1].source.is_dir());
    }

    #[test]
    fn paths_of_the_machine_must_exist_and_not_be_berths_own() {
        let directory = tempfile::tempdir().unwrap();
        let user_data = directory.path().join("user-data");
        let with = |path: &str| mounts(directory.path(), &format!(r#"["{path}:/x"]"#), "{}");
        assert!(matches!(with(&format!("{}/none", user_data.display())), Err(VolumeError::Missing { .. })));
        for path in ["/var/lib/berth/images", "/var/lib", "/", "/run/berth/control.sock"] {
            assert!(matches!(with(path), Err(VolumeError::Forbidden { .. })), "{path}");
        }
        std::fs::create_dir_all(user_data.join("site")).unwrap();
        std::os::unix::fs::symlink("/etc", user_data.join("link")).unwrap();
        assert!(matches!(with(&format!("{}/link", user_data.display())), Err(VolumeError::Forbidden { .. })));
        assert!(!with(&format!("{}/site", user_data.display())).unwrap()[0].owned);
        let id_mapped = format!("[\"{}/site:/x:idmap\"]", user_data.display());
        assert!(mounts(directory.path(), &id_mapped, "{}").unwrap()[0].owned);
        assert_eq!(with("/dev/snd").unwrap()[0].source, Path::new("/dev/snd"));
    }

    #[test]
    fn only_the_containers_own_volumes_go_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { volumes: directory.path().to_owned(), user_data: "/nowhere".into() };
        for name in ["_web.0123456789ab", "_web.2.0123456789ab", "_webs.0123456789ab", "web"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        forget(&places, "web").unwrap();
        let left = std::fs::read_dir(directory.path()).unwrap();
        let mut left: Vec<String> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["_web.2.0123456789ab", "_webs.0123456789ab", "web"]);
    }

    #[test]
    fn mounts_nearer_to_the_root_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let mounts = mounts(directory.path(), r#"["a:/x/y/z","b:/x","c:/x/y"]"#, "{}").unwrap();
        assert_eq!(mounts.iter().map(|mount| &*mount.destination).collect::<Vec<_>>(), ["/x", "/x/y", "/x/y/z"]);
    }
}
