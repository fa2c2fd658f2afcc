//! The machine's block devices as sysfs lists them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_CLOEXEC, O_NONBLOCK};
use nix::sys::stat::{major, minor};

use super::superblock::{self, Content};
use crate::sys;

/// Devices that are never looked at: reading a floppy drive without a disk takes seconds, the others hold nothing that
/// outlives a boot.
const IGNORED: &[&str] = &["fd", "ram", "zram", "loop", "nbd"];

/// A disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    /// The kernel's name, such as `vda5`.
    pub name: String,
    /// The disk's name; its own for a disk.
    pub disk: String,
    /// From 1; `None` for a disk.
    pub partition: Option<u32>,
    /// In bytes.
    pub size: u64,
    /// The disk's logical sector size in bytes.
    pub sector: u64,
}

impl BlockDevice {
    /// Its node.
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The disk's node.
    pub fn disk_node(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }

    /// Opens it for reading. O_NONBLOCK: an empty CD drive shall say so instead of waiting.
    pub fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(O_CLOEXEC | O_NONBLOCK).open(self.node())
    }

    /// Opens it unless it is a drive without a disc, where every read would fail after a while.
    fn open_with_medium(&self) -> io::Result<File> {
        let file = self.open()?;
        if self.name.starts_with("sr") && !sys::has_disc(&file) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// What it holds; a device that cannot be read holds something else.
    pub fn probe(&self) -> Content {
        self.open_with_medium().and_then(|file| superblock::probe(&file, self.size)).unwrap_or(Content::Other)
    }
}

/// All devices that have a size, in the order of their names; partitions before their disks, since a disk with a
/// partition table is never meant as a whole.
pub fn list() -> Vec<BlockDevice> {
    let Ok(entries) = fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut devices: Vec<BlockDevice> = entries.flatten().filter_map(|entry| describe(&entry.path())).collect();
    devices.sort_by(|left, right| {
        (&left.disk, left.partition.is_none(), left.partition).cmp(&(
            &right.disk,
            right.partition.is_none(),
            right.partition,
        ))
    });
    devices
}

fn describe(path: &Path) -> Option<BlockDevice> {
    let name = path.file_name()?.to_str()?.to_owned();
    let kind = name.trim_end_matches(|character: char| character.is_ascii_digit());
    if IGNORED.contains(&kind) {
        return None;
    }
    let own = fs::canonicalize(path).ok()?;
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let partition = number(own.join("partition")).and_then(|number| u32::try_from(number).ok());
    let disk_path = if partition.is_some() { own.parent()?.to_path_buf() } else { own.clone() };
    // sysfs counts in units of 512 bytes whatever the disk's sectors are.
    let size = number(own.join("size"))?.checked_mul(512)?;
    let sector = number(disk_path.join("queue/logical_block_size")).filter(|sector| *sector >= 512).unwrap_or(512);
    let disk = disk_path.file_name()?.to_str()?.to_owned();
    (size > 0).then_some(BlockDevice { name, disk, partition, size, sector })
}

/// The device of this name as it is now.
pub fn find(name: &str) -> Option<BlockDevice> {
    describe(&Path::new("/sys/class/block").join(name))
}

/// The disk that the root file system lies on, as the kernel names it; `None` for a root in memory.
pub fn root_disk() -> Option<String> {
    let device = fs::metadata("/").ok()?.dev();
    let path = fs::canonicalize(format!("/sys/dev/block/{}:{}", major(device), minor(device))).ok()?;
    Some(describe(&path)?.disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_devices_have_sizes_and_disks() {
        for device in list() {
            assert!(device.size > 0 && !device.disk.is_empty(), "{device:?}");
            assert_eq!(device.partition.is_none(), device.name == device.disk, "{device:?}");
        }
    }
}
