//! Who uses which volumes: containers that are declared, and those that are so no more and may not have ended yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use berth_config::{Volume, VolumeName};
use berth_control::message::Declaration;

use super::owner;
use crate::store::MARGIN;

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Users {
    declared: Uses,
    leaving: Uses,
}

#[derive(Clone, Debug, Default)]
struct Uses {
    containers: BTreeSet<String>,
    named: BTreeMap<String, BTreeSet<String>>,
}

/// Containers that had to end and have a moment for it, as PID 1 has told of them.
#[derive(Debug, Default)]
pub struct Leaving(Vec<(Declaration, Instant)>);

impl Users {
    /// As the containers are declared.
    pub fn new<'a>(declared: impl Iterator<Item = &'a Declaration>, leaving: &Leaving) -> Self {
        let now = Instant::now();
        let leaving = leaving.0.iter().filter(|(_, until)| *until > now).map(|(declaration, _)| declaration);
        Self { declared: declared.collect(), leaving: leaving.collect() }
    }

    /// Every container that uses a volume, in order.
    pub(super) fn of(&self, volume: &str) -> Vec<String> {
        let mut users = self.declared.of(volume);
        users.extend(self.leaving.of(volume));
        users.into_iter().collect()
    }

    /// Why a volume must stay, if it must.
    pub(super) fn objection(&self, volume: &str) -> Option<String> {
        let text = |users: BTreeSet<String>| users.into_iter().collect::<Vec<_>>().join(", ");
        let (declared, leaving) = (self.declared.of(volume), self.leaving.of(volume));
        if !declared.is_empty() {
            return Some(format!("the volume {volume} is in use by {}", text(declared)));
        }
        let leaving = Some(leaving).filter(|leaving| !leaving.is_empty())?;
        Some(format!("the volume {volume} may still be in use by {}, which has yet to end", text(leaving)))
    }
}

impl Uses {
    fn of(&self, volume: &str) -> BTreeSet<String> {
        match owner(volume) {
            Some(container) => self.containers.get(container).cloned().into_iter().collect(),
            None => self.named.get(volume).cloned().unwrap_or_default(),
        }
    }
}

impl<'a> FromIterator<&'a Declaration> for Uses {
    fn from_iter<I: IntoIterator<Item = &'a Declaration>>(declarations: I) -> Self {
        let mut uses = Self::default();
        for Declaration { name, container, .. } in declarations {
            uses.containers.insert(name.clone());
            for volume in container.volumes.iter().filter_map(named) {
                uses.named.entry(volume.to_string()).or_default().insert(name.clone());
            }
        }
        uses
    }
}

fn named(volume: &Volume) -> Option<&VolumeName> {
    match volume {
        Volume::Named { name, .. } => Some(name),
        Volume::Host { .. } => None,
    }
}

impl Leaving {
    /// A container is not declared like that any more: what runs of it has its `stop_grace_period` to end.
    pub fn add(&mut self, declaration: Declaration) {
        let now = Instant::now();
        self.0.retain(|(_, until)| *until > now);
        let until = now + declaration.container.stop_grace_period().duration() + MARGIN;
        self.0.push((declaration, until));
    }

    /// One has ended.
    pub fn forget(&mut self, name: &str) {
        self.0.retain(|(declaration, _)| declaration.name != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(name: &str, container: &str) -> Declaration {
        Declaration::new(name, serde_json::from_str(container).unwrap())
    }

    #[test]
    fn who_is_declared_no_more_may_take_its_time_to_end() {
        let web = declaration("web", r#"{"image":"x","volumes":["data:/data"]}"#);
        let mut leaving = Leaving::default();
        leaving.add(web.clone());
        let users = Users::new([].into_iter(), &leaving);
        for volume in ["data", "_web.0123456789ab"] {
            assert_eq!(users.of(volume), ["web"], "{volume}");
            assert!(users.objection(volume).unwrap().contains("may still be in use by web"), "{volume}");
        }
        let both = Users::new([&web].into_iter(), &leaving);
        assert_eq!(both.objection("data").unwrap(), "the volume data is in use by web");
        leaving.0[0].1 = Instant::now();
        assert_eq!(Users::new([].into_iter(), &leaving).objection("data"), None);
        leaving.add(web);
        assert_eq!(leaving.0.len(), 1, "it had its time");
        leaving.forget("web");
        assert!(Users::new([].into_iter(), &leaving).of("data").is_empty());
    }
}
