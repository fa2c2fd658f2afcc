//! The build cache: `${XDG_CACHE_HOME:-~/.cache}/berth/<kind>/<key>/`, one folder a result, named by everything that
//! went into it. An entry appears by rename when it is complete, so a build that was interrupted leaves none.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::step;
use crate::digest;

/// The folder that holds every kind of result.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user.
    ///
    /// # Errors
    /// If neither XDG_CACHE_HOME nor HOME is set.
    pub fn from_environment() -> Result<Self> {
        let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(&env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
        };
        Ok(Self { root: base.join("berth") })
    }

    /// A cache in a folder of the caller's.
    pub fn in_folder(root: PathBuf) -> Self {
        Self { root }
    }

    /// A folder for things that are not entries, such as build trees that are used again; made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// The complete entry, if there is one.
    pub fn entry(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let folder = self.root.join(kind).join(key);
        folder.is_dir().then_some(folder)
    }

    /// The entry, made by `build` in an empty folder if it is not there yet.
    ///
    /// # Errors
    /// What `build` returns, or if the folders cannot be made.
    pub fn entry_or(&self, kind: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        if let Some(folder) = self.entry(kind, key) {
            return Ok(folder);
        }
        let _lock = self.lock(kind)?;
        // Whoever held the lock may have made it.
        if let Some(folder) = self.entry(kind, key) {
            return Ok(folder);
        }
        let parent = self.folder(kind)?;
        let partial = parent.join(format!(".{key}"));
        if partial.exists() {
            // Left by a build that was killed: the lock says that nobody works on it.
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        fs::create_dir(&partial).with_context(|| format!("make {}", partial.display()))?;
        let complete = parent.join(key);
        let built = build(&partial)
            .and_then(|()| fs::rename(&partial, &complete).with_context(|| format!("complete {}", complete.display())));
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
        }
        built.map(|()| complete)
    }

    /// One build of a kind at a time: they share build trees.
    fn lock(&self, kind: &str) -> Result<File> {
        fs::create_dir_all(&self.root).with_context(|| format!("make {}", self.root.display()))?;
        let path = self.root.join(format!("{kind}.lock"));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => step(&format!("waiting for another build of {kind}")),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// The digest of a large file, remembered by its path, size and time of change.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn digest_of(&self, path: &Path) -> Result<String> {
        let state = fs::metadata(path).with_context(|| format!("stat {}", path.display()))?;
        let key = digest::Key::new("file")
            .part("path", path.as_os_str().as_encoded_bytes())
            .part("state", format!("{} {:?}", state.len(), state.modified()?))
            .finish();
        let entry = self.entry_or("digest", &key, |folder| {
            let digest = digest::of_file(path)?;
            fs::write(folder.join("sha256"), digest).context("write digest")
        })?;
        fs::read_to_string(entry.join("sha256")).context("read digest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path().to_owned());
        let mut builds = 0;
        for _ in 0..2 {
            let entry = cache.entry_or("kind", "key", |folder| {
                builds += 1;
                Ok(fs::write(folder.join("file"), "content")?)
            });
            assert_eq!(fs::read(entry.unwrap().join("file")).unwrap(), b"content");
        }
        assert_eq!(builds, 1);
    }

    #[test]
    fn a_failed_build_leaves_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path().to_owned());
        cache.entry_or("kind", "key", |_| anyhow::bail!("no")).unwrap_err();
        assert!(cache.entry("kind", "key").is_none());
        assert_eq!(fs::read_dir(folder.path().join("kind")).unwrap().count(), 0);
    }
}
