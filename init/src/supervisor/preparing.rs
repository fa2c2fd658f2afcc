//! What the engine asks and says: which containers there are, and how their images come along.

use berth_config::Configuration;
use berth_control::message::{Declaration, PreparedImage, Registries};

use super::Supervisor;
use super::container::{Goal, State};
use super::requests::unknown;

impl Supervisor {
    /// The containers that need an image.
    pub(super) fn declarations(&self) -> Vec<Declaration> {
        let declared = self.list().into_iter().filter(|container| container.goal != Goal::Remove);
        let declaration = |container: &super::Container| {
            Some(Declaration { name: container.name.clone(), container: container.user()?.clone() })
        };
        declared.filter_map(declaration).collect()
    }

    /// How registries are reached.
    pub(super) fn registries(&self) -> Registries {
        let Configuration { registries, proxy, .. } = self.configuration.clone();
        Registries { registries, proxy }
    }

    /// A container can start. Only who waits for that: a run that is under way keeps the layers that it was started
    /// with.
    pub(super) fn image_prepared(&mut self, name: &str, image: Box<PreparedImage>) -> Result<(), String> {
        // The engine does one after the other.
        self.facts.forgotten.remove(name);
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if matches!(container.state, State::Preparing) {
            container.image = Some(image);
            let id = container.id;
            self.prepared(id);
        }
        Ok(())
    }

    /// A container cannot start, or not yet.
    pub(super) fn not_prepared(&mut self, name: &str, reason: String, delay: Delay) -> Result<(), String> {
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if !matches!(container.state, State::Preparing) {
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
            container.tried = true;
        }
        let id = container.id;
        self.changed(id);
        Ok(())
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
