//! FAT file systems made from memory or folders: the boot partition and user-data disks. No mount, no root rights, and
//! no time: every entry has FAT's first date.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

/// What a volume is called and how it is laid out.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a> {
    /// At most 11 characters.
    pub label: &'a str,
    /// The serial number that tools show as the UUID.
    pub serial: u32,
    /// Bytes of a cluster, and with them FAT12, 16 or 32; `None` lets the size decide.
    pub cluster: Option<u32>,
    /// Bytes.
    pub size: u64,
}

/// The only day: the first that FAT can tell. The library's own constant has a month 0.
#[derive(Debug)]
struct FirstDay;

static FIRST_DAY: FirstDay = FirstDay;

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// Makes an empty file system in `device`, from its current start.
///
/// # Errors
/// If the label is too long, the size does not suit the clusters, or writing fails.
pub fn format<T: Read + Write + Seek>(mut device: T, volume: Volume<'_>) -> Result<FileSystem<T>> {
    let Volume { label, serial, cluster, size } = volume;
    if label.len() > 11 || !label.is_ascii() {
        bail!("a FAT label has at most 11 ASCII characters: {label:?}");
    }
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    let sectors = u32::try_from(size / 512).with_context(|| format!("{size} bytes are too many for FAT"))?;
    let mut options = FormatVolumeOptions::new().volume_label(padded).volume_id(serial).total_sectors(sectors);
    if let Some(cluster) = cluster {
        options = options.bytes_per_cluster(cluster);
    }
    fatfs::format_volume(&mut device, options).with_context(|| format!("make a FAT file system of {size} bytes"))?;
    FileSystem::new(device, FsOptions::new().time_provider(&FIRST_DAY)).context("open the new FAT file system")
}

/// Writes one file; the folders of its path must be there.
///
/// # Errors
/// If the volume is full or the path is not there.
pub fn write<T: Read + Write + Seek>(volume: &FileSystem<T>, path: &str, content: &[u8]) -> Result<()> {
    let mut file = volume.root_dir().create_file(path).with_context(|| format!("create {path} on FAT"))?;
    file.truncate().with_context(|| format!("truncate {path} on FAT"))?;
    file.write_all(content).with_context(|| format!("write {path} on FAT ({} bytes)", content.len()))
}

/// Copies a folder's content, links followed, in the order of names.
///
/// # Errors
/// If something cannot be read or the volume is full.
pub fn copy_folder<T: Read + Write + Seek>(volume: &FileSystem<T>, from: &Path, to: &str) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("list {}", from.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = if to.is_empty() { name.into_owned() } else { format!("{to}/{name}") };
        if path.is_dir() {
            volume.root_dir().create_dir(&target).with_context(|| format!("make {target} on FAT"))?;
            copy_folder(volume, &path, &target)?;
            continue;
        }
        let mut file = volume.root_dir().create_file(&target).with_context(|| format!("create {target} on FAT"))?;
        let mut source = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        std::io::copy(&mut source, &mut file).with_context(|| format!("copy {} to FAT", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn volume(bytes: &mut [u8]) -> FileSystem<Cursor<&mut [u8]>> {
        let size = bytes.len() as u64;
        format(Cursor::new(bytes), Volume { label: "TEST", serial: 7, cluster: None, size }).unwrap()
    }

    #[test]
    fn the_same_folder_gives_the_same_bytes_with_a_real_date() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("images")).unwrap();
        fs::write(folder.path().join("images/a long name.tar"), vec![1; 5000]).unwrap();
        let [mut first, mut second] = [vec![0; 1 << 20], vec![0; 1 << 20]];
        for bytes in [&mut first, &mut second] {
            let volume = volume(bytes);
            copy_folder(&volume, folder.path(), "").unwrap();
            let entry = volume.root_dir().iter().find(|entry| entry.as_ref().unwrap().is_dir()).unwrap().unwrap();
            assert_eq!((entry.file_name().as_str(), entry.modified().date.month), ("images", 1));
            volume.unmount().unwrap();
        }
        assert!(first == second);
        let volume = FileSystem::new(Cursor::new(first), FsOptions::new()).unwrap();
        let mut content = Vec::new();
        volume.root_dir().open_file("images/a long name.tar").unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, vec![1; 5000]);
    }

    #[test]
    fn a_label_that_does_not_fit_is_refused() {
        let volume = Volume { label: "LONGER-THAN-11", serial: 1, cluster: None, size: 1 << 20 };
        assert!(format(Cursor::new(vec![0; 1 << 20]), volume).is_err());
    }
}
