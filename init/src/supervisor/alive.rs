//! Whether `control` still answers. Only the process that was asked can owe an answer: one that took its place in the
//! meantime has not been asked, and is left alone.

use berth_config::Role;
use berth_control::message::{FromInit, Notice};

use super::Supervisor;

impl Supervisor {
    /// Asks `control` for a sign of life, if it is there.
    pub fn ask_whether_alive(&mut self) {
        let Some(id) = self.service(Role::Control) else { return };
        if let Some(peer) = self.containers.get_mut(id).and_then(|container| container.peer.as_mut()) {
            peer.owes_sign = true;
        }
        self.send(id, FromInit::Notice(Notice::AreYouAlive), &[]);
    }

    /// The sign has come.
    pub(super) fn is_alive(&mut self, id: u32) {
        if let Some(peer) = self.containers.get_mut(id).and_then(|container| container.peer.as_mut()) {
            peer.owes_sign = false;
        }
    }

    /// It is time for `control` to have given it: kills it if it was asked and has not, for it is started again then.
    pub fn restart_silent(&mut self) {
        let Some(id) = self.service(Role::Control) else { return };
        let peer = self.containers.get(id).and_then(|container| container.peer.as_ref());
        if peer.is_some_and(|peer| peer.owes_sign) {
            log::warn!("container control has not answered: it is started again");
            self.kill_now(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::{Reply, Request};

    use super::super::peer::Peer;
    use super::super::world::{ask, service, supervisor};

    #[test]
    fn only_the_control_that_was_asked_is_killed_for_its_silence() {
        let mut supervisor = supervisor();
        let control = service(&mut supervisor, "control");
        let cgroup = tempfile::tempdir().unwrap();
        let container = supervisor.find_mut("control").unwrap();
        (container.ready, container.cgroup) = (true, cgroup.path().into());
        let is_killed = || cgroup.path().join("cgroup.kill").exists();

        supervisor.restart_silent();
        assert!(!is_killed(), "nobody has asked it");
        supervisor.ask_whether_alive();
        assert_eq!(ask(&mut supervisor, &control, Request::Alive), Reply::Done);
        supervisor.restart_silent();
        assert!(!is_killed(), "it has answered");
        supervisor.ask_whether_alive();
        let (ours, _theirs) = berth_control::channel::Channel::pair().unwrap();
        let asked = supervisor.find_mut("control").unwrap().peer.replace(Peer::new(ours));
        supervisor.restart_silent();
        assert!(!is_killed(), "another has taken its place");
        supervisor.find_mut("control").unwrap().peer = asked;
        supervisor.restart_silent();
        assert!(is_killed());
    }
}
