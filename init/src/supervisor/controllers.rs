//! Limits on a machine whose kernel lacks a cgroup controller, or whose controllers somebody else has: an ordinary host
//! with cgroup v1, on which Berth is tried.
//!
//! What Berth wants by itself is left out there. What a configuration asks for stays, and the runtime refuses it: nobody
//! is to rely on a limit that is none.

use std::fs;

use berth_runtime::spec::{Resources, Spec};

use super::container::{Container, Definition};

/// The controllers that containers can be limited by.
const AVAILABLE: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Takes out what cannot be had. A machine that does not say has everything.
pub(super) fn leave_out_missing(spec: &mut Spec, container: &Container) {
    let Some(resources) = spec.linux.as_mut().and_then(|linux| linux.resources.as_mut()) else { return };
    if let Ok(available) = fs::read_to_string(AVAILABLE) {
        leave_out(resources, &container.definition, &available);
    }
}

fn leave_out(resources: &mut Resources, definition: &Definition, available: &str) {
    let has = |controller: &str| available.split_whitespace().any(|word| word == controller);
    let asked = match definition {
        Definition::System(_) => None,
        Definition::User(user) => Some(user),
    };
    if !has("memory") {
        resources.unified.retain(|file, _| !file.starts_with("memory."));
        if asked.is_none_or(|user| user.memory.is_none() && user.mem_reservation.is_none()) {
            resources.memory = None;
        }
    }
    if !has("pids") && asked.is_none_or(|user| user.pids_limit.is_none()) {
        resources.pids = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::user_spec;
    use crate::supervisor::world::configuration;
    use berth_control::message::PreparedImage;

    fn left(keys: &str, available: &str) -> (bool, bool, bool) {
        let container = configuration(&format!("[containers.a]\nimage = 'x'\n{keys}"));
        let container = container.containers.into_values().next().unwrap();
        let spec = user_spec::build("a", &container, &PreparedImage::default(), user_spec::Place::default()).unwrap();
        let mut resources = spec.linux.unwrap().resources.unwrap();
        leave_out(&mut resources, &Definition::User(Box::new(container)), available);
        (resources.memory.is_some(), resources.pids.is_some(), !resources.unified.is_empty())
    }

    #[test]
    fn only_what_nobody_asked_for_is_left_out() {
        assert_eq!(left("", "cpu memory pids\n"), (false, true, true));
        assert_eq!(left("", ""), (false, false, false));
        assert_eq!(left("mem_reservation = '64M'\n", "cpu"), (true, false, false));
        assert_eq!(left("memory = '64M'\npids_limit = 7\n", "cpu"), (true, true, false));
    }
}
