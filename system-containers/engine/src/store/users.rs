//! Who needs which images: containers, as far as PID 1 has told of them.
//!
//! A container needs the image that its definition names, and those that it was prepared from last: the one before the
//! last too, for it may still be on its way down. One that is not declared any more needs them for as long as it may take
//! to end.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::{ImageRecord, Store};
use crate::digest::Digest;
use crate::reference::Reference;

/// What a container that is no longer declared gets on top of its `stop_grace_period`.
pub const MARGIN: Duration = Duration::from_secs(30);

/// A container and what it needs.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name.
    pub container: String,
    /// The image that its definition names, if that is a name.
    pub image: Option<Reference>,
    /// What it runs from, if PID 1 knows.
    pub runs: Option<Digest>,
    /// How long it may take to end.
    pub grace: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Users {
    /// Whether it is known which containers there are.
    pub known: bool,
    /// Whether the end of a use is still to be written down.
    pub has_ended: bool,
    containers: BTreeMap<String, Need>,
    /// Images of containers that may not have ended yet.
    leaving: Vec<(Digest, Instant)>,
}

#[derive(Debug)]
struct Need {
    name: Option<Reference>,
    /// The last one last.
    images: Vec<Digest>,
    grace: Duration,
}

impl Need {
    /// Returns what it does not need any more.
    fn add(&mut self, digest: Digest) -> Option<Digest> {
        self.images.retain(|image| *image != digest);
        self.images.push(digest);
        (self.images.len() > 2).then(|| self.images.remove(0))
    }

    /// All that it needs.
    fn all(&self, names: &BTreeMap<String, Digest>) -> impl Iterator<Item = Digest> {
        self.images.iter().copied().chain(self.named(names))
    }
}

impl Users {
    /// Every container that needs the image of these names, in order.
    pub fn of(&self, digest: Digest, names: &BTreeMap<String, Digest>) -> Vec<String> {
        let needs = |need: &Need| need.images.contains(&digest) || need.named(names) == Some(digest);
        self.containers.iter().filter(|(_, need)| needs(need)).map(|(name, _)| name.clone()).collect()
    }

    /// The image that a container was prepared from last, or will be.
    pub fn image(&self, container: &str, names: &BTreeMap<String, Digest>) -> Option<Digest> {
        let need = self.containers.get(container)?;
        need.images.last().copied().or_else(|| need.named(names))
    }

    /// The images that somebody needs.
    pub fn needed(&self, names: &BTreeMap<String, Digest>) -> HashSet<Digest> {
        let needs = self.containers.values();
        let now = Instant::now();
        let leaving = self.leaving.iter().filter(|(_, until)| *until > now).map(|(digest, _)| *digest);
        needs.flat_map(|need| need.all(names)).chain(leaving).collect()
    }

    fn add(&mut self, user: User) {
        let User { container, image, runs, grace } = user;
        let need = self.containers.entry(container).or_insert(Need { name: None, images: Vec::new(), grace });
        (need.name, need.grace) = (image, grace);
        if let Some(digest) = runs.filter(|_| need.images.is_empty()) {
            need.add(digest);
        }
    }

    /// Only these are declared.
    fn replace(&mut self, users: Vec<User>) {
        self.known = true;
        let names: HashSet<String> = users.iter().map(|user| user.container.clone()).collect();
        users.into_iter().for_each(|user| self.add(user));
        let now = Instant::now();
        self.leaving.retain(|(_, until)| *until > now);
        let gone = self.containers.extract_if(.., |name, _| !names.contains(name));
        let leaving = gone.flat_map(|(_, need)| {
            self.has_ended = true;
            let until = now + need.grace + MARGIN;
            need.images.into_iter().map(move |image| (image, until))
        });
        self.leaving.extend(leaving);
    }
}

impl Need {
    /// What its name means now. A digest may be that of an index that the image was chosen from.
    fn named(&self, names: &BTreeMap<String, Digest>) -> Option<Digest> {
        let reference = self.name.as_ref()?;
        names.get(&reference.key()).copied().or_else(|| reference.digest())
    }
}

impl Store {
    /// These are all containers. From now on what they do not need can be removed.
    pub fn declare(&self, users: Vec<User>) {
        let mut catalogue = self.catalogue();
        // What some of them needed is used until now.
        if catalogue.users.known {
            catalogue.touch_needed();
        }
        catalogue.users.replace(users);
    }

    /// One container more.
    pub fn declare_one(&self, user: User) {
        self.catalogue().users.add(user);
    }

    /// A container is gone.
    pub fn forget_container(&self, name: &str) {
        let mut catalogue = self.catalogue();
        if let Some(need) = catalogue.users.containers.remove(name) {
            catalogue.users.has_ended = true;
            let needed: Vec<Digest> = need.all(&catalogue.names()).collect();
            catalogue.touch_all(&needed);
        }
    }

    /// The image that a name means now, for a container that is going to run from it.
    pub fn resolve_for(&self, container: &str, reference: &Reference) -> Option<(Digest, ImageRecord)> {
        let mut catalogue = self.catalogue();
        let (digest, image) = catalogue.resolve(reference)?;
        catalogue.touch(digest);
        let need = catalogue.users.containers.entry(container.to_owned());
        let need = need.or_insert(Need { name: Some(reference.clone()), images: Vec::new(), grace: Duration::ZERO });
        let given_up = need.add(digest);
        catalogue.touch_all(&given_up);
        Some((digest, image))
    }

    /// The containers that need an image, by name.
    pub fn users_of(&self, digest: Digest) -> Vec<String> {
        let catalogue = self.catalogue();
        catalogue.users.of(digest, &catalogue.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(container: &str, grace: u64) -> User {
        let image = "x:1".parse().ok();
        User { container: container.to_owned(), image, runs: None, grace: Duration::from_secs(grace) }
    }

    #[test]
    fn a_container_needs_what_it_runs_from_and_what_its_name_means() {
        let [old, new, named] = [Digest::of(b"old"), Digest::of(b"new"), Digest::of(b"named")];
        let names = BTreeMap::from([("docker.io/library/x:1".to_owned(), named)]);
        let mut users = Users::default();
        users.replace(vec![User { runs: Some(old), ..user("a", 0) }]);
        assert_eq!(users.needed(&names), HashSet::from([old, named]));
        assert_eq!(users.of(named, &names), ["a"]);
        for digest in [new, named] {
            users.containers.get_mut("a").unwrap().add(digest);
        }
        assert_eq!(users.needed(&BTreeMap::new()), HashSet::from([new, named]), "the one before the last may run yet");
    }

    #[test]
    fn the_digest_of_an_index_means_the_image_that_was_chosen_from_it() {
        let [index, image] = [Digest::of(b"index"), Digest::of(b"image")];
        let names = BTreeMap::from([(format!("docker.io/library/x@{index}"), image)]);
        let pinned = |digest: Digest| User { image: format!("x@{digest}").parse().ok(), ..user("a", 0) };
        let mut users = Users::default();
        users.replace(vec![pinned(index)]);
        assert_eq!(users.needed(&names), HashSet::from([image]));
        users.replace(vec![pinned(image)]);
        assert_eq!(users.needed(&names), HashSet::from([image]), "by its own");
    }

    #[test]
    fn what_is_not_declared_any_more_may_take_its_time_to_end() {
        let digest = Digest::of(b"a");
        let mut users = Users::default();
        users.replace(vec![User { runs: Some(digest), ..user("a", 3600) }]);
        users.replace(vec![user("b", 0)]);
        assert_eq!(users.needed(&BTreeMap::new()), HashSet::from([digest]));
        assert!(users.of(digest, &BTreeMap::new()).is_empty());
        users.leaving[0].1 = Instant::now();
        users.replace(Vec::new());
        assert!(users.needed(&BTreeMap::new()).is_empty());
    }
}
