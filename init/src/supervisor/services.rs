//! What system containers get when they are ready, or ready again.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use berth_config::Role;
use berth_control::message::{FromInit, Notice};

use super::Supervisor;

impl Supervisor {
    /// A system container does its work from now on: it gets what it has missed.
    pub(super) fn service_ready(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.ready = true;
        container.tried = true;
        container.reason.clear();
        log::info!("container {} is ready", container.name);
        self.bring_up_to_date(id);
        self.changed(id);
    }

    /// Sends a system container that is ready what it has to know of the others.
    pub(super) fn bring_up_to_date(&mut self, id: u32) {
        let Some(role) = self.containers.get(id).and_then(|container| container.system()?.role) else { return };
        let others = self.containers.numbers();
        match role {
            Role::Logs => {
                self.notify(Role::Logs, Notice::LogLimits(self.configuration.logs.clone()));
                others.into_iter().for_each(|other| self.offer_pipes(other));
                self.offer_kernel_log(id);
            }
            Role::Network => {
                let with_network = others
                    .into_iter()
                    .filter(|other| self.containers.get(*other).is_some_and(|container| container.network.is_some()));
                let with_network: Vec<u32> = with_network.collect();
                with_network.into_iter().for_each(|other| self.attach(other));
                self.notify(Role::Network, Notice::AllAttached);
            }
            Role::Control => others.into_iter().for_each(|other| self.offer_api(other)),
            Role::Engine => {}
        }
    }

    /// Gives `logs` what it is to read of a container.
    pub(super) fn offer_pipes(&mut self, id: u32) {
        let Some(logs) = self.service(Role::Logs) else { return };
        let Some(container) = self.containers.get(id) else { return };
        let name = container.name.clone();
        let logged = container.logged().into_iter();
        let copies: Vec<_> = logged.map(|(stream, reader)| (stream, reader.try_clone_to_owned())).collect();
        for (stream, copy) in copies {
            match copy {
                Ok(reader) => {
                    let notice = Notice::LogPipe { container: name.clone(), stream };
                    self.send(logs, FromInit::Notice(notice), &[reader.as_fd()]);
                }
                Err(error) => log::warn!("container {name}: copy a pipe for logs: {error}"),
            }
        }
    }

    /// Gives `logs` the kernel's log.
    fn offer_kernel_log(&mut self, logs: u32) {
        if self.facts.kernel_log.is_none() {
            let opened = File::open("/dev/kmsg").inspect_err(|error| log::warn!("open /dev/kmsg: {error}")).ok();
            self.facts.kernel_log = opened.map(|file| OwnedFd::from(file).into());
        }
        // A copy shares its place in the log with ours.
        let Some(Ok(copy)) = self.facts.kernel_log.as_ref().map(|log| log.as_fd().try_clone_to_owned()) else { return };
        self.send(logs, FromInit::Notice(Notice::KernelLog), &[copy.as_fd()]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::super::peer::longest_queue;
    use super::super::world::reexecution::be_alone;
    use super::super::world::{World, service};
    use super::*;

    #[test]
    fn logs_gets_the_pipes_of_all_however_many_there_are() {
        be_alone();
        // Each costs six, with what waits for `logs`.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(most >= 20_000, "this test needs 20,000 descriptors, and may have {most}");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let container =
            |name: &str| format!("[containers.{name}]\nimage = 'a'\nnetwork_mode = 'none'\nreplicas = 1000\n");
        let mut world = World::new(&["a", "b", "c"].map(container).concat());
        let (logs, channel) = service(&mut world.supervisor, "logs");
        let all = 2 * world.supervisor.containers.count();
        assert!(all > longest_queue(0) + 1000, "more than there is room for in any case");
        // It does not read meanwhile.
        world.supervisor.service_ready(logs);
        let mut pipes = BTreeSet::new();
        loop {
            let received: Vec<_> = std::iter::from_fn(|| channel.receive::<FromInit>().ok()).collect();
            if received.is_empty() {
                break;
            }
            for (message, descriptors) in received {
                if let FromInit::Notice(Notice::LogPipe { container, stream }) = message {
                    assert_eq!(descriptors.len(), 1);
                    pipes.insert((container, format!("{stream:?}")));
                }
            }
            world.supervisor.message(logs);
        }
        assert_eq!(pipes.len(), all);
    }
}
