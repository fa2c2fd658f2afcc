//! Writing a file so that the one before is there until the new one is whole.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::error::Error;

/// Has `write` fill a file. If it fails, what was there is untouched; what is no regular file, such as `/dev/stdout` or a
/// named pipe, is written as it is.
pub async fn write<T>(path: &Path, write: impl AsyncFnOnce(OwnedFd) -> Result<T, Error>) -> Result<T, Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let before = std::fs::metadata(path).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return write(OpenOptions::new().write(true).open(path).map_err(failed)?.into()).await;
    }
    // A link stays one, and what it leads to is replaced.
    let target = if before.is_some() { path.canonicalize().map_err(failed)? } else { path.to_owned() };
    let new = Aside::create(&target).map_err(failed)?;
    if let Some(before) = before {
        new.file.set_permissions(before.permissions()).map_err(failed)?;
    }
    let written = write(new.file.try_clone().map_err(failed)?.into()).await?;
    new.file.sync_all().map_err(failed)?;
    new.become_file(&target).map_err(failed)?;
    Ok(written)
}

/// The new one, in the same folder; it goes if nothing comes of it.
struct Aside {
    file: File,
    path: Option<PathBuf>,
}

impl Aside {
    fn create(target: &Path) -> std::io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
        // What is left of a process of this number is nobody's any more. In a folder for all it may be a link, so it is not opened.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path: Some(path) })
    }

    fn become_file(mut self, target: &Path) -> std::io::Result<()> {
        match self.path.take() {
            Some(path) => std::fs::rename(path, target),
            None => Ok(()),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays is named like what it is.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    async fn fill(target: OwnedFd) -> Result<(), Error> {
        File::from(target).write_all(b"new").map_err(Error::Output)
    }

    #[tokio::test]
    async fn what_is_no_file_stays_what_it_is() {
        write(Path::new("/dev/null"), async |_| Err::<(), _>(Error::Gone)).await.unwrap_err();
        write(Path::new("/dev/null"), fill).await.unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[tokio::test]
    async fn a_link_and_the_mode_stay() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink("file", &link).unwrap();
        write(&link, fill).await.unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        let left = folder.path().join(format!(".file.{}.part", std::process::id()));
        symlink("/dev/full", &left).unwrap();
        write(&file, fill).await.unwrap();
        assert!(
            !left.exists() && std::fs::symlink_metadata(&file).unwrap().is_file(),
            "a link in its way is not followed"
        );
        let nowhere = write(&folder.path().join("none/file"), fill).await.unwrap_err();
        assert!(nowhere.to_string().contains("none/file"), "{nowhere}");
    }
}
