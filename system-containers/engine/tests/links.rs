//! Where names lead through links, and where not because a layer hides them: the same layers by the engine and by umoci.

mod support;

use std::path::Path;

use support::Tar;
use support::tree::{alone, assert_equal};
use support::umoci::{bench, both};

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
