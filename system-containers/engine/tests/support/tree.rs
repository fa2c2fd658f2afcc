//! Trees entry by entry: everything about an entry that must be equal, whoever unpacked it. And images as a container
//! sees them, through overlayfs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_engine::digest::Digest;
use berth_engine::store::Store;

use super::Machine;

/// One case at a time: a program that another one starts has, until its exec, a copy of every descriptor, and with it
/// the lock of a store that its owner has closed.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a program that must succeed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What an entry is, as text: everything that must be equal.
fn describe(path: &Path) -> String {
    let metadata = path.symlink_metadata().unwrap();
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        std::fs::read_link(path).unwrap().display().to_string()
    } else if kind.is_file() {
        Digest::of(&std::fs::read(path).unwrap()).to_string()
    } else if kind.is_char_device() || kind.is_block_device() {
        metadata.rdev().to_string()
    } else {
        String::new()
    };
    let mut names = vec![0_u8; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut attributes = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        attributes.insert(String::from_utf8_lossy(name).into_owned(), value[..length].to_vec());
    }
    // Overlayfs reports a directory's links in its own way.
    let links = if kind.is_dir() { 0 } else { metadata.nlink() };
    format!(
        "{:o} {}:{} {}.{:09} links {links} {content} {attributes:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

fn walk(root: &Path, directory: &Path, entries: &mut BTreeMap<PathBuf, String>) {
    entries.insert(directory.strip_prefix(root).unwrap().to_owned(), describe(directory));
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => walk(root, &path, entries),
            Ok(_) => drop(entries.insert(name, describe(&path))),
            Err(error) => drop(entries.insert(name, format!("listed, but {error}"))),
        }
    }
}

pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut entries = BTreeMap::new();
    walk(root, root, &mut entries);
    entries
}

/// Unmounts when the test ends, however it does.
pub struct Mounted(pub PathBuf, Vec<Mounted>);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

/// A layer's image, mounted on a new directory.
pub fn mount_layer(image: &Path, target: &Path) -> Mounted {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
    std::fs::create_dir(target).unwrap();
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "source", image).unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let tree = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", rustix::fs::CWD, target, flags).unwrap();
    Mounted(target.to_owned(), Vec::new())
}

/// The image as a container sees it, without its last writable layer.
pub fn mount(machine: &Machine, name: &str, image: &str) -> Mounted {
    mount_of(&machine.store(), machine, name, image)
}

/// The same of a store that is open.
pub fn mount_of(store: &Store, machine: &Machine, name: &str, image: &str) -> Mounted {
    let (_, record) =
        store.resolve(&image.parse().unwrap()).unwrap_or_else(|| panic!("no {image}: {:?}", store.names()));
    let mounted = |(number, layer)| {
        let file = store.layer_path(layer);
        check(&file);
        mount_layer(&file, &machine.path(&format!("{name}-{number}")))
    };
    let below: Vec<Mounted> = record.chain.iter().rev().copied().enumerate().map(mounted).collect();
    let mut layers: Vec<String> = below.iter().map(|layer| layer.0.display().to_string()).collect();
    if layers.len() == 1 {
        // A read-only overlay needs two.
        let empty = machine.path("empty");
        std::fs::create_dir_all(&empty).unwrap();
        layers.push(empty.display().to_string());
    }
    let target = machine.path(name);
    std::fs::create_dir(&target).unwrap();
    let options = format!("lowerdir={}", layers.join(":"));
    run("mount", &["-t", "overlay", "overlay", "-o", &options, &target.display().to_string()]);
    Mounted(target, below)
}

/// What the tools of EROFS say of an image of ours.
pub fn check(image: &Path) {
    if is_installed("fsck.erofs") {
        run("fsck.erofs", &[image]);
    }
}

pub fn assert_equal(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) {
    let differences = differences(ours, theirs);
    assert!(differences.is_empty(), "{differences}");
}

/// What differs, a text; empty if nothing does.
pub fn differences(ours: &BTreeMap<PathBuf, String>, theirs: &BTreeMap<PathBuf, String>) -> String {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        if ours.get(path) != theirs.get(path) {
            differences.push(format!("{path:?}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)));
        }
    }
    differences.join("\n")
}
