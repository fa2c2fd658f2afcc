//! The engine's loop, of which PID 1 and its clients ask.

mod support;

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use berth_control::channel::{Channel, ChannelError};
use berth_control::images::{Answer, ContainerSize, PullEvent, Query, StoredImage};
use berth_control::message::{Notice, Registries, Request};
use berth_engine::digest::Digest;
use berth_engine::service::{self, Looks, Paths, ServiceError};
use rustix::event::{PollFd, PollFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use support::init::{Init, OFFLINE, ask, content, layer, paths, registries};
use support::registry::{Act, Registry};
use support::signing::{Signer, tag};
use support::{Image, Machine, Tar, docker_archive, oci_archive};

#[test]
fn a_declared_container_is_prepared_from_an_archive() {
    let Some(machine) = Machine::new() else { return };
    let mut image = Image::new("demo:1", vec![layer()]);
    image.process = r#"{"Entrypoint":["/bin/web"],"Cmd":["-p","80"],"User":"web","Env":["A=1"],"Volumes":{"/data":{}},
        "StopSignal":"SIGINT","WorkingDir":"/srv","Labels":{"x":"y"}}"#
        .to_owned();
    machine.archive("demo.tar", &oci_archive(&[image]));
    let init = Init::start(&machine, &[("web", r#"{"image":"demo:1","command":["-v"]}"#)]);
    let image = init.prepared("web");
    assert_eq!(image.arguments, ["/bin/web", "-v"]);
    assert_eq!((image.uid, image.gid, image.stop_signal, &*image.working_directory), (33, 33, 2, "/srv"));
    assert!(image.environment.contains(&"A=1".to_owned()) && image.environment.contains(&"HOME=/srv".to_owned()));
    assert_eq!(content(&image, "data/a").unwrap(), b"1");
    assert_eq!(std::fs::read(image.mounts[0].source.join("a")).unwrap(), b"1");
    assert!(image.upper.is_dir() && image.work.is_dir() && image.digest.starts_with("sha256:"));
    init.shut_down(&machine);
}

#[test]
fn what_cannot_be_prepared_says_why() {
    let Some(machine) = Machine::new() else { return };
    let init = Init::start(&machine, &[("a", r#"{"image":"nothing"}"#)]);
    let reason = init.failed("a");
    assert!(reason.contains("docker.io/library/nothing:latest") && reason.contains("connect to 127.0.0.1"), "{reason}");
    init.shut_down(&machine);

    let bad = oci_archive(&[Image::new("bad", vec![Tar::default().file("../x", b"").finish()])]);
    machine.archive("bad.tar", &bad);
    machine.archive("empty.tar", &Tar::default().file("x", b"").finish());
    machine.archive("good.tar", &docker_archive(&[Image::new("localhost/good:2", vec![layer()])]));
    let mut init = Init::start(
        &machine,
        &[
            ("a", r#"{"image":"bad:bad"}"#),
            ("b", r#"{"image":"good"}"#),
            ("c", r#"{"image":"localhost/good:2","user":"nobody"}"#),
            ("d", r#"{"image":"localhost/absent:1"}"#),
        ],
    );
    let reasons: std::collections::BTreeMap<String, String> = (0..4)
        .map(|_| match init.next() {
            Request::PrepareFailed { name, reason } => {
                assert!(name == "c" || name == "d", "{name} is not tried again");
                (name, reason)
            }
            Request::PrepareDelayed { name, reason, retry_s: Some(_) } => (name, reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(reasons["a"].contains("contains \"..\"") && !reasons["a"].contains("neither an index.json"), "{reasons:?}");
    assert!(reasons["d"].contains("neither an index.json") && !reasons["d"].contains("contains \"..\""), "{reasons:?}");
    assert!(reasons["b"].contains("did you mean localhost/good:2?"), "{reasons:?}");
    assert!(reasons["c"].contains("no user \"nobody\""), "{reasons:?}");

    // A corrected definition is tried at once, and new archives are seen.
    init.declare(&[("c", r#"{"image":"localhost/good:2"}"#)]);
    init.notify(Notice::DeclaredChanged);
    init.prepared("c");
    machine.archive("late.tar", &oci_archive(&[Image::new("late", vec![layer()])]));
    init.declare(&[("d", r#"{"image":"late"}"#)]);
    init.notify(Notice::DeclaredChanged);
    init.prepared("d");
    init.shut_down(&machine);
}

/// Plain HTTP with this registry.
fn reaching(registry: &Registry) -> Registries {
    registries(&format!("[registries.'{}']\nplain_http = true\n", registry.name()))
}

#[test]
fn an_image_that_no_archive_has_is_pulled_and_tried_again() {
    let Some(machine) = Machine::new() else { return };
    let broken = Registry::start(|asked| match asked.before {
        0 if !asked.is_blob() => {
            Act::Say(403, String::new(), br#"{"errors":[{"message":"come back later"}]}"#.to_vec())
        }
        _ => Act::Serve,
    });
    broken.push("demo", "1", &Image::new("demo", vec![layer()]));
    let mut init = Init::start(&machine, &[]);
    init.registries = reaching(&broken);
    let container = format!(r#"{{"image":"{}/demo:1"}}"#, broken.name());
    init.declare(&[("web", &container)]);
    init.notify(Notice::DeclaredChanged);
    let reason = init.failed("web");
    assert!(reason.contains("403 Forbidden: come back later"), "{reason}");
    assert!(content(&init.prepared("web"), "etc/passwd").is_some());
    init.shut_down(&machine);

    // It lasts, and nobody is asked again.
    let asked = broken.log().len();
    let mut init = Init::start(&machine, &[]);
    init.declare(&[("web", &container)]);
    init.notify(Notice::DeclaredChanged);
    init.prepared("web");
    assert_eq!(broken.log().len(), asked);
    init.shut_down(&machine);
}

#[test]
fn a_registry_that_wants_to_be_left_alone_is() {
    let Some(machine) = Machine::new() else { return };
    let busy = Registry::start(|_| Act::Say(429, "Retry-After: 1000\r\n".to_owned(), Vec::new()));
    let mut init = Init::start(&machine, &[]);
    init.registries = reaching(&busy);
    init.declare(&[("web", &format!(r#"{{"image":"{}/demo:1"}}"#, busy.name()))]);
    init.notify(Notice::DeclaredChanged);
    let Request::PrepareDelayed { retry_s, reason, .. } = init.next() else { panic!("it is not delayed") };
    assert_eq!(retry_s, Some(1000), "{reason}");
    init.shut_down(&machine);
}

#[test]
fn a_container_starts_only_from_an_image_that_the_policy_takes() {
    let Some(machine) = Machine::new() else { return };
    let Some(signer) = Signer::new(false) else { return };
    let registry = Registry::good();
    let (digest, _) = registry.push("demo", "1", &Image::new("demo", vec![layer()]));
    let mut init = Init::start(&machine, &[]);
    let container = format!(r#"{{"image":"{}/demo:1"}}"#, registry.name());
    let plain = format!("[registries.'{}']\nplain_http = true\n", registry.name());
    init.registries = registries(&plain);
    init.declare(&[("web", &container)]);
    init.notify(Notice::DeclaredChanged);
    init.prepared("web");

    // It is here, and is refused all the same once the policy asks for more.
    init.registries = registries(&format!("{plain}[trust.'*']\nrequire = 'digest'\n"));
    init.notify(Notice::DeclaredChanged);
    let Request::PrepareFailed { reason, .. } = init.next() else { panic!("it is not refused") };
    assert!(reason.contains("only takes images with a digest"), "{reason}");
    let keys = format!("keys = ['''{}''']", signer.public_key());
    init.registries = registries(&format!("{plain}[trust.'*']\nrequire = 'signature'\n{keys}\n"));
    init.notify(Notice::DeclaredChanged);
    let reason = init.failed("web");
    assert!(reason.contains("wants a signature"), "{reason}");
    let signature = signer.sign(digest);
    for blob in [&signature.payload, &signature.config] {
        registry.put(&format!("/v2/demo/blobs/{}", Digest::of(blob)), "x", blob);
    }
    registry.put_manifest("demo", &tag(digest), &signature.manifest);
    // By the next try.
    init.prepared("web");
    init.shut_down(&machine);
}

#[test]
fn neither_a_digest_nor_a_name_given_by_hand_passes_over_the_policy() {
    let Some(machine) = Machine::new() else { return };
    let Some(signer) = Signer::new(false) else { return };
    let registry = Registry::good();
    let (digest, _) = registry.push("demo", "1", &Image::new("demo", vec![layer()]));
    registry.push("other", "1", &Image::new("demo", vec![layer()]));
    let mut init = Init::start(&machine, &[]);
    let plain = format!("[registries.'{}']\nplain_http = true\n", registry.name());
    let [first, tagged, pinned] =
        ["demo:1", "other:1", &format!("demo@{digest}")].map(|image| format!("{}/{image}", registry.name()));
    let declare = |init: &mut Init, name: &str, image: &str| {
        init.declare(&[(name, &format!(r#"{{"image":"{image}"}}"#))]);
        init.notify(Notice::DeclaredChanged);
    };
    init.registries = registries(&plain);
    declare(&mut init, "web", &first);
    init.prepared("web");
    let (answer, _) = ask(&machine, &Query::Tag { source: first, target: tagged.clone() });
    assert_eq!(answer, Answer::Coming);

    init.registries = registries(&format!("{plain}[trust.'*']\nrequire = 'digest'\n"));
    declare(&mut init, "tagged", &tagged);
    let Request::PrepareFailed { reason, .. } = init.next() else { panic!("it is not refused") };
    assert!(reason.contains("only takes images with a digest"), "{reason}");
    let keys = format!("keys = ['''{}''']", signer.public_key());
    init.registries = registries(&format!("{plain}[trust.'*']\nrequire = 'signature'\n{keys}\n"));
    for (name, image) in [("tagged", &tagged), ("pinned", &pinned)] {
        declare(&mut init, name, image);
        let reason = init.failed(name);
        assert!(reason.contains("wants a signature"), "{reason}");
    }
    let signature = signer.sign(digest);
    for blob in [&signature.payload, &signature.config] {
        registry.put(&format!("/v2/demo/blobs/{}", Digest::of(blob)), "x", blob);
    }
    registry.put_manifest("demo", &tag(digest), &signature.manifest);
    init.prepared("pinned");
    // It is the same image, which is verified now.
    declare(&mut init, "tagged", &tagged);
    init.prepared("tagged");
    init.shut_down(&machine);
}

#[test]
fn an_archives_image_needs_no_digest_and_no_signature() {
    let Some(machine) = Machine::new() else { return };
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo", vec![layer()])]));
    let mut init = Init::start(&machine, &[]);
    init.registries = registries(&format!("{OFFLINE}[trust.'*']\nrequire = 'digest'\n"));
    init.declare(&[("web", r#"{"image":"demo"}"#)]);
    init.notify(Notice::DeclaredChanged);
    let digest = init.prepared("web").digest;
    // Nor does any other name of it.
    init.registries = registries(&format!("{OFFLINE}[trust.'*']\nrequire = 'signature'\nkeys = ['a.pub']\n"));
    ask(&machine, &Query::Tag { source: "demo".to_owned(), target: "r.example/demo:2".to_owned() });
    for image in ["demo", "r.example/demo:2", &format!("r.example/demo@{digest}")] {
        init.declare(&[("web", &format!(r#"{{"image":"{image}"}}"#))]);
        init.notify(Notice::DeclaredChanged);
        init.prepared("web");
    }
    init.shut_down(&machine);
}

#[test]
fn a_client_hears_how_its_pull_goes() {
    let Some(machine) = Machine::new() else { return };
    let registry = Registry::good();
    registry.push("demo", "1", &Image::new("demo", vec![layer()]));
    let mut init = Init::start(&machine, &[]);
    init.registries = reaching(&registry);
    // Its answer comes when it knows the registries.
    init.declare(&[("none", "{\"image\":\"a/B\"}")]);
    init.notify(Notice::DeclaredChanged);
    assert!(matches!(init.next(), Request::PrepareFailed { .. }));
    let pull = |image: String| {
        let (answer, text) = ask(&machine, &Query::Pull { image });
        let events: Vec<PullEvent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (answer, events)
    };
    let (answer, events) = pull(format!("{}/demo:1", registry.name()));
    assert_eq!(answer, Answer::Coming);
    let Some(PullEvent::Done(pulled)) = events.last() else { panic!("{events:?}") };
    assert_eq!((pulled.layers, pulled.image.as_str()), (1, format!("{}/demo:1", registry.name()).as_str()));
    let Some(PullEvent::Progress(progress)) = events.iter().rev().nth(1) else { panic!("{events:?}") };
    assert!(progress.layers[0].done && progress.from == registry.name());
    let (_, events) = pull(format!("{}/none:1", registry.name()));
    assert!(
        matches!(events.last(), Some(PullEvent::Failed(reason)) if reason.contains("manifest unknown")),
        "{events:?}"
    );
    let (_, listed) = ask(&machine, &Query::List);
    let listed: StoredImage = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (listed.image, listed.from, listed.layers),
        (format!("{0}/demo:1", registry.name()), Some(registry.name()), 1)
    );
    assert!(listed.bytes > 0 && !listed.in_use);
    let (answer, events) = pull("Not An Image".to_owned());
    assert!(matches!(answer, Answer::Refused(_)) && events.is_empty());
    init.shut_down(&machine);
}

#[test]
fn a_client_hears_what_each_container_takes_of_the_disk() {
    let Some(machine) = Machine::new() else { return };
    machine.archive("demo.tar", &oci_archive(&[Image::new("demo:1", vec![layer()])]));
    let containers = [("web", r#"{"image":"demo:1"}"#), ("without", "{\"image\":\"a/B\"}")];
    let init = Init::start(&machine, &containers);
    // The other one is waited for, too.
    let mut image = None;
    for _ in containers {
        match init.next() {
            Request::Prepared { image: prepared, .. } => image = Some(prepared),
            other => assert!(matches!(other, Request::PrepareFailed { .. }), "{other:?}"),
        }
    }
    let (answer, text) = ask(&machine, &Query::Sizes);
    assert_eq!(answer, Answer::Coming);
    let sizes = text.strip_suffix("\n\n").unwrap().lines();
    let sizes: Vec<ContainerSize> = sizes.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sizes.iter().map(|size| size.name.as_str()).collect::<Vec<_>>(), ["web", "without"]);
    let (_, listed) = ask(&machine, &Query::List);
    let listed: StoredImage = serde_json::from_str(&listed).unwrap();
    assert_eq!((sizes[0].image, sizes[1].image, sizes[1].written), (Some(listed.bytes), None, None));
    // Whether anybody counts depends on the file system that tests run on.
    let layer = image.unwrap().upper.parent().unwrap().to_owned();
    let layer = std::fs::File::open(layer).unwrap();
    assert_eq!(sizes[0].written, berth_engine::quota::counted(layer.as_fd()));
    init.shut_down(&machine);
}

/// A disk in memory.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        rustix::mount::mount("disk", &path, "tmpfs", MountFlags::empty(), Some(c"size=32M")).unwrap();
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// An engine with an image that no container needs, and all the time in the world, pulled under these settings.
fn with_a_spare_image(machine: &Machine, looks: Looks, images: &str) -> Init {
    let registry = Registry::good();
    registry.push("demo", "1", &Image::new("demo", vec![layer()]));
    let mut init = Init::start_at(Paths { looks, ..paths(machine) }, &[]);
    init.registries = reaching(&registry);
    init.registries.images = registries(&format!("[images]\n{images}\n")).images;
    init.declare(&[("none", "{\"image\":\"a/B\"}")]);
    init.notify(Notice::DeclaredChanged);
    assert!(matches!(init.next(), Request::PrepareFailed { .. }));
    ask(machine, &Query::Pull { image: format!("{}/demo:1", registry.name()) });
    init
}

fn await_no_image(machine: &Machine) {
    for _ in 0..600 {
        if ask(machine, &Query::List).1.trim().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the image stays");
}

const NEVER: Duration = Duration::from_secs(86_400);

#[test]
fn an_image_that_was_not_used_for_long_goes_though_nothing_happens() {
    let Some(machine) = Machine::new() else { return };
    let looks = Looks { room: NEVER, age: Duration::from_millis(100) };
    let init = with_a_spare_image(&machine, looks, "keep = '1s'");
    await_no_image(&machine);
    init.shut_down(&machine);
}

#[test]
fn an_image_goes_when_something_else_fills_the_disk() {
    let Some(machine) = Machine::new() else { return };
    let disk = Disk::new(machine.path("images"));
    let looks = Looks { room: Duration::from_millis(100), age: NEVER };
    let init = with_a_spare_image(&machine, looks, "reserve = '8M'");
    assert!(!ask(&machine, &Query::List).1.trim().is_empty(), "there is room for it");
    std::fs::write(disk.0.join("filler"), vec![1; 28 << 20]).unwrap();
    await_no_image(&machine);
    init.shut_down(&machine);
}

#[test]
fn the_engine_ends_when_its_channel_does() {
    let Some(machine) = Machine::new() else { return };
    let (ours, theirs) = Channel::pair().unwrap();
    let paths = paths(&machine);
    let engine = std::thread::spawn(move || service::run(theirs, paths));
    let mut events = [PollFd::from_borrowed_fd(ours.as_fd(), PollFlags::IN)];
    rustix::event::poll(&mut events, None).unwrap();
    drop(ours);
    // Either it reads the end or fails to write.
    let ended = engine.join().unwrap();
    assert!(matches!(ended, Ok(()) | Err(ServiceError::Channel(ChannelError::Closed))));
}
