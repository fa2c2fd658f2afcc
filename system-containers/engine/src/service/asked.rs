//! What clients ask that depends on which containers there are: removals, sizes, and volumes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_control::images::{ContainerSize, Prune, Query};
use berth_control::message::Declaration;

use super::Service;
use super::preparer::Job;
use crate::importer::Task;
use crate::store::{Choice, Store, User};
use crate::{answers, snapshot, volumes};

/// How often it is looked what images may have to go. A value, so that tests need not wait as long.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// Whether they leave enough free.
    pub room: Duration,
    /// Whether one was not used for as long as images are kept.
    pub age: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self { room: Duration::from_secs(60), age: Duration::from_secs(3600) }
    }
}

impl Service {
    /// A client's query. It waits until it is known which containers there are.
    pub(super) fn asked(&mut self, query: Query, pipe: OwnedFd) {
        if !self.declared {
            self.held.push((query, pipe));
            return;
        }
        match query {
            Query::Prune(Prune { all, unused_s, dry_run }) => {
                let choice = Choice { all, unused_for: Duration::from_secs(unused_s) };
                // The importer ends only with the process, as the preparer does.
                let _ = self.tasks.send(Task::Prune { choice, dry_run, pipe });
            }
            // Not behind what the preparer does: it may copy for a long time.
            Query::Sizes => {
                let names: Vec<String> = self.declarations.keys().cloned().collect();
                let (store, containers) = (Arc::clone(&self.store), self.containers.clone());
                answers::find(pipe, move || sizes(&store, &containers, names));
            }
            Query::Volumes(query) => {
                let users = volumes::Users::new(self.declarations.values(), &self.leaving);
                let _ = self.jobs.send(Job::Volumes { query, users, pipe });
            }
            // Those that need no containers go to others: see `clients`.
            _ => {}
        }
    }

    /// These are all containers.
    pub(super) fn declare(&mut self, declared: &[Declaration]) {
        self.store.declare(declared.iter().map(user).collect());
        let declared = declared.iter().map(|one| (one.name.clone(), one.clone())).collect();
        let before = std::mem::replace(&mut self.declarations, declared);
        before.into_values().for_each(|before| self.left(before));
        self.declared = true;
        for (query, pipe) in std::mem::take(&mut self.held) {
            self.asked(query, pipe);
        }
    }

    /// One more.
    pub(super) fn declare_one(&mut self, declaration: &Declaration) {
        self.store.declare_one(user(declaration));
        let before = self.declarations.insert(declaration.name.clone(), declaration.clone());
        before.into_iter().for_each(|before| self.left(before));
    }

    /// A container was declared like this until now. What runs of it may still be on its way down.
    fn left(&mut self, before: Declaration) {
        let now = self.declarations.get(&before.name);
        if now.is_none_or(|now| now.container.volumes != before.container.volumes) {
            self.leaving.add(before);
        }
    }

    /// Containers fill the disk too: then images that none needs make room. And images grow old while nothing happens.
    pub(super) fn look_at_spare(&mut self) {
        if self.room_looked_at.elapsed() >= self.looks.room {
            self.room_looked_at = Instant::now();
            self.untidy |= self.store.is_short_of_room();
        }
        if self.store.lets_age() && self.age_looked_at.elapsed() >= self.looks.age {
            self.age_looked_at = Instant::now();
            self.untidy = true;
        }
        self.tidy();
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Instant {
        let room = self.room_looked_at + self.looks.room;
        if self.store.lets_age() { room.min(self.age_looked_at + self.looks.age) } else { room }
    }
}

/// What containers take of the disk.
fn sizes(store: &Store, containers: &Path, names: Vec<String>) -> Vec<ContainerSize> {
    let images = store.bytes_of(&names);
    let size = |(name, image): (String, Option<u64>)| {
        let written = snapshot::written(containers, &name);
        ContainerSize { name, written, image }
    };
    names.into_iter().zip(images).map(size).collect()
}

fn user(declaration: &Declaration) -> User {
    User {
        container: declaration.name.clone(),
        image: declaration.container.image.as_str().parse().ok(),
        runs: declaration.digest.as_ref().and_then(|digest| digest.parse().ok()),
        grace: declaration.container.stop_grace_period().duration(),
    }
}
