//! What the engine asks and says: which containers there are, and how their images come along.

use std::os::fd::OwnedFd;

use berth_config::Configuration;
use berth_control::message::{Declaration, LONGEST_SHEET, PreparedImage, Registries};

use super::container::{Goal, State};
use super::requests::unknown;
use super::{Supervisor, sheets};

/// So many bytes of definitions are told at once. One alone has at most 64 KiB, see `berth_config`'s checks.
const PAGE: usize = 64 * 1024;

impl Supervisor {
    /// The next containers that need an image, in the order of their names, as many as a message holds, and the last one's
    /// name if there are more. The engine is at work on them from now on.
    pub(super) fn tell_declarations_after(&mut self, name: &str) -> (Vec<Declaration>, Option<String>) {
        let (page, next) = self.declarations_after(name);
        for declaration in &page {
            if let Some(id) = self.find(&declaration.name).map(|container| container.id) {
                self.engine_knows(id);
            }
        }
        (page, next)
    }

    fn declarations_after(&self, name: &str) -> (Vec<Declaration>, Option<String>) {
        let wanted = |container: &&super::Container| container.goal != Goal::Remove && container.name.as_str() > name;
        let mut rest: Vec<_> = self.containers.values().filter(wanted).collect();
        rest.sort_by(|left, right| left.name.cmp(&right.name));
        let (mut page, mut bytes): (Vec<Declaration>, usize) = (Vec::new(), 0);
        for container in rest {
            let Some(user) = container.user() else { continue };
            let declaration = container.declaration(user, self.on_trial);
            bytes += serde_json::to_vec(&declaration).map_or(0, |json| json.len());
            if bytes > PAGE && !page.is_empty() {
                let last = page.last().map(|last| last.name.clone());
                return (page, last);
            }
            page.push(declaration);
        }
        (page, None)
    }

    /// The engine has been told of a container.
    pub(super) fn engine_knows(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if matches!(container.state, State::Declared) {
            container.state = State::Preparing;
            self.changed(id);
        }
    }

    /// How registries are reached.
    pub(super) fn registries(&self) -> Registries {
        let Configuration { registries, trust, proxy, images, .. } = self.configuration.clone();
        Registries { registries, trust, proxy, images }
    }

    /// A container can start. Only who waits for that: a run that is under way keeps the layers that it was started
    /// with.
    pub(super) fn image_prepared(&mut self, name: &str, image: Box<PreparedImage>) -> Result<(), String> {
        // The engine does one after the other.
        self.forgotten(name);
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if matches!(container.state, State::Declared | State::Preparing) {
            for remark in &image.remarks {
                log::warn!("container {name}: {remark}");
            }
            let id = container.id;
            if container.image.replace(image).is_some() {
                self.unmount_unused_layers();
            }
            self.prepared(id);
        }
        Ok(())
    }

    /// The same, with what the engine has written in memory.
    pub(super) fn prepared_on_sheet(&mut self, name: &str, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let sheet = descriptors.into_iter().next().ok_or("this request comes with a descriptor")?;
        let text = sheets::read(sheet, LONGEST_SHEET)?;
        let image =
            serde_json::from_slice(&text).map_err(|error| format!("this is no image of a container: {error}"))?;
        self.image_prepared(name, image)
    }

    /// A container cannot start, or not yet.
    pub(super) fn not_prepared(&mut self, name: &str, reason: String, delay: Delay) -> Result<(), String> {
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if !matches!(container.state, State::Declared | State::Preparing) {
            return Ok(());
        }
        container.reason = match delay {
            // Somebody waits for an answer who made it by hand.
            Delay::Seconds(seconds) if container.made.is_none() => format!("{reason}; next try in {seconds} s"),
            _ => reason,
        };
        if delay == Delay::Ever || (delay != Delay::Underway && container.made.is_some()) {
            container.state = State::Failed;
        }
        if delay != Delay::Underway {
            log::warn!("container {name}: {}", container.reason);
            (container.tried, container.troubled) = (true, true);
        }
        let id = container.id;
        self.changed(id);
        Ok(())
    }
}

impl super::Container {
    /// What the engine has to know of it. `user` is its definition, which may be on `trial`.
    pub(super) fn declaration(&self, user: &berth_config::Container, trial: bool) -> Declaration {
        let digest = self.image.as_ref().map(|image| image.digest.clone());
        Declaration { digest, trial, ..Declaration::new(&self.name, user.clone()) }
    }
}

/// How long a container is not going to be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// The engine is at work on it.
    Underway,
    /// Something is wrong, and is tried again so many seconds later.
    Seconds(u64),
    /// It is not going to be prepared.
    Ever,
}
