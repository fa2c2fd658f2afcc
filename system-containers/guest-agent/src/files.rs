//! Open files of `guest-file-open` and their handles.
//!
//! A handle is a number that is never used twice, so that a client with a stale one gets an error and not another
//! client's file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

/// The most files open at a time.
pub const MAXIMUM_FILES: usize = 64;

/// The most bytes one `guest-file-read` returns; a client asks again for the rest, as for any short read.
pub const MAXIMUM_READ: u64 = 1 << 20;

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not a mode of fopen(3).
    #[error("'{mode}' is not a mode: use r, w, a, r+, w+ or a+, with b if you like")]
    Mode {
        /// As the client gave it.
        mode: String,
    },
    /// It cannot be opened.
    #[error("open {path}")]
    Open {
        /// As the client named it.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Too many are open.
    #[error("{MAXIMUM_FILES} files are open: close one")]
    TooMany,
    /// No open file has this handle.
    #[error("handle {handle} has not been found")]
    Unknown {
        /// As the client gave it.
        handle: i64,
    },
    /// Reading, writing or seeking failed.
    #[error("{operation} the file of handle {handle}")]
    Operation {
        /// What was done.
        operation: &'static str,
        /// To which file.
        handle: i64,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Whether the last read met the end.
    at_end: bool,
}

/// All open files.
#[derive(Debug)]
pub struct Files {
    open: BTreeMap<i64, Open>,
    next: i64,
}

impl Default for Files {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next: 1000 }
    }
}

impl Files {
    /// Opens `path` with a mode of fopen(3). Never waits, not even for the other end of a FIFO.
    pub fn open(&mut self, path: &str, mode: &str) -> Result<i64, FileError> {
        if self.open.len() >= MAXIMUM_FILES {
            return Err(FileError::TooMany);
        }
        let mut options = options(mode).ok_or_else(|| FileError::Mode { mode: mode.to_owned() })?;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32 | rustix::fs::OFlags::NOCTTY.bits() as i32);
        let file = options.open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
        let handle = self.next;
        self.next += 1;
        self.open.insert(handle, Open { file, at_end: false });
        Ok(handle)
    }

    /// Closes a file.
    pub fn close(&mut self, handle: i64) -> Result<(), FileError> {
        self.open.remove(&handle).map(drop).ok_or(FileError::Unknown { handle })
    }

    /// Reads up to `count` bytes, [`MAXIMUM_READ`] at most. The flag tells the end of the file.
    pub fn read(&mut self, handle: i64, count: u64) -> Result<(Vec<u8>, bool), FileError> {
        let open = self.find(handle)?;
        let wanted = count.min(MAXIMUM_READ);
        let mut bytes = Vec::new();
        let read = (&mut open.file).take(wanted).read_to_end(&mut bytes);
        read.map_err(|source| FileError::Operation { operation: "read", handle, source })?;
        open.at_end = (bytes.len() as u64) < wanted;
        Ok((bytes, open.at_end))
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, handle: i64, bytes: &[u8]) -> Result<(), FileError> {
        let open = self.find(handle)?;
        open.file.write_all(bytes).map_err(|source| FileError::Operation { operation: "write", handle, source })
    }

    /// Moves a file's position; returns it, and whether the end was met before.
    pub fn seek(&mut self, handle: i64, to: SeekFrom) -> Result<(u64, bool), FileError> {
        let open = self.find(handle)?;
        let position = open.file.seek(to);
        let position = position.map_err(|source| FileError::Operation { operation: "seek in", handle, source })?;
        let met_end = std::mem::replace(&mut open.at_end, false);
        Ok((position, met_end))
    }

    /// Brings what was written to the disk. QEMU's agent only empties its own buffer; there is none here, so the
    /// useful meaning is left.
    pub fn flush(&mut self, handle: i64) -> Result<(), FileError> {
        let open = self.find(handle)?;
        match open.file.sync_data() {
            // fsync(2): EINVAL for what has no storage to write to, such as a pipe.
            Err(source) if source.kind() != std::io::ErrorKind::InvalidInput => {
                Err(FileError::Operation { operation: "flush", handle, source })
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, handle: i64) -> Result<&mut Open, FileError> {
        self.open.get_mut(&handle).ok_or(FileError::Unknown { handle })
    }
}

fn options(mode: &str) -> Option<OpenOptions> {
    let mut options = OpenOptions::new();
    let plain: String = mode.chars().filter(|letter| *letter != 'b').collect();
    match plain.as_str() {
        "r" => options.read(true),
        "w" => options.write(true).create(true).truncate(true),
        "a" => options.append(true).create(true),
        "r+" => options.read(true).write(true),
        "w+" => options.read(true).write(true).create(true).truncate(true),
        "a+" => options.read(true).append(true).create(true),
        _ => return None,
    };
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_sought_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file").to_string_lossy().into_owned();
        let mut files = Files::default();
        let handle = files.open(&path, "w+b").unwrap();
        files.write(handle, b"0123456789").unwrap();
        files.flush(handle).unwrap();
        assert_eq!(files.seek(handle, SeekFrom::Start(4)).unwrap(), (4, false));
        assert_eq!(files.read(handle, 3).unwrap(), (b"456".to_vec(), false));
        assert_eq!(files.read(handle, 30).unwrap(), (b"789".to_vec(), true));
        assert_eq!(files.seek(handle, SeekFrom::End(-1)).unwrap(), (9, true));
        files.close(handle).unwrap();
        assert!(matches!(files.read(handle, 1), Err(FileError::Unknown { .. })));
        assert!(files.open(&path, "r").unwrap() > handle);
    }

    #[test]
    fn a_long_file_comes_in_pieces() {
        let mut files = Files::default();
        let handle = files.open("/dev/zero", "r").unwrap();
        let (bytes, at_end) = files.read(handle, u64::MAX).unwrap();
        assert_eq!((bytes.len() as u64, at_end), (MAXIMUM_READ, false));
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let mut files = Files::default();
        assert!(matches!(files.open("/nonexistent", "r"), Err(FileError::Open { .. })));
        assert!(matches!(files.open("/dev/null", "x"), Err(FileError::Mode { .. })));
        for _ in 0..MAXIMUM_FILES {
            files.open("/dev/null", "r").unwrap();
        }
        assert!(matches!(files.open("/dev/null", "r"), Err(FileError::TooMany)));
    }

    #[test]
    fn a_fifo_does_not_make_the_agent_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut files = Files::default();
        let handle = files.open(path.to_str().unwrap(), "r+").unwrap();
        assert!(matches!(files.read(handle, 1), Err(FileError::Operation { .. })));
    }
}
