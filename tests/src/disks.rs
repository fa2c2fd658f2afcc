//! Disks for machines: copies of the image and user-data disks, made without root.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use berth_image_build::user_data;
use rustix::fs::SeekFrom as Extent;

pub use user_data::LABEL;

/// The file system of a user-data disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What any PC writes.
    Fat,
    /// By `mke2fs -d`.
    Ext4,
    /// By xorriso or genisoimage, whichever there is.
    Iso,
}

/// The files of a user-data disk, by their paths in it.
#[derive(Clone, Debug, Default)]
pub struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one file more.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.push((path.to_owned(), content.into()));
        self
    }

    /// With all files of a tar archive in a folder.
    ///
    /// # Errors
    /// It is none.
    pub fn with_all(mut self, folder: &str, archive: &[u8]) -> Result<Self> {
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let (path, mut content) = (format!("{folder}/{}", entry.path()?.display()), Vec::new());
            if entry.header().entry_type().is_file() {
                entry.read_to_end(&mut content)?;
                self = self.with(&path, content);
            }
        }
        Ok(self)
    }

    fn write_to(&self, folder: &Path) -> Result<()> {
        for (path, content) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Enough for the files and for the file system's own needs, in bytes.
fn disk_size(folder: &Path) -> Result<u64> {
    Ok((content(folder)? * 11 / 10).next_multiple_of(1 << 20) + (16 << 20))
}

fn content(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { content(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// Makes a disk image of `files` labelled `label`.
///
/// # Errors
/// If a tool is missing or fails, or the disk cannot be written.
pub fn build(files: &Files, format: Format, label: &str, path: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    files.write_to(folder.path())?;
    build_from(folder.path(), format, label, path)
}

/// The same of what is in `folder`, with modes and links where the format has them.
///
/// # Errors
/// If a tool is missing or fails, or the disk cannot be written.
pub fn build_from(folder: &Path, format: Format, label: &str, path: &Path) -> Result<()> {
    match format {
        Format::Fat => user_data::build(folder, label, path),
        Format::Ext4 => {
            File::create(path)?.set_len(disk_size(folder)?)?;
            let mut mke2fs = Command::new("mke2fs");
            mke2fs.args(["-q", "-t", "ext4", "-L", label, "-d"]).arg(folder).arg(path);
            run(mke2fs.env("PATH", with_system_folders()))
        }
        Format::Iso => {
            let mut tool = match iso_tool() {
                Some("xorriso") => {
                    let mut tool = Command::new("xorriso");
                    tool.args(["-as", "mkisofs"]);
                    tool
                }
                Some(name) => Command::new(name),
                None => bail!("neither xorriso nor genisoimage is installed"),
            };
            run(tool.args(["-quiet", "-R", "-J", "-V", label, "-o"]).arg(path).arg(folder))
        }
    }
}

/// The program that makes ISO images, if one is installed.
#[must_use]
pub fn iso_tool() -> Option<&'static str> {
    let installed =
        |name: &&str| Command::new(name).arg("-version").output().is_ok_and(|output| output.status.success());
    ["xorriso", "genisoimage"].into_iter().find(installed)
}

/// Copies `from` to `to` without its holes, and makes it `size` bytes long if that is more.
///
/// # Errors
/// If one of them cannot be read or written.
pub fn copy_sparse(from: &Path, to: &Path, size: Option<u64>) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let length = source.metadata()?.len();
    let mut target = File::create(to).with_context(|| format!("create {}", to.display()))?;
    target.set_len(length.max(size.unwrap_or(0)))?;
    let mut at = 0;
    // lseek(2): SEEK_DATA fails with ENXIO behind the last data.
    while let Ok(start) = rustix::fs::seek(&source, Extent::Data(at)) {
        let end = rustix::fs::seek(&source, Extent::Hole(start))?;
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        std::io::copy(&mut (&mut source).take(end - start), &mut target).context("copy a disk")?;
        at = end;
    }
    Ok(())
}

/// PATH, with the folders that only root has in it.
pub(crate) fn with_system_folders() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_the_holes() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let mut file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.seek(SeekFrom::Start(40 << 20)).unwrap();
        file.write_all(b"berth").unwrap();
        copy_sparse(&from, &to, Some(80 << 20)).unwrap();
        let mut copy = std::fs::read(&to).unwrap();
        assert_eq!(copy.len(), 80 << 20);
        copy.truncate(64 << 20);
        assert!(copy == std::fs::read(&from).unwrap());
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "the holes were written");
    }
}
