//! Which images go, and when: garbage collection by reference, by age and for want of room, and by command.
//!
//! An image stays as long as a container is declared or made that needs it (see `users`), or an archive of the user data
//! holds it, which would only bring it back, or until whoever brings it has named it (see `held`). Everything else is spare. Nothing is spare before PID 1 has said which
//! containers there are.
//!
//! What goes is taken out of the catalogue first, then moved away, then deleted. If a full disk does not let the catalogue
//! be written the layers go all the same, and it is written in the room that they leave. Should the power go before: a store
//! that opens forgets images whose layers are not there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_control::clock::is_plausible;

use super::catalogue::{Catalogue, Collected};
use super::{CONFIGS, ImageRecord, LAYERS, MANIFESTS, RECORDS, Store, StoreError};
use crate::digest::Digest;
use crate::import::describe;
use crate::room::Room;

/// How long images stay that nothing needs, and how much room they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// After its last use; for ever if absent.
    pub keep: Option<Duration>,
    /// What is left free.
    pub room: Room,
}

impl From<&berth_config::Images> for Policy {
    fn from(images: &berth_config::Images) -> Self {
        let keep = images.keep.map(|keep| keep.duration());
        Self { keep, room: Room::new(images.reserve.map(|reserve| reserve.bytes())) }
    }
}

/// What a person wants to be rid of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Also images with names, as long as no container needs them.
    pub all: bool,
    /// Only those that were not used for so long.
    pub unused_for: Duration,
}

/// An image that has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Which.
    pub digest: Digest,
    /// What it was called.
    pub names: Vec<String>,
    /// The bytes of files that nothing else needed.
    pub bytes: u64,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Catalogue {
    /// A container uses it, or it has come, just now.
    pub fn touch(&mut self, digest: Digest) {
        self.used.insert(digest, now());
    }

    /// Containers use what they need until now. Returns what that is.
    pub(super) fn touch_needed(&mut self) -> HashSet<Digest> {
        let needed = self.users.needed(&self.names());
        self.touch_all(&needed);
        needed
    }

    /// The same as [`Self::touch`] of those that are images.
    pub(super) fn touch_all<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) {
        digests.into_iter().for_each(|digest| self.touch(*digest));
        self.used.retain(|digest, _| self.images.contains_key(digest));
    }

    /// Images that nothing needs, the longest unused first, with the time of their last use.
    fn spare(&mut self) -> Vec<(u64, Digest)> {
        if !self.users.known {
            return Vec::new();
        }
        let now = now();
        let mut kept = self.touch_needed();
        kept.extend(self.held.keys());
        for archive in self.archives.values().filter(|archive| archive.present) {
            kept.extend(archive.names().iter().map(|(_, digest)| *digest).chain(archive.nameless().iter().copied()));
        }
        let mut spare = Vec::new();
        for digest in self.images.keys().filter(|digest| !kept.contains(digest)) {
            let used = self.used.entry(*digest).or_insert(now);
            if !is_plausible(*used) {
                *used = now;
            }
            spare.push((*used, *digest));
        }
        spare.sort_unstable();
        spare
    }

    /// The layers that would go with each of these images, in their order, and their bytes.
    fn layers_of(&self, going: &[Digest]) -> Vec<(Vec<Digest>, u64)> {
        let distinct = |image: &ImageRecord| image.chain.iter().copied().collect::<HashSet<_>>();
        let mut uses: HashMap<Digest, usize> = HashMap::new();
        for layer in self.images.values().flat_map(distinct).chain(self.claims.wanted()) {
            *uses.entry(layer).or_default() += 1;
        }
        let mut last = |layer: &Digest| {
            let left = uses.entry(*layer).or_insert(1);
            *left = left.saturating_sub(1);
            *left == 0
        };
        let of_image = |digest: &Digest| {
            let layers: Vec<Digest> =
                self.images.get(digest).map(distinct).into_iter().flatten().filter(&mut last).collect();
            let bytes = layers.iter().filter_map(|layer| self.layers.get(layer)).map(|layer| layer.bytes).sum();
            (layers, bytes)
        };
        going.iter().map(of_image).collect()
    }

    /// What these are called. Archives that are there are no matter: their images are not spare.
    fn names_of(&self, digest: Digest) -> Vec<String> {
        self.names().into_iter().filter(|(_, named)| *named == digest).map(|(name, _)| name).collect()
    }

    /// Takes images out, with all their names.
    fn take(&mut self, going: &[Digest]) -> (Vec<Removed>, BTreeMap<Digest, ImageRecord>, Vec<Digest>) {
        let freed = self.layers_of(going);
        let removed = going.iter().zip(&freed).map(|(digest, (_, bytes))| Removed {
            digest: *digest,
            names: self.names_of(*digest),
            bytes: *bytes,
        });
        let removed: Vec<Removed> = removed.collect();
        let gone: HashSet<Digest> = going.iter().copied().collect();
        let layers: Vec<Digest> = freed.into_iter().flat_map(|(layers, _)| layers).collect();
        for layer in &layers {
            self.layers.remove(layer);
        }
        let images = self.images.extract_if(.., |digest, _| gone.contains(digest)).collect();
        self.used.retain(|digest, _| !gone.contains(digest));
        self.pulled.retain(|_, pull| !gone.contains(&pull.digest));
        self.named.retain(|_, digest| !gone.contains(digest));
        let holds = |digests: &[(String, Digest)], nameless: &[Digest]| {
            digests.iter().map(|(_, digest)| digest).chain(nameless).any(|digest| gone.contains(digest))
        };
        self.archives.retain(|_, archive| archive.present || !holds(archive.names(), archive.nameless()));
        (removed, images, layers)
    }
}

impl Store {
    /// How long images stay from now on, and how much room they leave.
    pub fn set_policy(&self, policy: Policy) {
        self.catalogue().policy = policy;
    }

    /// Whether images go by age.
    pub fn lets_age(&self) -> bool {
        self.catalogue().policy.keep.is_some()
    }

    /// What images leave free.
    pub fn room(&self) -> Room {
        self.catalogue().policy.room
    }

    /// Whether less is free than images are to leave.
    pub fn is_short_of_room(&self) -> bool {
        use std::os::fd::AsFd as _;
        self.room().is_short(self.directory.as_fd())
    }

    /// Removes images, with their layers, that no name leads to since an earlier boot (a container of this one may have
    /// been started before this store was opened); those that were spare for longer than the policy says; and if
    /// room is short, spare ones until it is not. Returns how many. [`Self::empty_tmp`] frees the space of those that
    /// did not go for want of room.
    pub fn collect(&self) -> Result<usize, StoreError> {
        let Collected { changed, images, layers } = self.catalogue().collect(&self.boot);
        let mut count = images.len();
        if changed {
            self.let_go(&images, &layers)?;
        }
        let keep = self.catalogue().policy.keep;
        if let Some(keep) = keep {
            count += self.remove(|catalogue| unused_for(&catalogue.spare(), keep))?.len();
        }
        Ok(count + self.make_room()?.len())
    }

    /// Makes what was `changed` last, collects, and deletes what has gone. Returns how many images have. A disk that was too
    /// full for the catalogue at first may have room for it then.
    pub fn settle(&self, changed: bool) -> Result<usize, StoreError> {
        let changed = std::mem::take(&mut self.catalogue().users.has_ended) | changed;
        let committed = if changed { self.commit() } else { Ok(()) };
        let removed = self.collect()?;
        self.empty_tmp()?;
        committed.or_else(|_| self.commit())?;
        Ok(removed)
    }

    /// Removes spare images, the longest unused first, until images leave as much free as they are to. What was removed
    /// is deleted by then.
    pub fn make_room(&self) -> Result<Vec<Removed>, StoreError> {
        let mut removed = Vec::new();
        while self.is_short_of_room() {
            let gone = self.remove(Catalogue::longest_unused)?;
            if gone.is_empty() {
                break;
            }
            self.empty_tmp()?;
            for image in &gone {
                let name = image.names.first().cloned().unwrap_or_else(|| image.digest.to_string());
                eprintln!("engine: {name} is removed to make room; no container needs it");
            }
            removed.extend(gone);
        }
        Ok(removed)
    }

    /// Removes and deletes the spare image that was not used for longest, however much is free: what failed for want of room
    /// has given back what it had. False if there is none.
    pub fn give_up_one(&self) -> Result<bool, StoreError> {
        let gone = self.remove(Catalogue::longest_unused)?;
        self.empty_tmp()?;
        Ok(!gone.is_empty())
    }

    /// Removes spare images by command.
    pub fn prune(&self, choice: Choice) -> Result<Vec<Removed>, StoreError> {
        let removed = self.remove(|catalogue| catalogue.chosen(choice))?;
        self.empty_tmp()?;
        Ok(removed)
    }

    /// What [`Self::prune`] would remove.
    pub fn prunable(&self, choice: Choice) -> Vec<Removed> {
        let mut catalogue = self.catalogue();
        let going = catalogue.chosen(choice);
        let freed = catalogue.layers_of(&going);
        let removed = going.iter().zip(freed);
        removed
            .map(|(digest, (_, bytes))| Removed { digest: *digest, names: catalogue.names_of(*digest), bytes })
            .collect()
    }

    fn remove(&self, choose: impl Fn(&mut Catalogue) -> Vec<Digest>) -> Result<Vec<Removed>, StoreError> {
        let (removed, images, layers) = {
            let mut catalogue = self.catalogue();
            let going = choose(&mut catalogue);
            catalogue.take(&going)
        };
        if removed.is_empty() {
            return Ok(removed);
        }
        self.let_go(&images, &layers)?;
        Ok(removed)
    }

    /// What was taken out of the catalogue goes for good.
    fn let_go(&self, images: &BTreeMap<Digest, ImageRecord>, layers: &[Digest]) -> Result<(), StoreError> {
        if self.commit().is_ok() {
            return self.move_all_away(images, layers);
        }
        self.move_all_away(images, layers)?;
        self.empty_tmp()?;
        if let Err(error) = self.commit() {
            eprintln!("engine: {}; images are removed all the same", describe(&error));
        }
        Ok(())
    }

    /// What was pulled or imported again meanwhile stays.
    fn move_all_away(&self, images: &BTreeMap<Digest, ImageRecord>, layers: &[Digest]) -> Result<(), StoreError> {
        let catalogue = self.catalogue();
        for layer in layers.iter().filter(|layer| !catalogue.layers.contains_key(layer)) {
            self.move_away(&format!("{LAYERS}/{}", layer.hex()))?;
            self.move_away(&format!("{RECORDS}/{}", layer.hex()))?;
        }
        for (digest, image) in images.iter().filter(|(digest, _)| !catalogue.images.contains_key(digest)) {
            self.move_away(&format!("{MANIFESTS}/{}", digest.hex()))?;
            let shared = catalogue.images.values().any(|other| other.config_digest == image.config_digest);
            if !shared {
                self.move_away(&format!("{CONFIGS}/{}", image.config_digest.hex()))?;
            }
        }
        Ok(())
    }
}

impl Catalogue {
    /// The spare image that was not used for longest, if there is one.
    fn longest_unused(&mut self) -> Vec<Digest> {
        self.spare().first().map(|(_, digest)| *digest).into_iter().collect()
    }

    fn chosen(&mut self, choice: Choice) -> Vec<Digest> {
        let named: HashSet<Digest> = self.names().into_values().collect();
        let mut chosen = unused_for(&self.spare(), choice.unused_for);
        chosen.retain(|digest| choice.all || !named.contains(digest));
        chosen
    }
}

/// Those that were not used for so long; none if the clock is wrong.
fn unused_for(spare: &[(u64, Digest)], time: Duration) -> Vec<Digest> {
    let now = now();
    let old = |used: u64| time.is_zero() || (is_plausible(now) && now.saturating_sub(used) >= time.as_secs());
    spare.iter().filter(|(used, _)| old(*used)).map(|(_, digest)| *digest).collect()
}

#[cfg(test)]
mod tests;
