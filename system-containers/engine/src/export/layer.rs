//! A layer's tar stream, made again from its record and the files of the unpacked layer.

use std::io::Write;

use super::ExportError;
use crate::digest::{Digest, Hasher};
use crate::layer::{EntryPath, Kept, Piece, Pieces};
use crate::merged::{Found, Item, Merged};
use crate::store::Store;
use crate::tar::Segment;

/// How much of a file is read at once, in bytes.
const BUFFER_BYTES: usize = 128 << 10;

/// How long the stream of a layer is, in bytes.
pub fn length(store: &Store, chain: Digest, diff_id: Digest) -> Result<u64, ExportError> {
    let broken = |source| ExportError::Record { diff_id, source };
    let mut pieces = Pieces::new(store.record(chain).map_err(broken)?);
    let mut length = 0;
    while let Some(piece) = pieces.next_piece().map_err(broken)? {
        length += match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Part { part, .. } => part.length,
        };
    }
    Ok(length)
}

/// Writes the stream of the uppermost layer of a chain. An error at its end, when all is written, says that it is not the
/// stream that it was.
pub fn write(store: &Store, chain: &[Digest], diff_id: Digest, target: &mut dyn Write) -> Result<(), ExportError> {
    let Some(id) = chain.last() else { return Ok(()) };
    let broken = |source| ExportError::Record { diff_id, source };
    let mut pieces = Pieces::new(store.record(*id).map_err(broken)?);
    let merged = store.merged(chain)?;
    let mut hasher = Hasher::default();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        target.write_all(bytes).map_err(ExportError::Write)
    };
    let mut open: Option<(Kept, Item)> = None;
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some(piece) = pieces.next_piece().map_err(broken)? {
        let (kept, part) = match piece {
            Piece::Bytes(bytes) => {
                put(&bytes)?;
                continue;
            }
            Piece::Part { file, part } => (file, part),
        };
        let changed = ExportError::Content { diff_id };
        let file = match open.take().filter(|(known, _)| *known == kept) {
            Some((_, file)) => file,
            None => match find(&merged, &kept)? {
                Some(file) => file,
                None => return Err(changed),
            },
        };
        copy(&file, part, &mut buffer, &mut put)?.map_err(|Short| changed)?;
        open = Some((kept, file));
    }
    let found = hasher.finish();
    if found == diff_id { Ok(()) } else { Err(ExportError::Digest { diff_id, found }) }
}

fn find(merged: &Merged, kept: &Kept) -> Result<Option<Item>, ExportError> {
    let path = match kept {
        Kept::Inode(number) => return Ok(merged.file(*number)?),
        Kept::Path(path) => path,
    };
    // It was parsed when it was unpacked.
    let Ok(path) = EntryPath::parse(path) else { return Ok(None) };
    // Its name may lead through directories that are links below.
    let (directory, name) = path.split();
    let Some(Found::Directory(directory)) = merged.find(directory.as_bytes())? else { return Ok(None) };
    Ok(directory.own_child(name)?)
}

/// The inner error is the file's.
fn copy(
    file: &Item,
    part: Segment,
    buffer: &mut [u8],
    put: &mut impl FnMut(&[u8]) -> Result<(), ExportError>,
) -> Result<Result<(), Short>, ExportError> {
    let (mut offset, mut left) = (part.offset, part.length);
    while left > 0 {
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let length = match file.read_at(offset, &mut buffer[..length]) {
            Ok(0) | Err(_) => return Ok(Err(Short)),
            Ok(length) => length,
        };
        put(&buffer[..length])?;
        offset += length as u64;
        left -= length as u64;
    }
    Ok(Ok(()))
}

/// A file has less than it had.
struct Short;
