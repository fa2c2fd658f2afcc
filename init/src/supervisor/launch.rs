//! The start of a container: specification, runtime, addresses, first instruction.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use berth_config::NetworkMode;
use berth_control::message::Stream;
use berth_runtime::{Creating, Executed, Progress, Rootfs, Stdio};
use nix::unistd::{Uid, fchown};

use super::container::{Container, Definition, State};
use super::execution::specification;
use super::interaction::{Ends, with_terminal};
use super::{Supervisor, controllers, pods, system_spec, user_spec};
use crate::clock;
use crate::reactor::Token;

/// How long the runtime may take. It works on local file systems: a disk that is slower than this is broken.
const SET_UP_TIME: Duration = Duration::from_secs(60);

/// How long `network` may take for one container.
const ATTACH_TIME: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Starts a container whose dependencies are met.
    pub(super) fn launch(&mut self, id: u32) {
        let (shared, pod) = match self.containers.get(id) {
            Some(container) => (self.shared_network(container), self.pod(container)),
            None => return,
        };
        let Some(container) = self.containers.get_mut(id) else { return };
        (container.completed, container.held, container.overdue) = (false, false, false);
        container.reason.clear();
        (container.shared, container.pod) = (shared, pod);
        // Also of a run that does not come about: whoever has asked for one sees by it that it was tried.
        container.started_us = clock::in_microseconds(self.now);
        match (self.launcher)(container, self.facts.output_to_kernel) {
            Ok(creating) => {
                container.state = State::Creating { creating, deadline: self.now + SET_UP_TIME };
                self.offer_api(id);
                let watched = self.watch(id);
                if let Err(error) = watched {
                    return self.set_up_failed(id, format!("watch it: {error}"));
                }
                self.changed(id);
            }
            Err(reason) => self.set_up_failed(id, reason),
        }
    }

    /// Waits for the runtime's report and for messages.
    fn watch(&mut self, id: u32) -> nix::Result<()> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        if let State::Creating { creating: Some(creating), .. } = &container.state {
            self.reactor.add(creating, Token::Setup(id))?;
        }
        if let Some(peer) = &container.peer {
            self.reactor.add(peer, Token::Channel(id))?;
        }
        if let Some(awaited) = &container.awaited {
            awaited.watch(&self.reactor, id)?;
        }
        Ok(())
    }

    /// The runtime reports about a container that is being set up.
    pub fn set_up(&mut self, id: u32) {
        match self.containers.get(id).map(|container| &container.state) {
            Some(State::Creating { .. }) => self.creating(id),
            Some(State::Executing { .. }) => self.executing(id),
            _ => {}
        }
    }

    fn creating(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let State::Creating { creating, deadline } = &mut container.state else { return };
        let Some(asked) = creating.take() else { return };
        let deadline = *deadline;
        match asked.advance() {
            Ok(Progress::Pending(still)) => container.state = State::Creating { creating: Some(still), deadline },
            Ok(Progress::Created(created)) => {
                let own_network = container.user().is_some_and(|user| user.network_mode == NetworkMode::Bridge);
                if own_network {
                    container.network = created.network_namespace().ok().map(Into::into);
                }
                let deadline = self.now + ATTACH_TIME;
                if let Err(reason) = container.interaction.receive_terminal() {
                    log::warn!("container {}: {reason}", container.name);
                }
                let has_terminal = container.interaction.terminal.is_some();
                container.state = State::Attaching { created: Some(created), deadline };
                if has_terminal {
                    self.offer_pipes(id);
                }
                self.send_interaction(id);
                if own_network { self.attach(id) } else { self.start(id) }
            }
            Err(error) => self.could_not_be_run(id, &error),
        }
    }

    /// Whether the program could be run.
    fn executing(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let State::Executing { running, .. } = &container.state else { return };
        match running.executed() {
            Executed::Pending => {}
            Executed::Yes => self.runs(id),
            Executed::No(error) => self.could_not_be_run(id, &error),
        }
    }

    pub(super) fn runs(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        match std::mem::replace(&mut container.state, State::Stopped) {
            State::Executing { running, .. } => {
                self.reactor.remove(running.report());
                container.state = State::Running(running);
            }
            other => return container.state = other,
        }
        container.reason.clear();
        self.await_readiness(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        let by_notice = container.system().is_some_and(|system| system.readiness == berth_config::Readiness::Notify);
        container.ready |= !by_notice && container.awaited.is_none();
        container.tried |= container.ready;
        log::info!("container {} runs", container.name);
        self.begin_health_checks(id);
        self.session_runs(id);
        self.changed(id);
    }

    /// Lets the container's program begin.
    pub(super) fn start(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let State::Attaching { created, .. } = &mut container.state else { return };
        let Some(created) = created.take() else { return };
        if let Err(reason) = write_files(container) {
            // The container runs with less in its /etc; that is better than not running.
            log::warn!("container {}: {reason}", container.name);
        }
        match created.start() {
            Ok(running) => {
                container.started_us = clock::in_microseconds(self.now);
                let watched = self.reactor.add(running.report(), Token::Setup(id));
                container.state = State::Executing { running, deadline: self.now + SET_UP_TIME };
                if let Err(error) = watched {
                    self.set_up_failed(id, format!("watch it: {error}"));
                }
            }
            Err(error) => self.set_up_failed(id, crate::chain(&error)),
        }
    }
}

/// Sets a container up as far as the child of the runtime that does the rest. The reason if that fails.
pub(super) type Launcher = fn(&mut Container, output_to_kernel: bool) -> Result<Option<Creating>, String>;

/// The launcher of a machine.
pub(super) fn launch_one(container: &mut Container, output_to_kernel: bool) -> Result<Option<Creating>, String> {
    container.addresses.clear();
    let stdio = |stream| {
        let output = if output_to_kernel {
            fs::File::options().write(true).open("/dev/kmsg").map(OwnedFd::from)
        } else {
            container.output.writer(stream).try_clone_to_owned()
        };
        output.map_err(|error| format!("open its output: {error}"))
    };
    let (stdout, stderr) = (stdio(Stream::Stdout)?, stdio(Stream::Stderr)?);
    let mut ends = Ends::default();
    let rootfs = match &container.definition {
        Definition::System(system) => {
            make_sources(system)?;
            Rootfs::Path(system_spec::root(system).to_path_buf())
        }
        Definition::User(user) => {
            let image = container.image.as_ref().ok_or("the engine has not prepared it")?;
            write_files(container)?;
            pods::make_common_memory(container)?;
            let owner = Uid::from_raw(user_spec::host_uid(user, image, container.ids()));
            container.api = super::api::listen(container, owner)?;
            container.awaited = super::readiness::listen(container)?;
            ends = container.interaction.begin(user)?;
            for pipe in [&stdout, &stderr].into_iter().filter(|_| !output_to_kernel).chain(&ends.input) {
                fchown(pipe, Some(owner), None).map_err(|error| format!("give it its output: {error}"))?;
            }
            Rootfs::Overlay {
                layers: image.layers.iter().map(super::layers::layer).collect::<Result<_, _>>()?,
                upper: Some(image.upper.clone()),
                work: Some(image.work.clone()),
                mapped: user.security.user_namespace == berth_config::UserNamespace::Auto,
            }
        }
    };
    let mut spec = specification(container)?;
    controllers::leave_out_missing(&mut spec, container);
    let mut inherited: Vec<(BorrowedFd<'_>, i32)> = Vec::new();
    let mut channel = None;
    if container.system().is_some_and(|system| system.role.is_some()) {
        channel = Some(container.open_channel().map_err(|error| format!("make its channel: {error}"))?);
    }
    if let Some(theirs) = &channel {
        inherited.push((theirs.as_fd(), system_spec::CHANNEL_DESCRIPTOR));
    }
    if ends.console.is_some()
        && let Some(process) = spec.process.as_mut()
    {
        with_terminal(process, container.interaction.size);
    }
    let creating = berth_runtime::create(&berth_runtime::Request {
        id: &container.name,
        spec: &spec,
        rootfs,
        // Every source in our specifications is absolute.
        bundle: PathBuf::from("/"),
        cgroup: Some(container.cgroup.clone()),
        stdio: match ends.console {
            Some(_) => Stdio::default(),
            None => {
                let stdin = ends.input.as_ref().map(AsFd::as_fd);
                Stdio { stdin, stdout: Some(stdout.as_fd()), stderr: Some(stderr.as_fd()) }
            }
        },
        inherited,
        console: ends.console.as_ref().map(AsFd::as_fd),
        keep_keyring: false,
        init: container.user().is_some_and(|user| user.init),
    })
    .map_err(|error| crate::chain(&error))?;
    Ok(Some(creating))
}

/// The folders that a system container's definition wants made.
fn make_sources(system: &berth_config::SystemContainer) -> Result<(), String> {
    for mount in system.mounts.iter().filter(|mount| mount.create) {
        let path: &str = mount.source.as_ref();
        crate::mounts::make_folder(&PathBuf::from(path), 0o755)?;
    }
    Ok(())
}

/// The files of /etc that are the container's own. They are mounted into it, so they are written in place.
pub(super) fn write_files(container: &Container) -> Result<(), String> {
    let files = own_files(container);
    if files.is_empty() {
        return Ok(());
    }
    let folder = user_spec::files_folder(&container.name);
    crate::mounts::make_folder(&folder, 0o755)?;
    files.iter().try_for_each(|(file, text)| {
        let path = folder.join(file);
        fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))
    })
}

/// The names and texts of those files.
pub(super) fn own_files(container: &Container) -> Vec<(&'static str, String)> {
    let Some(user) = container.user() else { return Vec::new() };
    let hostname = user.hostname.as_ref().map_or_else(|| container.name.clone(), ToString::to_string);
    let resolver = super::network::own_resolv_conf(container, user).map(|text| ("resolv.conf", text));
    let hosts = hosts(&container.addresses, &hostname, user);
    resolver.into_iter().chain([("hosts", hosts), ("hostname", format!("{hostname}\n"))]).collect()
}

fn hosts(addresses: &[String], hostname: &str, user: &berth_config::Container) -> String {
    let own = addresses.iter().map(|address| format!("{address}\t{hostname}\n"));
    let others = user.extra_hosts.iter().map(|(name, address)| format!("{address}\t{name}\n"));
    let loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    std::iter::once(loopback).chain(own).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_knows_its_own_name_and_those_it_is_told() {
        let text = "[containers.a]\nimage = 'x'\nextra_hosts = { nas = '192.0.2.7' }\n";
        let user = crate::supervisor::world::configuration(text).containers.into_values().next().unwrap();
        let text = hosts(&["10.0.0.2".to_owned()], "web", &user);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("\n10.0.0.2\tweb\n192.0.2.7\tnas\n"), "{text}");
    }
}
