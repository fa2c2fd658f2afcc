//! Where names lead through links, and where not because a layer hides them: the same layers by the engine and by umoci.

mod support;

use std::path::Path;

use support::tree::{alone, assert_equal, differences};
use support::umoci::{bench, both};
use support::{Header, Tar};

/// Attempts to get out by a symbolic link, and images that were built on one (`/var/run` to `/run`, by tools that write what
/// they merged as one layer): as seen by a process whose root the image is, with and without the layers below having a part
/// in it.
#[test]
fn links_lead_where_they_do_inside_the_image() {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let tar = support::Tar::default;
    let layers = [
        tar().directory("run", 0o700).directory("var", 0o755).symlink("var/run", "/run").file("var/run/pid", b"1"),
        tar().symlink("link", "/tmp").file("link/berth-escaped", b"x").directory("link/sub", 0o777),
        tar().symlink("link", "/tmp").file("link/new/directory/x", b"x").symlink("link/new/up", "/link/../.."),
        tar().symlink("link", "../../../../outside").file("link/x", b"x").file("outside/y", b"y"),
        tar().directory("a", 0o755).symlink("a/b", "..").symlink("c", "a/b/..").file("c/x", b"x"),
        tar().symlink("magic", "/proc/self/root").file("magic/x", b"x"),
        tar().directory("d", 0o755).file("d/f", b"f").symlink("e", "/d").hard_link("g", "e/f").file("e/.wh.h", b""),
        tar().symlink("e", "tmp/../d").file("e/.wh..wh..opq", b"").file("e/new", b"n"),
        // From here on only what is below makes something of them.
        tar().directory("d", 0o755).file("d/h", b"new").symlink("e", "/through").hard_link("g", "e/h"),
        tar().directory("d", 0o755).file("d/h", b"new").hard_link("g", "through/h"),
        tar().symlink("e", "/d").hard_link("g", "e/h"),
    ];
    let below = || {
        let folders = tar().directory("outside", 0o711).directory("tmp", 0o1777).directory("d", 0o711);
        folders.file("d/h", b"h").symlink("through", "d")
    };
    let whole = layers.len() - 3;
    for (number, layer) in layers.into_iter().enumerate() {
        let layer = layer.finish();
        let forms = [("alone", vec![layer.clone()]), ("over", vec![below().finish(), layer])];
        for (form, layers) in forms.into_iter().skip(usize::from(number >= whole)) {
            let [ours, theirs] = both(&machine, &format!("{form}-{number}"), layers);
            assert_equal(&ours.expect("we take it"), &theirs.expect("umoci takes it"));
        }
    }
    assert!(!Path::new("/tmp/berth-escaped").exists() && !Path::new("/proc/self/root/x").exists());
}

/// What a layer below has for the layers that hide it.
fn below() -> Vec<u8> {
    let node = |kind, name: &'static [u8]| Header { kind, name, device: (1, 3), ..Header::default() };
    let tar = Tar::default().directory("a", 0o700).file("a/old", b"old").symlink("a/b", "/x").directory("a/c", 0o711);
    let tar = tar.file("a/c/f", b"f").directory("x", 0o750).file("x/f", b"f").file("f", b"f").symlink("s", "nowhere");
    let tar = tar.entry(&node(b'3', b"null"), b"").entry(&node(b'4', b"disk"), b"").entry(&node(b'6', b"pipe"), b"");
    tar.symlink("l", "x").symlink("u", "a/b/../c").finish()
}

/// Layers that hide what is below them, and go on in the same places. A mark never hides what its own layer has, whatever
/// comes first.
fn hiding() -> Vec<(&'static str, Tar)> {
    let tar = Tar::default;
    let gone = || tar().file(".wh.a", b"");
    let emptied = || tar().directory("a", 0o755).file("a/.wh..wh..opq", b"");
    let bare = || tar().file(".wh..wh..opq", b"");
    vec![
        ("a link in what is gone", gone().file("a/b/f", b"new")),
        ("a link in what is emptied", emptied().file("a/b/f", b"new")),
        ("a link below a file", tar().file("a", b"file").file("a/b/f", b"new")),
        ("a link upwards out of what is gone", gone().file("u/f", b"new")),
        ("a link into what is gone", tar().file(".wh.x", b"").file("l/f", b"new")),
        ("a directory in what is gone", gone().file("a/c/g", b"g")),
        ("a directory in what is emptied", emptied().file("a/c/g", b"g")),
        ("a mark in what is gone", gone().file("a/.wh.c", b"")),
        ("an opaque mark in what is gone", gone().file("a/.wh..wh..opq", b"")),
        ("marks behind a link that is gone", gone().file("a/b/.wh.f", b"").file("a/b/.wh..wh..opq", b"")),
        ("a hard link to what is gone", gone().hard_link("g", "a/old")),
        ("a hard link to what is emptied", emptied().hard_link("g", "a/old")),
        ("a hard link below a file", tar().file("a", b"file").hard_link("g", "a/old")),
        ("a hard link over a link that is gone", gone().hard_link("g", "a/b/f")),
        ("a file, then a directory", tar().file("a", b"file").directory("a", 0o755).file("a/new", b"n")),
        ("a link, then a directory", tar().symlink("a", "x").directory("a", 0o755).file("a/new", b"n")),
        ("a mark, a file, then a directory", gone().file("a", b"file").directory("a", 0o755).file("a/c/g", b"g")),
        ("a hard link to a link", tar().hard_link("g", "s")),
        ("hard links to nodes", tar().hard_link("g", "null").hard_link("h", "disk").hard_link("i", "pipe")),
        ("a hard link to a directory", tar().hard_link("g", "x")),
        ("a mark behind what it does not hide", tar().file("a/b/g", b"g").file("a/c/g", b"g").file(".wh.a", b"")),
        ("an opaque mark behind it", tar().file("a/b/g", b"g").file("a/c/g", b"g").file("a/.wh..wh..opq", b"")),
        ("all is gone", bare().file("new", b"n")),
        ("all is gone, and comes anew", bare().file("a/c/g", b"g").file("a/b/f", b"f").directory("x", 0o755)),
        (
            "all is gone but its own",
            tar().file("a/c/g", b"g").file("f", b"own").file("x/g", b"g").file(".wh..wh..opq", b""),
        ),
        ("a hard link to what is gone with all", bare().hard_link("g", "f")),
        (
            "all is gone twice",
            tar().directory("/", 0o711).file("/.wh..wh..opq", b"").file("n", b"").file("./.wh..wh..opq", b""),
        ),
    ]
}

/// What hides marks of its own layer, or what that layer has of those below for a hard link's sake.
fn hiding_marks() -> Vec<(&'static str, Tar)> {
    let tar = Tar::default;
    let linked = |target: &str| tar().hard_link("g", target);
    vec![
        ("a mark, then an opaque mark", tar().file("a/.wh.c", b"").file("a/.wh..wh..opq", b"")),
        ("a mark, then another above it", tar().directory("a", 0o755).file("a/.wh.c", b"").file(".wh.a", b"")),
        ("a mark deep below another", tar().directory("a/c", 0o755).file("a/c/.wh.f", b"").file("a/.wh..wh..opq", b"")),
        ("a mark, then its directory is gone", tar().file("a/c/.wh.f", b"").file("a/.wh.c", b"")),
        (
            "a mark, then an opaque mark of what its directory is in",
            tar().file("a/c/.wh.f", b"").file("a/.wh..wh..opq", b""),
        ),
        ("a mark, then one two above", tar().file("a/c/.wh.f", b"").file(".wh.a", b"")),
        ("a mark, then all is gone", tar().file("a/c/.wh.f", b"").file(".wh..wh..opq", b"")),
        ("an opaque mark, then its directory is gone", tar().file("a/c/.wh..wh..opq", b"").file("a/.wh.c", b"")),
        ("an opaque mark, then another above it", tar().file("a/c/.wh..wh..opq", b"").file("a/.wh..wh..opq", b"")),
        ("a mark beside what stays", tar().file("a/c/.wh.f", b"").file("a/c/new", b"n").file("a/.wh.c", b"")),
        (
            "a mark beside what stays, for all",
            tar().file("a/c/.wh.f", b"").file("a/c/new", b"n").file(".wh..wh..opq", b""),
        ),
        (
            "a mark in what is a directory of its own later",
            tar().file("a/c/.wh.f", b"").directory("a/c", 0o700).file(".wh.a", b""),
        ),
        (
            "a mark, its directory is gone and comes anew",
            tar().file("a/c/.wh.f", b"").file("a/.wh.c", b"").file("a/c/n", b""),
        ),
        ("a hard link, then its target's directory is gone", linked("a/c/f").file("a/.wh.c", b"")),
        ("a hard link, then its target's directory is emptied", linked("a/c/f").file("a/.wh..wh..opq", b"")),
        ("a hard link, then a mark", linked("f").file(".wh.f", b"")),
        ("a hard link, then a mark and a file", linked("f").file(".wh.f", b"").file("f", b"new")),
        ("a hard link, then an opaque mark", linked("a/old").file("a/.wh..wh..opq", b"")),
        ("a hard link, then all is gone", linked("f").file(".wh..wh..opq", b"")),
        ("hard links, then their target is gone", linked("f").hard_link("h", "g").file(".wh.f", b"")),
    ]
}

fn compare(layers: Vec<(&'static str, Tar)>) {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let mut different = Vec::new();
    for (number, (what, layer)) in layers.into_iter().enumerate() {
        let [ours, theirs] = both(&machine, &format!("hiding-{number}"), vec![below(), layer.finish()]);
        let text = match (&ours, &theirs) {
            (Some(ours), Some(theirs)) => differences(ours, theirs),
            (None, None) => String::new(),
            _ => format!("taken by us: {}, by umoci: {}", ours.is_some(), theirs.is_some()),
        };
        if !text.is_empty() {
            different.push(format!("{what}:\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn what_a_layer_hides_is_not_followed() {
    compare(hiding());
}

#[test]
fn marks_and_copies_go_with_what_hides_them() {
    compare(hiding_marks());
}
