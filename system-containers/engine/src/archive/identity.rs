//! How an archive is known again without reading it.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::files::{DOCUMENTS, Files};
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
        let folder = Files::Folder(file);
        for document in DOCUMENTS {
            // A link that leads out of the folder is none of its documents, and nobody waits at a FIFO.
            if let Some(mut section) = folder.open(document).map_err(io::Error::other)? {
                let mut start = Vec::new();
                section.by_ref().take(END_BYTES).read_to_end(&mut start)?;
                hasher.update(&start);
            }
        }
        // A layout that was cut short while it was copied is another one when it is whole.
        let (mut size, mut modified_ns) = (0, i128::MIN);
        add_files(path, 2, &mut size, &mut modified_ns)?;
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

/// Adds up the sizes of the files in a folder and in those so deep below it (blobs/sha256 in a layout, a layer's in what
/// `docker save` wrote before version 25), and finds the last time that one was modified.
fn add_files(folder: &Path, depth: u32, size: &mut u64, modified_ns: &mut i128) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() && depth > 0 {
            add_files(&entry.path(), depth - 1, size, modified_ns)?;
        } else if metadata.is_file() {
            *size += metadata.len();
            *modified_ns = (*modified_ns).max(modified(&metadata)?);
        }
    }
    Ok(())
}
