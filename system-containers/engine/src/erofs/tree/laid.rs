//! Directories on their way into the image, when all names are known.

use std::fs::File;
use std::io;

use super::{DirectoryId, LINKED, Node, Tree, VALUE};
use crate::erofs::BLOCK;
use crate::erofs::attributes;
use crate::erofs::directory::{self, Entry};
use crate::erofs::format::{INODE_BYTES, Kind, LINKS_AT, Layout, ROOT_AT, SLOT};
use crate::erofs::writer::{Place, Writer, block_number};

/// Where a directory's inode is going to be, and how large its content is.
#[derive(Clone, Copy)]
struct Laid {
    place: Place,
    size: u64,
    /// Whether the end of the content is behind the inode.
    inline: bool,
}

impl Tree {
    /// Writes all directories, and the superblock. None if one has more attributes than fit. `uuid` is what tells the image
    /// from all others.
    pub fn finish(mut self, mut writer: Writer, uuid: [u8; 16]) -> io::Result<Option<File>> {
        self.table = Vec::new();
        let mut order: Vec<u32> = (0..self.records.len() as u32).collect();
        order.sort_unstable_by(|left, right| {
            let key = |index: &u32| self.records.get(*index as usize).map(|record| (record.parent, self.name(record)));
            key(left).cmp(&key(right))
        });
        let mut places = vec![None; self.directories.len()];
        let mut reachable = vec![Self::ROOT];
        let mut next = 0;
        while let Some(id) = reachable.get(next).copied() {
            next += 1;
            let span = self.span(&order, id);
            let Some(laid) = self.lay(&mut writer, id, span)? else { return Ok(None) };
            if let Some(place) = places.get_mut(id.0 as usize) {
                *place = Some(laid);
            }
            reachable.extend(span.iter().filter_map(|index| match self.records.get(*index as usize)?.node() {
                Node::Directory(child) => Some(child),
                Node::Other(..) => None,
            }));
        }
        let mut linked = Vec::new();
        for id in reachable {
            let span = self.span(&order, id);
            self.write(&mut writer, id, span, &places)?;
            let records = span.iter().filter_map(|index| self.records.get(*index as usize));
            linked.extend(records.filter(|record| record.what & LINKED != 0).map(|record| record.what & VALUE));
        }
        linked.sort_unstable();
        for names in linked.chunk_by(|left, right| left == right) {
            let links = u32::try_from(names.len()).unwrap_or(u32::MAX);
            if let Some(place) = names.first() {
                writer.change(place * SLOT + LINKS_AT, &links.to_le_bytes())?;
            }
        }
        writer.finish(uuid).map(Some)
    }

    /// The names of a directory.
    fn span<'a>(&self, order: &'a [u32], id: DirectoryId) -> &'a [u32] {
        let parent = |index: &u32| self.records.get(*index as usize).map_or(u32::MAX, |record| record.parent);
        let begin = order.partition_point(|index| parent(index) < id.0);
        let end = order.partition_point(|index| parent(index) <= id.0);
        order.get(begin..end).unwrap_or_default()
    }

    /// Reserves room for a directory's inode; none if it has more attributes than fit.
    fn lay(&self, writer: &mut Writer, id: DirectoryId, span: &[u32]) -> io::Result<Option<Laid>> {
        let Some(directory) = self.directories.get(id.0 as usize) else { return Ok(None) };
        let named = directory.attributes.iter().map(|(name, value)| (&**name, &**value));
        let Some(attributes) = attributes::encode(named) else { return Ok(None) };
        let size = directory::size(self.entries(span, Place(0), Place(0), &[]).map(|entry| entry.name.len()));
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        let room = if id == Self::ROOT { BLOCK - ROOT_AT as usize } else { BLOCK };
        let fixed = INODE_BYTES + attributes.len();
        let inline = rest > 0 && fixed + rest <= room;
        let place = match id {
            Self::ROOT if fixed > room => return Ok(None),
            Self::ROOT => Place(ROOT_AT / SLOT),
            _ => writer.reserve(if inline { fixed + rest } else { fixed })?,
        };
        Ok(Some(Laid { place, size, inline }))
    }

    /// Writes a directory's names and inode. All directories have their places.
    fn write(&self, writer: &mut Writer, id: DirectoryId, span: &[u32], places: &[Option<Laid>]) -> io::Result<()> {
        let at = |id: DirectoryId| places.get(id.0 as usize).copied().flatten();
        let (Some(laid), Some(above)) = (at(id), at(self.parent(id))) else { return Ok(()) };
        let Some(directory) = self.directories.get(id.0 as usize) else { return Ok(()) };
        let named = directory.attributes.iter().map(|(name, value)| (&**name, &**value));
        let attributes = attributes::encode(named).unwrap_or_default();
        let mut behind = Vec::new();
        let mut start = 0;
        let mut written = 0;
        for block in directory::blocks(self.entries(span, laid.place, above.place, places)) {
            if laid.inline && written + block.len() as u64 == laid.size {
                behind = block;
                break;
            }
            if written == 0 {
                start = block_number(writer.bytes())?;
            }
            writer.log.append(&block)?;
            writer.log.align()?;
            written += BLOCK as u64;
        }
        let layout = if laid.inline { Layout::Inline } else { Layout::Plain };
        let mut inode = writer.inode(Kind::Directory, directory.metadata, laid.size, layout, start, &attributes);
        let children = span.iter().filter_map(|index| self.records.get(*index as usize));
        let below = children.filter(|record| matches!(record.node(), Node::Directory(_))).count();
        inode.links = u32::try_from(below + 2).unwrap_or(u32::MAX);
        writer.change(laid.place.offset(), &[&inode.to_bytes()[..], &attributes, &behind].concat())
    }

    /// A directory's entries in their order, itself and the one above among them.
    fn entries<'a>(
        &'a self,
        span: &'a [u32],
        own: Place,
        above: Place,
        places: &'a [Option<Laid>],
    ) -> impl Iterator<Item = Entry<'a>> {
        let name = |index: &u32| self.records.get(*index as usize).map(|record| self.name(record));
        let [first, second] = [&b"."[..], b".."].map(|dots| span.partition_point(|index| name(index) < Some(dots)));
        let entry = move |index: &u32| {
            let record = self.records.get(*index as usize)?;
            let (place, kind) = match record.node() {
                Node::Other(kind, place) => (place, kind),
                Node::Directory(id) => {
                    let laid = places.get(id.0 as usize).copied().flatten();
                    (laid.map_or(Place(0), |laid| laid.place), Kind::Directory)
                }
            };
            Some(Entry { name: self.name(record), place, kind })
        };
        let dots = |name, place| std::iter::once(Entry { name, place, kind: Kind::Directory });
        let part = move |from: usize, to: usize| span.get(from..to).unwrap_or_default().iter().filter_map(entry);
        part(0, first)
            .chain(dots(b".", own))
            .chain(part(first, second))
            .chain(dots(b"..", above))
            .chain(part(second, span.len()))
    }
}
