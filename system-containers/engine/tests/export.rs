//! Images that go out are those that came in: layers to the byte, the configuration, and what others make of the archive.

mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command as Process;

use berth_control::images::Query;
use berth_engine::commands::{Command, Outcome};
use berth_engine::digest::Digest;
use berth_engine::export::layer;
use berth_engine::import::describe;
use berth_engine::store::Store;
use support::{Header, Image, Machine, Method, Tar, compress, docker_archive, oci_archive, skip};

fn run(store: &Store, query: Query, file: Option<File>) -> Result<Outcome, String> {
    let command = Command::of(query, file.map(OwnedFd::from)).map_err(|error| describe(&error))?;
    command.run(store).map_err(|error| describe(&error))
}

fn import(store: &Store, bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    run(store, Query::Import { name: "web.tar".to_owned() }, Some(file)).map(|outcome| outcome.texts)
}

fn save(store: &Store, names: &[&str]) -> Result<Vec<u8>, String> {
    let mut file = tempfile::tempfile().unwrap();
    let images = names.iter().map(|name| (*name).to_owned()).collect();
    run(store, Query::Save { images }, Some(file.try_clone().unwrap()))?;
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// Layers with everything that a stream may have beside plain files.
fn layers() -> Vec<Vec<u8>> {
    let long = format!("d/{}", "n".repeat(150));
    let noise: Vec<u8> = (0..70_000_u32).flat_map(u32::to_le_bytes).collect();
    let sparse = [
        ("GNU.sparse.major", &b"0"[..]),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.size", b"10000"),
        ("GNU.sparse.map", b"0,512,9488,512"),
    ];
    let first = Tar::default()
        .directory("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .directory("d", 0o711)
        .file("d/big", &noise)
        .file("d/empty", b"")
        .hard_link("d/again", "d/big")
        .pax(&[("path", long.as_bytes()), ("mtime", b"1000000000.123456789"), ("SCHILY.xattr.user.note", b"kept")])
        .file("x", b"long")
        .pax(&sparse)
        .entry(&Header { name: b"holes", ..Header::default() }, &[7; 1024])
        .entry(&Header { kind: b'3', name: b"null", device: (1, 3), ..Header::default() }, b"");
    // A writer that pads.
    let mut first = first.finish();
    first.resize(first.len() + 10_240, 0);
    let second = Tar::default().file("lib/x", b"through a link below").file("d/.wh.empty", b"").finish();
    vec![first, second]
}

/// Layers in which a name does not tell where its content has got to.
fn renamed() -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
    let sparse = |tar: Tar| {
        let records = [("GNU.sparse.major", &b"0"[..]), ("GNU.sparse.minor", b"1"), ("GNU.sparse.numblocks", b"2")];
        let map = [("GNU.sparse.size", &b"900000"[..]), ("GNU.sparse.map", b"8192,512,800000,512")];
        let header = Header { name: b"x", ..Header::default() };
        tar.pax(&[&records[..], &map].concat()).entry(&header, &[[7; 512], [8; 512]].concat())
    };
    let tar = Tar::default;
    let layers = [
        ("a file twice", tar().file("x", b"1111").file("x", b"2222")),
        ("a long one twice", tar().file("x", &noise).file("x", &noise[1..]).file("x", b"")),
        ("a hard link in its place", tar().file("y", b"yyyy").file("x", &noise).hard_link("x", "y")),
        ("a link in its place", tar().file("y", b"yyyy").file("x", b"xxxx").symlink("x", "y")),
        ("a directory in its place", tar().file("x", b"xxxx").directory("x", 0o755).file("x/x", b"in it")),
        ("holes twice", sparse(sparse(tar()).file("x", b"dense")).file("y", b"y")),
        ("holes, then none", sparse(tar().file("x", &noise)).file("x", b"dense")),
        ("gone with its directory", tar().file("d/x", b"xxxx").file("d", b"dddd").file("d", b"")),
        ("a link that led there", tar().directory("d", 0o755).symlink("l", "d").file("l/x", b"xxxx").file("l", b"lll")),
        (
            "a link that leads elsewhere",
            tar().symlink("l", "d").file("l/x", b"xxxx").symlink("l", "e").file("l/x", b"y"),
        ),
        ("a link upwards", tar().symlink("d/up", "../..").file("d/up/x", b"xxxx").file("d/up", b"").file("x", b"yyyy")),
    ];
    layers.map(|(what, tar)| (what, tar.finish())).to_vec()
}

fn image(name: &str) -> Image {
    let mut image = Image::new(name, layers());
    image.layers[0].0 = Method::Gzip;
    image.layers[1].0 = Method::Zstd;
    image
}

#[test]
fn a_layer_goes_out_as_it_came_in() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    for archive in [oci_archive(&[image("a:1")]), docker_archive(&[image("b:1")])] {
        import(&store, &archive).unwrap();
    }
    let (_, record) = store.resolve(&"a:1".parse().unwrap()).unwrap();
    for (number, tar) in layers().iter().enumerate() {
        let (chain, diff_id) = (&record.chain[..=number], Digest::of(tar));
        let mut made = Vec::new();
        layer::write(&store, chain, diff_id, &mut made).unwrap();
        assert!(made == *tar, "layer {number}");
        assert_eq!(layer::length(&store, chain[number], diff_id).unwrap(), tar.len() as u64);
    }
}

#[test]
fn a_layer_of_nothing_is_an_empty_one() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let mut image = Image::new("none:1", vec![Vec::new(), layers().remove(0), Vec::new()]);
    image.layers[2].0 = Method::Gzip;
    let alone = Image::new("alone:1", vec![Vec::new()]);
    import(&store, &docker_archive(&[image, alone])).unwrap();
    for (name, layers) in [("none:1", 3), ("alone:1", 1)] {
        let (_, record) = store.resolve(&name.parse().unwrap()).unwrap();
        assert_eq!(record.chain.len(), layers);
        let mut made = Vec::new();
        layer::write(&store, &record.chain[..1], Digest::of(b""), &mut made).unwrap();
        assert!(made.is_empty());
        save(&store, &[name]).unwrap();
    }
    // Where there should be something, nothing is not taken.
    let saved = r#"[{"Config":"c","RepoTags":["cut:1"],"Layers":["l"]}]"#;
    let config = Image::new("cut:1", vec![layers().remove(1)]).config();
    let cut = Tar::default().file("l", b"").file("c", &config).file("manifest.json", saved.as_bytes()).finish();
    let error = import(&store, &cut).unwrap_err();
    assert!(error.contains("diff ID") && error.contains(&Digest::of(b"").to_string()), "{error}");
}

#[test]
fn a_layer_goes_out_whatever_became_of_its_names() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let below = Tar::default().directory("d", 0o755).directory("e", 0o755).file("x", b"below").finish();
    let mut wrong = Vec::new();
    for (number, (what, tar)) in renamed().into_iter().enumerate() {
        for (form, layers) in [("alone", vec![tar.clone()]), ("over", vec![below.clone(), tar])] {
            let image = Image::new(&format!("{form}:{number}"), layers);
            import(&store, &oci_archive(&[image])).unwrap();
            if let Err(error) = save(&store, &[&format!("{form}:{number}")]) {
                wrong.push(format!("{what}, {form}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As engines wrote them that looked files up by their paths.
#[test]
fn a_layer_goes_out_by_a_record_with_paths() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let tar = Tar::default().file("d/x", b"content").finish();
    import(&store, &oci_archive(&[Image::new("a:1", vec![tar.clone()])])).unwrap();
    let chain = store.resolve(&"a:1".parse().unwrap()).unwrap().1.chain;
    let bytes = |bytes: &[u8]| [&[0][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let part = [&[1][..], &0_u64.to_le_bytes(), &7_u64.to_le_bytes(), &3_u16.to_le_bytes(), b"d/x"].concat();
    let record = compress(Method::Gzip, &[bytes(&tar[..512]), part, bytes(&tar[519..])].concat());
    std::fs::write(machine.path("images/records/sha256").join(chain[0].hex()), record).unwrap();
    let mut made = Vec::new();
    layer::write(&store, &chain, Digest::of(&tar), &mut made).unwrap();
    assert!(made == tar);
}

#[test]
fn a_saved_archive_is_imported_again_as_the_same_images() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let mut other = image("other:2");
    other.layers.truncate(1);
    import(&store, &oci_archive(&[image("a:1"), other])).unwrap();
    let saved = save(&store, &["a:1", "other:2"]).unwrap();
    assert_eq!(saved, save(&store, &["a:1", "other:2"]).unwrap(), "it is the same every time");

    let another = Machine::new().unwrap();
    let second = another.store();
    // Through a pipe, compressed.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let compressed = compress(Method::Gzip, &saved);
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &compressed).unwrap());
    let source = File::from(OwnedFd::from(reader));
    let texts = run(&second, Query::Import { name: String::new() }, Some(source)).unwrap().texts;
    writing.join().unwrap();
    assert_eq!(texts.len(), 2, "{texts:?}");
    for name in ["a:1", "other:2"] {
        let name = name.parse().unwrap();
        let (before, after) = (store.resolve(&name).unwrap().1, second.resolve(&name).unwrap().1);
        assert_eq!((before.config_digest, before.chain), (after.config_digest, after.chain));
    }
    // What went out with plain layers comes in with the same digest, and goes out with it.
    assert_eq!(save(&second, &["a:1", "other:2"]).unwrap(), saved);
}

#[test]
fn a_layer_that_was_changed_on_the_disk_does_not_go_out() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    import(&store, &oci_archive(&[image("a:1")])).unwrap();
    let (_, record) = store.resolve(&"a:1".parse().unwrap()).unwrap();
    let big = support::content(&store, record.chain[0], "d/big");
    let file = store.layer_path(record.chain[0]);
    let mut image = std::fs::read(&file).unwrap();
    let at = image.windows(64).position(|window| window == &big[..64]).expect("its content is in the image");
    image[at + 9] ^= 1;
    std::fs::write(&file, &image).unwrap();
    assert!(save(&store, &["a:1"]).unwrap_err().contains("is not as it was unpacked"));
    // A shorter file: its size is eight bytes behind the beginning of its inode, which is at a multiple of 32.
    let size = (big.len() as u64).to_le_bytes();
    let inode = image.chunks(32).position(|slot| slot.get(8..16) == Some(&size)).expect("its inode is in the image");
    image[32 * inode + 10] ^= 4;
    std::fs::write(&file, &image).unwrap();
    assert!(save(&store, &["a:1"]).unwrap_err().contains("a file of the layer"));
    assert!(save(&store, &["none"]).unwrap_err().contains("there is no image docker.io/library/none:latest here"));
}

#[test]
fn names_come_and_go_and_the_image_with_the_last() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    import(&store, &oci_archive(&[image("a:1")])).unwrap();
    let tag = |target: &str| {
        run(&store, Query::Tag { source: "a:1".to_owned(), target: target.to_owned() }, None).map(|_| ())
    };
    let remove = |image: &str, force| run(&store, Query::Remove { image: image.to_owned(), force }, None).map(|_| ());
    tag("localhost/b:2").unwrap();
    assert!(tag(&format!("b@{}", Digest::of(b""))).unwrap_err().contains("has a digest"));
    let described = run(&store, Query::Inspect { image: "a:1".to_owned() }, None).unwrap().texts.remove(0);
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["names"], serde_json::json!(["docker.io/library/a:1", "localhost/b:2"]));
    assert_eq!(described["configuration"]["config"]["Cmd"][0], "/bin/true");

    let (digest, record) = store.resolve(&"a:1".parse().unwrap()).unwrap();
    let layer = record.chain[0];
    assert!(store.is_of_an_archive(&"localhost/b:2".parse().unwrap(), digest), "whatever it is called");
    remove("a:1", false).unwrap();
    assert!(remove("a:1", false).unwrap_err().contains("there is no image"));
    assert!(store.has_layer(layer) && store.record(layer).is_ok());
    // As when a container is prepared from it.
    store.resolve_for("web", &"localhost/b:2".parse().unwrap()).unwrap();
    assert!(remove("localhost/b:2", false).unwrap_err().contains("containers use localhost/b:2 (web)"));
    remove("localhost/b:2", true).unwrap();
    assert!(store.has_layer(layer), "it is in use");

    import(&store, &oci_archive(&[Image::new("c:1", vec![Tar::default().file("c", b"c").finish()])])).unwrap();
    let layer = store.resolve(&"c:1".parse().unwrap()).unwrap().1.chain[0];
    remove("c:1", false).unwrap();
    assert!(!store.has_layer(layer) && store.record(layer).is_err() && !store.layer_path(layer).exists());
}

#[test]
fn an_image_is_also_called_by_the_beginning_of_a_digest() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let nameless = |content: &[u8]| Image::new("", vec![Tar::default().file("a", content).finish()]);
    // Two at once, for the only image of an archive takes the archive's name.
    import(&store, &oci_archive(&[image("a:1"), nameless(b"1"), nameless(b"2")])).unwrap();
    let listed: Vec<_> = store.list().collect();
    assert_eq!(listed.iter().map(|image| &*image.image).collect::<Vec<_>>(), ["docker.io/library/a:1", "", ""]);
    let digest = listed[1].digest.clone();
    let short = &digest["sha256:".len()..][..12];
    let ask = |query| run(&store, query, None).map(|outcome| outcome.texts);
    let remove = |image: &str, force| ask(Query::Remove { image: image.to_owned(), force }).map(drop);

    let described = ask(Query::Inspect { image: short.to_owned() }).unwrap().remove(0);
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!((&described["digest"], &described["names"]), (&digest.as_str().into(), &serde_json::json!([])));
    // Docker's image ID is the digest of the configuration.
    let id = described["id"].as_str().unwrap();
    assert_eq!(store.find(&id[..20]).unwrap().digest.to_string(), digest);
    let saved = save(&store, &[&digest]).unwrap();
    assert!(saved.windows(13).any(|part| part == br#""RepoTags":[]"#));
    let another = Machine::new().unwrap();
    assert!(import(&another.store(), &saved).unwrap()[0].starts_with("docker.io/library/web:latest"));

    // A name that looks like digits goes before digits.
    ask(Query::Tag { source: "a:1".to_owned(), target: short.to_owned() }).unwrap();
    assert_ne!(store.find(short).unwrap().digest.to_string(), digest);
    ask(Query::Tag { source: digest.clone(), target: "b:1".to_owned() }).unwrap();
    ask(Query::Tag { source: digest.clone(), target: "b:2".to_owned() }).unwrap();
    assert!(remove(&digest, false).unwrap_err().contains("(docker.io/library/b:1, docker.io/library/b:2)"));
    remove(&digest, true).unwrap();
    assert_eq!(store.list().count(), 3, "a:1 by two names, and the other");
    assert!(remove(&digest, true).unwrap_err().contains("there is no image"));

    // An archive's image that no name leads to goes too, but not from under a container.
    let digest = listed[2].digest.clone();
    store.resolve_for("web", &format!("x@{digest}").parse().unwrap()).unwrap();
    assert!(remove(&digest, false).unwrap_err().contains("(web)"));
    store.forget_container("web");
    remove(&digest[..30], false).unwrap();
    assert_eq!(store.list().count(), 2);
    for wrong in ["abc", "sha256:", "ABCDEF0123", "0000"] {
        assert!(store.find(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn digits_of_several_images_are_not_enough() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    let one = image("a:1").config();
    import(&store, &docker_archive(&[image("a:1")])).unwrap();
    // The same configuration with a manifest is another image with the same ID.
    import(&store, &oci_archive(&[image("b:1")])).unwrap();
    let error = store.find(&Digest::of(&one).hex()[..12]).unwrap_err().to_string();
    assert!(error.contains("the digests of 2 images begin with"), "{error}");
}

#[test]
fn an_archive_that_is_none_is_refused_with_the_reason() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    assert!(import(&store, b"hello").unwrap_err().contains("neither a tar archive"));
    assert!(
        import(&store, &Tar::default().file("x", b"x").finish()).unwrap_err().contains("it is no archive of images")
    );
    let mut bad = image("a:1");
    bad.layers[0].1 = b"no tar archive at all".repeat(100);
    let error = import(&store, &oci_archive(&[bad])).unwrap_err();
    assert!(error.contains("docker.io/library/a:1: the layer"), "{error}");
    assert!(store.resolve(&"a:1".parse().unwrap()).is_none());
}

#[test]
fn podman_loads_a_saved_archive() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    import(&store, &oci_archive(&[image("a:1")])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("saved.tar"), save(&store, &["a:1"]).unwrap()).unwrap();
    let [root, run] = ["root", "run"].map(|name| folder.path().join(name).display().to_string());
    // As it is stored by podman is no matter here: its simplest way needs no mounts.
    let podman = |words: &[&str]| {
        let place = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        let output = succeeds("podman", &[&place, words].concat(), folder.path())?;
        Some(String::from_utf8(output).unwrap())
    };
    let Some(loaded) = podman(&["load", "--quiet", "--input", "saved.tar"]) else { return };
    assert!(loaded.contains("docker.io/library/a:1"), "{loaded}");
    let seen = podman(&["image", "inspect", "--format", "{{.Id}} {{json .RootFS.Layers}}", "docker.io/library/a:1"]);
    let (_, record) = store.resolve(&"a:1".parse().unwrap()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&store.config(&record).unwrap()).unwrap();
    let diff_ids = &config["rootfs"]["diff_ids"];
    assert_eq!(seen.unwrap().trim(), format!("{} {diff_ids}", record.config_digest.hex()));
}

fn succeeds(program: &str, arguments: &[&str], folder: &Path) -> Option<Vec<u8>> {
    let output = match Process::new(program).args(arguments).current_dir(folder).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("{program} is not installed"));
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn others_read_a_saved_archive_in_both_of_its_forms() {
    let Some(machine) = Machine::new() else { return };
    let store = machine.store();
    import(&store, &oci_archive(&[image("a:1")])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("saved.tar"), save(&store, &["a:1"]).unwrap()).unwrap();
    let config = image("a:1").config();
    for source in ["oci-archive:saved.tar", "docker-archive:saved.tar"] {
        let read = succeeds("skopeo", &["inspect", "--config", "--raw", source], folder.path());
        let Some(read) = read else { return };
        assert_eq!(read, config, "{source}");
        let target = format!("oci:{}:a", source.split(':').next().unwrap());
        succeeds("skopeo", &["copy", "--quiet", "--insecure-policy", source, &target], folder.path());
    }
    let unpack = ["unpack", "--image", "oci-archive:a", "bundle"];
    if succeeds("umoci", &unpack, folder.path()).is_some() {
        let read = |name: &str| std::fs::read(folder.path().join("bundle/rootfs").join(name)).unwrap();
        assert_eq!(read("d/again").len(), 280_000);
        assert_eq!(read("usr/lib/x"), b"through a link below");
        assert!(!folder.path().join("bundle/rootfs/d/empty").exists());
    }
}
