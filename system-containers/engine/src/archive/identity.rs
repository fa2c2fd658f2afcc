//! How an archive is known again without reading it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::files::DOCUMENTS;
use crate::digest::Hasher;
use crate::store::Identity;

/// How much of each end of a file is part of its identity.
const END_BYTES: u64 = 64 << 10;

/// Looks at an archive, a file or a folder, as shortly as possible.
pub fn identity(path: &Path) -> io::Result<Identity> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut hasher = Hasher::default();
    let (size, modified_ns) = if metadata.is_dir() {
        for document in DOCUMENTS {
            match File::open(path.join(document)) {
                Ok(file) => add_ends(&file, file.metadata()?.len(), &mut hasher)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // A layout that was cut short while it was copied is another one when it is whole.
        let (mut size, mut modified_ns) = (0, i128::MIN);
        for folder in [path, &path.join("blobs/sha256")] {
            add_files(folder, &mut size, &mut modified_ns)?;
        }
        (size, modified_ns)
    } else {
        add_ends(&file, metadata.len(), &mut hasher)?;
        (metadata.len(), modified(&metadata)?)
    };
    Ok(Identity { size, modified_ns, ends: hasher.finish() })
}

/// In nanoseconds since 1970.
fn modified(metadata: &Metadata) -> io::Result<i128> {
    Ok(match metadata.modified()?.duration_since(UNIX_EPOCH) {
        Ok(time) => i128::try_from(time.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    })
}

fn add_ends(file: &File, size: u64, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(END_BYTES.min(size)).unwrap_or(0)];
    for offset in [0, size - buffer.len() as u64] {
        file.read_exact_at(&mut buffer, offset)?;
        hasher.update(&buffer);
        if offset == 0 && size <= END_BYTES {
            break;
        }
    }
    Ok(())
}

/// Adds up the sizes of the files in a folder, if there is one, and finds the last time that one was modified.
fn add_files(folder: &Path, size: &mut u64, modified_ns: &mut i128) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let metadata = entry?.metadata()?;
        if metadata.is_file() {
            *size += metadata.len();
            *modified_ns = (*modified_ns).max(modified(&metadata)?);
        }
    }
    Ok(())
}
