//! A disk that is full at every point of a pull, an import, a commit and a preparation: the store opens again, names
//! nothing that is not whole, and the work is finished as soon as there is room.
//!
//! The disk is a file system in memory of this size and that, and images leave nothing free, so that it is really full. What
//! is spooled while an image comes is more than a commit and a preparation need, so for these the disk shrinks when it is
//! their turn.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_control::images::VolumeQuery;
use berth_control::message::Declaration;
use berth_engine::commands::Command;
use berth_engine::digest::Digest;
use berth_engine::import::describe;
use berth_engine::prepare::{self, Folders};
use berth_engine::pull::Pulling;
use berth_engine::reference::Reference;
use berth_engine::registry::{Settings, Shared};
use berth_engine::room::Room;
use berth_engine::store::{Choice, Policy, Store, User, chain_ids};
use berth_engine::volumes::{self, Places, Users};
use rustix::mount::{MountFlags, UnmountFlags};
use support::client::{PATIENCE, layer};
use support::registry::Registry;
use support::{Image, Machine, Method, oci_archive};

/// What is left of a disk.
#[derive(Clone, Copy, Debug)]
enum Left {
    Pages(u64),
    Inodes(u64),
}

/// How far an attempt came before there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    Bring,
    Commit,
    Prepare,
    Done,
}

/// Where images come from.
enum Origin<'a> {
    Archive(&'a Machine, PathBuf),
    Registry(&'a Registry, Settings),
}

impl Origin<'_> {
    fn name(&self) -> String {
        match self {
            Self::Archive(..) => "demo".to_owned(),
            Self::Registry(registry, ..) => format!("{}/demo:1", registry.name()),
        }
    }

    fn bring(&self, store: &Arc<Store>) -> Result<(), String> {
        match self {
            Self::Archive(machine, path) => {
                let problems = machine.import(store, path);
                if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
            }
            Self::Registry(_, settings) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let shared = Shared { pool: Arc::default(), tokens: Arc::default(), patience: PATIENCE };
                    let pulling = Pulling::new(Arc::clone(store), shared);
                    let pulled = pulling.pull(&self.name().parse().unwrap(), settings.clone(), &Arc::default()).await;
                    pulled.map(drop).map_err(|error| describe(&error))
                })
            }
        }
    }
}

/// Two layers that differ in how they are compressed.
fn image() -> Image {
    let mut image = Image::new("demo", vec![layer("a"), layer("b")]);
    image.layers[1].0 = Method::Zstd;
    image.process = r#"{"Cmd":["/bin/true"],"Volumes":{"/data":{}}}"#.to_owned();
    image
}

/// A small disk at a directory of the machine.
struct Disk(PathBuf);

impl Disk {
    fn new(machine: &Machine, options: &str) -> Self {
        let path = machine.path("disk");
        std::fs::create_dir_all(&path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("disk", &path, "tmpfs", MountFlags::empty(), Some(&*options)).unwrap();
        Self(path)
    }

    fn grow(&self) {
        self.resize("size=64M,nr_inodes=10000");
    }

    /// Leaves no more than this.
    fn shrink_to(&self, left: Left) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        match left {
            // 0 would be no limit at all.
            Left::Pages(pages) => {
                self.resize(&format!("size={}", (space.f_blocks - space.f_bfree + pages) * space.f_frsize))
            }
            Left::Inodes(inodes) => self.resize(&format!("nr_inodes={}", space.f_files - space.f_ffree + inodes)),
        }
    }

    fn resize(&self, options: &str) {
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), &*options).unwrap();
    }

    fn open(&self) -> Result<Arc<Store>, String> {
        let store = Store::open(&self.0.join("images"), "boot").map_err(|error| describe(&error))?;
        store.set_policy(Policy { keep: None, room: Room::new(Some(0)) });
        Ok(Arc::new(store))
    }

    /// All the engine does until a container can run. `short` is the stage that has no more than this left.
    fn work(&self, origin: &Origin<'_>, short: Option<(Stage, Left)>) -> Stage {
        let begin = |stage| {
            if let Some((_, left)) = short.filter(|(short, _)| *short == stage) {
                self.shrink_to(left);
            }
        };
        let Ok(store) = self.open() else { return Stage::Open };
        if origin.bring(&store).is_err() {
            return Stage::Bring;
        }
        begin(Stage::Commit);
        if store.commit().is_err() {
            return Stage::Commit;
        }
        begin(Stage::Prepare);
        let reference = origin.name().parse().unwrap();
        let (digest, record) = store.resolve_for("web", &reference).expect("it was brought");
        let places = Places { volumes: self.0.join("volumes"), user_data: self.0.join("user-data") };
        let folders = Folders { containers: self.0.join("containers"), places };
        let declaration = Declaration::new("web", serde_json::from_str(r#"{"image":"demo"}"#).unwrap());
        match prepare::container(&store, &folders, &declaration, digest, &record) {
            Ok(prepared) => {
                assert!(prepared.upper.is_dir() && prepared.mounts[0].source.is_dir());
                Stage::Done
            }
            Err(_) => Stage::Prepare,
        }
    }

    /// Every layer that the store names is whole, and nothing else is there.
    fn verify(&self) {
        let store = self.open().expect("there is room now");
        let tars: Vec<Vec<u8>> = image().layers.into_iter().map(|(_, tar)| tar).collect();
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
        for (tar, id) in tars.iter().zip(chain_ids(&diff_ids)) {
            let path = store.layer_path(id);
            assert_eq!(store.has_layer(id), path.exists());
            if path.exists() {
                let content = support::content(&store, id, std::str::from_utf8(&tar[..1]).unwrap());
                assert!(!content.is_empty() && tar[512..512 + content.len()] == content);
            }
        }
        store.empty_tmp().unwrap();
        assert_eq!(std::fs::read_dir(self.0.join("images/tmp")).unwrap().count(), 0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Tries disks of many sizes, and those that are full at one stage. Every stage must have failed on one of them.
fn fill(machine: &Machine, origin: &Origin<'_>) {
    let mut seen = BTreeSet::new();
    let small = sizes().map(|options| (options, None));
    for (options, short) in small.chain(shortages().map(|short| ("size=64M,nr_inodes=10000".to_owned(), Some(short)))) {
        let disk = Disk::new(machine, &options);
        let stage = disk.work(origin, short);
        seen.insert(stage);
        disk.grow();
        disk.verify();
        let again = disk.work(origin, None);
        assert_eq!(again, Stage::Done, "{options} {short:?}: it is not finished after {stage:?}");
        disk.verify();
    }
    assert_eq!(seen, BTreeSet::from([Stage::Open, Stage::Bring, Stage::Commit, Stage::Prepare, Stage::Done]));
}

/// Some sizes around everything that the work writes, in pages, and numbers of inodes.
fn sizes() -> impl Iterator<Item = String> {
    let pages = (1..110).step_by(3).map(|pages| format!("size={}k,nr_inodes=10000", pages * 4));
    pages.chain((2..40).step_by(2).map(|inodes| format!("size=64M,nr_inodes={inodes}")))
}

/// From nothing to more than a commit and a preparation need.
fn shortages() -> impl Iterator<Item = (Stage, Left)> {
    let left = || (0..10).flat_map(|count| [Left::Pages(count), Left::Inodes(count)]);
    [Stage::Commit, Stage::Prepare].into_iter().flat_map(move |stage| left().map(move |left| (stage, left)))
}

#[test]
fn a_full_disk_stops_an_import_and_nothing_else() {
    let Some(machine) = Machine::new() else { return };
    let path = machine.archive("demo.tar", &oci_archive(&[image()]));
    fill(&machine, &Origin::Archive(&machine, path));
}

#[test]
fn a_full_disk_stops_a_pull_and_nothing_else() {
    let Some(machine) = Machine::new() else { return };
    let registry = Registry::good();
    registry.push("demo", "1", &image());
    let text = format!("[registries.'{}']\nplain_http = true\n", registry.name());
    let configuration: berth_config::Configuration = toml::from_str(&text).unwrap();
    let (registries, proxy) = (configuration.registries, configuration.proxy);
    let registries = berth_control::message::Registries { registries, proxy, ..Default::default() };
    let settings = Settings::new(registries, &machine.path("user-data"));
    fill(&machine, &Origin::Registry(&registry, settings));
}

#[test]
fn images_that_nothing_needs_make_room_for_those_that_are_wanted() {
    let Some(machine) = Machine::new() else { return };
    let of = |name: &str| {
        let mut image = Image::new(name, vec![layer(name)]);
        image.process = r#"{"Cmd":["/bin/true"]}"#.to_owned();
        machine.archive(&format!("{name}.tar"), &oci_archive(&[image]))
    };
    let (old, new) = (of("old"), of("new"));
    let disk = Disk::new(&machine, "size=240k");
    let store = disk.open().unwrap();
    assert_eq!(machine.import(&store, &old), [""; 0]);
    // No container is declared yet: everything may be needed.
    assert_ne!(machine.import(&store, &new), [""; 0]);
    store.declare(Vec::new());
    assert_ne!(machine.import(&store, &new), [""; 0], "an archive that is there keeps its image");
    store.present_archives(&Default::default());
    assert_eq!(machine.import(&store, &new), [""; 0]);
    assert!(store.resolve(&"new".parse().unwrap()).is_some() && store.resolve(&"old".parse().unwrap()).is_none());
}

#[test]
fn no_image_of_an_archive_makes_room_for_another_of_it() {
    let Some(machine) = Machine::new() else { return };
    let images = ["first", "second"].map(|name| Image::new(name, vec![layer(name)]));
    let archive = machine.archive("both.tar", &oci_archive(&images));
    let disk = Disk::new(&machine, "size=240k");
    let store = disk.open().unwrap();
    let first: Reference = "first".parse().unwrap();
    let user = User { container: "web".to_owned(), image: Some(first.clone()), runs: None, grace: Duration::ZERO };
    store.declare(vec![user]);
    let problems = machine.import(&store, &archive);
    assert!(problems.len() == 1 && problems[0].contains("second"), "{problems:?}");
    let (_, record) = store.resolve(&first).expect("a container needs it");
    assert!(store.layer_path(record.chain[0]).exists());
    drop(store);
    drop(disk);
    // By command, where no archive keeps anything.
    let disk = Disk::new(&machine, "size=240k");
    let store = disk.open().unwrap();
    store.declare(Vec::new());
    let source = std::fs::File::open(&archive).unwrap().into();
    let outcome = Command::Import("both.tar".to_owned(), source).run(&store).unwrap();
    assert!(outcome.problems.len() == 1 && outcome.problems[0].contains("second"), "{:?}", outcome.problems);
    assert!(store.resolve(&first).is_some());
}

#[test]
fn what_is_removed_from_a_full_disk_makes_room_for_the_catalogue() {
    let Some(machine) = Machine::new() else { return };
    let disk = Disk::new(&machine, "size=64M,nr_inodes=10000");
    let store = disk.open().unwrap();
    store.declare(Vec::new());
    let chains = ["rm:1", "prune:1"].map(|name| {
        let archive = machine.archive(name, &oci_archive(&[Image::new(name, vec![layer(name)])]));
        assert_eq!(machine.import(&store, &archive), [""; 0]);
        store.resolve(&name.parse().unwrap()).unwrap().1.chain
    });
    store.present_archives(&Default::default());
    store.commit().unwrap();
    let catalogue = disk.0.join("images/catalogue.json");
    for (name, chain) in ["rm:1", "prune:1"].into_iter().zip(chains) {
        disk.shrink_to(Left::Pages(0));
        assert!(store.commit().is_err(), "there is no room");
        assert!(std::fs::read_to_string(&catalogue).unwrap().contains(&chain[0].hex()));
        match name {
            "rm:1" => drop(Command::Remove(name.parse().unwrap(), false).run(&store).unwrap()),
            _ => assert_eq!(store.prune(Choice { all: true, unused_for: Duration::ZERO }).unwrap().len(), 1),
        }
        assert!(!store.layer_path(chain[0]).exists());
        assert_eq!(std::fs::read_dir(disk.0.join("images/tmp")).unwrap().count(), 0, "{name}: its room is free");
        assert!(!std::fs::read_to_string(&catalogue).unwrap().contains(&chain[0].hex()), "{name}: it is written down");
        disk.grow();
    }
}

#[test]
fn images_that_nothing_needs_make_room_for_what_is_copied_into_a_volume() {
    let Some(machine) = Machine::new() else { return };
    let disk = Disk::new(&machine, "size=64M,nr_inodes=10000");
    let store = disk.open().unwrap();
    store.declare(Vec::new());
    for (name, file) in [("old", "o"), ("web", "data/w")] {
        let archive = machine.archive(name, &oci_archive(&[Image::new(name, vec![layer(file)])]));
        assert_eq!(machine.import(&store, &archive), [""; 0]);
    }
    store.commit().unwrap();
    let places = Places { volumes: disk.0.join("volumes"), user_data: disk.0.join("user-data") };
    let volumes = places.volumes.clone();
    let create = |name: &str| VolumeQuery::Create { name: name.to_owned(), labels: Default::default(), limit: None };
    volumes::answer(&places, &Users::default(), create("made"));
    let folders = Folders { containers: disk.0.join("containers"), places };
    let (digest, record) = store.resolve_for("web", &"web".parse().unwrap()).unwrap();
    let prepare = |volume: &str| {
        let container = format!(r#"{{"image":"web","volumes":["{volume}:/data"]}}"#);
        let declaration = Declaration::new("web", serde_json::from_str(&container).unwrap());
        prepare::container(&store, &folders, &declaration, digest, &record).map_err(|error| describe(&error))
    };
    // Half of what is copied has room.
    disk.shrink_to(Left::Pages(20));
    for name in ["new", "made"] {
        let error = prepare(name).unwrap_err();
        assert!(error.contains(&format!("make the volume {name}")), "{error}");
    }
    let names: Vec<_> = std::fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["made"]);
    assert_eq!(std::fs::read_dir(volumes.join("made")).unwrap().count(), 0, "what came of it has gone again");
    store.present_archives(&Default::default());
    prepare("made").unwrap();
    assert_eq!(std::fs::metadata(volumes.join("made/w")).unwrap().len(), 128_000);
    assert!(store.resolve(&"old".parse().unwrap()).is_none(), "it has made room");
}
