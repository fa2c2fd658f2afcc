//! Layers that are being unpacked, and what is thrown away: everything in tmp.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{DIRECTORY, LAYERS, LayerRecord, RECORDS, Store, StoreError, file_error};
use crate::digest::Digest;
use crate::layer::Summary;
use crate::{removal, verity};

/// A layer being unpacked; what is not published is removed at the next start.
#[derive(Debug)]
pub struct Draft {
    name: String,
    /// The layer's image.
    image: File,
    /// Of the stream that is unpacked; without a name until it is published.
    record: File,
}

impl Draft {
    /// The empty file that the layer's image is written to.
    pub fn image(&self) -> io::Result<File> {
        self.image.try_clone()
    }

    /// The file system that it is on.
    pub fn place(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }

    /// Where the layer's record is written.
    pub fn record(&self) -> io::Result<File> {
        self.record.try_clone()
    }

    fn path(&self) -> String {
        format!("tmp/{}", self.name)
    }
}

impl Store {
    /// A file to unpack a layer into.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        let name = self.temporary_name();
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let inside = format!("tmp/{name}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let image = rustix::fs::openat(&self.directory, &*inside, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| file_error("make", &self.path.join(&inside))(error.into()))?;
        Ok(Draft { name, image: File::from(image), record: self.nameless()? })
    }

    /// A file without a name, see [`Self::link`].
    pub(super) fn nameless(&self) -> Result<File, StoreError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.directory, "tmp", flags, Mode::RUSR | Mode::WUSR);
        made.map(File::from).map_err(|error| file_error("make a file in", &self.path.join("tmp"))(error.into()))
    }

    /// Gives up a draft.
    pub fn discard(&self, draft: Draft) -> Result<(), StoreError> {
        let path = self.path.join(draft.path());
        let removed = removal::remove(self.directory.as_fd(), draft.path().as_bytes());
        self.forget_draft(&draft.name);
        removed.map_err(|error| file_error("remove", &path)(error.into()))
    }

    /// Makes a verified layer visible, and protects it if the file system can. If it is there already, this one is given
    /// up. Nobody else may have the draft's image open any more.
    pub fn publish(&self, draft: Draft, chain: Digest, diff_id: Digest, summary: Summary) -> Result<(), StoreError> {
        let target = format!("{LAYERS}/{}", chain.hex());
        let path = self.path.join(&target);
        if self.has_layer(chain) {
            return self.discard(draft);
        }
        let Draft { name, image, record } = draft;
        drop(image);
        let inside = format!("tmp/{name}");
        let protected = self.protect(&inside);
        let mut catalogue = self.catalogue();
        let published = protected.and_then(|verity| {
            // What has that name and is not in the catalogue is on its way out.
            self.move_away(&target)?;
            self.link(&record, &format!("{RECORDS}/{}", chain.hex()))?;
            rustix::fs::renameat(&self.directory, &*inside, &self.directory, &*target)
                .map_err(|error| file_error("publish", &path)(error.into()))?;
            Ok(verity)
        });
        self.forget_draft(&name);
        let verity = published?;
        let record = LayerRecord { diff_id, entries: summary.entries, bytes: summary.bytes, verity };
        catalogue.layers.insert(chain, record);
        self.layers_changed.notify_all();
        Ok(())
    }

    fn protect(&self, draft: &str) -> Result<Option<Digest>, StoreError> {
        let failed = |error: io::Error| file_error("protect", &self.path.join(draft))(error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let image = rustix::fs::openat(&self.directory, draft, flags, Mode::empty());
        let image = image.map_err(|error| failed(error.into()))?;
        verity::protect(image.as_fd()).map_err(|error| failed(error.into()))
    }

    /// Gives a file that has none a name, which another file has no more.
    pub(super) fn link(&self, file: &File, target: &str) -> Result<(), StoreError> {
        self.move_away(target)?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, source, &self.directory, target, AtFlags::SYMLINK_FOLLOW)
            .map_err(|error| file_error("publish", &self.path.join(target))(error.into()))
    }

    fn forget_draft(&self, draft: &str) {
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner).remove(draft);
    }

    /// Renames something into tmp, from where [`Self::empty_tmp`] removes it when there is time.
    pub(super) fn move_away(&self, name: &str) -> Result<(), StoreError> {
        let target = format!("tmp/{}", self.temporary_name());
        let path = self.path.join(name);
        match rustix::fs::renameat(&self.directory, name, &self.directory, &*target) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(file_error("move away", &path)(error.into())),
        }
    }

    /// A name in tmp that nothing has: what an earlier engine left there has its process ID.
    fn temporary_name(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}.{}", std::process::id(), boot_time())
    }

    /// Removes everything in tmp but drafts; it takes as long as there is to remove.
    pub fn empty_tmp(&self) -> Result<(), StoreError> {
        let _turn = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let tmp = self.spool()?;
        let path = self.path.join("tmp");
        for entry in std::fs::read_dir(&path).map_err(file_error("list", &path))? {
            let name = entry.map_err(file_error("list", &path))?.file_name();
            let is_draft = |name: &str| self.drafts.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
            if name.to_str().is_some_and(is_draft) {
                continue;
            }
            removal::remove(tmp.as_fd(), name.as_encoded_bytes())
                .map_err(|error| file_error("remove", &path.join(&name))(error.into()))?;
        }
        Ok(())
    }

    /// The directory for temporary files.
    pub fn spool(&self) -> Result<OwnedFd, StoreError> {
        rustix::fs::openat(&self.directory, "tmp", DIRECTORY, Mode::empty())
            .map_err(|error| file_error("open", &self.path.join("tmp"))(error.into()))
    }
}

/// Distinguishes engines that had the same process ID in their namespaces.
fn boot_time() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}
