//! What a layer below has, copied into the one that is being unpacked: a hard link to it is in one image with it.

use super::{EntryPath, LayerError, file_failed};
use crate::erofs::{Kind, Place, Sparse, Writer};
use crate::merged::Item;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Makes an inode like that of `source`, with these attributes. `admit` is asked before so many bytes are written.
pub fn copy(
    writer: &mut Writer,
    source: &Item,
    attributes: &[u8],
    path: &EntryPath,
    mut admit: impl FnMut(&Writer, u64) -> Result<(), LayerError>,
) -> Result<Place, LayerError> {
    let (kind, metadata) = (source.kind(), source.metadata());
    if !matches!(kind, Kind::File | Kind::Symlink) {
        return writer.node_of(kind, metadata, attributes, source.device()).map_err(file_failed("make", path));
    }
    let mut sparse = if source.is_sparse() { Some(Sparse::new(source.size()).ok_or(LayerError::Bytes)?) } else { None };
    let mut buffer = vec![0; BUFFER_BYTES];
    let (begin, mut offset) = (writer.bytes(), 0);
    while offset < source.size() {
        let hole = source.hole(offset)?;
        if hole > 0 {
            offset += hole;
            continue;
        }
        let length = source.read_at(offset, &mut buffer)?;
        admit(writer, length as u64)?;
        let written = match &mut sparse {
            Some(sparse) => writer.sparse_content(sparse, offset, &buffer[..length]),
            None => writer.content(&buffer[..length]),
        };
        written.map_err(file_failed("write", path))?;
        offset += length as u64;
    }
    let made = match sparse {
        Some(sparse) => writer.end_sparse(sparse, metadata, attributes),
        None => writer.end(kind, metadata, attributes, begin),
    };
    made.map_err(file_failed("write", path))
}
