//! The engine's loop with PID 1's end of the channel in the test's hands.

mod support;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::thread::JoinHandle;

use berth_control::channel::{Channel, ChannelError};
use berth_control::images::{Answer, PullEvent, Query, StoredImage};
use berth_control::message::{Declaration, FromInit, Notice, PreparedImage, Registries, Reply, Request, ToInit};
use berth_engine::digest::Digest;
use berth_engine::merged::Merged;
use berth_engine::prepare::Folders;
use berth_engine::registry::Patience;
use berth_engine::service::{self, Paths, ServiceError};
use berth_engine::volumes::Places;
use rustix::event::{PollFd, PollFlags};
use support::registry::{Act, Registry};
use support::signing::{Signer, tag};
use support::{Image, Machine, Method, Tar, compress, docker_archive, oci_archive};

/// The content of a file of the uppermost layer.
fn content(image: &PreparedImage, path: &str) -> Option<Vec<u8>> {
    let layer = image.layers[0].path.clone();
    let file = std::fs::File::open(&layer).unwrap();
    Merged::new(vec![(layer, file)]).unwrap().read(path, u64::MAX).unwrap()
}

/// PID 1 as the engine sees it.
struct Init {
    channel: Channel,
    engine: Option<JoinHandle<Result<(), ServiceError>>>,
    declared: Vec<Declaration>,
    registries: Registries,
}

/// Nothing is reached: nobody listens where the proxies are.
const OFFLINE: &str = "[proxy]\nhttp = 'http://127.0.0.1:1'\nhttps = 'http://127.0.0.1:1'\n";

fn registries(text: &str) -> Registries {
    let configuration: berth_config::Configuration = toml::from_str(text).unwrap();
    let berth_config::Configuration { registries, trust, proxy, images, .. } = configuration;
    Registries { registries, trust, proxy, images }
}

fn paths(machine: &Machine) -> Paths {
    let user_data = machine.path("user-data");
    let places = Places { volumes: machine.path("volumes"), user_data: user_data.clone() };
    let folders = Folders { containers: machine.path("containers"), places };
    Paths {
        images: machine.path("images"),
        archives: user_data.join("images"),
        folders,
        boot: "boot".to_owned(),
        socket: machine.path("engine.sock"),
        patience: Patience::default(),
    }
}

impl Init {
    fn start(machine: &Machine, declared: &[(&str, &str)]) -> Self {
        let (channel, theirs) = Channel::pair().unwrap();
        let paths = paths(machine);
        let engine = std::thread::spawn(move || service::run(theirs, paths));
        let declared_later = Vec::new();
        let registries = registries(OFFLINE);
        let mut init = Self { channel, engine: Some(engine), declared: declared_later, registries };
        init.declare(declared);
        init
    }

    fn declare(&mut self, declared: &[(&str, &str)]) {
        let declaration = |(name, container): &(&str, &str)| Declaration {
            name: (*name).to_owned(),
            container: serde_json::from_str(container).unwrap(),
            digest: None,
        };
        self.declared = declared.iter().map(declaration).collect();
    }

    /// One container a page.
    fn page_after(&self, after: &str) -> Reply {
        let mut rest: Vec<_> = self.declared.iter().filter(|one| one.name.as_str() > after).cloned().collect();
        rest.sort_by(|left, right| left.name.cmp(&right.name));
        let next = rest.first().filter(|_| rest.len() > 1).map(|first| first.name.clone());
        rest.truncate(1);
        Reply::Declared { declarations: rest, next }
    }

    /// The next request but Declared and Ready, which are answered here.
    fn next(&self) -> Request {
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        loop {
            let mut events = [PollFd::new(&self.channel, PollFlags::IN)];
            assert_ne!(rustix::event::poll(&mut events, Some(&minute)).unwrap(), 0, "the engine is silent");
            let (message, _): (ToInit, Vec<OwnedFd>) = self.channel.receive().unwrap();
            let reply = match &message.request {
                Request::Declared { after } => self.page_after(after),
                Request::Registries => Reply::Registries(Box::new(self.registries.clone())),
                _ => Reply::Done,
            };
            self.channel.send(&FromInit::Reply { id: message.id, reply }, &[]).unwrap();
            match message.request {
                Request::Declared { .. } | Request::Registries | Request::Ready => {}
                // That it is being pulled.
                Request::PrepareDelayed { retry_s: None, .. } => {}
                request => return request,
            }
        }
    }

    fn prepared(&self, expected: &str) -> PreparedImage {
        match self.next() {
            Request::Prepared { name, image } if name == expected => *image,
            other => panic!("{other:?}"),
        }
    }

    /// That an image does not come for now.
    fn failed(&self, expected: &str) -> String {
        match self.next() {
            Request::PrepareDelayed { name, reason, retry_s: Some(_) } if name == expected => reason,
            other => panic!("{other:?}"),
        }
    }

    fn notify(&self, notice: Notice) {
        self.channel.send(&FromInit::Notice(notice), &[]).unwrap();
    }

    fn shut_down(mut self, machine: &Machine) {
        self.notify(Notice::ShuttingDown);
        self.engine.take().unwrap().join().unwrap().unwrap();
        // A process would be gone now; here the workers' threads may hold the store a little longer.
        let lock = std::fs::File::open(machine.path("images/lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        while !matches!(self.channel.receive::<ToInit>(), Err(ChannelError::Closed | ChannelError::System { .. })) {}
    }
}

fn layer() -> Vec<u8> {
    let passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n";
    Tar::default()
        .directory("etc", 0o755)
        .file("etc/passwd", passwd)
        .directory("data", 0o750)
        .file("data/a", b"1")
        .finish()
}

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
fn every_kind_of_archive_and_compression_is_imported() {
    let Some(machine) = Machine::new() else { return };
    let mut declared = Vec::new();
    for outer in [Method::Plain, Method::Gzip, Method::Zstd] {
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

/// A client's query, and all that comes of it.
fn ask(machine: &Machine, query: &Query) -> (Answer, String) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(machine.path("engine.sock")).unwrap()).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let channel = Channel::from(socket);
    channel.send(query, &[writer.as_fd()]).unwrap();
    drop(writer);
    let (answer, _) = channel.receive::<Answer>().unwrap();
    let text = std::io::read_to_string(std::fs::File::from(reader)).unwrap();
    (answer, text)
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
