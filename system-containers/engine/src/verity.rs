//! fs-verity: a layer's file can be read and not changed, and what the disk has made of it since is noticed.
//!
//! The kernel keeps a tree of hashes beside the file, whose root is the digest in the layer's record. A block that does not
//! match is an error to whoever reads it; a file that was replaced as a whole has another digest, or none.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::digest::Digest;
use crate::sys;

/// Why a layer is not read.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// It is not the file that was written.
    #[error(
        "the layer {path:?} was changed on disk: its fs-verity digest is {found}, not {expected}; pull or import the image \
         again"
    )]
    Changed {
        /// The layer.
        path: PathBuf,
        /// As measured now.
        found: String,
        /// As its record has it.
        expected: Digest,
    },
    /// The kernel does not say.
    #[error("measure the layer {path:?}")]
    Measure {
        /// The layer.
        path: PathBuf,
        /// Its error.
        #[source]
        source: Errno,
    },
}

/// Protects a file that nobody has open for writing. None where the file system or the kernel cannot.
pub fn protect(file: BorrowedFd<'_>) -> nix::Result<Option<Digest>> {
    match sys::enable_verity(file) {
        // EEXIST: it was protected before.
        Ok(()) | Err(Errno::EEXIST) => sys::measure_verity(file).map(|digest| Some(Digest::from(digest))),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a layer is still the file that was written.
pub fn check(file: BorrowedFd<'_>, path: PathBuf, expected: Digest) -> Result<(), VerityError> {
    let found = match sys::measure_verity(file) {
        Ok(digest) if Digest::from(digest) == expected => return Ok(()),
        Ok(digest) => Digest::from(digest).to_string(),
        Err(Errno::ENODATA | Errno::ENOTTY | Errno::EOPNOTSUPP) => "missing".to_owned(),
        Err(source) => return Err(VerityError::Measure { path, source }),
    };
    Err(VerityError::Changed { path, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn a_file_without_protection_is_not_one_with_it() {
        // The kernels that tests run on by themselves have no fs-verity; the machine's has.
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let opened = std::fs::File::open(file.path()).unwrap();
        assert_eq!(protect(opened.as_fd()), Ok(None));
        let checked = check(opened.as_fd(), file.path().to_owned(), Digest::of(b"x"));
        assert!(matches!(checked, Err(VerityError::Changed { found, .. }) if found == "missing"));
    }
}
