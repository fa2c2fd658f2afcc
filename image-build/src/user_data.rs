//! Disks with user data: a FAT file system labelled BERTH-DATA, made from a folder without root rights. `make run`, the
//! tests and people who have no card reader at hand use it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::digest::Key;
use crate::fat::{self, Volume};

/// The label that PID 1 looks for.
pub const LABEL: &str = "BERTH-DATA";

/// Room beside the files, for editing on the machine.
const SPARE: u64 = 4 << 20;

/// Makes `output` a disk without partitions that holds what is in `folder`.
///
/// # Errors
/// If the folder cannot be read or the image cannot be written.
pub fn build(folder: &Path, label: &str, output: &Path) -> Result<()> {
    let content = size_of(folder)?;
    // Half a percent for the FATs; whole mebibytes, so that every tool agrees about the disk's end.
    let size = (content + content / 200 + SPARE).next_multiple_of(1 << 20);
    match fs::remove_file(output) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", output.display()));
        }
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).open(output);
    let file = file.with_context(|| format!("create {}", output.display()))?;
    file.set_len(size).with_context(|| format!("size {}", output.display()))?;
    let serial = u32::from_le_bytes(Key::new("user data").part("label", label).uuid()[..4].try_into()?);
    let volume = fat::format(file, Volume { label, serial, cluster: None, size })?;
    fat::copy_folder(&volume, folder, "")?;
    volume.unmount().with_context(|| format!("finish {}", output.display()))
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        let state = fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        // A cluster has at most 32 KiB at the sizes we make.
        size += if state.is_dir() { size_of(&path)? + 32_768 } else { state.len().next_multiple_of(32_768) };
    }
    Ok(size)
}
