//! Archives of images beside the configuration, as the engine finds them when the machine starts.

mod support;

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use berth_control::message::{PreparedImage, Request};
use support::init::{Init, content, layer};
use support::{Image, Machine, Method, Tar, blob_name, compress, docker_archive, oci_archive};

#[test]
fn every_kind_of_archive_and_compression_is_imported() {
    let Some(machine) = Machine::new() else { return };
    let mut declared = Vec::new();
    for outer in [Method::Plain, Method::Gzip, Method::Zstd, Method::Xz, Method::Bzip2] {
        for inner in [Method::Plain, Method::Gzip, Method::Zstd] {
            for docker in [false, true] {
                let name = format!("{outer:?}-{inner:?}-{docker}").to_lowercase();
                // Different contents, so that no layer is there already.
                let layer = Tar::default().file("name", name.as_bytes()).finish();
                let mut image = Image::new(&format!("{name}:1"), vec![layer]);
                image.layers[0].0 = inner;
                let archive = if docker { docker_archive(&[image]) } else { oci_archive(&[image]) };
                machine.archive(&name, &compress(outer, &archive));
                declared.push((name.clone(), format!(r#"{{"image":"{name}:1"}}"#)));
            }
        }
    }
    let declared: Vec<(&str, &str)> = declared.iter().map(|(name, text)| (&**name, &**text)).collect();
    let init = Init::start(&machine, &declared);
    let mut seen = std::collections::BTreeSet::new();
    for _ in &declared {
        let Request::Prepared { name, image } = init.next() else { panic!("not prepared") };
        assert_eq!(content(&image, "name").unwrap(), name.as_bytes());
        seen.insert(name);
    }
    assert_eq!(seen.len(), declared.len());
    init.shut_down(&machine);
}

#[test]
fn an_image_may_have_more_to_say_than_a_message_holds() {
    let Some(machine) = Machine::new() else { return };
    let image = |name: &str, process: String| Image { process, ..Image::new(name, vec![layer()]) };
    let label = |length: usize| format!(r#"{{"Cmd":["x"],"Labels":{{"text":"{}"}}}}"#, "x".repeat(length));
    let ports: Vec<String> = (49_152..=65_535).map(|port| format!(r#""{port}/udp":{{}}"#)).collect();
    let images = [
        image("relay", format!(r#"{{"Cmd":["x"],"ExposedPorts":{{{}}}}}"#, ports.join(","))),
        image("labelled", label(170_000)),
        image("endless", label(1 << 20)),
    ];
    machine.archive("images.tar", &oci_archive(&images));
    let names = ["endless", "labelled", "relay"];
    let containers = names.map(|name| format!(r#"{{"image":"{name}"}}"#));
    let declared: Vec<(&str, &str)> = names.into_iter().zip(containers.iter().map(String::as_str)).collect();
    let init = Init::start(&machine, &declared);
    let Request::PrepareFailed { name, reason } = init.next() else { panic!("it is prepared") };
    assert!(name == "endless" && reason.contains("at most 1048576"), "{name}: {reason}");
    assert_eq!(init.prepared("labelled").labels["text"].len(), 170_000);
    let exposed = init.prepared("relay").exposed;
    assert_eq!((exposed.len(), exposed[0].container_port, exposed[0].further_ports), (1, 49_152, 16_383));
    init.shut_down(&machine);
}

#[test]
fn a_second_start_uses_what_is_there() {
    let Some(machine) = Machine::new() else { return };
    let archive = machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![layer()])]));
    let declared = [("web", r#"{"image":"demo"}"#)];
    let init = Init::start(&machine, &declared);
    let first = init.prepared("web");
    std::fs::write(first.upper.join("kept"), b"").unwrap();
    init.shut_down(&machine);

    // Were the layer unpacked again, this would be gone.
    let made = |image: &PreparedImage| std::fs::metadata(&image.layers[0].path).unwrap().ino();
    let before = made(&first);
    let init = Init::start(&machine, &declared);
    assert_eq!(init.prepared("web"), first);
    init.shut_down(&machine);
    assert!(made(&first) == before && first.upper.join("kept").exists());

    // Without the archive the image stays.
    std::fs::remove_file(&archive).unwrap();
    let init = Init::start(&machine, &declared);
    assert_eq!(init.prepared("web"), first);
    init.shut_down(&machine);

    // Another archive of that name brings another image, and the container a new writable layer.
    let other = Tar::default().file("other", b"").finish();
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![other])]));
    let init = Init::start(&machine, &declared);
    let second = init.prepared("web");
    assert!(content(&second, "other").is_some() && second.upper != first.upper && second.digest != first.digest);
    init.shut_down(&machine);
}

#[test]
fn a_kill_leaves_a_store_that_opens() {
    let Some(machine) = Machine::new() else { return };
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![layer()])]));
    let store = machine.store();
    assert_eq!(machine.import(&store, &machine.path("user-data/images/demo.tar")), [""; 0]);
    // No commit: as if the machine had lost power.
    drop(store);
    let init = Init::start(&machine, &[("web", r#"{"image":"demo"}"#)]);
    assert!(content(&init.prepared("web"), "etc/passwd").is_some());
    init.shut_down(&machine);
}

#[test]
fn the_last_archive_in_name_order_counts() {
    let Some(machine) = Machine::new() else { return };
    for name in ["a", "c", "b"] {
        let layer = Tar::default().file(name, b"").finish();
        machine.archive(&format!("{name}.tar"), &docker_archive(&[Image::new("demo:1", vec![layer])]));
    }
    let init = Init::start(&machine, &[("web", r#"{"image":"demo:1"}"#)]);
    assert!(content(&init.prepared("web"), "c").is_some());
    init.shut_down(&machine);
    let init = Init::start(&machine, &[("web", r#"{"image":"demo:1"}"#)]);
    assert!(content(&init.prepared("web"), "c").is_some());
    init.shut_down(&machine);
}

#[test]
fn a_present_image_does_not_wait_for_new_archives() {
    let Some(machine) = Machine::new() else { return };
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![layer()])]));
    let declared = [("web", r#"{"image":"demo"}"#), ("other", r#"{"image":"slow"}"#)];
    let init = Init::start(&machine, &declared[..1]);
    init.prepared("web");
    init.shut_down(&machine);
    let layer = (0..2000).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), b"x")).finish();
    machine.archive("slow.tar", &oci_archive(&[Image::new("slow", vec![layer])]));
    let init = Init::start(&machine, &declared);
    init.prepared("web");
    init.prepared("other");
    init.shut_down(&machine);
}

/// The archive's files in a folder, as skopeo and umoci leave them.
fn folder(machine: &Machine, name: &str, archive: &[u8]) -> PathBuf {
    let path = machine.path("user-data/images").join(name);
    tar::Archive::new(archive).unpack(&path).unwrap();
    path
}

#[test]
fn a_layout_in_a_folder_is_imported_as_its_archive_would_be() {
    let Some(machine) = Machine::new() else { return };
    let mut image = Image::new("1.2", vec![layer()]);
    image.layers[0].0 = Method::Gzip;
    folder(&machine, "web", &oci_archive(&[image]));
    folder(&machine, "saved", &docker_archive(&[Image::new("old:1", vec![layer()])]));
    std::fs::create_dir(machine.path("user-data/images/other")).unwrap();
    let declared = [("old", r#"{"image":"old:1"}"#), ("web", r#"{"image":"web:1.2"}"#)];
    let init = Init::start(&machine, &declared);
    for _ in declared {
        let Request::Prepared { image, .. } = init.next() else { panic!("not prepared") };
        assert_eq!(content(&image, "data/a").unwrap(), b"1");
    }
    init.shut_down(&machine);
}

#[test]
fn a_folder_whose_copy_was_cut_short_is_read_again_when_it_is_whole() {
    let Some(machine) = Machine::new() else { return };
    let layer = layer();
    let path = folder(&machine, "web", &oci_archive(&[Image::new("latest", vec![layer.clone()])]));
    let blob = path.join(blob_name(&layer));
    std::fs::remove_file(&blob).unwrap();
    let declared = [("web", r#"{"image":"web"}"#)];
    let init = Init::start(&machine, &declared);
    assert!(init.failed("web").contains("docker.io/library/web:latest"));
    init.shut_down(&machine);
    let problems = machine.import(&machine.store(), &path);
    assert!(problems.concat().contains(&format!("{} is missing in the archive", blob_name(&layer))), "{problems:?}");

    std::fs::write(&blob, &layer).unwrap();
    let init = Init::start(&machine, &declared);
    assert!(content(&init.prepared("web"), "etc/passwd").is_some());
    init.shut_down(&machine);
}

/// What a folder has instead of its layer, and what is said of it.
fn refused(replace: impl Fn(&Path, &Path)) -> String {
    let Some(machine) = Machine::new() else { return String::new() };
    let layer = layer();
    let path = folder(&machine, "web", &oci_archive(&[Image::new("latest", vec![layer.clone()])]));
    let blob = path.join(blob_name(&layer));
    let elsewhere = machine.path("elsewhere");
    std::fs::rename(&blob, &elsewhere).unwrap();
    replace(&blob, &elsewhere);
    machine.import(&machine.store(), &path).concat()
}

#[test]
fn a_folder_that_cannot_be_read_stops_nothing_else() {
    let Some(machine) = Machine::new() else { return };
    for (name, make) in [
        ("fifo", (|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap()) as fn(&Path)),
        ("loop", |path| symlink("index.json", path).unwrap()),
        ("outside", |path| symlink("/etc/passwd", path).unwrap()),
    ] {
        let folder = machine.path("user-data/images").join(name);
        std::fs::create_dir(&folder).unwrap();
        make(&folder.join("index.json"));
    }
    machine.archive("web.tar", &oci_archive(&[Image::new("web", vec![layer()])]));
    let init = Init::start(&machine, &[("web", r#"{"image":"web"}"#)]);
    assert!(content(&init.prepared("web"), "etc/passwd").is_some());
    init.shut_down(&machine);
}

#[test]
fn what_docker_saved_into_a_folder_and_was_cut_short_is_read_again_too() {
    let Some(machine) = Machine::new() else { return };
    let path = folder(&machine, "saved", &docker_archive(&[Image::new("old:1", vec![layer()])]));
    let file = path.join("old-10/layer.tar");
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let before = berth_engine::archive::identity(&path).unwrap();
    std::fs::write(&file, whole).unwrap();
    assert_ne!(berth_engine::archive::identity(&path).unwrap(), before);
}

#[test]
fn a_folder_gives_nothing_of_the_machine_and_makes_nobody_wait() {
    if !support::is_root() {
        support::skip("it needs root");
        return;
    }
    let missing = "is missing in the archive";
    let absolute = refused(|blob, elsewhere| symlink(elsewhere, blob).unwrap());
    assert!(absolute.contains(missing), "{absolute}");
    let relative = refused(|blob, _| symlink("../../../../../elsewhere", blob).unwrap());
    assert!(relative.contains(missing), "{relative}");
    let fifo = refused(|blob, _| nix::unistd::mkfifo(blob, nix::sys::stat::Mode::S_IRUSR).unwrap());
    assert!(fifo.contains(missing), "{fifo}");
    let directory = refused(|blob, _| std::fs::create_dir(blob).unwrap());
    assert!(directory.contains(missing), "{directory}");
    // The links of the layout itself are followed.
    let within = refused(|blob, elsewhere| {
        let beside = blob.with_file_name("beside");
        std::fs::copy(elsewhere, beside).unwrap();
        symlink("beside", blob).unwrap();
    });
    assert_eq!(within, "");
}
