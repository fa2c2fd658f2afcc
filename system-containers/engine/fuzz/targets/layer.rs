//! Layers over a fixed one: unpacking ends, and what it takes is an image that can be read to its end, alone and with the
//! one below it.
#![no_main]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use berth_engine::erofs::{Image, Kind};
use berth_engine::layer::{self, LayerError, Limits, Lower, Target};
use berth_engine::memory::Memory;
use berth_engine::merged::{Found, Merged, MergedDirectory, MergedError};
use berth_engine::room::Room;
use libfuzzer_sys::fuzz_target;

/// How much is taken.
const MOST: Limits = Limits { entries: 100, bytes: 1 << 20 };
/// How large files are read, in bytes: a hole takes no room.
const CONTENT: u64 = 1 << 20;
/// The layer below: something of everything, and links that lead about.
static BELOW: LazyLock<File> = LazyLock::new(|| {
    let nothing = || Ok(Merged::new(Vec::new())?);
    unpacked(include_bytes!("../seeds/layer/below"), &nothing).expect("it is a good one")
});
const BLOCK: usize = 512;

/// The checksums of headers become right: else hardly any change would be looked at.
fn repair(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..136]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or_default();
        at = at.saturating_add(BLOCK).saturating_add(size.next_multiple_of(BLOCK));
        if at > tar.len() {
            return;
        }
    }
}

fn unpacked(tar: &[u8], below: &dyn Fn() -> Result<Merged, LayerError>) -> Option<File> {
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    let place = File::open("/dev/shm").expect("it is there");
    let memory = Memory::new(&|| Ok(()));
    let same = file.try_clone().expect("it is open");
    let target = Target { file: same, place: place.as_fd(), uuid: [1; 16], memory: &memory };
    let room = Room::new(Some(0));
    layer::unpack_within(tar, target, &Lower::new(below), room, MOST).ok().map(|_| file)
}

/// Everything in an image, directories by their names.
fn look(file: File) {
    let image = Image::open(file).expect("it was just written");
    let mut pending = vec![image.root()];
    while let Some(place) = pending.pop() {
        let inode = image.inode(place).expect("a name leads to an inode");
        image.attributes(place, &inode).expect("they were given");
        if inode.kind != Kind::Directory {
            if let Some(content) = image.content(place, &inode, CONTENT).expect("it is there") {
                assert!(content.len() as u64 == inode.size || !matches!(inode.kind, Kind::File | Kind::Symlink));
            }
            continue;
        }
        let mut names = Vec::new();
        image.each(place, &inode, |name, child, _| names.push((name.to_vec(), child))).expect("it was written");
        assert!(names.is_sorted_by(|left, right| left.0 < right.0), "names are looked up by halves");
        for (name, child) in names {
            assert_eq!(image.child(place, &inode, &name).expect("it is there"), Some(child));
            pending.push(child);
        }
    }
}

/// Every name of a tree of layers.
fn look_into(directory: &MergedDirectory) {
    let mut names = BTreeSet::new();
    let note = |name: &[u8]| {
        names.insert(name.to_vec());
        Ok::<_, MergedError>(())
    };
    directory.each(note).expect("they can be read");
    let mut in_order: Vec<Vec<u8>> = Vec::new();
    loop {
        let last = in_order.last().map_or(&[][..], Vec::as_slice);
        let next = directory.names_after(last).expect("they can be read");
        if next.is_empty() {
            break;
        }
        in_order.extend(next);
    }
    assert!(in_order.iter().eq(&names), "each once and in order");
    for name in names {
        if let Some(Found::Directory(child)) = directory.child(&name).expect("it can be read") {
            look_into(&child);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&BELOW);
    let mut tar = bytes.to_vec();
    repair(&mut tar);
    let named = |file: &File| (PathBuf::new(), file.try_clone().expect("it is open"));
    let Some(layer) = unpacked(&tar, &|| Ok(Merged::new(vec![named(&BELOW)])?)) else { return };
    let merged = Merged::new(vec![named(&layer), named(&BELOW)]).expect("both are images");
    if let Some(root) = merged.root().expect("it can be read") {
        look_into(&root);
    }
    look(layer);
});
