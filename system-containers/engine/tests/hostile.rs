//! Layers and archives that mean harm, or are damaged: each is refused with its reason, and nothing leaves its root.

mod support;

use berth_engine::merged::Found;
use support::{Header, Image, Machine, Tar, oci_archive};

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
    a_symbolic_link_to_an_absolute_directory:
        Tar::default().symlink("link", "/tmp").file("link/berth-escaped", b"").finish() => "leaves the image";
    a_symbolic_link_that_goes_up:
        Tar::default().symlink("link", "../../../../outside").file("link/x", b"").finish() => "leaves the image";
    a_chain_of_symbolic_links:
        Tar::default().directory("a", 0o755).symlink("a/b", "..").symlink("c", "a/b/..").file("c/x", b"").finish()
        => "leaves the image";
    a_parent_made_below_an_escaping_link:
        Tar::default().symlink("link", "/tmp").file("link/new/directory/x", b"").finish() => "leaves the image";
    a_directory_below_an_escaping_link:
        Tar::default().symlink("link", "/tmp").directory("link/berth-escaped", 0o777).finish() => "leaves the image";
    a_symbolic_link_loop: Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish() => "open /a";
    a_magic_link: Tar::default().symlink("link", "/proc/self/root").file("link/x", b"").finish() => "leaves the image";
    a_whiteout_below_an_escaping_link:
        Tar::default().symlink("link", "/tmp").entry(&long(b".wh.", b'0'), b"").finish() => "names nothing";
    a_hard_link_to_the_outside: Tar::default().hard_link("x", "../../outside").finish() => "contains \"..\"";
    a_hard_link_to_an_absolute_path: Tar::default().hard_link("x", "/etc/passwd").finish() => "has no target";
    a_hard_link_that_goes_up_from_the_root:
        Tar::default().hard_link("x", "/../etc/passwd").finish() => "contains \"..\"";
    a_hard_link_to_the_root: Tar::default().hard_link("x", "/").finish() => "has no target";
    a_hard_link_through_an_escaping_link:
        Tar::default().symlink("link", "/etc").hard_link("x", "link/passwd").finish() => "leaves the image";
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
