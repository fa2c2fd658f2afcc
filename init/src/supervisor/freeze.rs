//! `berth pause` and `berth unpause`: a container's processes stand still and go on (cgroup v2, cgroup.freeze).

use std::fs;

use berth_control::message::Kind;

use super::Supervisor;
use super::container::{Container, State};
use super::requests::unknown;

impl Supervisor {
    /// Lets a container's processes stand still, or go on.
    pub(super) fn freeze(&mut self, name: &str, frozen: bool) -> Result<(), String> {
        let container = self.find_mut(name).ok_or_else(|| unknown(name))?;
        if container.kind() == Kind::System {
            return Err(format!("{name} is a system container, which the machine needs running"));
        }
        match (&container.state, container.frozen, frozen) {
            (State::Running(_), true, true) => return Err(format!("container {name} is paused already")),
            (State::Running(_), was, _) if was != frozen => {}
            (State::Running(_), ..) => return Err(format!("container {name} is not paused")),
            _ => return Err(format!("container {name} is not running; `berth start {name}` starts it")),
        }
        container.set_frozen(frozen)?;
        let id = container.id;
        self.put_check_off(id);
        self.changed(id);
        Ok(())
    }
}

impl Container {
    pub(super) fn set_frozen(&mut self, frozen: bool) -> Result<(), String> {
        let file = self.cgroup.join("cgroup.freeze");
        let text = if frozen { "1" } else { "0" };
        fs::write(&file, text).map_err(|error| format!("write {text} to {}: {error}", file.display()))?;
        self.frozen = frozen;
        Ok(())
    }
}
