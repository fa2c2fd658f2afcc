//! Images made by umoci and skopeo, unpacked by the engine and by umoci, compared entry by entry.
//!
//! What the engine unpacks is a stack of layers; it is looked at through overlayfs, as a container would see it.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags};
use support::Machine;
use support::client::Client;
use support::peer::{folder, offering, plain};
use support::tree::{alone, assert_equal, mount, mount_of, run, tree};
use support::umoci::{bench, both, import, unpack_by_umoci};

/// Adds what changed in the bundle as a layer; the new image has that tag.
fn repack(machine: &Machine, tag: &str) {
    let image = format!("{}:{tag}", machine.path("layout").display());
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, &machine.path("bundle").display().to_string()]);
}

/// A bench with an image of one layer and one of both.
fn layered() -> Option<Machine> {
    let machine = bench()?;
    let root = machine.path("bundle/rootfs");
    first_layer(&root);
    repack(&machine, "one");
    second_layer(&root);
    repack(&machine, "two");
    Some(machine)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, kind: FileType, mode: u32, device: u64) {
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(mode), device).unwrap();
}

/// Everything that a layer can hold.
fn first_layer(root: &Path) {
    for directory in ["bin", "etc/deep/er", "var/spool", "gone/below", "emptied", "replaced-by-file", "srv"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::write(root.join("bin/su"), b"program").unwrap();
    std::os::unix::fs::lchown(root.join("bin/su"), Some(0), Some(42)).unwrap();
    rustix::fs::chmod(root.join("bin/su"), Mode::from_raw_mode(0o6755)).unwrap();
    rustix::fs::chmod(root.join("var/spool"), Mode::from_raw_mode(0o3777)).unwrap();
    std::fs::write(root.join("var/spool/mine"), b"").unwrap();
    std::os::unix::fs::lchown(root.join("var/spool/mine"), Some(0), Some(0)).unwrap();
    // A version 2 capability set: cap_net_raw, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    std::fs::write(root.join("bin/ping"), b"ping").unwrap();
    rustix::fs::setxattr(root.join("bin/ping"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("etc"), "user.note", b"a\0\nb", XattrFlags::empty()).unwrap();
    std::fs::hard_link(root.join("bin/ping"), root.join("etc/deep/ping")).unwrap();
    symlink("../bin/ping", root.join("etc/ping")).unwrap();
    symlink("/nowhere/at/all", root.join("etc/absolute")).unwrap();
    symlink("x".repeat(300), root.join("etc/long-link")).unwrap();
    std::os::unix::fs::lchown(root.join("etc/ping"), Some(1000), Some(1001)).unwrap();
    std::fs::write(root.join("etc/name-of-100-".to_owned() + &"n".repeat(120)), b"1").unwrap();
    let long = root.join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(120));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::write(long.join("g".repeat(200)), b"long").unwrap();
    std::fs::write(root.join("etc/Grüße-\u{1F980}"), b"unicode").unwrap();
    std::fs::write(root.join("etc/large-owner"), b"").unwrap();
    std::os::unix::fs::lchown(root.join("etc/large-owner"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    node(&root.join("etc/null"), FileType::CharacterDevice, 0o666, rustix::fs::makedev(1, 3));
    node(&root.join("etc/disk"), FileType::BlockDevice, 0o660, rustix::fs::makedev(8, 300));
    node(&root.join("etc/pipe"), FileType::Fifo, 0o600, 0);
    std::fs::write(root.join("srv/data"), vec![7; 300_000]).unwrap();
    std::fs::write(root.join("gone/below/file"), b"").unwrap();
    std::fs::write(root.join("emptied/old"), b"").unwrap();
    std::fs::write(root.join("replaced-by-file/x"), b"").unwrap();
    std::fs::write(root.join("replaced-by-directory"), b"").unwrap();
    set_time(&root.join("srv/data"), 1, 999_999_999);
    set_time(&root.join("etc/ping"), 4_000_000_000, 5);
    set_time(&root.join("srv"), 12_345, 678);
    set_time(root, 99_999, 0);
}

/// Changes of every kind.
fn second_layer(root: &Path) {
    std::fs::remove_dir_all(root.join("gone")).unwrap();
    std::fs::remove_file(root.join("etc/deep/ping")).unwrap();
    std::fs::remove_dir_all(root.join("emptied")).unwrap();
    std::fs::create_dir(root.join("emptied")).unwrap();
    std::fs::write(root.join("emptied/new"), b"").unwrap();
    std::fs::remove_dir_all(root.join("replaced-by-file")).unwrap();
    std::fs::write(root.join("replaced-by-file"), b"now a file").unwrap();
    std::fs::remove_file(root.join("replaced-by-directory")).unwrap();
    std::fs::create_dir(root.join("replaced-by-directory")).unwrap();
    std::fs::write(root.join("replaced-by-directory/x"), b"").unwrap();
    // Its directory is unchanged and keeps its time, mode and attributes.
    std::fs::write(root.join("etc/deep/er/added"), b"").unwrap();
    rustix::fs::chmod(root.join("srv"), Mode::from_raw_mode(0o700)).unwrap();
    std::fs::write(root.join("srv/data"), b"changed").unwrap();
}

fn archive_layout(machine: &Machine, name: &str) {
    let archive = machine.path("user-data/images").join(name);
    let arguments =
        ["-C", machine.path("layout").to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."].map(String::from);
    run("tar", &arguments);
}

#[test]
fn an_image_of_umoci_unpacks_to_the_same_tree() {
    let _alone = alone();
    let Some(machine) = layered() else { return };
    archive_layout(&machine, "made.tar");
    import(&machine, "made.tar");
    for tag in ["one", "two"] {
        let mounted = mount(&machine, tag, &format!("made:{tag}"));
        assert_equal(&tree(&mounted.0), &tree(&unpack_by_umoci(&machine, tag)));
    }
}

#[test]
fn archives_of_skopeo_unpack_to_the_same_tree() {
    let _alone = alone();
    let Some(machine) = layered() else { return };
    let expected = tree(&unpack_by_umoci(&machine, "two"));
    let source = format!("oci:{}:two", machine.path("layout").display());
    let images = machine.path("user-data/images").display().to_string();
    let zstd = machine.path("zstd").display().to_string();
    run("skopeo", &["copy", &source, &format!("docker-archive:{images}/docker.tar:example/docker:1")]);
    run("skopeo", &["copy", &source, &format!("oci-archive:{images}/oci.tar:quay.io/example/oci:1")]);
    run("skopeo", &["copy", "--dest-compress-format", "zstd", &source, &format!("oci:{zstd}:1")]);
    run("tar", &["--sparse", "--format=gnu", "-C", &zstd, "-czf", &format!("{images}/zstd.tar.gz"), "."]);
    for (archive, name) in
        [("docker.tar", "example/docker:1"), ("oci.tar", "quay.io/example/oci:1"), ("zstd.tar.gz", "zstd:1")]
    {
        import(&machine, archive);
        let mounted = mount(&machine, &format!("seen-{archive}"), name);
        assert_equal(&tree(&mounted.0), &expected);
    }
}

#[test]
fn an_image_that_is_pulled_is_the_same_tree() {
    let _alone = alone();
    let Some(folder) = folder(&["docker-registry"]) else { return };
    let Some(machine) = layered() else { return };
    let expected = tree(&unpack_by_umoci(&machine, "two"));
    // umoci's layers are compressed, and skopeo lets them be.
    let source = format!("dir:{}", machine.path("plain").display());
    run("skopeo", &["copy", "--dest-decompress", &format!("oci:{}:two", machine.path("layout").display()), &source]);
    for method in ["gzip", "zstd", "zstd:chunked"] {
        let (peer, name) = offering(folder.path(), &source, method, 2);
        // A store of its own: layers that are there already are not pulled.
        let client = Client::new(&[]).unwrap().configured(&plain(&peer.name));
        assert_eq!(client.pull(&name).unwrap().layers, 2, "{method}");
        let mounted = mount_of(&client.store, &client.machine, "seen", &name);
        assert_equal(&tree(&mounted.0), &expected);
    }
}

#[test]
fn an_image_that_podman_builds_is_the_same_tree() {
    let _alone = alone();
    let Some(folder) = folder(&["podman"]) else { return };
    let Some(machine) = bench() else { return };
    let context = folder.path().join("context");
    std::fs::create_dir_all(context.join("sub")).unwrap();
    std::fs::write(context.join("sub/file"), b"content").unwrap();
    symlink("file", context.join("sub/link")).unwrap();
    rustix::fs::chmod(context.join("sub/file"), Mode::from_raw_mode(0o4751)).unwrap();
    let steps = "FROM scratch\nCOPY sub /first/sub\nCOPY --chown=7:8 sub/file /second/file\nLABEL made=by-podman\n\
        USER 7:8\nVOLUME /data\nEXPOSE 80/tcp\nSTOPSIGNAL SIGINT\nCMD [\"/first/sub/file\"]\n";
    std::fs::write(context.join("Containerfile"), steps).unwrap();
    let [root, state] = ["root", "run"].map(|name| folder.path().join(name).display().to_string());
    let podman = |words: &[&str]| {
        let place = ["--root", &root, "--runroot", &state, "--storage-driver", "vfs"];
        run("podman", &[&place[..], words].concat());
    };
    let images = machine.path("user-data/images").display().to_string();
    let context = context.display().to_string();
    let layout = machine.path("layout").display().to_string();
    for (format, form, layers) in
        [("oci", "oci-archive", "--layers=true"), ("docker", "docker-archive", "--layers=false")]
    {
        let name = format!("localhost/{format}:1");
        podman(&["build", "--quiet", "--isolation", "chroot", "--format", format, layers, "-t", &name, &context]);
        let archive = format!("{images}/{format}.tar");
        podman(&["save", "--quiet", "--format", form, "--output", &archive, &name]);
        import(&machine, &format!("{format}.tar"));
        run("skopeo", &["copy", &format!("{form}:{archive}"), &format!("oci:{layout}:{format}")]);
        let mounted = mount(&machine, &format!("seen-{format}"), &name);
        let seen = tree(&mounted.0);
        assert!(seen.contains_key(Path::new("first/sub/link")), "{seen:?}");
        assert_equal(&seen, &tree(&unpack_by_umoci(&machine, format)));
        let store = machine.store();
        let (_, record) = store.resolve(&name.parse().unwrap()).unwrap();
        let wishes = store.wishes(&record).unwrap();
        assert_eq!(wishes.user.as_deref(), Some("7:8"));
        assert_eq!(wishes.labels.unwrap().get("made").map(String::as_str), Some("by-podman"));
    }
}

/// As kaniko and Docker's own tools write them: everything is named from the root.
#[test]
fn absolute_names_and_targets_mean_the_images_root() {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let first = support::Tar::default()
        .directory("/", 0o755)
        .directory("/usr", 0o755)
        .directory("./usr/bin", 0o755)
        .file("/usr/bin/x", b"program")
        .hard_link("usr/bin/y", "/usr/bin/x")
        .hard_link("/usr/bin/z", "./usr/bin/x")
        .symlink("/usr/bin/link", "/usr/bin/x")
        .file("/usr/bin/alone", b"of one name")
        .file("//gone", b"");
    let second = support::Tar::default().hard_link("/usr/bin/of-below", "/usr/bin/alone").file("/.wh.gone", b"");
    let layers = vec![first.finish(), second.finish()];
    machine.archive("made.tar", &support::oci_archive(&[support::Image::new("made", layers)]));
    let made = machine.path("user-data/images/made.tar").display().to_string();
    run("skopeo", &["copy", &format!("oci-archive:{made}"), &format!("oci:{}:two", machine.path("layout").display())]);
    import(&machine, "made.tar");
    let mounted = mount(&machine, "two", "made:latest");
    assert_equal(&tree(&mounted.0), &tree(&unpack_by_umoci(&machine, "two")));
}

/// The name in the header itself ends behind the directory then, as that of a directory would.
#[test]
fn a_path_of_gnu_tar_may_be_cut_off_at_a_slash() {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let source = machine.path("source");
    let directory = "d".repeat(99);
    std::fs::create_dir_all(source.join(&directory)).unwrap();
    std::fs::write(source.join(&directory).join("file"), b"content").unwrap();
    std::fs::write(source.join(&directory).join("none"), b"").unwrap();
    for format in ["gnu", "posix"] {
        let layer = machine.path("layer.tar").display().to_string();
        let from = source.display().to_string();
        run("tar", &["-C", &from, &format!("--format={format}"), "-cf", &layer, &directory]);
        let [ours, theirs] = both(&machine, format, vec![std::fs::read(&layer).unwrap()]);
        let (ours, theirs) = (ours.expect("it is taken"), theirs.expect("umoci takes it"));
        assert!(ours.contains_key(&Path::new(&directory).join("file")), "{format}: {ours:?}");
        assert_equal(&ours, &theirs);
    }
}

#[test]
fn sparse_files_of_gnu_tar_keep_their_holes() {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    let file = std::fs::File::create(source.join("sparse")).unwrap();
    for block in 0..50 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", block * 1_000_000).unwrap();
    }
    file.set_len(60_000_000).unwrap();
    std::fs::File::create(source.join("hole")).unwrap().set_len(5_000_000).unwrap();
    let expected = tree(&source);
    let formats = [
        vec!["--format=gnu"],
        vec!["--format=pax", "--sparse-version=0.0"],
        vec!["--format=pax", "--sparse-version=0.1"],
        vec!["--format=pax", "--sparse-version=1.0"],
    ];
    for (number, format) in formats.iter().enumerate() {
        let layer = machine.path("layer.tar").display().to_string();
        let mut arguments = vec!["--sparse", "-C", source.to_str().unwrap(), "-cf", &layer];
        arguments.extend(format);
        arguments.push(".");
        run("tar", &arguments);
        let image = support::Image::new(&format!("sparse:{number}"), vec![std::fs::read(&layer).unwrap()]);
        machine.archive("sparse.tar", &support::docker_archive(&[image]));
        import(&machine, "sparse.tar");
        let store = machine.store();
        let (_, record) = store.resolve(&format!("sparse:{number}").parse().unwrap()).unwrap();
        let layer = store.layer_path(record.chain[0]);
        let mounted = support::tree::mount_layer(&layer, &machine.path(&format!("mounted-{number}")));
        let unpacked = mounted.0.clone();
        let seconds = |tree: BTreeMap<PathBuf, String>| -> BTreeMap<PathBuf, String> {
            // GNU's format has whole seconds.
            let cut = |text: String| {
                text.split(' ').enumerate().filter(|(field, _)| *field != 2).map(|(_, word)| word.to_owned()).collect()
            };
            tree.into_iter().map(|(path, text)| (path, cut(text))).collect()
        };
        assert_equal(&seconds(tree(&unpacked)), &seconds(expected.clone()));
        // Inodes, directories and lists of blocks come on top.
        let blocks = |path: PathBuf| path.metadata().unwrap().blocks();
        assert!(blocks(layer) <= blocks(source.join("sparse")) + 400, "{format:?}");
    }
}
