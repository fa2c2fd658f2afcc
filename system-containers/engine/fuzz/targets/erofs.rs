//! Images of layers that the disk has changed: reading ends, and gives what the image says or an error.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;

use berth_engine::erofs::{BLOCK, Directory, Image, Kind, Metadata, Node, Place, Sparse, Superblock, Tree, Writer};
use libfuzzer_sys::fuzz_target;

/// How deep a changed directory that contains itself is followed.
const DEPTH: usize = 6;
/// How many inodes are looked at.
const INODES: usize = 200;
/// How large files are read, in bytes.
const CONTENT: u64 = 1 << 20;

/// Something of everything, in a few blocks.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    let attributes = vec![(b"user.note".to_vec(), b"text".to_vec())];
    let mut tree = Tree::new(Directory::new(metadata, attributes.clone()));
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    let mut writer = Writer::new(file).expect("it can be written");
    let directory = tree.add_directory(Tree::ROOT, b"d", Directory::new(metadata, attributes)).expect("it fits");
    for (name, kind, content) in
        [(&b"small"[..], Kind::File, vec![1; 100]), (b"large", Kind::File, vec![2; 9000]), (b"link", Kind::Symlink, b"small".to_vec())]
    {
        let begin = writer.bytes();
        writer.content(&content).expect("it can be written");
        let place = writer.end(kind, metadata, &[], begin).expect("it can be written");
        tree.add(directory, name, Node::Other(kind, place)).expect("it fits");
    }
    let mut sparse = Sparse::new(100_000).expect("it is small");
    writer.sparse_content(&mut sparse, 50_000, b"in the middle").expect("it can be written");
    let place = writer.end_sparse(sparse, metadata, &[]).expect("it can be written");
    tree.add(Tree::ROOT, b"sparse", Node::Other(Kind::File, place)).expect("it fits");
    let file = tree.finish(writer, [1; 16]).expect("it can be written").expect("its attributes are small");
    let mut bytes = vec![0; usize::try_from(file.metadata().expect("it is there").len()).expect("it is small")];
    file.read_exact_at(&mut bytes, 0).expect("it can be read");
    bytes
});

fn look(image: &Image, place: Place, depth: usize, left: &mut usize) {
    *left = left.saturating_sub(1);
    let Ok(inode) = image.inode(place) else { return };
    let _ = image.attributes(place, &inode);
    if let Ok(Some(content)) = image.content(place, &inode, CONTENT) {
        assert_eq!(content.len() as u64, inode.size);
    }
    if inode.kind != Kind::Directory || depth == DEPTH {
        return;
    }
    let mut children = Vec::new();
    let _ = image.each(place, &inode, |name, place, _| children.push((name.to_vec(), place)));
    for (name, child) in children {
        assert!(!name.is_empty() && name.len() <= BLOCK);
        let _ = image.child(place, &inode, &name);
        if *left > 0 {
            look(image, child, depth + 1, left);
        }
    }
}

fuzz_target!(|changes: Vec<(u16, u8)>| {
    let mut bytes = GOOD.clone();
    let length = bytes.len();
    for (at, value) in changes {
        bytes[usize::from(at) % length] = value;
    }
    // Else hardly any change would be looked at.
    if let Some(first) = bytes.first_chunk_mut::<BLOCK>() {
        Superblock { inodes: 6, blocks: 9, uuid: [1; 16] }.write(first);
    }
    let file: File = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    file.write_all_at(&bytes, 0).expect("it fits");
    let Ok(image) = Image::open(file) else { return };
    look(&image, image.root(), 0, &mut { INODES });
});
