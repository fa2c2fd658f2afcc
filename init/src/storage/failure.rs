//! Whether the state's file system still takes what is written to it.
//!
//! It is mounted with `errors=remount-ro`: from the first error on that ext4 finds in itself, it takes nothing more. Since
//! Linux 6.12 neither statvfs(3) nor /proc/mounts shows that, for the kernel shuts the file system down instead of
//! marking it as read-only (`ext4_handle_error` in fs/ext4/super.c). What grows is its count of errors
//! (Documentation/ABI/testing/sysfs-fs-ext4). Nothing here reads from the disk, which may not answer any more.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

use super::state::STATE_PATH;

/// Where the kernel tells of ext4's file systems, each in a folder with the name of its device.
const EXT4: &str = "/sys/fs/ext4";

/// How many errors the file system on this device has ever found in itself; none if it is no ext4.
pub(super) fn errors(device: &str) -> u64 {
    errors_in(Path::new(EXT4), device)
}

fn errors_in(folder: &Path, device: &str) -> u64 {
    let count = fs::read_to_string(folder.join(device).join("errors_count")).unwrap_or_default();
    count.trim().parse().unwrap_or_default()
}

/// What is wrong if the state on this device cannot be written any more; it had so many errors when it was mounted.
pub fn problem(device: &str, errors_before: u64) -> Option<String> {
    let read_only = statvfs(STATE_PATH).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
    sentence(device, errors(device) > errors_before, read_only)
}

fn sentence(device: &str, broken: bool, read_only: bool) -> Option<String> {
    let why = match (broken, read_only) {
        (true, _) => "has found an error in itself",
        (false, true) => "has become read-only",
        (false, false) => return None,
    };
    Some(format!(
        "{STATE_PATH} takes nothing more, its file system on {device} {why}: reboot, which checks and repairs it, and replace the disk if it comes again; `dmesg` on the console says what was found"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_takes_nothing_more_is_told_with_what_to_do() {
        assert_eq!(sentence("vda4", false, false), None);
        let broken = sentence("vda4", true, false).unwrap();
        assert!(broken.contains("/var takes nothing more") && broken.contains("vda4 has found an error"), "{broken}");
        assert!(broken.contains("reboot"), "{broken}");
        assert!(sentence("vda4", false, true).is_some_and(|problem| problem.contains("vda4 has become read-only")));
    }

    #[test]
    fn errors_are_counted_for_the_device_that_has_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("vda4")).unwrap();
        fs::write(folder.path().join("vda4/errors_count"), "3\n").unwrap();
        assert_eq!(errors_in(folder.path(), "vda4"), 3);
        assert_eq!(errors_in(folder.path(), "memory"), 0);
    }
}
