//! The names of an image, in memory until all are known: a directory is written when nothing is added to it any more.
//!
//! A name takes 16 bytes, its own length and a place in a table of hashes; a million of them have room beside all else that
//! the engine holds. Inodes that are no directories are in the image already.

mod laid;

use std::hash::{BuildHasher as _, RandomState};

use super::BLOCK;
use super::attributes::Attributes;
use super::directory;
use super::format::{INODE_BYTES, Kind, Metadata};
use super::writer::Place;
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
    /// As a name can be: what is in it is marked too.
    is_marked: bool,
}

impl Directory {
    /// With these.
    pub fn new(metadata: Metadata, attributes: Attributes) -> Self {
        Self { metadata, attributes, parent: 0, is_marked: false }
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
    /// The kind in the highest byte, whether there are other names and whether it is marked below it, then the place or
    /// directory.
    what: u64,
}

const LINKED: u64 = 1 << 55;
const MARKED: u64 = 1 << 54;
const VALUE: u64 = MARKED - 1;

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

    /// Marks a name, until it is added again.
    pub fn mark(&mut self, parent: DirectoryId, name: &[u8]) {
        if let Some(record) = self.record(parent, name).ok().and_then(|index| self.records.get_mut(index)) {
            record.what |= MARKED;
        }
    }

    /// Whether a name is marked.
    pub fn is_marked(&self, parent: DirectoryId, name: &[u8]) -> bool {
        let record = self.record(parent, name).ok().and_then(|index| self.records.get(index));
        record.is_some_and(|record| record.what & MARKED != 0)
    }

    /// Marks a directory in which no name is without a mark.
    pub fn mark_directory(&mut self, id: DirectoryId) {
        if let Some(directory) = self.directories.get_mut(id.0 as usize) {
            directory.is_marked = true;
        }
    }

    /// Takes the marks from a directory and those that it is in.
    pub fn unmark_directories(&mut self, mut id: DirectoryId) {
        // What is not marked is in no directory that is.
        while let Some(directory) = self.directories.get_mut(id.0 as usize).filter(|directory| directory.is_marked) {
            directory.is_marked = false;
            id = DirectoryId(directory.parent);
        }
    }

    /// Whether a directory is marked.
    pub fn is_directory_marked(&self, id: DirectoryId) -> bool {
        self.directories.get(id.0 as usize).is_some_and(|directory| directory.is_marked)
    }

    /// Drops the marked names in all directories that are like this, and below them. The last change: no name is found any more.
    pub fn drop_marked(&mut self, is_like: impl Fn(&Directory) -> bool) {
        let mut within: Vec<bool> = Vec::with_capacity(self.directories.len());
        for directory in &self.directories {
            // Each was made after the one that it is in.
            let above = within.get(directory.parent as usize).copied().unwrap_or_default();
            within.push(above || is_like(directory));
        }
        let is_within = |record: &Record| within.get(record.parent as usize).copied().unwrap_or_default();
        let is_marked = |record: &Record| match record.node() {
            Node::Directory(id) => self.directories.get(id.0 as usize).is_some_and(|directory| directory.is_marked),
            Node::Other(..) => record.what & MARKED != 0,
        };
        self.records.retain(|record| !is_marked(record) || !is_within(record));
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
}

fn bytes_of(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
}
