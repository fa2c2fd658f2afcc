//! Configuration files in memory that is passed along: they may be larger than a message.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use berth_control::dbus::ApiError;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::init::unavailable;

/// The most that a client's may be, in bytes: several files of the largest size that a boot reads.
const LARGEST: u64 = 4 << 20;

fn failed(error: std::io::Error) -> ApiError {
    unavailable(&format!("pass the configuration on: {error}"))
}

/// For PID 1, which writes its answer in their place.
pub fn write(files: &[(String, String)]) -> Result<File, ApiError> {
    let sheet = memfd_create("configuration", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut sheet = File::from(sheet);
    let text = serde_json::to_vec(files).map_err(|error| failed(error.into()))?;
    sheet.write_all(&text).and_then(|()| sheet.rewind()).map_err(failed)?;
    Ok(sheet)
}

/// What PID 1 has written.
pub fn answer(mut sheet: File) -> Result<String, ApiError> {
    let mut answer = String::new();
    sheet.rewind().and_then(|()| sheet.read_to_string(&mut answer)).map_err(failed)?;
    Ok(answer)
}

/// What a client has written. Only memory, which never keeps a reader waiting, and not more than there may be.
pub fn read(sheet: OwnedFd) -> Result<Vec<(String, String)>, ApiError> {
    let sheet = File::from(sheet);
    if fcntl(&sheet, FcntlArg::F_GET_SEALS).is_err() {
        return Err(ApiError::Refused("the files have to be in a file of memory (memfd_create(2))".to_owned()));
    }
    let length = sheet.metadata().map_err(failed)?.len();
    if length > LARGEST {
        return Err(ApiError::Refused(format!("the files are larger than {} MiB", LARGEST >> 20)));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    // Who changes its length meanwhile gets an error.
    sheet.read_exact_at(&mut bytes, 0).map_err(failed)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::Refused(format!("the files are no list of names and texts in JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_written_is_read_if_it_is_memory_and_not_too_much() {
        let files = vec![("a.toml".to_owned(), "x".repeat(1 << 20))];
        assert_eq!(read(write(&files).unwrap().into()).unwrap(), files);
        let refusal = |file: File| read(file.into()).unwrap_err().to_string();
        let large = write(&[]).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        assert!(refusal(large).contains("larger than 4 MiB"));
        let wrong = write(&[]).unwrap();
        wrong.write_all_at(b"{}", 0).unwrap();
        assert!(refusal(wrong).contains("no list of names"));
        let (pipe, _end) = std::io::pipe().unwrap();
        assert!(refusal(File::from(OwnedFd::from(pipe))).contains("memory"));
    }
}
