//! Volumes by command: made, listed with who uses them, filled by the first container, removed only when nobody does.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use berth_config::Container;
use berth_control::images::{Query, StoredVolume, VolumeEvent, VolumeQuery};
use berth_control::message::{Declaration, Notice, Request};
use berth_engine::layer::LayerError;
use berth_engine::merged::{Found, Merged};
use berth_engine::oci::Process;
use berth_engine::room::Room;
use berth_engine::volumes::{self, Leaving, Places, Users, VolumeError, answer};
use support::init::{Init, ask, layer};
use support::{Image, Machine, Tar, oci_archive};

fn places(machine: &Machine) -> Places {
    Places { volumes: machine.path("volumes"), user_data: machine.path("user-data") }
}

fn declaration(name: &str, container: &str) -> Declaration {
    Declaration::new(name, serde_json::from_str(container).unwrap())
}

fn users() -> Users {
    let declared = [
        declaration("web", r#"{"image":"x","volumes":["data:/data"]}"#),
        declaration("db", r#"{"image":"x","volumes":["data:/a:ro","data:/b"]}"#),
    ];
    Users::new(declared.iter(), &Leaving::default())
}

fn create(places: &Places, name: &str, limit: Option<u64>) -> VolumeEvent {
    let labels = BTreeMap::from([("tier".to_owned(), "db".to_owned())]);
    let query = VolumeQuery::Create { name: name.to_owned(), labels, limit };
    answer(places, &users(), query).remove(0)
}

fn list(places: &Places) -> Vec<StoredVolume> {
    let volume = |event| match event {
        VolumeEvent::Volume(volume) => volume,
        other => panic!("{other:?}"),
    };
    answer(places, &users(), VolumeQuery::List).into_iter().map(volume).collect()
}

fn remove(places: &Places, names: &[&str], force: bool) -> Vec<VolumeEvent> {
    let names = names.iter().map(ToString::to_string).collect();
    answer(places, &users(), VolumeQuery::Remove { names, force })
}

fn failed(event: &VolumeEvent) -> &str {
    match event {
        VolumeEvent::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn removed(name: &str) -> VolumeEvent {
    VolumeEvent::Removed { name: name.to_owned() }
}

#[test]
fn a_volume_is_made_once_and_listed() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    assert!(list(&places).is_empty());
    let VolumeEvent::Volume(made) = create(&places, "data", None) else { panic!("it is not made") };
    assert_eq!(made.used_by, ["db", "web"]);
    std::fs::write(made.path.join("kept"), "1").unwrap();
    create(&places, "data", None);
    create(&places, "other", None);
    std::fs::create_dir(places.volumes.join("_web.0123456789ab")).unwrap();
    let listed = list(&places);
    let names: Vec<&str> = listed.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["_web.0123456789ab", "data", "other"]);
    assert!(listed[0].anonymous && listed[0].used_by == ["web"] && !listed[1].anonymous);
    assert_eq!(listed[2].labels["tier"], "db");
    assert!(made.path.join("kept").exists() && listed[2].used_by.is_empty());
    for name in ["", "../x", ".x", "a/b", "_web.0"] {
        assert!(failed(&create(&places, name, None)).contains("is no name of a volume"), "{name:?}");
    }
    assert_eq!(std::fs::read_dir(&places.volumes).unwrap().count(), 3);
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    create(&places, "data", None);
    create(&places, "other", None);
    let told = remove(&places, &["data", "other", "none"], false);
    assert_eq!(failed(&told[0]), "the volume data is in use by db, web");
    assert_eq!(told[1], removed("other"));
    assert!(failed(&told[2]).contains("there is no volume none"));
    assert!(places.volumes.join("data").is_dir() && !places.volumes.join("other").exists());
    assert!(remove(&places, &["none"], true).is_empty());
    for name in ["..", ".", "", "../volumes/data", "data/."] {
        assert!(failed(&remove(&places, &[name], false)[0]).contains("there is no volume"), "{name:?}");
    }
}

#[test]
fn a_volume_stays_until_its_container_has_ended() {
    let Some(machine) = Machine::new() else { return };
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![layer()])]));
    let mut init = Init::start(&machine, &[("web", r#"{"image":"demo","volumes":["data:/data"]}"#)]);
    init.prepared("web");
    let remove = || {
        let query = VolumeQuery::Remove { names: vec!["data".to_owned()], force: false };
        ask(&machine, &Query::Volumes(query)).1
    };
    // One after the other: when the second has gone, all that was said before is known.
    let settle = |init: &Init| {
        for name in ["one", "two"] {
            init.notify(Notice::Forget { name: name.to_owned(), volumes: false });
            assert!(matches!(init.next(), Request::Forgotten { .. }));
        }
    };
    // PID 1 ends it, and does not wait for that.
    init.declare(&[]);
    init.notify(Notice::DeclaredChanged);
    settle(&init);
    let told = remove();
    assert!(told.contains("the volume data may still be in use by web"), "{told}");
    assert!(machine.path("volumes/data").is_dir());
    init.notify(Notice::Forget { name: "web".to_owned(), volumes: false });
    assert!(matches!(init.next(), Request::Forgotten { .. }));
    let told = remove();
    assert!(told.contains("removed") && !machine.path("volumes/data").exists(), "{told}");
    init.shut_down(&machine);
}

#[test]
fn those_that_nobody_uses_are_pruned() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    for name in ["data", "other"] {
        create(&places, name, None);
    }
    for name in ["_web.0123456789ab", "_gone.0123456789ab"] {
        std::fs::create_dir(places.volumes.join(name)).unwrap();
    }
    let prune = |all, dry_run| answer(&places, &users(), VolumeQuery::Prune { all, dry_run });
    assert_eq!(prune(true, true), [removed("_gone.0123456789ab"), removed("other")]);
    assert_eq!(prune(false, false), [removed("_gone.0123456789ab")]);
    assert!(places.volumes.join("other").exists());
    assert_eq!(prune(true, false), [removed("other")]);
    let left: Vec<String> = list(&places).into_iter().map(|volume| volume.name).collect();
    assert_eq!(left, ["_web.0123456789ab", "data"]);
}

fn prepare(places: &Places, image: &Path) -> std::path::PathBuf {
    let tar = Tar::default().directory("data", 0o755).file("data/file", b"from the image").finish();
    filled(places, &support::merged(image, &tar)).unwrap()
}

/// The volume that is mounted at /data, with what the image has there.
fn filled(places: &Places, image: &Merged) -> Result<PathBuf, VolumeError> {
    let container: Container = serde_json::from_str(r#"{"image":"x","volumes":["data:/data"]}"#).unwrap();
    let room = Room::new(Some(0));
    let mounts = volumes::prepare(places, "web", &container, &Default::default(), image, room);
    mounts.map(|mut mounts| mounts.remove(0).source)
}

#[test]
fn a_hole_is_not_copied_however_large_it_is() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    let image = |size: u64, end: &[u8]| {
        let (size, map) = (size.to_string(), format!("{},{}", size - end.len() as u64, end.len()));
        let records =
            [("GNU.sparse.major", &b"0"[..]), ("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        let tar = Tar::default().directory("data", 0o755).pax(&records).file("data/x", end).finish();
        support::merged(&machine.path("image"), &tar)
    };
    let volume = filled(&places, &image(1 << 40, &[7; 512])).unwrap();
    let copy = std::fs::File::open(volume.join("x")).unwrap();
    let (mut last, metadata) = ([0; 512], copy.metadata().unwrap());
    copy.read_exact_at(&mut last, (1 << 40) - 512).unwrap();
    assert_eq!((metadata.len(), last), (1 << 40, [7; 512]));
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    // One that is longer than files can be here is refused before anything is copied.
    std::fs::remove_dir_all(volume).unwrap();
    match filled(&places, &image(1 << 56, b"")) {
        Ok(volume) => assert_eq!(volume.join("x").metadata().unwrap().len(), 1 << 56),
        Err(error) => assert!(matches!(error, VolumeError::Make { source: LayerError::System { .. }, .. }), "{error}"),
    }
}

#[test]
fn an_image_has_no_more_volumes_than_anybody_needs() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    std::fs::create_dir_all(&places.volumes).unwrap();
    let image = support::merged(&machine.path("image"), &Tar::default().finish());
    let container: Container = serde_json::from_str(r#"{"image":"x"}"#).unwrap();
    let prepare = |count: u32| {
        let volumes = (0..count).map(|number| (format!("/v/{number}"), serde_json::Value::Null)).collect();
        let wishes = Process { volumes: Some(volumes), ..Process::default() };
        volumes::prepare(&places, "web", &container, &wishes, &image, Room::new(Some(0)))
    };
    assert!(matches!(prepare(1001), Err(VolumeError::Many { count: 1001 })));
    assert_eq!(std::fs::read_dir(&places.volumes).unwrap().count(), 0, "nothing was made");
    assert_eq!(prepare(1000).unwrap().len(), 1000);
}

#[test]
fn the_first_container_fills_a_volume_and_no_other_does() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    let image = machine.path("image");
    let VolumeEvent::Volume(made) = create(&places, "data", None) else { panic!("it is not made") };
    // As a power cut leaves it in the middle of the copy.
    std::fs::write(made.path.join("half"), "").unwrap();
    assert_eq!(prepare(&places, &image), made.path);
    assert_eq!(std::fs::read_to_string(made.path.join("file")).unwrap(), "from the image");
    assert!(!made.path.join("half").exists());
    std::fs::write(made.path.join("file"), "changed").unwrap();
    std::fs::write(made.path.join("own"), "").unwrap();
    prepare(&places, &image);
    assert_eq!(std::fs::read_to_string(made.path.join("file")).unwrap(), "changed");
    assert!(made.path.join("own").exists());
}

#[test]
fn a_directory_of_many_names_is_copied_a_few_at_a_time() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    let name = |number: u32| format!("{number:0>60}");
    let files = |numbers: &mut dyn Iterator<Item = u32>, content: &[u8]| {
        let tar = Tar::default().directory("data", 0o755);
        numbers.fold(tar, |tar, number| tar.file(&format!("data/{}", name(number)), content))
    };
    let lower = files(&mut (0..1500).map(|number| number * 2), b"lower").file("data/!", b"").finish();
    let upper = files(&mut (0..2000), b"upper").file(&format!("data/.wh.{}", name(2500)), b"").finish();
    let store = machine.store();
    let archive = machine.archive("x.tar", &oci_archive(&[Image::new("x", vec![lower, upper])]));
    assert_eq!(machine.import(&store, &archive), [""; 0]);
    let (_, record) = store.resolve(&"x".parse().unwrap()).unwrap();
    let image = store.merged(&record.chain).unwrap();
    let Some(Found::Directory(data)) = image.find(b"data").unwrap() else { panic!("there is no data") };
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        let names = data.names_after(all.last().map_or(&[][..], Vec::as_slice)).unwrap();
        if names.is_empty() {
            break;
        }
        assert!(names.len() < 100, "{} names at once", names.len());
        all.extend(names);
    }
    let expected = (0..2000).chain((2000..3000).step_by(2)).map(name);
    let expected: Vec<String> = std::iter::once("!".to_owned()).chain(expected).collect();
    assert!(all.iter().eq(expected.iter().map(String::as_bytes)), "each once and in order");
    let volume = filled(&places, &image).unwrap();
    assert_eq!(std::fs::read_dir(&volume).unwrap().count(), expected.len() - 1, "but what is deleted");
    let content = |number| std::fs::read_to_string(volume.join(name(number))).unwrap();
    assert_eq!((content(1000), content(2998)), ("upper".to_owned(), "lower".to_owned()));
}

#[test]
fn a_limit_that_cannot_be_is_no_volume() {
    let Some(machine) = Machine::new() else { return };
    let places = places(&machine);
    assert!(failed(&create(&places, "tiny", Some(1))).contains("at least"));
    // The host's file systems have no project quotas; the machine's do.
    if let VolumeEvent::Volume(made) = create(&places, "data", Some(1 << 20)) {
        assert_eq!(made.limit, Some(1 << 20));
    } else {
        assert!(list(&places).is_empty());
    }
}
