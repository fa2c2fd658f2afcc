//! Volumes by command: listed, made, removed.
//!
//! A volume that a container uses is never removed. One that was made by command is empty and marked as fresh until its
//! first container fills it: a power cut in between leaves the mark, and it is filled from the beginning. Mark and
//! labels are attributes of its directory, of a kind that no container can see.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_config::VolumeName;
use berth_control::images::{StoredVolume, VolumeEvent, VolumeQuery};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

use super::{DIRECTORY, Places, Users, make_new, owner};
use crate::import::describe;
use crate::layer::{EntryPath, LayerError, failed};
use crate::quota::{self, QuotaError};
use crate::removal;

/// On a volume that no container has used.
const FRESH: &str = "trusted.berth.fresh";
/// JSON.
const LABELS: &str = "trusted.berth.labels";
/// ext4 keeps a file's attributes in one block.
const LABELS_BYTES: usize = 3 << 10;
/// Smaller ones hold nothing.
const LEAST_LIMIT: u64 = 64 << 10;

/// Does what is asked.
pub fn answer(places: &Places, users: &Users, query: VolumeQuery) -> Vec<VolumeEvent> {
    let answer = match query {
        VolumeQuery::List => list(places, users).map(|found| found.into_iter().map(VolumeEvent::Volume).collect()),
        VolumeQuery::Create { name, labels, limit } => {
            create(places, users, &name, &labels, limit).map(|made| vec![made])
        }
        VolumeQuery::Remove { names, force } => {
            return names.iter().filter_map(|name| remove(places, users, name, force).transpose()).map(told).collect();
        }
        VolumeQuery::Prune { all, dry_run } => {
            list(places, users).map(|found| prune(places, users, &found, all, dry_run))
        }
    };
    answer.unwrap_or_else(|reason| vec![VolumeEvent::Failed(reason)])
}

fn told(result: Result<VolumeEvent, String>) -> VolumeEvent {
    result.unwrap_or_else(VolumeEvent::Failed)
}

fn prune(places: &Places, users: &Users, found: &[StoredVolume], all: bool, dry_run: bool) -> Vec<VolumeEvent> {
    let spare = found.iter().filter(|volume| volume.used_by.is_empty() && (all || volume.anonymous));
    let removed = spare.filter_map(|volume| {
        if dry_run {
            return Some(VolumeEvent::Removed { name: volume.name.clone() });
        }
        remove(places, users, &volume.name, true).transpose().map(told)
    });
    removed.collect()
}

/// The directory of all volumes; none before there is one.
fn open_all(places: &Places) -> Result<Option<OwnedFd>, String> {
    match rustix::fs::open(&places.volumes, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(format!("open {}: {error}", places.volumes.display())),
    }
}

fn list(places: &Places, users: &Users) -> Result<Vec<StoredVolume>, String> {
    let Some(directory) = open_all(places)? else { return Ok(Vec::new()) };
    let failed = |error: Errno| format!("list {}: {error}", places.volumes.display());
    let mut names = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // What begins with a dot is being made, or `.` and `..`.
        if let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) {
            names.insert(name.to_owned());
        }
    }
    Ok(names.into_iter().filter_map(|name| look(places, users, directory.as_fd(), name)).collect())
}

/// What there is to say of a volume; none if it is no directory.
fn look(places: &Places, users: &Users, directory: BorrowedFd<'_>, name: String) -> Option<StoredVolume> {
    let opened = rustix::fs::openat(directory, &*name, DIRECTORY, Mode::empty()).ok()?;
    let made = rustix::fs::statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok();
    let made = made.filter(|made| made.stx_mask & StatxFlags::BTIME.bits() != 0);
    let usage = quota::used(opened.as_fd());
    Some(StoredVolume {
        path: places.volumes.join(&name),
        anonymous: owner(&name).is_some(),
        used_by: users.of(&name),
        labels: labels(opened.as_fd()),
        created: made.and_then(|made| u64::try_from(made.stx_btime.tv_sec).ok()),
        used: usage.map(|(used, _)| used),
        limit: usage.map(|(_, limit)| limit),
        name,
    })
}

fn labels(directory: BorrowedFd<'_>) -> BTreeMap<String, String> {
    let mut value = vec![0_u8; LABELS_BYTES];
    let read = rustix::fs::fgetxattr(directory, LABELS, &mut value[..]);
    read.ok().and_then(|length| serde_json::from_slice(&value[..length]).ok()).unwrap_or_default()
}

fn create(
    places: &Places,
    users: &Users,
    name: &str,
    labels: &BTreeMap<String, String>,
    limit: Option<u64>,
) -> Result<VolumeEvent, String> {
    let valid: Result<VolumeName, _> = name.parse();
    valid.map_err(|error| format!("{name:?} is no name of a volume: {error}"))?;
    // Text always has a JSON form.
    let text = serde_json::to_vec(labels).unwrap_or_default();
    if text.len() > LABELS_BYTES {
        return Err(format!("the labels of the volume {name} are longer than {LABELS_BYTES} bytes"));
    }
    if limit.is_some_and(|limit| limit < LEAST_LIMIT) {
        return Err(format!("the volume {name} needs a limit of at least {LEAST_LIMIT} bytes"));
    }
    let there = |directory: &OwnedFd| look(places, users, directory.as_fd(), name.to_owned());
    if let Some(volume) = open_all(places)?.as_ref().and_then(there) {
        return Ok(VolumeEvent::Volume(volume));
    }
    let mut unlimited = None;
    let made = make_new(&places.volumes, name, |target| {
        if let Some(error) = limit.and_then(|limit| quota::limit(target, limit).err()) {
            let source = match error {
                QuotaError::Unsupported => Errno::OPNOTSUPP,
                QuotaError::System { source, .. } => Errno::from_raw_os_error(source as i32),
            };
            unlimited = Some(describe(&error));
            return Err(failed("limit", &EntryPath::ROOT)(source));
        }
        let set = |key: &str, value: &[u8]| rustix::fs::fsetxattr(target, key, value, XattrFlags::empty());
        let labelled = if labels.is_empty() { Ok(()) } else { set(LABELS, &text) };
        labelled.and_then(|()| set(FRESH, b"1")).map_err(failed("mark", &EntryPath::ROOT))
    });
    if let Some(reason) = unlimited {
        return Err(format!("the volume {name} cannot have a limit: {reason}"));
    }
    made.map_err(|error| format!("make the volume {name}: {}", describe(&error)))?;
    let volume = open_all(places)?.as_ref().and_then(there);
    volume.map(VolumeEvent::Volume).ok_or_else(|| format!("the volume {name} is gone again"))
}

/// Lets `fill` see to the content of a volume that was made by command and that no container has used, and only of such a one.
/// One that is not filled stays empty.
pub(super) fn fill_fresh(
    path: &Path,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let subject = EntryPath::ROOT;
    let directory = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(failed("open", &subject))?;
    let mut value = [0_u8; 8];
    match rustix::fs::fgetxattr(&directory, FRESH, &mut value[..]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
        other => other.map_err(failed("look at", &subject))?,
    };
    let clear = || removal::remove_all_in(directory.as_fd()).map_err(failed("empty", &subject));
    clear()?;
    if let Err(error) = fill(directory.as_fd()) {
        clear().unwrap_or_else(|error| eprintln!("engine: empty the volume {}: {}", path.display(), describe(&error)));
        return Err(error);
    }
    rustix::fs::fremovexattr(&directory, FRESH).map_err(failed("mark as used", &subject))
}

/// None if it is not there and that is no mistake.
fn remove(places: &Places, users: &Users, name: &str, force: bool) -> Result<Option<VolumeEvent>, String> {
    let there = |directory: &OwnedFd| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty()).is_ok()
    };
    // A name with a slash, or one that begins with a dot, is of none.
    let sound = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    let Some(directory) = open_all(places)?.filter(|directory| sound && there(directory)) else {
        return if force { Ok(None) } else { Err(format!("there is no volume {name}; `berth volume ls` lists them")) };
    };
    if let Some(objection) = users.objection(name) {
        return Err(objection);
    }
    // Out of sight at once: a removal that is cut short leaves no half of a volume.
    let aside = format!(".{name}");
    let moved = removal::remove(directory.as_fd(), aside.as_bytes())
        .and_then(|()| rustix::fs::renameat(&directory, name, &directory, &*aside))
        .and_then(|()| removal::remove(directory.as_fd(), aside.as_bytes()));
    moved.map_err(|error| format!("remove the volume {name}: {error}"))?;
    Ok(Some(VolumeEvent::Removed { name: name.to_owned() }))
}
