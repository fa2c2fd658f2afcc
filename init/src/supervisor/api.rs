//! The control API's sockets in user containers: for those whose configuration names parts of it.
//!
//! PID 1 listens and `control` serves: a container's clients wait while `control` is started again. Who they are, `control`
//! knows by the socket that they come over.

use std::os::fd::AsFd;
use std::path::PathBuf;

use berth_config::{Role, UserNamespace};
use berth_control::listener::listen_on;
use berth_control::message::{FromInit, Notice};
use berth_runtime::handover::Descriptor;
use nix::sys::socket::SockType;
use nix::unistd::{Uid, chown};

use super::Supervisor;
use super::container::Container;
use super::user_spec::{files_folder, id_mapping};

/// What the socket is called.
pub(super) const SOCKET: &str = "control.sock";

/// Where the socket of a container is on the machine.
pub(super) fn socket_path(name: &str) -> PathBuf {
    files_folder(name).join(SOCKET)
}

/// Listens, if the container is to have such a socket; for this user of the machine, who its process is.
pub(super) fn listen(container: &Container, owner: Uid) -> Result<Option<Descriptor>, String> {
    if container.user().is_none_or(|user| user.api.is_empty()) {
        return Ok(None);
    }
    let path = socket_path(&container.name);
    let failed = |error: &dyn std::fmt::Display| format!("listen on {}: {error}", path.display());
    let listener = listen_on(&path, SockType::Stream).map_err(|error| failed(&error))?;
    chown(&path, Some(owner), None).map_err(|error| failed(&error))?;
    Ok(Some(listener.into()))
}

impl Supervisor {
    /// Gives `control` a container's socket.
    pub(super) fn offer_api(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let Some((user, listener)) = container.user().zip(container.api.as_ref()) else { return };
        let uid_base = match user.security.user_namespace {
            UserNamespace::Auto => id_mapping(container.ids()).host_id,
            UserNamespace::Host => 0,
        };
        let notice = Notice::ApiSocket { container: container.name.clone(), parts: user.api.clone(), uid_base };
        let Ok(copy) = listener.as_fd().try_clone_to_owned() else { return };
        if let Some(control) = self.service(Role::Control) {
            self.send(control, FromInit::Notice(notice), &[copy.as_fd()]);
        }
    }

    /// A run has ended: nobody speaks for the container any more.
    pub(super) fn close_api(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.api.take().is_some() {
            let notice = Notice::ApiClosed { container: container.name.clone() };
            self.notify(Role::Control, notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::user_spec;
    use crate::supervisor::world::{World, configuration, service};
    use berth_config::ApiPart;
    use berth_control::message::PreparedImage;

    const WATCHER: &str =
        "[containers.watcher]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\napi = ['containers.list']\n";

    #[test]
    fn only_who_is_granted_a_part_has_the_socket() {
        for (text, wanted) in [(WATCHER, true), ("[containers.web]\nimage = 'a'\n", false)] {
            let container = configuration(text).containers.into_values().next().unwrap();
            let spec =
                user_spec::build("a", &container, &PreparedImage::default(), user_spec::Place::default()).unwrap();
            let socket = spec.mounts.iter().find(|mount| mount.destination == berth_control::SOCKET_PATH);
            assert_eq!(socket.is_some(), wanted);
        }
    }

    #[test]
    fn control_serves_the_socket_for_as_long_as_the_container_runs() {
        let mut world = World::new(WATCHER);
        world.prepare("watcher");
        world.run("watcher");
        let folder = tempfile::tempdir().unwrap();
        let listener = listen_on(&folder.path().join("socket"), SockType::Stream).unwrap();
        world.supervisor.find_mut("watcher").unwrap().api = Some(listener.into());
        let control = service(&mut world.supervisor, "control");
        let notices = || -> Vec<(Notice, usize)> {
            let received = std::iter::from_fn(|| control.1.receive::<FromInit>().ok());
            let notice = |(message, descriptors): (FromInit, Vec<_>)| match message {
                FromInit::Notice(notice @ (Notice::ApiSocket { .. } | Notice::ApiClosed { .. })) => {
                    Some((notice, descriptors.len()))
                }
                _ => None,
            };
            received.filter_map(notice).collect()
        };
        world.supervisor.service_ready(control.0);
        let parts = vec![ApiPart::ContainersList];
        let slot = world.supervisor.find("watcher").unwrap().slot;
        let uid_base = (slot + 1) * user_spec::IDS;
        assert_eq!(notices(), [(Notice::ApiSocket { container: "watcher".into(), parts, uid_base }, 1)]);
        world.end("watcher", 0);
        assert_eq!(notices(), [(Notice::ApiClosed { container: "watcher".into() }, 0)]);
    }
}
