//! What is written is read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::tar::Timestamp;

const UUID: [u8; 16] = [7; 16];

fn metadata(mode: u32) -> Metadata {
    Metadata { mode, uid: 1000, gid: 4_000_000_000, modified: Timestamp { seconds: -1, nanoseconds: 5 } }
}

struct Made {
    tree: Tree,
    writer: Writer,
}

impl Made {
    fn new() -> Self {
        let root = Directory::new(metadata(0o755), vec![(b"user.note".to_vec(), b"root".to_vec())]);
        Self { tree: Tree::new(root), writer: Writer::new(tempfile::tempfile().unwrap()).unwrap() }
    }

    fn file(&mut self, directory: DirectoryId, name: &str, content: &[u8]) -> Place {
        let begin = self.writer.bytes();
        self.writer.content(content).unwrap();
        let place = self.writer.end(Kind::File, metadata(0o644), &[], begin).unwrap();
        self.tree.add(directory, name.as_bytes(), Node::Other(Kind::File, place)).unwrap();
        place
    }

    fn directory(&mut self, parent: DirectoryId, name: &str) -> DirectoryId {
        self.tree.add_directory(parent, name.as_bytes(), Directory::new(metadata(0o700), Vec::new())).unwrap()
    }

    fn image(self) -> Image {
        Image::open(self.tree.finish(self.writer, UUID).unwrap().unwrap()).unwrap()
    }
}

fn find(image: &Image, path: &str) -> Option<(Place, Inode)> {
    let mut found = (image.root(), image.inode(image.root()).unwrap());
    for name in path.split('/') {
        let place = image.child(found.0, &found.1, name.as_bytes()).unwrap()?;
        found = (place, image.inode(place).unwrap());
    }
    Some(found)
}

fn content(image: &Image, path: &str) -> Vec<u8> {
    let (place, inode) = find(image, path).unwrap();
    image.content(place, &inode, u64::MAX).unwrap().unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number % 251) as u8 + 1).collect()
}

#[test]
fn files_of_every_length_are_read_back() {
    let mut made = Made::new();
    let lengths = [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12_000, 3_000_000];
    for length in lengths {
        made.file(Tree::ROOT, &length.to_string(), &pattern(length));
    }
    let image = made.image();
    for length in lengths {
        assert_eq!(content(&image, &length.to_string()), pattern(length), "{length}");
        // The kernel reads an inode with what is behind it from one block.
        let (place, inode) = find(&image, &length.to_string()).unwrap();
        if inode.layout == format::Layout::Inline {
            let end = inode.behind(place.offset()) + inode.size % BLOCK as u64;
            assert_eq!(place.offset() / BLOCK as u64, (end - 1) / BLOCK as u64, "{length}");
        }
    }
    let (place, inode) = find(&image, "12000").unwrap();
    assert_eq!((inode.metadata, inode.links, inode.size), (metadata(0o644), 1, 12_000));
    assert_eq!(image.content(place, &inode, 11_999).unwrap(), None);
    assert_eq!(find(&image, "none"), None);
}

#[test]
fn large_directories_are_searched_and_listed() {
    let mut made = Made::new();
    let large = made.directory(Tree::ROOT, "large");
    let names: Vec<String> = (0..5000).map(|number| format!("{number}-{}", "n".repeat(number % 240))).collect();
    for name in names.iter().rev() {
        made.file(large, name, name.as_bytes());
    }
    // On both sides of the two that every directory has.
    for name in
        ["!", "-", ".-", "..-", "...", "/".repeat(0).as_str(), "\u{1F980}"].into_iter().filter(|name| !name.is_empty())
    {
        made.file(large, name, b"odd");
    }
    let image = made.image();
    for name in &names {
        assert_eq!(content(&image, &format!("large/{name}")), name.as_bytes());
    }
    for name in ["!", "-", ".-", "..-", "...", "\u{1F980}"] {
        assert_eq!(content(&image, &format!("large/{name}")), b"odd", "{name}");
    }
    let (place, inode) = find(&image, "large").unwrap();
    let mut listed = Vec::new();
    image.each(place, &inode, |name, _, _| listed.push(name.to_vec())).unwrap();
    assert!(listed.is_sorted() && listed.len() == names.len() + 6);
    let [own, above] = [".", ".."].map(|name| find(&image, &format!("large/{name}")).unwrap().0);
    assert_eq!((own, above), (place, image.root()));
}

#[test]
fn attributes_links_and_devices_are_kept() {
    let mut made = Made::new();
    let directory = made.directory(Tree::ROOT, "d");
    made.directory(directory, "below");
    made.tree.directory(directory, |directory| directory.set(b"trusted.overlay.opaque", b"y")).unwrap();
    made.file(Tree::ROOT, "a", b"linked");
    assert!(made.tree.add_link((Tree::ROOT, b"a"), directory, b"b").unwrap());
    assert!(made.tree.add_link((Tree::ROOT, b"a"), directory, b"gone").unwrap());
    assert!(!made.tree.add_link((Tree::ROOT, b"d"), directory, b"c").unwrap(), "directories have no links");
    let long = "x".repeat(4095);
    for (name, target) in [("short", "../a"), ("long", &*long)] {
        let begin = made.writer.bytes();
        made.writer.content(target.as_bytes()).unwrap();
        let place = made.writer.end(Kind::Symlink, metadata(0o777), &[], begin).unwrap();
        assert_eq!(made.writer.target(place).unwrap(), target.as_bytes());
        made.tree.add(Tree::ROOT, name.as_bytes(), Node::Other(Kind::Symlink, place)).unwrap();
    }
    let big = vec![1; 60_000];
    let area = encode_attributes([(&b"user.big"[..], &big[..]), (b"security.x", b"y")]).unwrap();
    let place = made.writer.node(Kind::BlockDevice, metadata(0o600), &area, (8, 300)).unwrap();
    made.tree.add(directory, b"disk", Node::Other(Kind::BlockDevice, place)).unwrap();
    // What replaces a name takes a link away.
    made.file(directory, "gone", b"other");
    let image = made.image();
    let (place, inode) = find(&image, "d/b").unwrap();
    assert_eq!((place, inode.links), (find(&image, "a").unwrap().0, 2));
    assert_eq!(find(&image, "d/gone").unwrap().1.links, 1);
    let (place, inode) = find(&image, "d").unwrap();
    assert_eq!(inode.links, 3);
    assert_eq!(image.attributes(place, &inode).unwrap(), [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
    let root = image.inode(image.root()).unwrap();
    assert_eq!(image.attributes(image.root(), &root).unwrap(), [(b"user.note".to_vec(), b"root".to_vec())]);
    assert_eq!((content(&image, "short"), content(&image, "long")), (b"../a".to_vec(), long.into_bytes()));
    let (place, inode) = find(&image, "d/disk").unwrap();
    assert_eq!(u64::from(inode.start), rustix::fs::makedev(8, 300));
    assert_eq!(image.attributes(place, &inode).unwrap()[0], (b"user.big".to_vec(), big));
}

#[test]
fn sparse_files_take_room_for_their_content_only() {
    let mut made = Made::new();
    // Of blocks, and of larger chunks.
    let files = [("small", 60_000_000_u64, 1_000_000_u64), ("large", 1 << 40, 20_000_000_001)];
    for (name, size, step) in files {
        let mut sparse = Sparse::new(size).unwrap();
        for number in 0..50 {
            made.writer
                .sparse_content(&mut sparse, number * step + 4000, b"in two blocks, it may be".repeat(9).as_slice())
                .unwrap();
        }
        let place = made.writer.end_sparse(sparse, metadata(0o600), &[]).unwrap();
        made.tree.add(Tree::ROOT, name.as_bytes(), Node::Other(Kind::File, place)).unwrap();
    }
    let place = made.writer.end_sparse(Sparse::new(5_000_000).unwrap(), metadata(0o600), &[]).unwrap();
    made.tree.add(Tree::ROOT, b"hole", Node::Other(Kind::File, place)).unwrap();
    assert!(Sparse::new(u64::MAX).is_none());
    let file = made.tree.finish(made.writer, UUID).unwrap().unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    assert!(blocks * 512 < 8 << 20, "{blocks}");
    let image = Image::open(file).unwrap();
    for (name, size, step) in files {
        let (place, inode) = find(&image, name).unwrap();
        assert_eq!(inode.size, size);
        for number in 0..50 {
            let mut read = [0; 300];
            let mut filled = 0;
            while filled < read.len() {
                let at = number * step + 3990 + filled as u64;
                filled += image.read_at(place, &inode, at, &mut read[filled..]).unwrap();
            }
            let text = b"in two blocks, it may be".repeat(9);
            assert_eq!(read[..10], [0; 10]);
            assert_eq!(read[10..10 + text.len()], text[..]);
            assert!(read[10 + text.len()..].iter().all(|byte| *byte == 0));
        }
    }
    assert!(content(&image, "hole").iter().all(|byte| *byte == 0) && content(&image, "hole").len() == 5_000_000);
}

#[test]
fn a_directory_that_was_replaced_is_not_there_with_what_was_in_it() {
    let mut made = Made::new();
    let directory = made.directory(Tree::ROOT, "d");
    made.file(directory, "x", b"old");
    made.file(Tree::ROOT, "d", b"new");
    let again = made.directory(Tree::ROOT, "e");
    made.file(again, "y", b"old");
    made.directory(Tree::ROOT, "e");
    let image = made.image();
    assert_eq!(content(&image, "d"), b"new");
    assert_eq!(find(&image, "e/y"), None);
}

#[test]
fn names_have_a_limit() {
    let mut tree = Tree::new(Directory::default());
    let place = Node::Other(Kind::File, Place(40));
    let added = (0..2_000_000_u32).find_map(|number| {
        let name = format!("{number:0>200}");
        tree.add(Tree::ROOT, name.as_bytes(), place).err().map(|_| number)
    });
    assert!(added.is_some_and(|number| number > 190_000));
}

#[test]
fn a_damaged_image_is_an_error_and_no_more() {
    let mut made = Made::new();
    let directory = made.directory(Tree::ROOT, "d");
    made.file(directory, "file", &pattern(10_000));
    let file = made.tree.finish(made.writer, UUID).unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(Image::open(tempfile::tempfile().unwrap()).is_err());
    for at in (BLOCK..bytes.len()).step_by(5) {
        let mut changed = bytes.clone();
        changed[at] ^= 0xff;
        let copy = tempfile::tempfile_in("/dev/shm").unwrap();
        File::write_all_at(&copy, &changed, 0).unwrap();
        let image = Image::open(copy).unwrap();
        let root = image.inode(image.root()).unwrap();
        let Ok(Some(place)) = image.child(image.root(), &root, b"d") else { continue };
        let Ok(inode) = image.inode(place) else { continue };
        let mut listed = Vec::new();
        let _ = image.each(place, &inode, |_, place, _| listed.push(place));
        for place in listed {
            if let Ok(inode) = image.inode(place) {
                let _ = image.attributes(place, &inode);
                let _ = image.content(place, &inode, 1 << 20);
            }
        }
    }
}
