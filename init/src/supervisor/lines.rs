//! The lines of the configuration that have brought a container where it is, for `berth why`.

use berth_config::{ContainerName, ReadyWhen};
use serde::Serialize;

use super::Supervisor;
use super::container::{Container, State};
use super::end::AT_LIMIT;

impl Supervisor {
    /// ` (berth.toml:7)`, where a key of a container stands in the configuration.
    pub(super) fn place(&self, container: &Container, key: &str) -> Option<String> {
        let declared = self.declared_name(container)?;
        self.locations.find(declared.as_str(), key).map(|place| format!(" ({place})"))
    }

    /// By which name the configuration declares it, if it does.
    pub(super) fn declared_name(&self, container: &Container) -> Option<&ContainerName> {
        self.configuration.declared_name(&container.name).filter(|_| container.made.is_none())
    }

    /// A key with what it says, and where.
    fn line(&self, container: &Container, key: &str, said: &impl Serialize) -> String {
        format!("{key} = {}{}", toml(said), self.place(container, key).unwrap_or_default())
    }

    /// The lines that matter in its present state.
    pub(super) fn settings(&self, container: &Container) -> Vec<String> {
        let Some(user) = container.user() else { return Vec::new() };
        let mut lines = Vec::new();
        if container.made.is_some() {
            lines.push("no configuration declares it: `berth run` or `berth create` has made it".to_owned());
        }
        match &container.state {
            State::Declared | State::Preparing => lines.push(self.line(container, "image", &user.image)),
            State::Failed if container.image.is_none() => {
                lines.push(self.line(container, "image", &user.image));
                lines.extend(self.volumes(container, user, &container.reason));
            }
            State::Waiting => lines.extend(self.dependencies(container, user)),
            State::Scheduled(_) => {
                let keys = [("schedule", user.schedule.is_some()), ("every", user.every.is_some())];
                let set = keys.into_iter().filter(|(_, is_set)| *is_set);
                let place = |key| self.place(container, key).unwrap_or_default();
                lines.extend(set.map(|(key, _)| format!("its {key} says when it runs{}", place(key))));
            }
            State::Attaching { .. } => lines.extend(self.networks(container, user)),
            State::Running(_) if container.is_getting_ready() && user.readiness != ReadyWhen::default() => {
                lines.push(self.line(container, "readiness", &user.readiness));
            }
            _ => {}
        }
        lines.extend(self.of_last_end(container, user));
        lines
    }

    fn dependencies(&self, container: &Container, user: &berth_config::Container) -> Vec<String> {
        let unmet = self.unmet_dependencies(container);
        let is_unmet =
            |name: &&ContainerName| self.instances_of(name.as_str()).iter().any(|instance| unmet.contains(instance));
        let names: Vec<_> = user.depends_on.iter().map(|(name, _)| name).filter(is_unmet).collect();
        let dependencies = (!names.is_empty()).then(|| self.line(container, "depends_on", &names));
        let targets = user.targets().filter(|(_, name)| is_unmet(name));
        let targets = targets.map(|(key, name)| self.line(container, key, &format!("container:{name}")));
        dependencies.into_iter().chain(targets).collect()
    }

    /// What has to do with the way that its last run ended, unless it runs again.
    fn of_last_end(&self, container: &Container, user: &berth_config::Container) -> Vec<String> {
        let rests =
            matches!(container.state, State::Backoff { .. } | State::Failed | State::Stopped | State::Scheduled(_));
        let Some(end) = container.ends.back().filter(|_| rests) else { return Vec::new() };
        let mut lines = Vec::new();
        if end.how().ends_with(AT_LIMIT) {
            lines.extend(user.memory.map(|memory| self.line(container, "memory", &memory)));
        }
        if end.is_of_networks() {
            lines.extend(self.networks(container, user));
        } else if !end.has_run() {
            lines.extend(self.volumes(container, user, end.how()));
            let is_of_api = !user.api.is_empty() && end.how().contains(super::api::SOCKET);
            lines.extend(is_of_api.then(|| self.line(container, "api", &user.api)));
        }
        lines
    }

    fn networks(&self, container: &Container, user: &berth_config::Container) -> Vec<String> {
        let names: Vec<_> = user.memberships().into_iter().map(|(name, _)| name).collect();
        let ports = (!user.ports.is_empty()).then(|| self.line(container, "ports", &user.ports));
        let sections = names.iter().filter_map(|name| {
            self.locations.of_network(name.as_str()).map(|place| format!("[networks.{name}] is declared ({place})"))
        });
        let line = self.line(container, "networks", &names);
        std::iter::once(line).chain(sections).chain(ports).collect()
    }

    /// If this reason is about one of them.
    fn volumes(&self, container: &Container, user: &berth_config::Container, reason: &str) -> Option<String> {
        let is_told = |volume: &berth_config::Volume| {
            let text = volume.to_string();
            text.split(':').any(|part| part.len() > 1 && reason.contains(part) && !["ro", "rw"].contains(&part))
        };
        user.volumes.iter().any(is_told).then(|| self.line(container, "volumes", &user.volumes))
    }
}

/// A text or a list of texts as it stands in a file.
fn toml(said: &impl Serialize) -> String {
    match serde_json::to_value(said) {
        Ok(serde_json::Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::world::{World, service};
    use super::*;

    fn texts(world: &World) -> Vec<String> {
        world.supervisor.why("web").unwrap().into_iter().map(|cause| cause.text).collect()
    }

    fn world(text: &str) -> World {
        let mut world = World::new(&format!("[containers.web]\nimage = 'a'\n{text}"));
        world.prepare("web");
        world
    }

    #[test]
    fn a_limit_of_memory_is_named_when_it_was_the_end() {
        let mut world = world("network_mode = 'none'\nmemory = '64M'\n");
        world.run("web");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        world.supervisor.find_mut("web").unwrap().cgroup = folder.path().to_owned();
        world.end("web", 137);
        assert!(texts(&world).contains(&"memory = \"64M\" (test.toml:4)".to_owned()), "{:?}", texts(&world));
    }

    #[test]
    fn networks_and_ports_are_named_after_an_attachment_that_failed() {
        let mut world = world("");
        let (id, _channel) = service(&mut world.supervisor, "network");
        world.supervisor.service_ready(id);
        world.apply("[networks.back]\n[containers.web]\nimage = 'a'\nnetworks = ['back']\nports = ['8080:80']\n");
        world.prepare("web");
        let web = world.supervisor.find_mut("web").unwrap();
        let id = web.id;
        web.state = State::Attaching { created: None, deadline: Duration::MAX };
        let declared = "[networks.back] is declared (test.toml:1)";
        let lines = ["networks = [\"back\"] (test.toml:4)", declared, "ports = [\"8080:80\"] (test.toml:5)"];
        assert_eq!(texts(&world)[1..], lines);
        world.supervisor.not_attached(id, "port 8080 is in use".to_owned());
        assert!(matches!(world.supervisor.find("web").unwrap().state, State::Backoff { .. }));
        assert_eq!(texts(&world)[2..5], lines);
    }

    #[test]
    fn volumes_and_parts_of_the_api_are_named_if_the_reason_is_about_them() {
        let text = "network_mode = 'none'\nvolumes = ['/srv/data:/data']\napi = ['containers.list']\n";
        for (reason, line) in [
            ("mount /srv/data: no such file", "volumes = [\"/srv/data:/data\"] (test.toml:4)"),
            ("listen on /run/x/control.sock: no room", "api = [\"containers.list\"] (test.toml:5)"),
        ] {
            let mut world = world(text);
            let id = world.supervisor.id_of("web").unwrap();
            world.supervisor.set_up_failed(id, reason.to_owned());
            assert_eq!(texts(&world)[2], line);
            assert_eq!(texts(&world).len(), 4, "{:?}", texts(&world));
        }
    }

    #[test]
    fn what_a_container_is_to_do_to_be_ready_is_named() {
        let mut world = world("network_mode = 'none'\nreadiness = 'listening:80'\n");
        world.run("web");
        assert_eq!(texts(&world)[1], "readiness = \"listening:80\" (test.toml:4)");
    }
}
