//! SHA-256 of what goes into a build: keys of the cache, identities of sources, identifiers on the disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Collects named inputs into one key. Each part is length-prefixed, so no two lists of parts give the same bytes.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key for one kind of result. Change the name when the way it is made changes.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).part("kind", kind)
    }

    /// Adds an input.
    #[must_use]
    pub fn part(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), content.as_ref()] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// The key as 32 hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize()[..16])
    }

    /// The key in the form of a UUID (version 8: made by a scheme of our own), for identifiers that follow from content.
    pub fn uuid(self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.0.finalize()[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A UUID in its usual form.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits = hex(uuid);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// The digest of bytes, as OCI writes it without the `sha256:`.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digest of a file's content.
///
/// # Errors
/// If it cannot be read.
pub fn of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// A tree's state without reading its 80,000 files: path, size and time of change of each.
///
/// # Errors
/// If a folder cannot be listed.
pub fn of_tree_state(root: &Path) -> Result<String> {
    let mut key = Key::new("tree");
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let state = fs::symlink_metadata(&path).with_context(|| format!("stat {}", path.display()))?;
            if state.is_dir() {
                if path.file_name().is_none_or(|name| name != ".git") {
                    folders.push(path);
                }
                continue;
            }
            let line = format!("{} {} {}", state.len(), state.mtime(), state.mtime_nsec());
            key = key.part(&path.strip_prefix(root)?.to_string_lossy(), line);
        }
    }
    Ok(key.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = Key::new("k").part("a", "bc").finish();
        let other = Key::new("k").part("ab", "c").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn a_uuid_says_that_it_is_version_8() {
        let text = uuid_text(&Key::new("k").uuid());
        assert_eq!(&text[14..15], "8", "{text}");
        assert_eq!(text.len(), 36);
    }

    #[test]
    fn a_changed_file_changes_its_tree() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let before = of_tree_state(folder.path()).unwrap();
        fs::write(folder.path().join("a"), "12").unwrap();
        assert_ne!(before, of_tree_state(folder.path()).unwrap());
    }
}
