//! umoci beside the engine: what both make of one image.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::{is_installed, mount, run, tree};
use super::{Image, Machine, oci_archive, skip};

/// What is where.
pub type Tree = BTreeMap<PathBuf, String>;

/// A directory with an OCI layout `layout` and umoci's bundle `bundle`; none without the tools.
pub fn bench() -> Option<Machine> {
    for program in ["umoci", "skopeo", "tar"] {
        if !is_installed(program) {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    let machine = Machine::new()?;
    let layout = machine.path("layout").display().to_string();
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &format!("{layout}:base")]);
    run("umoci", &["unpack", "--image", &format!("{layout}:base"), &machine.path("bundle").display().to_string()]);
    // Without a layer it is no image.
    run("umoci", &["rm", "--image", &format!("{layout}:base")]);
    Some(machine)
}

/// Brings an archive of the machine into its store.
pub fn import(machine: &Machine, archive: &str) {
    let store = machine.store();
    assert_eq!(machine.import(&store, &machine.path("user-data/images").join(archive)), [""; 0]);
    store.commit().unwrap();
}

/// What umoci makes of an image of the layout.
pub fn unpack_by_umoci(machine: &Machine, tag: &str) -> PathBuf {
    try_unpack(machine, tag).expect("umoci takes it")
}

fn try_unpack(machine: &Machine, tag: &str) -> Option<PathBuf> {
    let bundle = machine.path(&format!("umoci-{tag}"));
    let image = format!("{}:{tag}", machine.path("layout").display());
    let output = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output().unwrap();
    output.status.success().then(|| bundle.join("rootfs"))
}

/// The trees that the engine and umoci make of these layers; none from who refuses them. Without the times of directories: one
/// that no layer names has that of its making.
pub fn both(machine: &Machine, name: &str, layers: Vec<Vec<u8>>) -> [Option<Tree>; 2] {
    let archive = machine.archive("made.tar", &oci_archive(&[Image::new(name, layers)]));
    let layout = format!("oci:{}:{name}", machine.path("layout").display());
    run("skopeo", &["copy", "--quiet", &format!("oci-archive:{}", archive.display()), &layout]);
    let store = machine.store();
    let is_taken = machine.import(&store, &archive).is_empty();
    store.commit().unwrap();
    drop(store);
    let ours = is_taken.then(|| timeless(&mount(machine, name, &format!("{name}:latest")).0));
    [ours, try_unpack(machine, name).map(|root| timeless(&root))]
}

fn timeless(root: &Path) -> Tree {
    let mut seen = tree(root);
    for entry in seen.values_mut().filter(|entry| entry.starts_with('4')) {
        *entry = entry.split(' ').enumerate().filter(|(place, _)| *place != 2).map(|(_, word)| word).collect();
    }
    seen
}
