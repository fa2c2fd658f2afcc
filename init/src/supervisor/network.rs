//! What containers have to do with networks: `network` is asked for their addresses and told how they are, and one
//! container may run in the network of another.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_config::{EndpointMode, NetworkMode, Networking, Resolution, Role};
use berth_control::message::{Attachment, FromInit, Health, Notice};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, Goal, State};
use super::dependencies::Obstacle;
use super::launch::{own_files, write_files};
use super::user_spec::files_folder;

/// The network of another container, for one that runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNetwork {
    /// Its namespace.
    pub namespace: PathBuf,
    /// Its resolv.conf.
    pub resolver: PathBuf,
}

/// How the reason of a container begins that runs on without its network.
const LOST: &str = "has lost its network: ";

/// The machine's resolv.conf.
const MACHINES: &str = "/run/berth/resolv.conf";

/// Where the text of a container's /etc/resolv.conf stands, by the way it has a network.
pub fn resolver_file(name: &str, user: &berth_config::Container, shared: Option<&SharedNetwork>) -> PathBuf {
    let mode = &user.network_mode;
    match (mode, shared) {
        (NetworkMode::Container(_), Some(shared)) => shared.resolver.clone(),
        _ if has_own_resolver_file(user) => files_folder(name).join("resolv.conf"),
        _ => Path::new(MACHINES).to_path_buf(),
    }
}

/// Whether it is not the machine's, or another container's.
fn has_own_resolver_file(user: &berth_config::Container) -> bool {
    match user.network_mode {
        NetworkMode::Bridge => true,
        NetworkMode::Host | NetworkMode::None => user.resolution() != Resolution::default(),
        NetworkMode::Container(_) => false,
    }
}

/// The text of a container's own resolv.conf, if it has one: with a network of its own what `network` said, else the
/// machine's with what the container says in its place.
pub(super) fn own_resolv_conf(container: &Container, user: &berth_config::Container) -> Option<String> {
    if user.network_mode == NetworkMode::Bridge {
        return Some(container.resolv_conf.clone());
    }
    // It is rewritten in place, so it is one text or the other; without one there are no servers to name.
    has_own_resolver_file(user)
        .then(|| changed(&user.resolution(), &std::fs::read_to_string(MACHINES).unwrap_or_default()))
}

/// A resolv.conf with what a container says in place of it.
fn changed(resolution: &Resolution, machines: &str) -> String {
    let values = |word: &str| -> Vec<String> {
        let lines = machines.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let own: Vec<String> = resolution.servers.iter().map(ToString::to_string).collect();
    let servers = if own.is_empty() { values("nameserver") } else { own };
    resolution.text(&servers, &values("search"), &values("options"))
}

impl Supervisor {
    /// Asks `network` for a container's addresses, or for those of all when it has been restarted.
    pub(super) fn attach(&mut self, id: u32) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(namespace) =
            container.network.as_ref().and_then(|namespace| namespace.as_fd().try_clone_to_owned().ok())
        else {
            return self.set_up_failed(id, "its network namespace is gone".to_owned());
        };
        let service = self.configuration.declared_name(&container.name);
        let attachment = Attachment {
            service: service.map_or_else(|| container.name.clone(), ToString::to_string),
            name: container.name.clone(),
            networks: container.user().map(berth_config::Container::memberships).unwrap_or_default(),
            ports: container.ports(),
            serving: serves(container),
            access: container.user().map(berth_config::Container::access).unwrap_or_default(),
            resolution: container.user().map(berth_config::Container::resolution).unwrap_or_default(),
            bandwidth: container.user().map(|user| user.bandwidth).unwrap_or_default(),
            service_address: container.user().is_some_and(|user| user.endpoint_mode == EndpointMode::Vip),
        };
        if let Some(network) = self.service(Role::Network) {
            let notice = Notice::AttachNetwork(Box::new(attachment));
            self.send(network, FromInit::Notice(notice), &[namespace.as_fd()]);
        }
    }

    /// `network` has given a container its addresses.
    pub(super) fn attached(&mut self, name: &str, addresses: Vec<String>, resolv_conf: String) {
        // Of one that has ended meanwhile they are nobody's.
        let Some(container) = self.find_mut(name).filter(|container| container.may_have_processes()) else { return };
        let Taken { moved, renamed } = container.take_addresses(addresses, resolv_conf);
        let id = container.id;
        let found = container.reason.starts_with(LOST);
        if found {
            container.reason.clear();
        }
        if matches!(container.state, State::Attaching { .. }) {
            return self.start(id);
        }
        if renamed && let Err(reason) = write_files(container) {
            log::warn!("container {name}: {reason}");
        }
        if moved || found {
            self.changed(id);
        }
    }

    /// `network` could not give a container its addresses, or not again when it began anew.
    pub(super) fn not_attached(&mut self, id: u32, reason: String) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if matches!(container.state, State::Attaching { .. }) {
            self.set_up_failed(id, reason);
        } else if container.may_have_processes() {
            // What works in it goes on; what it needs the network for shows in its health.
            container.reason = format!("{LOST}{reason}");
            log::warn!("container {} {}; `berth restart {0}` tries again", container.name, container.reason);
            self.changed(id);
        }
    }

    /// Tells `network` whether connections are to be sent to a container.
    pub(super) fn tell_serving(&mut self, id: u32) {
        let Some(container) = self.containers.get(id).filter(|container| container.network.is_some()) else { return };
        let notice = Notice::Serving { name: container.name.clone(), serving: serves(container) };
        self.notify(Role::Network, notice);
    }

    /// What is missing of a container's own network.
    pub(super) fn network_obstacle(&self, container: &Container) -> Option<Obstacle> {
        match &container.user()?.network_mode {
            NetworkMode::Bridge => (self.service(Role::Network).is_none())
                .then(|| Obstacle::passing("waits for the system container network".to_owned())),
            NetworkMode::Container(_) | NetworkMode::Host | NetworkMode::None => None,
        }
    }

    /// The network of the container that this one shares it with.
    pub(super) fn shared_network(&self, container: &Container) -> Option<SharedNetwork> {
        let NetworkMode::Container(target) = &container.user()?.network_mode else { return None };
        let target = self.find(target.as_str())?;
        Some(SharedNetwork {
            namespace: PathBuf::from(format!("/proc/{}/ns/net", target.pid()?)),
            resolver: resolver_file(&target.name, target.user()?, None),
        })
    }

    /// Starts the containers anew whose networks are others now.
    pub(super) fn restart_on_changed_networks(&mut self, before: &Networking) {
        let after = self.configuration.networking();
        let changed = after.changed_since(before);
        let is_on_one = |container: &&Container| {
            let networks = container.user().map(berth_config::Container::memberships).unwrap_or_default();
            container.network.is_some()
                && container.goal.goes_on()
                && networks.iter().any(|(name, _)| changed.contains(name))
        };
        let ids: Vec<u32> = self.containers.values().filter(is_on_one).map(|container| container.id).collect();
        for id in ids {
            self.stop(id, Goal::Restart);
        }
    }
}

/// What is another thing than before with what `network` has given a container.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    /// Its addresses.
    moved: bool,
    /// What its files in /etc say.
    renamed: bool,
}

impl Container {
    fn take_addresses(&mut self, addresses: Vec<String>, resolv_conf: String) -> Taken {
        let before = own_files(self);
        let moved = std::mem::replace(&mut self.addresses, addresses) != self.addresses;
        self.resolv_conf = resolv_conf;
        Taken { moved, renamed: own_files(self) != before }
    }
}

/// Whether connections are to be sent to it.
fn serves(container: &Container) -> bool {
    let checked = container.health_settings().is_some();
    let status = container.health.as_ref().map(super::health::Health::status);
    !container.is_getting_ready() && (!checked || status == Some(Health::Healthy))
}

#[cfg(test)]
mod tests {
    use berth_control::channel::Channel;
    use berth_control::message::ContainerState::{Declared, Starting, Stopped, Stopping, Waiting};

    use super::*;
    use crate::supervisor::world::{World, service};

    #[test]
    fn without_a_network_of_its_own_a_container_has_its_servers_in_its_file() {
        let machines = "# Written.\nnameserver 127.0.0.53\noptions edns0\nsearch a.org b.org\n";
        let user = |text: &str| -> berth_config::Container { serde_json::from_str(text).unwrap() };
        let plain = user(r#"{ "image": "x", "network_mode": "host" }"#);
        assert_eq!(resolver_file("web", &plain, None), PathBuf::from(MACHINES));
        let own = user(
            r#"{ "image": "x", "network_mode": "host", "dns": ["192.0.2.53", "2001:db8::53"], "dns_opt": ["rotate"] }"#,
        );
        assert_eq!(resolver_file("web", &own, None), files_folder("web").join("resolv.conf"));
        let expected = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.org b.org\noptions rotate\n";
        assert_eq!(changed(&own.resolution(), machines), expected);
        let search = user(r#"{ "image": "x", "network_mode": "none", "dns_search": ["."] }"#);
        assert_eq!(changed(&search.resolution(), machines), "nameserver 127.0.0.53\noptions edns0\n");
    }

    #[test]
    fn a_container_in_the_network_of_another_starts_after_it_and_anew_with_it() {
        let mut world = World::new(
            "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\n\
             [containers.side]\nimage = 'a'\nnetwork_mode = 'container:db'\n",
        );
        world.prepare("side");
        assert_eq!((world.state("side"), world.reason("side")), (Waiting, "waits for db"));
        world.prepare("db");
        world.run("db");
        assert_eq!(world.state("side"), Starting);
        let shared = world.supervisor.find("side").unwrap().shared.clone().unwrap();
        let pid = world.supervisor.find("db").unwrap().pid().unwrap();
        assert_eq!(shared.namespace, PathBuf::from(format!("/proc/{pid}/ns/net")));
        assert_eq!(shared.resolver, PathBuf::from("/run/berth/resolv.conf"));
        world.run("side");
        world.end("db", 1);
        assert_eq!(world.state("side"), Stopping);
        world.end("side", 0);
        assert_eq!((world.state("side"), world.reason("side")), (Waiting, "waits for db"));
        world.pass(std::time::Duration::from_secs(60));
        world.run("db");
        world.run("side");
        let side = world.supervisor.find("side").unwrap().id;
        world.supervisor.stop(side, Goal::Stop);
        world.end("db", 1);
        world.end("side", 0);
        assert_eq!(world.state("side"), Stopped, "as it was told before db ended");
    }

    /// What `network` was told of containers since the last time.
    fn told(channel: &Channel) -> Vec<(String, bool)> {
        let messages = std::iter::from_fn(|| channel.receive::<FromInit>().ok());
        let serving = messages.filter_map(|(message, _)| match message {
            FromInit::Notice(Notice::Serving { name, serving }) => Some((name, serving)),
            _ => None,
        });
        serving.collect()
    }

    #[test]
    fn connections_go_to_a_container_while_its_health_check_passes() {
        let web = |keys: &str| format!("[containers.web]\nimage = 'a'\n{keys}\n");
        let mut world = World::new(&web("health = { tcp = 80 }"));
        let (id, channel) = service(&mut world.supervisor, "network");
        world.supervisor.containers.get_mut(id).unwrap().ready = true;
        world.prepare("web");
        let namespace: std::os::fd::OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
        world.supervisor.find_mut("web").unwrap().network = Some(namespace.into());
        world.run("web");
        assert_eq!(told(&channel), [("web".to_owned(), false)]);
        world.apply(&web(""));
        assert_eq!(told(&channel), [("web".to_owned(), true)]);
    }

    #[test]
    fn a_container_that_loses_its_network_says_so_until_it_has_it_again() {
        let mut world = World::new("[containers.web]\nimage = 'a'\n");
        let (id, _channel) = service(&mut world.supervisor, "network");
        world.supervisor.containers.get_mut(id).unwrap().ready = true;
        world.prepare("web");
        let namespace: std::os::fd::OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
        world.supervisor.find_mut("web").unwrap().network = Some(namespace.into());
        world.run("web");
        let web = world.supervisor.id_of("web").unwrap();
        let id = world.supervisor.id_of("control").unwrap();
        world.supervisor.containers.get_mut(id).unwrap().ready = true;
        world.supervisor.not_attached(web, "its parent eth1 is gone".to_owned());
        assert_eq!(world.events(), [("web".to_owned(), "has lost its network: its parent eth1 is gone".to_owned())]);
        assert_eq!(world.reason("web"), "has lost its network: its parent eth1 is gone");
        assert_eq!(world.state("web"), berth_control::message::ContainerState::Running);
        world.supervisor.attached("web", Vec::new(), String::new());
        assert_eq!(world.reason("web"), "");
        assert_eq!(world.events(), [("web".to_owned(), String::new())], "those who follow events hear of it");
        world.supervisor.attached("web", Vec::new(), String::new());
        assert!(world.events().is_empty(), "and of nothing that is as it was");
    }

    #[test]
    fn the_files_of_a_container_follow_its_addresses_too() {
        let mut world = World::new("[containers.web]\nimage = 'a'\n");
        let mut take = |address: &str, resolver: &str| {
            let container = world.supervisor.find_mut("web").unwrap();
            let Taken { moved, renamed } = container.take_addresses(vec![address.into()], resolver.into());
            (moved, renamed)
        };
        assert_eq!(take("10.88.0.2", "nameserver 10.88.0.1\n"), (true, true));
        assert_eq!(take("10.88.0.2", "nameserver 10.88.0.1\n"), (false, false));
        assert_eq!(take("10.88.0.7", "nameserver 10.88.0.1\n"), (true, true), "/etc/hosts has its own address");
        assert_eq!(take("10.88.0.7", "nameserver 192.0.2.1\n"), (false, true));
    }

    #[test]
    fn a_container_on_a_network_that_changes_starts_anew() {
        let text =
            |mtu: u32| format!("[networks.back]\nmtu = {mtu}\n[containers.web]\nimage = 'a'\nnetworks = ['back']\n");
        let mut world = World::new(&text(1500));
        let (id, _channel) = service(&mut world.supervisor, "network");
        world.supervisor.containers.get_mut(id).unwrap().ready = true;
        world.prepare("web");
        let namespace: std::os::fd::OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
        world.supervisor.find_mut("web").unwrap().network = Some(namespace.into());
        world.run("web");
        world.apply(&text(1400));
        assert_eq!(world.state("web"), Stopping);
        world.end("web", 0);
        assert!(matches!(world.state("web"), Starting | Declared), "{:?}", world.state("web"));
    }
}
