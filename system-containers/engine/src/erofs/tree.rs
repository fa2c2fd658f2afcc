//! The names of an image, in memory until all are known: a directory is written when nothing is added to it any more.
//!
//! A name takes 16 bytes, its own length and a place in a table of hashes; a million of them have room beside all else that
//! the engine holds. Inodes that are no directories are in the image already.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;

use super::BLOCK;
use super::attributes::{self, Attributes};
use super::directory::{self, Entry};
use super::format::{INODE_BYTES, Kind, LINKS_AT, Layout, Metadata, ROOT_AT, SLOT};
use super::writer::{Place, Writer, block_number};
use crate::limits;

/// The most bytes of memory for names and directories.
const MOST_BYTES: usize = limits::LAYER_MEMORY as usize;
/// What a name takes beside its bytes: a record, a part of the table, a part of the order at the end.
const NAME_BYTES: usize = 16 + 8 + 4;
/// The same of a directory.
const DIRECTORY_BYTES: usize = size_of::<Directory>() + 16;

/// More names than there is memory for.
#[derive(Debug)]
pub struct TreeFull;

/// Which directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryId(u32);

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory(DirectoryId),
    /// Anything else.
    Other(Kind, Place),
}

/// A directory without its names.
#[derive(Debug, Default)]
pub struct Directory {
    /// Owner, mode, time.
    pub metadata: Metadata,
    /// Its extended attributes.
    pub attributes: Attributes,
    parent: u32,
}

impl Directory {
    /// With these.
    pub fn new(metadata: Metadata, attributes: Attributes) -> Self {
        Self { metadata, attributes, parent: 0 }
    }

    /// Sets one attribute.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_vec(),
            None => self.attributes.push((name.to_vec(), value.to_vec())),
        }
    }
}

/// A name: its directory, where its bytes are, and what it is (see [`Record::node`]).
#[derive(Clone, Copy)]
struct Record {
    parent: u32,
    name: u32,
    /// The kind in the highest byte, whether there are other names below it, then the place or directory.
    what: u64,
}

const LINKED: u64 = 1 << 55;
const VALUE: u64 = LINKED - 1;

impl Record {
    fn node(self) -> Node {
        match Kind::of_number((self.what >> 56) as u8) {
            Some(Kind::Directory) | None => Node::Directory(DirectoryId((self.what & VALUE) as u32)),
            Some(kind) => Node::Other(kind, Place(self.what & VALUE)),
        }
    }
}

fn what(node: Node) -> u64 {
    match node {
        Node::Directory(DirectoryId(id)) => (Kind::Directory as u64) << 56 | u64::from(id),
        Node::Other(kind, Place(place)) => (kind as u64) << 56 | (place & VALUE),
    }
}

/// All names of an image.
pub struct Tree {
    records: Vec<Record>,
    /// The length of each name and the name.
    names: Vec<u8>,
    /// Indexes of records, 1 higher, at the places that hashes of directory and name lead to; a power of two of them.
    table: Vec<u32>,
    directories: Vec<Directory>,
    /// With a key of its own: a layer cannot choose names that collide.
    hasher: RandomState,
    attribute_bytes: usize,
}

impl Tree {
    /// With a root directory.
    pub fn new(root: Directory) -> Self {
        Self {
            records: Vec::new(),
            names: Vec::new(),
            table: vec![0; 1024],
            directories: vec![root],
            hasher: RandomState::new(),
            attribute_bytes: 0,
        }
    }

    /// The root directory.
    pub const ROOT: DirectoryId = DirectoryId(0);

    /// The directory that a directory is in; the root is its own.
    pub fn parent(&self, directory: DirectoryId) -> DirectoryId {
        DirectoryId(self.directories.get(directory.0 as usize).map_or(0, |directory| directory.parent))
    }

    /// What a name is.
    pub fn find(&self, parent: DirectoryId, name: &[u8]) -> Option<Node> {
        self.record(parent, name).ok().and_then(|index| self.records.get(index)).map(|record| record.node())
    }

    /// The extended attributes of a directory.
    pub fn attributes(&self, directory: DirectoryId) -> &[(Vec<u8>, Vec<u8>)] {
        self.directories.get(directory.0 as usize).map_or(&[], |directory| &directory.attributes)
    }

    /// Changes a directory.
    pub fn directory(&mut self, id: DirectoryId, change: impl FnOnce(&mut Directory)) -> Result<(), TreeFull> {
        if let Some(directory) = self.directories.get_mut(id.0 as usize) {
            change(directory);
            // What it had before is counted again: that is on the safe side, and rare.
            self.attribute_bytes += bytes_of(&directory.attributes);
        }
        self.check()
    }

    /// Adds a directory, in the place of what has that name.
    pub fn add_directory(
        &mut self,
        parent: DirectoryId,
        name: &[u8],
        directory: Directory,
    ) -> Result<DirectoryId, TreeFull> {
        let id = DirectoryId(u32::try_from(self.directories.len()).map_err(|_| TreeFull)?);
        self.attribute_bytes += bytes_of(&directory.attributes);
        self.directories.push(Directory { parent: parent.0, ..directory });
        self.add(parent, name, Node::Directory(id))?;
        Ok(id)
    }

    /// Adds a name, in the place of what has it.
    pub fn add(&mut self, parent: DirectoryId, name: &[u8], node: Node) -> Result<(), TreeFull> {
        let at = match self.record(parent, name) {
            Ok(index) => {
                if let Some(record) = self.records.get_mut(index) {
                    record.what = what(node);
                }
                return Ok(());
            }
            Err(at) => at,
        };
        let record =
            Record { parent: parent.0, name: u32::try_from(self.names.len()).map_err(|_| TreeFull)?, what: what(node) };
        self.names.push(u8::try_from(name.len()).map_err(|_| TreeFull)?);
        self.names.extend_from_slice(name);
        self.records.push(record);
        if let Some(place) = self.table.get_mut(at) {
            *place = u32::try_from(self.records.len()).map_err(|_| TreeFull)?;
        }
        if self.records.len() * 2 > self.table.len() {
            self.grow();
        }
        self.check()
    }

    /// Another name of what has one.
    pub fn add_link(
        &mut self,
        (of_parent, of_name): (DirectoryId, &[u8]),
        parent: DirectoryId,
        name: &[u8],
    ) -> Result<bool, TreeFull> {
        let found = self.record(of_parent, of_name).ok().and_then(|index| self.records.get_mut(index));
        let Some(record) = found else { return Ok(false) };
        let Node::Other(kind, place) = record.node() else { return Ok(false) };
        record.what |= LINKED;
        self.add(parent, name, Node::Other(kind, place))?;
        if let Some(record) = self.record(parent, name).ok().and_then(|index| self.records.get_mut(index)) {
            record.what |= LINKED;
        }
        Ok(true)
    }

    /// About how many bytes [`Self::finish`] is going to write.
    pub fn unwritten(&self) -> u64 {
        let names = self.names.len() + self.records.len() * directory::ENTRY_BYTES;
        (names + self.directories.len() * (INODE_BYTES + BLOCK / 8) + self.attribute_bytes) as u64
    }

    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let records = self.names.len() + self.records.len() * NAME_BYTES;
        records + self.directories.len() * DIRECTORY_BYTES + self.attribute_bytes
    }

    fn check(&self) -> Result<(), TreeFull> {
        if self.memory() > MOST_BYTES { Err(TreeFull) } else { Ok(()) }
    }

    fn name(&self, record: &Record) -> &[u8] {
        let at = record.name as usize;
        let length = usize::from(self.names.get(at).copied().unwrap_or_default());
        self.names.get(at + 1..at + 1 + length).unwrap_or_default()
    }

    /// The index of a name's record, or the place in the table that it is to have.
    fn record(&self, parent: DirectoryId, name: &[u8]) -> Result<usize, usize> {
        let mask = self.table.len() - 1;
        let mut at = self.hasher.hash_one((parent.0, name)) as usize & mask;
        loop {
            let Some(index) = self.table.get(at).and_then(|entry| (*entry as usize).checked_sub(1)) else {
                return Err(at);
            };
            match self.records.get(index) {
                Some(record) if record.parent == parent.0 && self.name(record) == name => return Ok(index),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        let length = self.table.len() * 2;
        // The old one goes first: both together would be half as much again.
        self.table = Vec::new();
        let mut table = vec![0_u32; length];
        for (index, record) in self.records.iter().enumerate() {
            let mut at = self.hasher.hash_one((record.parent, self.name(record))) as usize & (length - 1);
            while table.get(at).is_some_and(|entry| *entry != 0) {
                at = (at + 1) & (length - 1);
            }
            if let Some(entry) = table.get_mut(at) {
                *entry = index as u32 + 1;
            }
        }
        self.table = table;
    }

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

/// Where a directory's inode is going to be, and how large its content is.
#[derive(Clone, Copy)]
struct Laid {
    place: Place,
    size: u64,
    /// Whether the end of the content is behind the inode.
    inline: bool,
}

fn bytes_of(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
}
