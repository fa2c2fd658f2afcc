//! Layers and archives that mean harm, or are damaged: each is refused with its reason, and nothing leaves its root.

mod support;

use std::fs::File;
use std::os::fd::AsFd as _;

use berth_engine::archive::{Archive, ArchiveError, Contents};
use berth_engine::layer::{self, LayerError, Limits, Lower, Target};
use berth_engine::limits;
use berth_engine::memory::Memory;
use berth_engine::merged::{Found, Merged};
use berth_engine::room::Room;
use support::{Header, Image, Machine, Tar, blob_name, descriptor, oci_archive};

/// Imports an image of this one layer; the problem that was reported.
fn refused(layer: Vec<u8>) -> Option<String> {
    let machine = Machine::new()?;
    let store = machine.store();
    let outside = machine.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let archive = machine.archive("bad.tar", &oci_archive(&[Image::new("bad", vec![layer])]));
    let problems = machine.import(&store, &archive);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(store.resolve(&"bad".parse().unwrap()).is_none());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let left = std::fs::read_dir(machine.path("images/layers/sha256")).unwrap().count();
    assert_eq!(left + std::fs::read_dir(machine.path("images/tmp")).unwrap().count(), 0, "nothing is left behind");
    problems.into_iter().next()
}

macro_rules! refuses {
    ($($test:ident: $layer:expr => $reason:literal;)*) => {$(
        #[test]
        fn $test() {
            if let Some(problem) = refused($layer) {
                assert!(problem.contains($reason), "{problem}");
            }
        }
    )*};
}

fn long(name: &'static [u8], kind: u8) -> Header<'static> {
    Header { kind, name, ..Header::default() }
}

refuses! {
    a_name_that_goes_up: Tar::default().file("../outside/x", b"").finish() => "contains \"..\"";
    a_name_that_goes_up_in_the_middle: Tar::default().file("a/../../outside/x", b"").finish() => "contains \"..\"";
    an_absolute_name_that_goes_up: Tar::default().file("/../outside/x", b"").finish() => "contains \"..\"";
    a_symbolic_link_loop: Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish() => "open /a";
    a_whiteout_below_an_escaping_link:
        Tar::default().symlink("link", "/tmp").entry(&long(b".wh.", b'0'), b"").finish() => "names nothing";
    a_hard_link_to_the_outside: Tar::default().hard_link("x", "../../outside").finish() => "contains \"..\"";
    a_hard_link_to_an_absolute_path: Tar::default().hard_link("x", "/etc/passwd").finish() => "has no target";
    a_hard_link_that_goes_up_from_the_root:
        Tar::default().hard_link("x", "/../etc/passwd").finish() => "contains \"..\"";
    a_hard_link_to_the_root: Tar::default().hard_link("x", "/").finish() => "has no target";
    a_hard_link_through_an_escaping_link:
        Tar::default().symlink("link", "/etc").hard_link("x", "link/passwd").finish() => "has no target";
    a_hard_link_to_nothing: Tar::default().hard_link("x", "y").finish() => "has no target";
    a_hard_link_to_itself: Tar::default().file("x", b"").hard_link("x", "x").finish() => "has no target";
    a_hard_link_to_a_directory: Tar::default().directory("d", 0o755).hard_link("x", "d").finish() => "has no target";
    a_whiteout_of_the_parent: Tar::default().file(".wh...", b"").finish() => "names nothing";
    a_name_with_a_nul: Tar::default().pax(&[("path", b"a\0b")]).file("x", b"").finish() => "contains a NUL";
    a_component_that_is_too_long:
        Tar::default().pax(&[("path", &[b'a'; 256])]).file("x", b"").finish() => "too long";
    a_path_that_is_too_deep:
        Tar::default().pax(&[("path", "a/".repeat(300).as_bytes())]).directory("x", 0o755).finish() => "directories deep";
    a_file_as_the_root: Tar::default().file("./.", b"").finish() => "is empty";
    a_truncated_file:
        Tar::default().entry(&Header { size: Some(100_000), ..Header::default() }, b"short").unfinished() => "truncated";
    a_size_that_is_no_number: {
        let mut layer = Tar::default().file("x", b"").finish();
        layer[124] = b'z';
        layer
    } => "neither a tar archive";
    an_extended_header_beyond_all_bounds:
        Tar::default().entry(&Header { kind: b'x', size: Some(1 << 30), ..Header::default() }, b"").finish()
        => "extended header";
    extended_headers_without_end:
        (0..100).fold(Tar::default(), |tar, _| tar.pax(&[("comment", b"x")])).finish() => "extended headers";
    an_unknown_kind: Tar::default().entry(&Header { kind: b'Z', ..Header::default() }, b"").finish() => "unknown type";
    a_sparse_map_beyond_the_file:
        Tar::default()
            .pax(&[("GNU.sparse.major", b"0"), ("GNU.sparse.map", b"100,5"), ("GNU.sparse.size", b"10")])
            .file("x", b"12345")
            .finish()
        => "sparse map";
    a_layer_that_is_no_archive: b"hello".to_vec() => "neither a tar archive";
}

#[test]
fn a_damaged_archive_is_an_error_of_that_archive_only() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let whole = oci_archive(&[Image::new("good", vec![Tar::default().file("x", b"content").finish()])]);
    let good = machine.archive("good.tar", &whole);
    for cut in (0..whole.len()).step_by(509) {
        let bad = machine.archive("bad.tar", &whole[..cut]);
        let problems = machine.import(&store, &bad);
        // Only the end mark may be missing.
        assert!(!problems.is_empty() || cut >= whole.len() - 1024, "cut at {cut}");
    }
    for position in (0..whole.len() - 1024).step_by(101) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x55;
        let bad = machine.archive("bad.tar", &bytes);
        // Padding and fields that nobody uses may change; what is imported is verified all the same.
        machine.import(&store, &bad);
    }
    assert_eq!(machine.import(&store, &good), [""; 0]);
    let (_, image) = store.resolve(&"good".parse().unwrap()).unwrap();
    assert_eq!(support::content(&store, image.chain[0], "x"), b"content");
}

#[test]
fn a_blob_that_is_not_its_digest_is_refused() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    for method in [support::Method::Plain, support::Method::Gzip, support::Method::Zstd] {
        let mut image = Image::new("bad", vec![Tar::default().file("x", b"content content").finish()]);
        image.layers[0].0 = method;
        let bytes = oci_archive(&[image]);
        // The layer is the second entry; its last bytes are padding of tar or the checksum of the compression.
        let blob = 1024 + 512;
        let mut changed = bytes.clone();
        changed[blob + 4] ^= 1;
        let problems = machine.import(&store, &machine.archive("bad.tar", &changed));
        assert_eq!(problems.len(), 1, "{method:?}");
        assert!(store.resolve(&"bad".parse().unwrap()).is_none());
    }
}

#[test]
fn the_hosts_own_attributes_are_not_set() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let layer = Tar::default()
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.kept", b"yes")])
        .directory("d", 0o755)
        .finish();
    let archive = machine.archive("x.tar", &oci_archive(&[Image::new("x", vec![layer])]));
    assert_eq!(machine.import(&store, &archive), [""; 0]);
    let (_, image) = store.resolve(&"x".parse().unwrap()).unwrap();
    let Some(Found::Directory(directory)) = store.merged(&image.chain).unwrap().find(b"d").unwrap() else {
        panic!("there is no directory");
    };
    assert_eq!(directory.top().attributes().unwrap(), [(b"user.kept".to_vec(), b"yes".to_vec())]);
}

#[test]
fn a_size_beyond_all_bounds() {
    let header = Header { size: Some(0o77_777_777_777 - 1), ..Header::default() };
    if let Some(problem) = refused(Tar::default().entry(&header, b"").finish()) {
        // A disk with less than these 8 GiB free is noticed first.
        assert!(problem.contains("truncated") || problem.contains("has no room"), "{problem}");
    }
}

/// Unpacks a layer within these limits; why it was refused.
fn limited(layer: &[u8], most: Limits) -> Option<LayerError> {
    let folder = tempfile::tempdir().unwrap();
    let place = File::open(folder.path()).unwrap();
    let memory = Memory::new(&|| Ok(()));
    let target = Target { file: tempfile::tempfile().unwrap(), place: place.as_fd(), uuid: [0; 16], memory: &memory };
    let none = || Ok(Merged::new(Vec::new())?);
    layer::unpack_within(layer, target, &Lower::new(&none), Room::new(Some(0)), most).err()
}

#[test]
fn a_layer_of_too_many_entries() {
    let named = |count: u32| (0..count).fold(Tar::default(), |tar, number| tar.directory(&number.to_string(), 0o755));
    // Also what leaves nothing in the image costs time.
    let unseen = |count: u32| (0..count).fold(Tar::default(), |tar, _| tar.file(".wh..wh.plnk", b""));
    let most = Limits { entries: 10, ..Limits::default() };
    for tar in [named, unseen] {
        assert!(limited(&tar(10).finish(), most).is_none());
        // It ends there, whatever comes behind.
        let more = tar(11).data(&[b'x'; 512]).finish();
        assert!(matches!(limited(&more, most), Some(LayerError::Entries)));
    }
}

#[test]
fn a_layer_of_too_many_bytes() {
    let files = |sizes: [usize; 2]| Tar::default().file("a", &vec![1; sizes[0]]).file("b", &vec![1; sizes[1]]).finish();
    let most = Limits { bytes: 100_000, ..Limits::default() };
    assert!(limited(&files([20_000, 20_000]), most).is_none());
    // The sum counts, also of what does not get into the image.
    assert!(matches!(limited(&files([50_000, 50_001]), most), Some(LayerError::Bytes)));
    let unseen = Tar::default().file(".wh..wh.a", &[1; 50_000]).file(".wh..wh.b", &[1; 50_001]).finish();
    assert!(matches!(limited(&unseen, most), Some(LayerError::Bytes)));
    // Inodes are bytes as well: a node has none in the archive.
    let node = |tar: Tar, number: u32| tar.entry(&pipe(&number.to_string()), b"");
    let nodes = |count: u32| (0..count).fold(Tar::default(), node).finish();
    assert!(limited(&nodes(500), most).is_none());
    assert!(matches!(limited(&nodes(4000), most), Some(LayerError::Bytes)));
}

/// A named pipe.
fn pipe(name: &str) -> Header<'_> {
    Header { kind: b'6', name: name.as_bytes(), ..Header::default() }
}

#[test]
fn a_layer_that_claims_too_many_bytes() {
    let claiming = |size: u64| Tar::default().pax(&[("size", size.to_string().as_bytes())]).file("x", b"").finish();
    // Nothing of it is read.
    let beyond = claiming(limits::LAYER_BYTES + 1);
    assert!(matches!(limited(&beyond, Limits::default()), Some(LayerError::Bytes)));
    let within = limited(&claiming(limits::LAYER_BYTES), Limits::default());
    assert!(matches!(within, Some(LayerError::Tar(_) | LayerError::NoSpace { .. })), "{within:?}");
    let sparse = |size: u64, at: u64| {
        let (size, map) = (size.to_string(), format!("{at},1"));
        let records =
            [("GNU.sparse.major", &b"0"[..]), ("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", size.as_bytes())];
        limited(&Tar::default().pax(&records).file("x", b"1").finish(), Limits::default())
    };
    assert!(sparse(1 << 40, 1 << 39).is_none());
    // Beyond the format, then with chunks that are beyond the limit, before and behind the one byte, of the last entry too.
    for (size, at) in [(1 << 62, 0), (1 << 60, 1 << 59), (1 << 60, (1 << 60) - 1), (1 << 56, 0)] {
        let error = sparse(size, at);
        assert!(matches!(error, Some(LayerError::Bytes)), "{size} at {at}: {error:?}");
    }
}

#[test]
fn a_layer_whose_names_take_too_much_memory() {
    // A directory may be there many times, each time with attributes.
    let attributes = [("SCHILY.xattr.user.x", &[b'x'; 60_000][..])];
    let once = Tar::default().pax(&attributes).directory("d", 0o755).unfinished();
    let times = |count: usize| [once.repeat(count), vec![0; 1024]].concat();
    assert!(limited(&times(700), Limits::default()).is_none());
    assert!(matches!(limited(&times(800), Limits::default()), Some(LayerError::Names)));
}

/// What an archive holds.
fn contents(bytes: &[u8]) -> Result<Contents, ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    let spool = File::open(folder.path()).unwrap();
    Archive::receive(bytes, "x.tar", spool.as_fd(), Room::new(Some(0)))?.contents()
}

#[test]
fn an_archive_of_too_many_entries() {
    let empty = Tar::default().file("x", b"").unfinished();
    let of = |count: u64| [empty.repeat(usize::try_from(count).unwrap()), vec![0; 1024]].concat();
    assert!(matches!(contents(&of(limits::ARCHIVE_ENTRIES)), Err(ArchiveError::NoImages)));
    assert!(matches!(contents(&of(limits::ARCHIVE_ENTRIES + 1)), Err(ArchiveError::Entries)));
}

#[test]
fn an_archive_of_too_many_images() {
    let config = Image::new("x", vec![Vec::new()]).config();
    let manifest = |number: usize| {
        let (config, layer) = (descriptor("config.v1+json", &config, ""), descriptor("layer.v1.tar", b"", ""));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"annotations":{{"number":"{number}"}}}}"#)
    };
    // So many in the layout, of which so many are different, and so many of docker save.
    let archive = |named: usize, different: usize, saved: usize| {
        let mut tar = Tar::default().file("config.json", &config).file(&blob_name(&config), &config);
        tar = tar.file(&blob_name(b""), b"");
        let manifests: Vec<String> = (0..different.max(1)).map(manifest).collect();
        for manifest in &manifests {
            tar = tar.file(&blob_name(manifest.as_bytes()), manifest.as_bytes());
        }
        let named = manifests.iter().cycle().take(named);
        let named: Vec<String> = named.map(|one| descriptor("manifest.v1+json", one.as_bytes(), "")).collect();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, named.join(","));
        let saved = vec![format!(r#"{{"Config":"config.json","Layers":["{}"]}}"#, blob_name(b"")); saved].join(",");
        tar.file("index.json", index.as_bytes()).file("manifest.json", format!("[{saved}]").as_bytes()).finish()
    };
    let most = limits::ARCHIVE_IMAGES;
    let found = |named, different, saved| contents(&archive(named, different, saved)).map(|found| found.images.len());
    assert_eq!(found(most, 1, 0).unwrap(), 1, "many names of one image");
    assert!(matches!(found(most + 1, 1, 0), Err(ArchiveError::Images)), "in the layout");
    assert_eq!(found(0, 0, most).unwrap(), most);
    assert!(matches!(found(0, 0, most + 1), Err(ArchiveError::Images)), "in manifest.json");
    assert_eq!(found(200, 200, most - 200).unwrap(), most);
    assert!(matches!(found(200, 200, most - 199), Err(ArchiveError::Images)), "in both together");
}

#[test]
fn a_hard_link_to_a_file_below_has_its_holes() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let records = [
        ("GNU.sparse.major", &b"0"[..]),
        ("GNU.sparse.map", b"0,512,400000000,512"),
        ("GNU.sparse.size", b"419430400"),
    ];
    let below = Tar::default().pax(&records).file("x", &[[7; 512], [8; 512]].concat()).finish();
    let image = Image::new("holes", vec![below, Tar::default().hard_link("y", "x").finish()]);
    let archive = machine.archive("holes.tar", &oci_archive(&[image]));
    assert_eq!(machine.import(&store, &archive), [""; 0]);
    let (_, record) = store.resolve(&"holes".parse().unwrap()).unwrap();
    let merged = store.merged(&record.chain).unwrap();
    for name in ["x", "y"] {
        let Some(Found::Other(file)) = merged.find(name.as_bytes()).unwrap() else { panic!("there is no {name}") };
        assert_eq!(file.size(), 419_430_400);
        let mut bytes = [0; 513];
        assert_eq!(file.read_at(400_000_000, &mut bytes[..512]).unwrap(), 512);
        assert_eq!(bytes[..512], [8; 512]);
    }
    let blocks = std::os::unix::fs::MetadataExt::blocks(&store.layer_path(record.chain[1]).metadata().unwrap());
    assert!(blocks * 512 < 10 << 20, "{blocks} blocks");
}
