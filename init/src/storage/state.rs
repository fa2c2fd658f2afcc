//! The state partition: found, checked, formatted if blank, grown, mounted at /var.
//!
//! The one unforgivable bug is to format a disk that held data. mke2fs runs on a device only if the partition table
//! gives it Berth's own type and both its ends are zero.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::statvfs;
use std::os::fd::AsFd;

use super::devices::{self, BlockDevice};
use super::gpt::Gpt;
use super::superblock::Content;
use super::{Report, failure};
use crate::uevent::Uevents;
use crate::{mounts, sys};

/// The type of Berth's state partition; image-build writes it.
pub const STATE_TYPE: &str = "62657274-682d-4f53-8a53-544154450001";
/// The label of its file system.
pub const STATE_LABEL: &str = "BERTH-STATE";
/// Where it is mounted.
pub const STATE_PATH: &str = "/var";
/// How long a state partition may take to appear. The root's disk is there already, so this is for a state partition on
/// another disk only; USB disks need 1 to 3 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the image keeps the tools; the kernel starts PID 1 without a PATH.
const TOOLS: &str = "/usr/sbin:/usr/bin";

/// The folders of the state with their modes, made anew at each boot where they are missing.
const FOLDERS: &[(&str, u32)] = &[
    ("/var/lib/berth", 0o755),
    ("/var/lib/berth/configuration", 0o700),
    ("/var/lib/berth/containers", 0o711),
    ("/var/lib/berth/images", 0o711),
    ("/var/lib/berth/logs", 0o700),
    ("/var/lib/berth/network", 0o700),
    ("/var/lib/berth/volumes", 0o711),
];

/// Finds the state partition and mounts it, or else a file system in memory.
pub(super) fn prepare(report: &mut Report, in_memory: bool) {
    let device = if in_memory { None } else { report.step("find state partition", find).flatten() };
    let mounted = device.and_then(|device| prepare_device(report, device));
    report.state = match mounted {
        Some(device) => {
            report.state_errors = failure::errors(&device);
            device
        }
        None => {
            report.step("keep the state in memory", mount_memory);
            "memory".to_owned()
        }
    };
    if report.state == "memory" && !in_memory {
        report
            .problems
            .push("the state is kept in memory: images, volumes and logs are gone at the next power-off".to_owned());
    }
    report.step("make the state's folders", || {
        for (path, mode) in FOLDERS {
            mounts::make_folder(Path::new(path), *mode)?;
        }
        Ok(((), String::new()))
    });
    report.step("look for room in the state", look_for_room);
}

/// For the boot's timeline; whether there is enough is [`lack_of_room`]'s.
fn look_for_room() -> Result<((), String), String> {
    let room = Room::of(Path::new(STATE_PATH)).map_err(|error| format!("statvfs {STATE_PATH}: {error}"))?;
    Ok(((), room.to_string()))
}

/// What is wrong if there is no room left, which makes much fail without saying why. What was full before is so until
/// twice the room is free.
pub fn lack_of_room(before: bool) -> Option<String> {
    lack_of_room_at(Path::new(STATE_PATH), before)
}

fn lack_of_room_at(path: &Path, before: bool) -> Option<String> {
    Room::of(path).ok()?.lack(&path.display().to_string(), before)
}

/// How much a file system has, in bytes and files. Without its reserve, which is not for containers.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    all: u64,
    free_files: u64,
    files: u64,
}

impl Room {
    fn of(path: &Path) -> nix::Result<Self> {
        let found = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Self {
            free: bytes(found.blocks_available()),
            all: bytes(found.blocks()),
            free_files: found.files_available(),
            files: found.files(),
        })
    }

    fn lack(self, path: &str, before: bool) -> Option<String> {
        let least = |all: u64| if before { all / 50 } else { all / 100 };
        if self.free < least(self.all) {
            let remedy = "remove what containers keep in their volumes, or use a larger disk";
            return Some(format!("{path} is full, {self}: {remedy}"));
        }
        let files = self.files;
        (self.free_files < least(files)).then(|| {
            format!("{path} has no room for further files beside its {files}: remove some, or use a larger disk")
        })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} MiB are free", self.free >> 20, self.all >> 20)
    }
}

/// The device, once it is there.
fn find() -> Result<(Option<BlockDevice>, String), String> {
    let events = Uevents::subscribe().map_err(|error| format!("listen for devices: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(device) = candidates().into_iter().next() {
            let outcome = device.name.clone();
            return Ok((Some(device), outcome));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut waited = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, timeout) {
            Ok(0) => {
                return Err(format!(
                    "no partition of type {STATE_TYPE} and no ext4 labelled {STATE_LABEL} on any disk"
                ));
            }
            Ok(_) | Err(nix::Error::EINTR) => {
                events.block_devices_changed();
            }
            Err(error) => return Err(format!("wait for devices: {error}")),
        }
    }
}

/// What may be the state partition, the best first: on the root's disk, and by partition type rather than by label.
fn candidates() -> Vec<BlockDevice> {
    let root_disk = devices::root_disk();
    let mut found: Vec<(bool, bool, BlockDevice)> = Vec::new();
    for device in devices::list() {
        let elsewhere = root_disk.as_ref() != Some(&device.disk);
        let by_type = has_state_type(&device);
        if by_type || matches!(device.probe(), Content::Ext4 { label, .. } if label == STATE_LABEL) {
            found.push((elsewhere, !by_type, device));
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, device)| device).collect()
}

fn has_state_type(device: &BlockDevice) -> bool {
    let Some(number) = device.partition else { return false };
    table(device, false).is_ok_and(|(_, _, gpt)| gpt.type_of(number).as_deref() == Some(STATE_TYPE))
}

/// The partition table of the device's disk, with the disk and its size in bytes.
fn table(device: &BlockDevice, write: bool) -> Result<(File, u64, Gpt), String> {
    let node = device.disk_node();
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", node.display());
    let disk = OpenOptions::new().read(true).write(write).open(&node).map_err(|error| fail(&error))?;
    let size = sys::block_device_size(&disk).map_err(|error| fail(&error))?;
    let gpt = Gpt::read(&disk, device.sector, size).map_err(|error| fail(&error))?;
    Ok((disk, size, gpt))
}

/// Grows, checks or formats, and mounts the device; its name if all went well.
fn prepare_device(report: &mut Report, device: BlockDevice) -> Option<String> {
    if device.partition.is_some() && has_state_type(&device) {
        report.step("grow state partition", || grow_partition(&device));
    }
    // What is looked at and formatted from here on is the partition as it is now.
    let device = devices::find(&device.name).unwrap_or(device);
    match device.probe() {
        Content::Blank if has_state_type(&device) => report.step("format state partition", || format(&device))?,
        Content::Ext4 { clean: true, .. } => {}
        Content::Ext4 { clean: false, .. } => report.step("check state partition", || check(&device))?,
        _ => report.step("use state partition", || {
            Err::<((), String), _>(format!(
                "/dev/{} is neither blank nor an ext4 file system and is left alone; to let Berth format it, overwrite its \
                 first and last MiB with zeros",
                device.name
            ))
        })?,
    }
    report.step("mount state partition", || mount_device(&device))?;
    report.step("grow state file system", || grow_filesystem(&device));
    Some(device.name)
}

/// With limits for containers (`storage`), if the file system was made for them: mke2fs gives them to those that Berth
/// makes, and nothing that is in the image can add them to another.
fn mount_device(device: &BlockDevice) -> Result<((), String), String> {
    let attempt = |options: &str| {
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID;
        mount(Some(&device.node()), STATE_PATH, Some("ext4"), flags, Some(options))
    };
    match attempt("errors=remount-ro,prjquota") {
        Ok(()) => return Ok(((), device.name.clone())),
        // What is wrong otherwise is wrong in the second attempt too.
        Err(error) => log::debug!("mount /dev/{} with project quotas: {error}", device.name),
    }
    attempt("errors=remount-ro").map_err(|error| format!("mount /dev/{} on {STATE_PATH}: {error}", device.name))?;
    Ok(((), format!("{}, without project quotas: `storage` of containers has no effect", device.name)))
}

/// Lets the partition reach the disk's end. On a disk that has not grown, nothing is written.
fn grow_partition(device: &BlockDevice) -> Result<((), String), String> {
    let number = device.partition.unwrap_or_default();
    let (_, size, mut gpt) = table(device, false)?;
    match gpt.grow(number, size) {
        Ok(false) => return Ok(((), "is as large as its disk allows".to_owned())),
        Ok(true) => {}
        Err(error) => return Err(error.to_string()),
    }
    let (disk, size, _) = table(device, true)?;
    gpt.write(&disk, size).map_err(|error| error.to_string())?;
    let extent = gpt.extent(number).ok_or("the partition is gone")?;
    sys::resize_partition(&disk, i32::try_from(number).unwrap_or_default(), extent.start, extent.length)
        .map_err(|error| format!("tell the kernel the new size: {error}"))?;
    Ok(((), format!("to {} MiB", extent.length >> 20)))
}

/// Lets a mounted ext4 fill its device, which is online and quick.
fn grow_filesystem(device: &BlockDevice) -> Result<((), String), String> {
    let file = device.open().map_err(|error| format!("open /dev/{}: {error}", device.name))?;
    let size = sys::block_device_size(&file).map_err(|error| format!("size of /dev/{}: {error}", device.name))?;
    let statistics =
        nix::sys::statvfs::statvfs(STATE_PATH).map_err(|error| format!("statvfs {STATE_PATH}: {error}"))?;
    let block = statistics.fragment_size();
    let blocks = size / block.max(1);
    let root = File::open(STATE_PATH).map_err(|error| format!("open {STATE_PATH}: {error}"))?;
    // The kernel returns at once if the size is right already; it also refuses to shrink, which is as good.
    match sys::resize_ext4(&root, blocks) {
        Ok(()) | Err(nix::Error::EINVAL) => Ok(((), String::new())),
        Err(error) => Err(format!("to {blocks} blocks of {block} bytes: {error}")),
    }
}

fn format(device: &BlockDevice) -> Result<((), String), String> {
    let node = device.node();
    // verity and quota are asked for now because an existing file system cannot get them later without tune2fs.
    // -b: on a small partition they would be of 1 KiB, for which fs-verity has four times as many hashes.
    // -m 2: the reserve is for PID 1 and the system containers, so that a full disk never stops the boot.
    run(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", STATE_LABEL, "-b", "4096", "-m", "2", "-O", "verity,quota,project"])
            .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,quotatype=prjquota"])
            .arg(&node),
        0,
    )
    .map(|_| ((), format!("{} MiB on {}", device.size >> 20, device.name)))
}

/// e2fsck's own repairs, those that lose nothing; 1 means that it repaired something (e2fsck(8)).
fn check(device: &BlockDevice) -> Result<((), String), String> {
    match run(Command::new("e2fsck").arg("-p").arg(device.node()), 2) {
        Ok(code) => Ok(((), if code == 0 { "journal replayed or clean".to_owned() } else { "repaired".to_owned() })),
        Err(reason) => Err(format!(
            "{reason}; it is left alone: repair it with `e2fsck -f /dev/{}` on the console and reboot",
            device.name
        )),
    }
}

/// Runs a tool; an exit code above `most` is an error with the tool's own words.
fn run(command: &mut Command, most: i32) -> Result<i32, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("PATH", TOOLS).output().map_err(|error| format!("run {name}: {error}"))?;
    let code = output.status.code().unwrap_or(128);
    if code <= most {
        return Ok(code);
    }
    let said =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
    let said: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
    Err(format!("{name} failed with code {code}: {}", said.join("; ")))
}

fn mount_memory() -> Result<((), String), String> {
    // Something half mounted is not in the way: the new file system goes on top.
    mount(Some("tmpfs"), STATE_PATH, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=50%"))
        .map_err(|error| format!("mount a file system in memory on {STATE_PATH}: {error}"))?;
    fs::metadata(STATE_PATH).map_err(|error| format!("{STATE_PATH}: {error}"))?;
    Ok(((), String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_room_is_told() {
        // What the kernel makes up has neither blocks nor files, so that nothing is missing.
        assert_eq!(lack_of_room_at(Path::new("/proc"), false), None);
        assert_eq!(lack_of_room_at(Path::new("/nowhere"), false), None);
        let full = Room { free: 9, all: 1000, free_files: 500, files: 1000 };
        assert!(full.lack("/var", false).unwrap().starts_with("/var is full, "));
        let better = Room { free: 15, ..full };
        assert_eq!(better.lack("/var", false), None);
        assert!(better.lack("/var", true).is_some(), "it must not go to and fro");
        assert_eq!(Room { free: 20, ..full }.lack("/var", true), None);
        let files = Room { free: 500, free_files: 1, ..full };
        assert!(files.lack("/var", false).unwrap().contains("no room for further files"));
    }
}
