//! Files that others read while they change.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Replaces a file's content in one step: a reader sees the old or the new whole, also after a power cut. Nothing is
/// written where the content is the same already.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".new");
    let temporary = path.with_file_name(temporary_name);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// What a file is padded to with empty lines, in bytes.
const BLOCK: usize = 1024;

/// Replaces a text file's content where it is: containers have the file itself mounted, and one that is put in its
/// place by rename(2) would never be seen by them. The text is padded so that its length does not change and one
/// write does it; a reader in that very moment sees at worst some lines of both.
pub fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    let mut content = text.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(BLOCK), b'\n');
    let file = File::options().create(true).write(true).truncate(false).open(path)?;
    file.write_all_at(&content, 0)?;
    let length = u64::try_from(content.len()).map_err(io::Error::other)?;
    if file.metadata()?.len() == length { Ok(()) } else { file.set_len(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_mounted_elsewhere_changes_there_too() {
        let directory = tempfile::tempdir().unwrap();
        let (path, mounted) = (directory.path().join("resolv.conf"), directory.path().join("mounted"));
        write_in_place(&path, &"x".repeat(1500)).unwrap();
        fs::hard_link(&path, &mounted).unwrap();
        write_in_place(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(fs::read_to_string(&mounted).unwrap().trim_end(), "nameserver 10.0.0.1");
        assert_eq!(fs::metadata(&mounted).unwrap().len(), 1024);
    }

    #[test]
    fn the_same_content_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        write_atomically(&path, b"one").unwrap();
        let before = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        write_atomically(&path, b"one").unwrap();
        assert_eq!(before, std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()));
    }
}
