//! Who makes which layer, so that several images that share layers share the work.
//!
//! A claim takes all layers of its image that are missing and that nobody else makes, in one step. Two images share
//! layers only as a common beginning of their chains, so whoever waits for another waits for a layer below its own, and
//! nobody waits for one that waits.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use rustix::io::Errno;

use super::catalogue::Catalogue;
use super::{LAYERS, Store, StoreError};
use crate::digest::Digest;
use crate::import::describe;
use crate::verity::VerityError;

/// The claims of all threads.
#[derive(Debug, Default)]
pub struct Claims {
    next: u64,
    makers: HashMap<Digest, u64>,
    wanted: HashMap<Digest, usize>,
}

impl Claims {
    /// Layers that must stay.
    pub fn wanted(&self) -> HashSet<Digest> {
        self.wanted.keys().copied().collect()
    }
}

/// One image's claim. None of its layers is removed while it lasts.
#[derive(Debug)]
pub struct Claim<'a> {
    store: &'a Store,
    number: u64,
    chain: Vec<Digest>,
}

/// What is to be done about a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Present,
    /// It is for the holder of this claim to make.
    Ours,
}

impl Store {
    /// Claims the layers of an image, the lowest first. One that is there and is not what it was is there no more.
    pub fn claim(&self, chain: &[Digest]) -> Claim<'_> {
        self.drop_changed(chain);
        let mut catalogue = self.catalogue();
        catalogue.claims.next += 1;
        let number = catalogue.claims.next;
        for layer in chain {
            *catalogue.claims.wanted.entry(*layer).or_default() += 1;
        }
        take(&mut catalogue, number, chain);
        Claim { store: self, number, chain: chain.to_vec() }
    }

    /// Forgets those of these layers that are not as they were written, so that who brings them brings them again.
    fn drop_changed(&self, layers: &[Digest]) {
        let mut catalogue = self.catalogue();
        for layer in layers {
            let Some(verity) = catalogue.layers.get(layer).map(|record| record.verity) else { continue };
            let Err(error) = self.open_layer(*layer, verity) else { continue };
            eprintln!("engine: {}", describe(&error));
            if !is_of_the_layer(&error) {
                continue;
            }
            catalogue.layers.remove(layer);
            if let Err(error) = self.move_away(&format!("{LAYERS}/{}", layer.hex())) {
                eprintln!("engine: {}", describe(&error));
            }
        }
    }
}

/// Whether a layer cannot be opened because it is not what it was: gone, a link, broken, changed. Want of memory or of
/// descriptors says nothing of it.
fn is_of_the_layer(error: &StoreError) -> bool {
    match error {
        StoreError::Verity(error) => matches!(error, VerityError::Changed { .. }),
        StoreError::File { source, .. } => {
            matches!(Errno::from_io_error(source), Some(Errno::NOENT | Errno::LOOP | Errno::UCLEAN))
        }
        _ => false,
    }
}

/// Takes what is missing and nobody's.
fn take(catalogue: &mut Catalogue, number: u64, chain: &[Digest]) {
    let Catalogue { layers, claims, .. } = catalogue;
    for layer in chain.iter().filter(|layer| !layers.contains_key(layer)) {
        claims.makers.entry(*layer).or_insert(number);
    }
}

impl Claim<'_> {
    /// Whether this claim's holder is to make the layer, as far as is known now.
    pub fn is_ours(&self, layer: Digest) -> bool {
        let catalogue = self.store.catalogue();
        !catalogue.layers.contains_key(&layer) && catalogue.claims.makers.get(&layer) == Some(&self.number)
    }

    /// Waits until the layer is there or it is clear that it is for this claim's holder to make.
    pub fn turn(&self, layer: Digest) -> Turn {
        let mut catalogue = self.store.catalogue();
        loop {
            if catalogue.layers.contains_key(&layer) {
                return Turn::Present;
            }
            match catalogue.claims.makers.get(&layer) {
                Some(maker) if *maker != self.number => {
                    let waited = self.store.layers_changed.wait(catalogue);
                    catalogue = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Some(_) => return Turn::Ours,
                None => take(&mut catalogue, self.number, &self.chain),
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut catalogue = self.store.catalogue();
        let claims = &mut catalogue.claims;
        claims.makers.retain(|_, maker| *maker != self.number);
        for layer in &self.chain {
            if let Some(count) = claims.wanted.get_mut(layer) {
                *count -= 1;
            }
        }
        claims.wanted.retain(|_, count| *count > 0);
        self.store.layers_changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Summary;
    use crate::store::file_error;

    fn digests() -> [Digest; 3] {
        [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")]
    }

    #[test]
    fn what_is_no_fault_of_a_layer_does_not_cost_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let [a, ..] = digests();
        store.publish(store.draft().unwrap(), a, a, Summary::default()).unwrap();
        let path = store.layer_path(a);
        for (errno, is_its) in
            [(Errno::MFILE, false), (Errno::NOMEM, false), (Errno::NFILE, false), (Errno::NOENT, true)]
        {
            assert_eq!(is_of_the_layer(&file_error("open the layer", &path)(errno.into())), is_its, "{errno}");
        }
        let unknown = VerityError::Measure { path: path.clone(), source: nix::errno::Errno::ENOMEM };
        assert!(!is_of_the_layer(&unknown.into()));
        // What cannot be opened for another reason: a socket.
        let short = directory.path().join("s");
        let _socket = std::os::unix::net::UnixListener::bind(&short).unwrap();
        std::fs::rename(short, &path).unwrap();
        assert!(!store.claim(&[a]).is_ours(a) && path.exists());
        std::fs::remove_file(&path).unwrap();
        assert!(store.claim(&[a]).is_ours(a), "it is gone");
    }

    #[test]
    fn a_layer_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let [a, b, c] = digests();
        let first = store.claim(&[a, b]);
        let second = store.claim(&[a, c]);
        assert!(first.is_ours(a) && first.is_ours(b) && !second.is_ours(a) && second.is_ours(c));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.turn(a));
            store.publish(store.draft().unwrap(), a, a, Summary::default()).unwrap();
            assert_eq!(waiting.join().unwrap(), Turn::Present);
        });
        assert_eq!(first.turn(b), Turn::Ours);
    }

    #[test]
    fn a_layer_whose_maker_fails_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let [a, b, _] = digests();
        let first = store.claim(&[a, b]);
        let second = store.claim(&[a, b]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| second.turn(a));
            drop(first);
            assert_eq!(waiting.join().unwrap(), Turn::Ours);
        });
        assert!(second.is_ours(b));
    }

    #[test]
    fn what_is_claimed_is_not_collected() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let [a, ..] = digests();
        let claim = store.claim(&[a]);
        store.publish(store.draft().unwrap(), a, a, Summary::default()).unwrap();
        store.collect().unwrap();
        assert!(store.has_layer(a) && store.layer_path(a).exists());
        drop(claim);
        store.collect().unwrap();
        assert!(!store.has_layer(a) && !store.layer_path(a).exists());
    }

    #[test]
    fn a_draft_outlasts_the_tidying() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), "boot").unwrap();
        let draft = store.draft().unwrap();
        std::fs::create_dir(directory.path().join("tmp/leftover")).unwrap();
        store.empty_tmp().unwrap();
        assert_eq!(std::fs::read_dir(directory.path().join("tmp")).unwrap().count(), 1);
        let [a, ..] = digests();
        store.publish(draft, a, a, Summary::default()).unwrap();
        assert!(store.layer_path(a).exists());
    }
}
