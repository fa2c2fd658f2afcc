//! Everything in a configuration, and in what was made beside it, that lets more through than Berth does by itself: what
//! `berth audit` prints.
//!
//! A list of what is written, not a judgement: a published port is what many containers are for.

use serde::{Deserialize, Serialize};

use crate::configuration::Configuration;
use crate::container::{Capability, Container, IpcMode, NetworkMode, PidMode, Seccomp, UserNamespace, Volume};
use crate::trust::Requirement;

/// One loosening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loosening {
    /// The key, with dots: `containers.web.ports`.
    pub key: String,
    /// What is written there.
    pub value: String,
    /// What that lets through.
    pub meaning: String,
    /// Whether it is of a container that no configuration declares: `berth run`, `berth create`.
    #[serde(default)]
    pub made: bool,
}

/// What is asked of images of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `*`, a registry or a part of one.
    pub scope: String,
    /// `nothing`, `digest` or `signature`.
    pub require: String,
    /// Files of keys, and `PEM` for a key that stands in the configuration.
    pub keys: Vec<String>,
}

/// What a configuration lets through, and which images it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// In the order of scopes; without `*` the rest is taken as it comes, and stands here as such.
    pub images: Vec<Policy>,
    /// In the order of the configuration.
    pub loosenings: Vec<Loosening>,
}

impl Configuration {
    /// Lists what it loosens, and what the containers do that were `made` beside it, each with its name.
    pub fn audit<'a>(&self, made: impl IntoIterator<Item = (&'a str, &'a Container)>) -> Audit {
        let mut audit = Audit { images: self.policies(), loosenings: Vec::new() };
        let mut add = |key: String, value: String, meaning: &str| {
            audit.loosenings.push(Loosening { key, value, meaning: meaning.to_owned(), made: false });
        };
        for ports in &self.network.inbound {
            add("network.inbound".to_owned(), ports.to_string(), "others may connect to the machine itself");
        }
        for (name, registry) in self.registries.iter().filter(|(_, registry)| registry.plain_http) {
            let meaning = "everybody on the way can read and change images that no digest pins";
            add(format!("registries.{name}.plain_http"), registry.plain_http.to_string(), meaning);
        }
        for (name, value) in self.sysctls.iter() {
            add(format!("sysctls.{name}"), value.to_owned(), "a kernel setting of the machine");
        }
        for (name, container) in &self.containers {
            for (key, value, meaning) in container.loosenings() {
                add(format!("containers.{name}.{key}"), value, meaning);
            }
        }
        for (name, container) in made {
            audit.loosenings.extend(container.loosenings().into_iter().map(|(key, value, meaning)| Loosening {
                key: format!("containers.{name}.{key}"),
                value,
                meaning: meaning.to_owned(),
                made: true,
            }));
        }
        audit
    }

    fn policies(&self) -> Vec<Policy> {
        let key = |key: &crate::PublicKey| match key {
            crate::PublicKey::Text(_) => "PEM".to_owned(),
            crate::PublicKey::File(file) => file.to_string(),
        };
        let mut policies: Vec<Policy> = Vec::with_capacity(self.trust.len() + 1);
        policies.extend(self.trust.iter().map(|(scope, trust)| Policy {
            scope: scope.to_string(),
            require: trust.require.name().to_owned(),
            keys: trust.keys.iter().map(key).collect(),
        }));
        if policies.iter().all(|policy| policy.scope != "*") {
            let require = Requirement::Nothing.name().to_owned();
            policies.insert(0, Policy { scope: "*".to_owned(), require, keys: Vec::new() });
        }
        policies
    }
}

impl Container {
    /// Key below the container, value, meaning.
    fn loosenings(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut found = Vec::new();
        if self.security.user_namespace == UserNamespace::Host {
            found.push(("security.user_namespace", "host".to_owned(), "root in the container is root on the machine"));
        }
        if self.security.seccomp == Seccomp::Unconfined {
            found.push(("security.seccomp", "unconfined".to_owned(), "every system call is let through"));
        }
        if !self.security.no_new_privileges {
            let meaning = "set-user-ID programs of the image gain privileges";
            found.push(("security.no_new_privileges", "false".to_owned(), meaning));
        }
        let default = Capability::DEFAULT;
        let added = self.capabilities().into_iter().filter(|capability| !default.contains(capability));
        let added: Vec<String> = added.map(|capability| capability.to_string()).collect();
        if !added.is_empty() {
            found.push(("cap_add", added.join(", "), "capabilities beyond the default ones"));
        }
        match &self.network_mode {
            NetworkMode::Host => {
                found.push(("network_mode", "host".to_owned(), "it has the machine's network, with all its ports"));
            }
            mode @ NetworkMode::Container(_) => {
                found.push(("network_mode", mode.to_string(), "it shares another container's network"));
            }
            NetworkMode::Bridge | NetworkMode::None => {}
        }
        if self.ipc != IpcMode::Private {
            found.push(("ipc", self.ipc.to_string(), "it shares memory and message queues with other containers"));
        }
        if self.pid != PidMode::Private {
            found.push(("pid", self.pid.to_string(), "it sees another container's processes, and that one sees its"));
        }
        found.extend(self.ports.iter().map(|ports| ("ports", ports.to_string(), "others may connect to it")));
        found.extend(self.devices.iter().map(|device| ("devices", device.to_string(), "a device of the machine")));
        for volume in self.volumes.iter().filter(|volume| matches!(volume, Volume::Host { .. })) {
            let meaning =
                if volume.read_only() { "it reads the machine's files" } else { "it writes the machine's files" };
            found.push(("volumes", volume.to_string(), meaning));
        }
        found.extend(self.api.iter().map(|part| ("api", part.to_string(), "a part of the control API")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(text: &str) -> Audit {
        toml::from_str::<Configuration>(text).unwrap().audit([])
    }

    #[test]
    fn what_was_made_by_hand_is_listed_as_such() {
        let job: Container = toml::from_str("image = 'x'\nnetwork_mode = 'host'\n").unwrap();
        let found = Configuration::default().audit([("job", &job)]).loosenings;
        let shown: Vec<_> = found.iter().map(|found| (found.key.as_str(), found.made)).collect();
        assert_eq!(shown, [("containers.job.network_mode", true)]);
    }

    #[test]
    fn a_configuration_that_loosens_nothing_has_an_empty_list() {
        let found = audit(
            "[containers.web]\nimage = 'nginx'\nvolumes = ['data:/srv']\ncap_drop = ['ALL']\ncap_add = ['CHOWN']\n",
        );
        assert_eq!(found.loosenings, []);
        let only = Policy { scope: "*".to_owned(), require: "nothing".to_owned(), keys: Vec::new() };
        assert_eq!(found.images, [only]);
    }

    #[test]
    fn every_loosening_is_listed_by_its_key() {
        let text = "[network]\ninbound = [22]\n[registries.'r:5000']\nplain_http = true\n[registries.s]\n\
            [sysctls]\n'net.ipv4.ip_forward' = 1\n\
            [containers.web]\nimage = 'nginx'\nports = ['8080:80']\ncap_add = ['SYS_ADMIN', 'CHOWN']\n\
            devices = ['/dev/fuse']\nvolumes = ['/srv:/srv', '/etc:/e:ro', 'named:/n']\napi = ['containers.list']\n\
            security = { user_namespace = 'host', seccomp = 'unconfined', no_new_privileges = false }\n\
            [containers.x]\nimage = 'x'\nnetwork_mode = 'host'\n[containers.y]\nimage = 'y'\n\
            network_mode = 'container:x'\nipc = 'shareable'\npid = 'container:x'\n";
        let keys: Vec<String> = audit(text).loosenings.into_iter().map(|found| found.key).collect();
        let web = |key: &str| format!("containers.web.{key}");
        assert_eq!(
            keys,
            [
                "network.inbound".to_owned(),
                "registries.r:5000.plain_http".to_owned(),
                "sysctls.net.ipv4.ip_forward".to_owned(),
                web("security.user_namespace"),
                web("security.seccomp"),
                web("security.no_new_privileges"),
                web("cap_add"),
                web("ports"),
                web("devices"),
                web("volumes"),
                web("volumes"),
                web("api"),
                "containers.x.network_mode".to_owned(),
                "containers.y.network_mode".to_owned(),
                "containers.y.ipc".to_owned(),
                "containers.y.pid".to_owned(),
            ]
        );
    }

    #[test]
    fn the_policy_for_images_is_part_of_it() {
        let text =
            "[trust.'*']\nrequire = 'digest'\n[trust.'ghcr.io/acme']\nrequire = 'signature'\nkeys = ['keys/a.pub']\n";
        let found = audit(text).images;
        let shown: Vec<String> =
            found.iter().map(|one| format!("{} {} {}", one.scope, one.require, one.keys.join(","))).collect();
        assert_eq!(shown, ["* digest ", "ghcr.io/acme signature keys/a.pub"]);
    }
}
