use super::super::PullRecord;
use super::super::tests::image;
use super::super::users::User;
use super::*;
use crate::layer::Summary;
use crate::reference::Reference;

const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Bench {
    /// Two images of a common layer and one of its own each, pulled as `a` and `b`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let bench = Self { _directory: directory, store };
        for name in ["a", "b"] {
            bench.add(name);
        }
        bench
    }

    fn add(&self, name: &str) {
        let chain = vec![Digest::of(b"common"), Digest::of(name.as_bytes())];
        for (layer, bytes) in chain.iter().zip([1000, 10]) {
            let summary = Summary { bytes, ..Summary::default() };
            self.store.publish(self.store.draft().unwrap(), *layer, *layer, summary).unwrap();
        }
        self.store.add_image(digest(name), image(chain), None, b"{}").unwrap();
        let record = PullRecord { digest: digest(name), from: "registry".to_owned(), at: 0, policy: None };
        self.store.record_pull(&reference(name), record);
    }

    fn declare(&self, names: &[&str]) {
        let user = |name: &&str| User {
            container: format!("container-{name}"),
            image: Some(reference(name)),
            runs: None,
            grace: Duration::ZERO,
        };
        self.store.declare(names.iter().map(user).collect());
    }

    /// As if it had not been used for so long.
    fn age(&self, name: &str, time: Duration) {
        self.store.catalogue().used.insert(digest(name), now() - time.as_secs());
    }

    fn names(&self) -> Vec<String> {
        self.store.names().into_keys().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect()
    }

    fn has(&self, layer: &str) -> bool {
        let layer = Digest::of(layer.as_bytes());
        assert_eq!(self.store.has_layer(layer), self.store.layer_path(layer).exists());
        self.store.has_layer(layer)
    }
}

fn digest(name: &str) -> Digest {
    Digest::of(format!("manifest of {name}").as_bytes())
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

const ALL: Choice = Choice { all: true, unused_for: Duration::ZERO };

#[test]
fn nothing_is_spare_before_the_containers_are_known() {
    let bench = Bench::new();
    assert!(bench.store.prune(ALL).unwrap().is_empty());
    bench.declare(&[]);
    assert_eq!(bench.store.prunable(ALL).len(), 2);
    assert_eq!(bench.store.prune(ALL).unwrap().len(), 2);
    assert!(bench.names().is_empty() && !bench.has("common"));
}

#[test]
fn what_a_container_needs_stays_with_its_layers() {
    let bench = Bench::new();
    bench.declare(&["a"]);
    let expected = Removed { digest: digest("b"), names: vec!["docker.io/library/b:latest".to_owned()], bytes: 10 };
    assert_eq!(bench.store.prunable(ALL), std::slice::from_ref(&expected));
    assert_eq!(bench.store.prune(ALL).unwrap(), [expected]);
    assert_eq!(bench.names(), ["a:latest"]);
    assert!(bench.has("common") && bench.has("a") && !bench.has("b"));
    assert_eq!(bench.store.users_of(digest("a")), ["container-a"]);
}

#[test]
fn names_are_removed_only_if_all_are_wanted() {
    let bench = Bench::new();
    bench.declare(&[]);
    assert!(bench.store.prune(Choice::default()).unwrap().is_empty());
    // Another image takes the name over.
    let record = PullRecord { digest: digest("a"), from: "registry".to_owned(), at: 0, policy: None };
    bench.store.record_pull(&reference("b"), record);
    let removed = bench.store.prune(Choice::default()).unwrap();
    assert_eq!(removed.iter().map(|image| image.digest).collect::<Vec<_>>(), [digest("b")]);
    assert_eq!(bench.names(), ["a:latest", "b:latest"]);
}

#[test]
fn an_image_that_has_come_is_held_until_it_is_named() {
    let bench = Bench::new();
    bench.declare(&["c"]);
    let held = [bench.store.hold(digest("c")), bench.store.hold(digest("c"))];
    let chain = vec![Digest::of(b"c")];
    bench.store.publish(bench.store.draft().unwrap(), chain[0], chain[0], Summary::default()).unwrap();
    bench.store.add_image(digest("c"), image(chain), None, b"{}").unwrap();
    let [first, second] = held;
    drop(first);
    assert_eq!(bench.store.prune(ALL).unwrap().len(), 2, "all but that one");
    assert!(!bench.store.give_up_one().unwrap() && bench.has("c"));
    bench.store.name(&reference("c"), digest("c"));
    drop(second);
    assert!(bench.store.prune(ALL).unwrap().is_empty(), "a container needs it by its name");
    bench.declare(&[]);
    assert_eq!(bench.store.prune(ALL).unwrap().len(), 1);
}

#[test]
fn age_is_counted_from_the_last_use() {
    let bench = Bench::new();
    bench.declare(&[]);
    bench.age("a", 8 * DAY);
    bench.age("b", 6 * DAY);
    let week = Choice { all: true, unused_for: 7 * DAY };
    assert_eq!(bench.store.prunable(week).len(), 1);
    assert_eq!(bench.store.collect().unwrap(), 0, "the policy says nothing of age");
    bench.store.set_policy(Policy { keep: Some(7 * DAY), room: Room::default() });
    bench.declare(&["a"]);
    assert_eq!(bench.store.collect().unwrap(), 0, "a container needs it");
    bench.declare(&[]);
    assert_eq!(bench.store.collect().unwrap(), 0, "it was needed a moment ago");
    bench.age("a", 8 * DAY);
    assert_eq!(bench.store.collect().unwrap(), 1);
    assert_eq!(bench.names(), ["b:latest"]);
    // With a clock of 1970 nothing is old.
    bench.store.catalogue().used.insert(digest("b"), 5);
    assert_eq!(bench.store.collect().unwrap(), 0);
}

#[test]
fn want_of_room_takes_the_longest_unused_first() {
    let bench = Bench::new();
    bench.declare(&["b"]);
    bench.add("c");
    bench.age("a", DAY);
    assert!(bench.store.make_room().unwrap().is_empty(), "there is room");
    // More than any file system has free.
    bench.store.set_policy(Policy { keep: None, room: Room::new(Some(u64::MAX)) });
    let removed = bench.store.make_room().unwrap();
    assert_eq!(removed.iter().map(|image| image.digest).collect::<Vec<_>>(), [digest("a"), digest("c")]);
    assert_eq!(bench.names(), ["b:latest"]);
}

#[test]
fn last_uses_outlive_the_store() {
    let bench = Bench::new();
    bench.age("a", 8 * DAY);
    bench.store.commit().unwrap();
    let Bench { _directory: directory, store } = bench;
    drop(store);
    let store = Store::open(directory.path(), "boot").unwrap();
    store.declare(Vec::new());
    assert_eq!(store.prune(Choice { all: true, unused_for: 7 * DAY }).unwrap().len(), 1);
}

#[test]
fn the_end_of_a_use_is_its_last_moment() {
    let bench = Bench::new();
    bench.store.set_policy(Policy { keep: Some(7 * DAY), room: Room::default() });
    let was_used_now = || {
        let used = bench.store.catalogue().used[&digest("a")];
        bench.age("a", 8 * DAY);
        used + DAY.as_secs() > now()
    };
    bench.declare(&["a", "b"]);
    bench.age("a", 8 * DAY);
    bench.store.forget_container("container-a");
    assert!(was_used_now(), "a container is forgotten");
    bench.declare(&["a", "b"]);
    bench.age("a", 8 * DAY);
    bench.declare(&["b"]);
    assert!(was_used_now(), "a container is not declared any more");
    bench.add("c");
    bench.add("d");
    for name in ["a", "c", "d"] {
        bench.age("a", 8 * DAY);
        bench.store.resolve_for("container-b", &reference(name)).unwrap();
    }
    assert!(was_used_now(), "a container has had two others since");
    assert_eq!(bench.store.collect().unwrap(), 1, "nothing else keeps it");
}

#[test]
fn the_last_use_outlives_the_store_too() {
    let bench = Bench::new();
    bench.age("a", 8 * DAY);
    bench.age("b", 8 * DAY);
    bench.store.commit().unwrap();
    bench.declare(&["a"]);
    bench.store.forget_container("container-a");
    // Nothing else has changed.
    bench.store.settle(false).unwrap();
    let Bench { _directory: directory, store } = bench;
    drop(store);
    let store = Store::open(directory.path(), "boot").unwrap();
    store.declare(Vec::new());
    let removed = store.prune(Choice { all: true, unused_for: 7 * DAY }).unwrap();
    assert_eq!(removed.iter().map(|image| image.digest).collect::<Vec<_>>(), [digest("b")]);
}
