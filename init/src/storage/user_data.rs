//! The user data: a file system with a known label, mounted read-only.

use nix::mount::{MsFlags, mount};

use super::Report;
use super::devices::{self, BlockDevice};
use super::superblock::Content;

/// The labels, the most specific first; compared without regard to case, since FAT knows upper case only.
/// `cidata` and `config-2` are those of cloud-init's NoCloud and OpenStack's configuration drive.
const LABELS: &[&str] = &["BERTH-DATA", "cidata", "config-2"];

/// Where it is mounted.
pub const USER_DATA_PATH: &str = "/run/berth/user-data";

/// Finds and mounts it. None is no problem: a machine without is told what to do by its console.
pub(super) fn find_and_mount(report: &mut Report) {
    let found = report.step("find user data", || {
        let found = find();
        let outcome = found.as_ref().map_or("there is none".to_owned(), |(device, content)| {
            format!("{} ({})", device.name, content.label().unwrap_or_default())
        });
        Ok((found, outcome))
    });
    let Some((device, content)) = found.flatten() else { return };
    report.user_data = report.step("mount user data", || mount_read_only(&device, &content));
}

fn find() -> Option<(BlockDevice, Content)> {
    let rank = |content: &Content| {
        let label = content.label()?;
        LABELS.iter().position(|known| known.eq_ignore_ascii_case(label))
    };
    let contents = devices::list().into_iter().map(|device| {
        let content = device.probe();
        (device, content)
    });
    // min_by_key keeps the first of equals: the order of devices::list.
    contents
        .filter_map(|(device, content)| Some((rank(&content)?, device, content)))
        .min_by_key(|(rank, ..)| *rank)
        .map(|(_, device, content)| (device, content))
}

fn mount_read_only(device: &BlockDevice, content: &Content) -> Result<(String, String), String> {
    let filesystem = content.filesystem().unwrap_or_default();
    // FAT has no modes, and a configuration may hold secrets: for root alone.
    let options = if filesystem == "vfat" { "umask=0077,utf8" } else { "" };
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(&device.node()), USER_DATA_PATH, Some(filesystem), flags, Some(options)).map_err(|error| {
        format!("mount /dev/{} as {filesystem}: {error}; check the file system on another machine", device.name)
    })?;
    Ok((device.name.clone(), device.name.clone()))
}
