//! Layers that are images. They are made by mkfs.erofs, whose images are the reference.
//!
//! fs-verity is not here: the kernels that tests run on by themselves have none. It is seen in the booted machine.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_runtime::{Layer, Rootfs};

use super::Test;
use crate::container::Case;

pub const CASES: &[Test] = &[
    ("an_image_is_a_layer_that_containers_share", an_image_is_a_layer_that_containers_share),
    ("an_image_that_has_changed_is_mounted_anew", an_image_that_has_changed_is_mounted_anew),
    ("an_image_in_memory_is_a_layer", an_image_in_memory_is_a_layer),
    ("a_mapped_image_keeps_its_owners", a_mapped_image_keeps_its_owners),
    ("a_layer_without_its_protection_is_refused", a_layer_without_its_protection_is_refused),
    ("an_image_that_is_none_is_refused", an_image_that_is_none_is_refused),
];

/// An image with a file `layer` of this content, owned by 33.
fn image(case: &Case, name: &str, content: &str) -> PathBuf {
    let folder = case.directory.path().join(format!("{name}-tree"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("layer"), content).unwrap();
    std::os::unix::fs::chown(folder.join("layer"), Some(33), Some(33)).unwrap();
    let image = case.directory.path().join(format!("{name}.new"));
    let made = Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(&folder).output();
    let made = made.expect("mkfs.erofs, which the build of the image needs too");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let target = case.directory.path().join(name);
    std::fs::rename(image, &target).unwrap();
    target
}

fn layer(case: &Case, file: &Path, verity: Option<[u8; 32]>) -> Layer {
    let mount = case.directory.path().join("layers").join(file.file_name().unwrap());
    std::fs::create_dir_all(mount.parent().unwrap()).unwrap();
    Layer::Image { file: file.to_owned(), verity, mount }
}

/// The image over the programs, and something writable over both.
fn stack(case: &mut Case, layer: Layer, mapped: bool) -> PathBuf {
    let [upper, work] = ["changes/upper", "changes/work"].map(|name| case.directory.path().join(name));
    for directory in [&upper, &work] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::os::unix::fs::chown(case.root(), Some(0), Some(0)).unwrap();
    let layers = vec![layer, Layer::Directory(case.root())];
    case.rootfs = Rootfs::Overlay { layers, upper: Some(upper.clone()), work: Some(work), mapped };
    upper
}

/// How many mounts are in the folder of a case.
fn mounts(case: &Case) -> usize {
    let folder = format!(" {}/layers/", case.directory.path().display());
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(&folder)).count()
}

fn unmount(case: &Case, kept: &[&str]) {
    let kept: BTreeSet<&OsStr> = kept.iter().map(OsStr::new).collect();
    berth_runtime::remove_layers_but(&case.directory.path().join("layers"), &kept).unwrap();
}

fn an_image_is_a_layer_that_containers_share() {
    // A copy that is made on the way up keeps its number, and nothing seems to be on another device.
    let mut case = Case::new(
        "cat /layer; before=$(stat -c %d:%i /layer); echo changed > /layer; \
         [ $(stat -c %d:%i /layer) = $before ] && [ ${before%:*} = $(stat -c %d /) ] && cat /layer",
    );
    let file = image(&case, "shared", "content\n");
    let layer = layer(&case, &file, None);
    let upper = stack(&mut case, layer, false);
    assert_eq!(case.run().output, "content\nchanged\n");
    assert_eq!(mounts(&case), 1);
    std::fs::remove_file(upper.join("layer")).unwrap();
    assert_eq!(case.run().output, "content\nchanged\n");
    assert_eq!(mounts(&case), 1, "the second container has a mount of its own");
    unmount(&case, &["shared"]);
    assert_eq!(mounts(&case), 1);
    unmount(&case, &[]);
    assert_eq!(mounts(&case), 0);
    assert_eq!(std::fs::read_dir(case.directory.path().join("layers")).unwrap().count(), 0);
}

fn an_image_that_has_changed_is_mounted_anew() {
    let mut case = Case::new("cat /layer");
    let file = image(&case, "changing", "before");
    let layer = layer(&case, &file, None);
    stack(&mut case, layer, false);
    assert_eq!(case.run().output, "before");
    assert_eq!(image(&case, "changing", "after"), file);
    assert_eq!(case.run().output, "after");
    assert_eq!(mounts(&case), 1);
    unmount(&case, &[]);
}

fn an_image_in_memory_is_a_layer() {
    let mut case = Case::new("cat /layer");
    let file = image(&case, "in-memory", "content");
    let memory = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let copy = memory.path().join("in-memory");
    std::fs::copy(&file, &copy).unwrap();
    let layer = layer(&case, &copy, None);
    stack(&mut case, layer, false);
    assert_eq!(case.run().output, "content");
    let device = |line: &str| line.contains("/layers/in-memory ") && line.contains(" - erofs /dev/loop");
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounted.lines().any(device), "{mounted}");
    unmount(&case, &[]);
    assert_eq!(mounts(&case), 0);
}

fn a_mapped_image_keeps_its_owners() {
    let mut case = Case::unprivileged("stat -c %u:%g /layer; echo changed > /layer");
    let file = image(&case, "mapped", "content");
    let layer = layer(&case, &file, None);
    let upper = stack(&mut case, layer, true);
    assert_eq!(case.run().output, "33:33\n");
    let changed = std::fs::metadata(upper.join("layer")).unwrap();
    assert_eq!((changed.uid(), changed.gid()), (33, 33));
    unmount(&case, &[]);
}

fn a_layer_without_its_protection_is_refused() {
    let mut case = Case::new("echo it runs");
    let file = image(&case, "unprotected", "content");
    let layer = layer(&case, &file, Some([0xab; 32]));
    stack(&mut case, layer, false);
    let reason = case.fails();
    assert!(reason.contains("unprotected\" was changed on disk"), "{reason}");
    assert!(reason.contains("missing") && reason.contains(&"ab".repeat(32)), "{reason}");
    assert_eq!(mounts(&case), 0);
}

fn an_image_that_is_none_is_refused() {
    let mut case = Case::new("echo it runs");
    let file = case.directory.path().join("none");
    std::fs::write(&file, vec![0; 8192]).unwrap();
    let layer = layer(&case, &file, None);
    stack(&mut case, layer, false);
    let reason = case.fails();
    assert!(reason.contains("mount the image's layers") && reason.contains("/none on "), "{reason}");
}
