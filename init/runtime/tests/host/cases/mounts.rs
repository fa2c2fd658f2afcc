//! The root and what is mounted in it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use berth_runtime::spec::IdMapping;
use berth_runtime::{Layer, Rootfs};

use super::Test;
use crate::container::Case;

pub const CASES: &[Test] = &[
    ("the_host_is_out_of_sight", the_host_is_out_of_sight),
    ("a_read_only_root_cannot_be_written", a_read_only_root_cannot_be_written),
    ("options_of_a_bind_mount_are_in_force", options_of_a_bind_mount_are_in_force),
    ("recursive_read_only_goes_all_the_way", recursive_read_only_goes_all_the_way),
    ("a_file_is_bound_and_its_place_is_made", a_file_is_bound_and_its_place_is_made),
    ("a_mount_does_not_follow_links_out_of_the_root", a_mount_does_not_follow_links_out_of_the_root),
    ("proc_on_a_link_is_refused", proc_on_a_link_is_refused),
    ("a_mapped_volume_keeps_its_owners_on_disk", a_mapped_volume_keeps_its_owners_on_disk),
    ("a_volume_is_mapped_by_its_own_numbers", a_volume_is_mapped_by_its_own_numbers),
    ("an_overlay_is_a_root", an_overlay_is_a_root),
    ("a_mapped_overlay_keeps_its_owners_on_disk", a_mapped_overlay_keeps_its_owners_on_disk),
    ("mounts_of_the_container_do_not_reach_the_host", mounts_of_the_container_do_not_reach_the_host),
    ("tmpcopyup_brings_the_images_files", tmpcopyup_brings_the_images_files),
];

fn the_host_is_out_of_sight() {
    for case in [Case::new("ls /; wc -l < /proc/self/mountinfo"), Case::unprivileged("ls /")] {
        let output = case.run().output;
        assert!(!output.contains("home") && output.contains("usr"), "{output}");
    }
}

fn a_read_only_root_cannot_be_written() {
    for mut case in [
        Case::new("touch /new; touch /dev/new && echo dev"),
        Case::unprivileged("touch /new; touch /dev/new && echo dev"),
    ] {
        case.spec.root.as_mut().unwrap().readonly = true;
        let output = case.run().output;
        assert!(output.contains("/new': Read-only file system") && output.ends_with("dev\n"), "{output}");
    }
}

fn options_of_a_bind_mount_are_in_force() {
    for mut case in
        [Case::new("grep ' /data ' /proc/self/mountinfo"), Case::unprivileged("grep ' /data ' /proc/self/mountinfo")]
    {
        let data = tempfile::tempdir().unwrap();
        case.bind(data.path(), "/data", &["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]);
        let output = case.run().output;
        assert!(output.contains(" ro,nosuid,nodev,noexec,noatime"), "{output}");
    }
}

fn recursive_read_only_goes_all_the_way() {
    for mut case in
        [Case::new("touch /data/shm/x; touch /data/x"), Case::unprivileged("touch /data/shm/x; touch /data/x")]
    {
        case.bind("/dev".as_ref(), "/data", &["rbind", "rro"]);
        assert_eq!(case.run().output.matches("Read-only file system").count(), 2);
    }
}

fn a_file_is_bound_and_its_place_is_made() {
    for mut case in [Case::new("cat /etc/deep/file"), Case::new("cat /etc/deep/file")] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        case.bind(file.path(), "/etc/deep/file", &["bind", "ro"]);
        assert_eq!(case.run().output, "content");
    }
}

/// CVE-2021-30465 and its kin: the image turns a mount point into a link to the host.
fn a_mount_does_not_follow_links_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let mut case = Case::new("ls /escape/");
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("inside"), "").unwrap();
    let link = PathBuf::from("../../../../../../..").join(outside.path().strip_prefix("/").unwrap());
    std::os::unix::fs::symlink(link, case.root().join("escape")).unwrap();
    std::fs::create_dir_all(case.root().join(outside.path().strip_prefix("/").unwrap())).unwrap();
    case.bind(data.path(), "/escape", &["bind"]);
    assert_eq!(case.run().output, "inside\n");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// CVE-2019-19921, CVE-2023-27561.
fn proc_on_a_link_is_refused() {
    let case = Case::new("true");
    std::fs::create_dir(case.root().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", case.root().join("proc")).unwrap();
    let text = case.fails();
    assert!(text.contains("mount proc on /proc") && text.contains("symbolic link"), "{text}");
}

fn a_mapped_volume_keeps_its_owners_on_disk() {
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("old"), "").unwrap();
    let mut case = Case::unprivileged("stat -c %u:%g /data/old; touch /data/new && chown 33:33 /data/new");
    case.bind(volume.path(), "/data", &["bind", "idmap"]);
    assert_eq!(case.run().output, "0:0\n");
    let made = std::fs::metadata(volume.path().join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (33, 33));
}

fn a_volume_is_mapped_by_its_own_numbers() {
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("old"), "").unwrap();
    let mut case = Case::new("stat -c %u:%g /data/old");
    case.bind(volume.path(), "/data", &["bind", "idmap"]);
    let mappings = Some(vec![IdMapping { container_id: 0, host_id: 1000, size: 10 }]);
    let mount = case.spec.mounts.last_mut().unwrap();
    (mount.uid_mappings, mount.gid_mappings) = (mappings.clone(), mappings);
    assert_eq!(case.run().output, "1000:1000\n");
}

/// Layers below, and a writable one; with a program's directories in the lowest.
fn overlay(case: &mut Case, mapped: bool) -> PathBuf {
    let base = case.directory.path().to_owned();
    let [top, upper, work] = ["a layer: the top", "changes/upper", "changes/work"].map(|name| base.join(name));
    for directory in [&top, &upper, &work] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::os::unix::fs::chown(case.root(), Some(0), Some(0)).unwrap();
    std::fs::write(top.join("layer"), "top").unwrap();
    std::fs::write(case.root().join("layer"), "bottom").unwrap();
    std::fs::write(case.root().join("below"), "bottom").unwrap();
    case.rootfs = Rootfs::Overlay {
        layers: [top, case.root()].map(Layer::Directory).to_vec(),
        upper: Some(upper.clone()),
        work: Some(work),
        mapped,
    };
    upper
}

fn an_overlay_is_a_root() {
    let mut case = Case::new("cat /layer /below; echo changed > /below");
    let upper = overlay(&mut case, false);
    assert_eq!(case.run().output, "topbottom");
    assert_eq!(std::fs::read_to_string(upper.join("below")).unwrap(), "changed\n");
    assert_eq!(std::fs::read_to_string(case.root().join("below")).unwrap(), "bottom");
}

fn a_mapped_overlay_keeps_its_owners_on_disk() {
    let script = "stat -c %u:%g /layer /below; cat /layer; echo changed > /below; touch /new; chown 33:44 /new; rm /layer; mkdir /dir";
    let mut case = Case::unprivileged(script);
    let upper = overlay(&mut case, true);
    assert_eq!(case.run().output, "0:0\n0:0\ntop");
    let owner =
        |name: &str| std::fs::metadata(upper.join(name)).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    assert_eq!((owner("below"), owner("new"), owner("dir")), ((0, 0), (33, 44), (0, 0)));
    assert_eq!(std::fs::read_to_string(case.root().join("below")).unwrap(), "bottom");
}

fn mounts_of_the_container_do_not_reach_the_host() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let shared = tempfile::tempdir().unwrap();
    rustix::mount::mount("tmpfs", shared.path(), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    rustix::mount::mount_change(shared.path(), rustix::mount::MountPropagationFlags::SHARED).unwrap();
    std::fs::create_dir(shared.path().join("inner")).unwrap();
    let before = mounts();
    let mut case = Case::new("mount -t tmpfs none /data/inner && echo mounted");
    case.bind(shared.path(), "/data", &["rbind"]);
    assert_eq!(case.run().output, "mounted\n");
    assert_eq!(mounts(), before);
    rustix::mount::unmount(shared.path(), rustix::mount::UnmountFlags::empty()).unwrap();
}

fn tmpcopyup_brings_the_images_files() {
    let mut case = Case::new(
        "cat /data/file /data/inner/file; readlink /data/link; stat -c %a:%u /data/file; echo x > /data/file",
    );
    let data = case.root().join("data");
    std::fs::create_dir_all(data.join("inner")).unwrap();
    for file in ["file", "inner/file"] {
        std::fs::write(data.join(file), "content\n").unwrap();
    }
    std::os::unix::fs::symlink("file", data.join("link")).unwrap();
    std::os::unix::fs::chown(data.join("file"), Some(33), None).unwrap();
    std::fs::set_permissions(data.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    case.spec.mounts.push(berth_runtime::spec::Mount {
        destination: "/data".into(),
        kind: Some("tmpfs".into()),
        options: Some(vec!["tmpcopyup".into()]),
        ..Default::default()
    });
    assert_eq!(case.run().output, "content\ncontent\nfile\n640:33\n");
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "content\n");
}
