use super::*;
use crate::layer::Summary;

/// An image of these layers, of which the last one's digest is its configuration's.
pub(super) fn image(chain: Vec<Digest>) -> ImageRecord {
    let config_digest = chain.last().copied().unwrap();
    ImageRecord { config_digest, chain, unnamed: None, imported: false }
}

#[test]
fn the_first_chain_id_is_the_first_diff_id() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let chain = chain_ids(&[a, b]);
    assert_eq!(chain[0], a);
    assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
}

#[test]
fn two_engines_cannot_open_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path(), "a").unwrap();
    assert!(matches!(Store::open(directory.path(), "a"), Err(StoreError::Locked { .. })));
    drop(first);
    Store::open(directory.path(), "a").unwrap();
}

#[test]
fn a_layer_without_a_committed_catalogue_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, lost) = (Digest::of(b"kept"), Digest::of(b"lost"));
    let store = Store::open(directory.path(), "a").unwrap();
    store.publish(store.draft().unwrap(), kept, kept, Summary::default()).unwrap();
    store.commit().unwrap();
    store.publish(store.draft().unwrap(), lost, lost, Summary::default()).unwrap();
    let _draft = store.draft().unwrap();
    drop(store);

    let store = Store::open(directory.path(), "a").unwrap();
    assert!(store.has_layer(kept) && !store.has_layer(lost));
    assert!(store.layer_path(kept).exists() && !store.layer_path(lost).exists());
    store.empty_tmp().unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn an_image_without_a_name_is_forgotten_in_the_next_boot() {
    let directory = tempfile::tempdir().unwrap();
    let layer = Digest::of(b"layer");
    let store = Store::open(directory.path(), "a").unwrap();
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    let image = image(vec![layer]);
    store.add_image(layer, image, None, b"{}").unwrap();
    assert_eq!(store.collect().unwrap(), 0);
    drop(store);

    let reference: Reference = format!("x@{layer}").parse().unwrap();
    for (boot, used, collected) in [("a", false, 0), ("b", true, 0), ("b", false, 0), ("c", false, 1)] {
        let store = Store::open(directory.path(), boot).unwrap();
        assert!(!used || store.resolve_for("container", &reference).is_some());
        assert_eq!(store.collect().unwrap(), collected, "{boot} {used}");
    }
    assert_eq!(std::fs::read_dir(directory.path().join(LAYERS)).unwrap().count(), 0);
}

#[test]
fn a_damaged_catalogue_is_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("catalogue.json"), b"{\"layers\":").unwrap();
    let store = Store::open(directory.path(), "a").unwrap();
    assert!(store.names().is_empty());
}

#[test]
fn what_an_image_says_is_no_part_of_the_catalogue() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), "a").unwrap();
    let layer = Digest::of(b"layer");
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    let config = format!(r#"{{"config":{{"User":"web"}},"rootfs":{{"diff_ids":["{layer}"]}}}}"#);
    let record = ImageRecord { config_digest: Digest::of(config.as_bytes()), ..image(vec![layer]) };
    let digest = Digest::of(b"image");
    store.add_image(digest, record.clone(), None, config.as_bytes()).unwrap();
    store.commit().unwrap();
    drop(store);
    let path = directory.path().join("catalogue.json");
    let catalogue = std::fs::read_to_string(&path).unwrap();
    assert!(!catalogue.contains("web"), "{catalogue}");
    // An older one has it there.
    let older = catalogue.replace(r#""chain":"#, &format!(r#""config":{config},"chain":"#));
    assert_ne!(older, catalogue);
    std::fs::write(&path, older).unwrap();
    let store = Store::open(directory.path(), "a").unwrap();
    let found = store.image(digest).unwrap();
    assert_eq!(store.wishes(&found).unwrap().user.as_deref(), Some("web"));
    std::fs::write(directory.path().join(CONFIGS).join(record.config_digest.hex()), "{}").unwrap();
    assert!(matches!(store.wishes(&found), Err(StoreError::Changed { .. })));
    store.add_image(digest, record, None, config.as_bytes()).unwrap();
    assert!(store.wishes(&found).is_ok(), "whoever brings it again has it again");
}

#[test]
fn directories_of_an_earlier_berth_are_layers_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let layer = Digest::of(b"layer");
    let reference: Reference = "x:1".parse().unwrap();
    let store = Store::open(directory.path(), "a").unwrap();
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    let image = image(vec![layer]);
    store.add_image(layer, image, None, b"{}").unwrap();
    store.name(&reference, layer);
    store.commit().unwrap();
    let old = store.layer_path(layer);
    drop(store);
    let store = Store::open(directory.path(), "a").unwrap();
    assert!(store.resolve(&reference).is_some(), "a file is a layer");
    drop(store);
    std::fs::remove_file(&old).unwrap();
    std::fs::create_dir_all(old.join("bin")).unwrap();

    let store = Store::open(directory.path(), "a").unwrap();
    assert!(!store.has_layer(layer) && store.names().is_empty() && !old.exists());
    assert!(store.claim(&[layer]).is_ours(layer), "it comes again");
}

#[test]
fn a_layer_that_is_not_what_it_was_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let [layer, other] = [Digest::of(b"layer"), Digest::of(b"other")];
    let store = Store::open(directory.path(), "a").unwrap();
    for digest in [layer, other] {
        store.publish(store.draft().unwrap(), digest, digest, Summary::default()).unwrap();
    }
    assert!(!store.claim(&[layer, other]).is_ours(layer), "it is there");
    // As its record would have it on a disk with fs-verity, where this file is another one.
    store.catalogue().layers.get_mut(&layer).unwrap().verity = Some(layer);
    let refused = store.merged(&[layer]).unwrap_err();
    assert!(refused.to_string().contains("was changed on disk: its fs-verity digest is missing"), "{refused}");
    assert_eq!(store.layers(&[layer])[0].verity, Some(layer.hex()));
    let claim = store.claim(&[layer, other]);
    assert!(claim.is_ours(layer) && !claim.is_ours(other) && !store.layer_path(layer).exists());
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    assert!(store.has_layer(layer) && store.layer_path(layer).exists());
}

#[test]
fn documents_that_are_there_are_not_written_again_and_broken_ones_are_replaced() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let layer = Digest::of(b"layer");
    let store = Store::open(directory.path(), "a").unwrap();
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    let add = || store.add_image(layer, image(vec![layer]), Some(b"manifest"), b"{}").unwrap();
    let documents = ["manifests", "configs"].map(|kind| directory.path().join(kind).join("sha256").join(layer.hex()));
    let look =
        || documents.each_ref().map(|path| path.metadata().map(|found| (found.ino(), found.ctime_nsec())).unwrap());
    add();
    let first = look();
    add();
    assert_eq!(look(), first, "a power cut between two pulls harms neither");
    let open = documents.each_ref().map(|path| std::fs::File::open(path).unwrap());
    for path in &documents {
        std::fs::write(path, b"brok").unwrap();
    }
    add();
    assert_eq!(documents.each_ref().map(|path| std::fs::read(path).unwrap()), [b"manifest".to_vec(), b"{}".to_vec()]);
    for file in open {
        assert_eq!(std::io::read_to_string(file).unwrap(), "brok", "another file has its name, at once");
    }
}

#[test]
fn a_digest_takes_the_names_of_its_repository_away() {
    let directory = tempfile::tempdir().unwrap();
    let layer = Digest::of(b"layer");
    let store = Store::open(directory.path(), "a").unwrap();
    store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
    store.add_image(layer, image(vec![layer]), None, b"{}").unwrap();
    let name = |text: &str| -> Reference { text.parse().unwrap() };
    for text in ["web:1", "web:2", "r.example/web:1"] {
        store.name(&name(text), layer);
    }
    let remove = |text: String, force| store.remove_name(&name(&text), force).map_err(|error| error.to_string());
    let names = || store.names().into_keys().collect::<Vec<_>>();
    assert!(remove(format!("other@{layer}"), true).unwrap_err().contains("there is no image"), "by another name");
    assert!(remove(format!("web@{}", Digest::of(b"x")), true).unwrap_err().contains("there is no image"));
    assert!(remove(format!("web@{layer}"), false).unwrap_err().contains("has several names"));
    remove(format!("web:1@{layer}"), false).unwrap();
    assert_eq!(names(), ["docker.io/library/web:2", "r.example/web:1"]);
    remove(format!("web@{layer}"), false).unwrap();
    assert_eq!(names(), ["r.example/web:1"]);
    store.name(&name(&format!("r.example/web@{layer}")), layer);
    remove(format!("r.example/web@{layer}"), false).unwrap();
    assert_eq!(names(), ["r.example/web:1"], "a name of its own comes first");
    let image = Some(name("r.example/web:1"));
    let user = User { container: "c".to_owned(), image, runs: None, grace: std::time::Duration::ZERO };
    store.declare(vec![user]);
    assert!(remove(format!("r.example/web@{layer}"), false).unwrap_err().contains("containers use"));
    store.name(&name("web:1"), layer);
    store.name(&name("web:2"), layer);
    remove(format!("web@{layer}"), true).unwrap();
    assert_eq!(names(), ["r.example/web:1"]);
}

#[test]
fn documents_of_no_image_go_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let [kept, lost] = [Digest::of(b"kept"), Digest::of(b"lost")];
    let store = Store::open(directory.path(), "a").unwrap();
    for layer in [kept, lost] {
        store.publish(store.draft().unwrap(), layer, layer, Summary::default()).unwrap();
        store.add_image(layer, image(vec![layer]), Some(b"manifest"), b"{}").unwrap();
        if layer == kept {
            store.commit().unwrap();
        }
    }
    std::fs::write(directory.path().join("configs/sha256/other"), b"").unwrap();
    drop(store);
    let store = Store::open(directory.path(), "a").unwrap();
    for kind in ["manifests", "configs", "layers", "records"] {
        let entries = std::fs::read_dir(directory.path().join(kind).join("sha256")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names, [kept.hex()], "{kind}");
    }
    assert_eq!(store.manifest(kept).unwrap().unwrap(), b"manifest");
}
