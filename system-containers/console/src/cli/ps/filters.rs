//! `berth ps --filter`: docker's words for what a container is like.
//!
//! Filters of one kind are alternatives, but labels, of which a container must have each, as with docker's.

mod name;

use std::mem::discriminant;
use std::str::FromStr;

use berth_config::Protocol;
use berth_control::dbus::ApiError;
use berth_control::message::{Container, ContainerState, Health};

use self::name::Name;
use super::super::api::Api;
use super::super::definition::Details;
use super::super::error::Error;
use super::super::filter::{self, Label};
use super::super::format;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Ancestor(String),
    Exited(i32),
    Expose(Ports),
    Health(Health),
    Id(String),
    Label(Label),
    Name(Name),
    Network(String),
    Publish(Ports),
    Status(String),
    Volume(String),
}

type Read = fn(&str) -> Result<Filter, String>;

const KEYS: [(&str, Read); 11] = [
    ("ancestor", |text| Ok(Filter::Ancestor(text.to_owned()))),
    ("exited", exited),
    ("expose", |text| Ports::from_str(text).map(Filter::Expose)),
    ("health", health),
    ("id", |text| Ok(Filter::Id(text.to_owned()))),
    ("label", |text| Ok(Filter::Label(Label::new(text)))),
    ("name", |text| text.parse().map(Filter::Name)),
    ("network", |text| Ok(Filter::Network(text.to_owned()))),
    ("publish", |text| Ports::from_str(text).map(Filter::Publish)),
    ("status", status),
    ("volume", |text| Ok(Filter::Volume(text.to_owned()))),
];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (read, value) = filter::parse(text, &KEYS)?;
        read(&value)
    }
}

fn exited(text: &str) -> Result<Filter, String> {
    text.parse().map(Filter::Exited).map_err(|_| format!("{text:?} is no exit code: write it like exited=0"))
}

fn health(text: &str) -> Result<Filter, String> {
    Ok(Filter::Health(match text {
        "none" => Health::None,
        "starting" => Health::Starting,
        "healthy" => Health::Healthy,
        "unhealthy" => Health::Unhealthy,
        _ => return Err("health= is none, starting, healthy or unhealthy".to_owned()),
    }))
}

fn status(text: &str) -> Result<Filter, String> {
    /// Ours, and the three of docker's behind them.
    const WORDS: [&str; 14] = [
        "declared",
        "waiting",
        "preparing",
        "starting",
        "running",
        "unhealthy",
        "paused",
        "stopping",
        "backoff",
        "stopped",
        "failed",
        "created",
        "restarting",
        "exited",
    ];
    let known = WORDS.contains(&text).then(|| Filter::Status(text.to_owned()));
    known.ok_or_else(|| format!("status= is one of {}", WORDS.join(", ")))
}

/// Ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = format::parse_ports(text)?;
        Ok(Self { first: *ports.start(), last: *ports.end(), protocol })
    }
}

impl Ports {
    /// Whether one of them is among so many from a first one.
    fn meet(&self, first: u16, further: u16, protocol: &str) -> bool {
        first != 0
            && self.first <= first.saturating_add(further)
            && first <= self.last
            && self.protocol.name() == protocol
    }
}

impl Filter {
    /// Whether it asks for what has ended, which is then shown without `--all`.
    pub fn is_of_all(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    fn needs_details(&self) -> bool {
        matches!(self, Self::Label(_) | Self::Network(_) | Self::Volume(_))
    }

    /// Whether a container is like this, as far as what is known of it says.
    fn takes(&self, container: &Container, details: Option<&Details>) -> bool {
        let Container { name, state, image, ports, exit_code, .. } = container;
        match self {
            Self::Ancestor(part) => image.contains(part),
            Self::Exited(code) => is_over(*state) && exit_code == code,
            Self::Expose(wanted) => {
                ports.iter().any(|it| wanted.meet(it.container_port, it.further_ports, &it.protocol))
            }
            Self::Health(health) => container.health == *health,
            Self::Id(begin) => name.starts_with(begin),
            Self::Label(label) => details.is_none_or(|details| label.is_among(&details.labels)),
            Self::Name(wanted) => wanted.is_met_by(name),
            Self::Network(name) => details.is_none_or(|details| details.networks.contains(name)),
            Self::Publish(wanted) => ports.iter().any(|it| wanted.meet(it.host_port, it.further_ports, &it.protocol)),
            Self::Status(word) => word == format::container_state(*state) || word == dockers(*state),
            Self::Volume(volume) => details.is_none_or(|details| details.volumes.contains(volume)),
        }
    }
}

/// Whether all filters are met, of several of one kind one.
pub fn all_take(filters: &[Filter], container: &Container, details: Option<&Details>) -> bool {
    let is_met = |filter: &Filter| match filter {
        Filter::Label(_) => filter.takes(container, details),
        _ => filters.iter().any(|it| discriminant(it) == discriminant(filter) && it.takes(container, details)),
    };
    filters.iter().all(is_met)
}

/// Leaves those of which their definitions say what is wanted.
pub async fn retain(api: &Api, filters: &[Filter], containers: &mut Vec<Container>) -> Result<(), Error> {
    if !filters.iter().any(Filter::needs_details) {
        return Ok(());
    }
    for container in std::mem::take(containers) {
        let text = match api.containers.definition(&container.name).await {
            // It has gone meanwhile.
            Err(ApiError::Refused(_)) if api.inspect(&container.name).await.is_err() => continue,
            text => text?,
        };
        if all_take(filters, &container, Some(&Details::of(&text)?)) {
            containers.push(container);
        }
    }
    Ok(())
}

/// What docker calls exited.
fn is_over(state: ContainerState) -> bool {
    dockers(state) == "exited"
}

/// Docker's word where it is another than ours, as far as a filter tells them apart.
fn dockers(state: ContainerState) -> &'static str {
    use ContainerState::{Backoff, Declared, Failed, Preparing, Stopped, Unhealthy, Waiting};
    match state {
        Declared | Waiting | Preparing => "created",
        Unhealthy => "running",
        Backoff => "restarting",
        Stopped | Failed => "exited",
        other => format::container_state(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::api::peer;
    use super::*;
    use berth_control::message::Port;

    fn web() -> Container {
        let port = |host_port, container_port| Port {
            host_address: String::new(),
            host_port,
            container_port,
            further_ports: 2,
            protocol: "tcp".into(),
        };
        let ports = vec![port(8080, 80), port(0, 9000)];
        Container { ports, health: Health::Healthy, ..peer::container("web-1", ContainerState::Running) }
    }

    fn fits(words: &str, container: &Container) -> bool {
        let filters: Vec<Filter> = words.split(' ').map(|word| word.parse().unwrap()).collect();
        all_take(&filters, container, None)
    }

    #[test]
    fn what_the_list_tells_is_filtered_as_docker_does() {
        let job = Container { exit_code: 3, ..peer::container("job", ContainerState::Failed) };
        let sick = peer::container("web-2", ContainerState::Unhealthy);
        for (words, expected) in [
            ("id=web", [true, false, true]),
            ("id=eb", [false; 3]),
            ("name=eb", [true, false, true]),
            ("exited=3", [false, true, false]),
            ("exited=0 exited=3", [false, true, false]),
            ("health=healthy", [true, false, false]),
            ("status=exited", [false, true, false]),
            ("status=running", [true, false, true]),
            ("publish=8082", [true, false, false]),
            ("publish=8083 publish=80", [false; 3]),
            ("publish=1-65535/udp", [false; 3]),
            ("publish=8000-8080/tcp", [true, false, false]),
            ("expose=9001", [true, false, false]),
            ("name=web health=none", [false, false, true]),
        ] {
            assert_eq!([&web(), &job, &sick].map(|one| fits(words, one)), expected, "{words}");
        }
    }

    #[test]
    fn a_mistake_names_what_there_is() {
        for (word, part) in [
            ("colour=red", "ancestor=… or exited=… or expose=… or health=… or id=… or label=…"),
            ("exited=x", "exited=0"),
            ("health=well", "none, starting, healthy or unhealthy"),
            ("publish=0", "53/udp"),
            ("status=dead", "stopped, failed, created, restarting, exited"),
        ] {
            let error = word.parse::<Filter>().unwrap_err();
            assert!(error.contains(part), "{word}: {error}");
        }
    }

    #[tokio::test]
    async fn labels_networks_and_volumes_are_those_of_the_definition_and_the_image() {
        let told = r#"{"definition":{"image":"a","labels":{"tier":"front"},"networks":["back"],"volumes":["data:/d:ro"]},
            "prepared":{"labels":{"tier":"image","by":"me"},"mounts":[
                {"source":"/var/lib/berth/volumes/_web/tree","destination":"/cache"}]}}"#;
        for (words, shown) in [
            ("label=tier=front label=by", true),
            ("label=tier=image", false),
            ("label=by label=none", false),
            ("network=back network=front", true),
            ("network=default", false),
            ("volume=data", true),
            ("volume=/d volume=/x", true),
            ("volume=_web label=by=me", true),
            ("volume=/cache", true),
            ("volume=ro", false),
        ] {
            let (api, mut peer) = peer::pair().await;
            let filters: Vec<Filter> = words.split(' ').map(|word| word.parse().unwrap()).collect();
            let mut containers = vec![web()];
            let filtered = retain(&api, &filters, &mut containers);
            let (filtered, ()) = tokio::join!(filtered, peer.answer("Definition", &told));
            filtered.unwrap();
            assert_eq!(!containers.is_empty(), shown, "{words}");
        }
    }

    #[tokio::test]
    async fn one_that_has_gone_meanwhile_is_left_out() {
        let (api, mut peer) = peer::pair().await;
        let (filters, mut containers) = (["label=a".parse().unwrap()], vec![web()]);
        let answers = async {
            for method in ["Definition", "Inspect"] {
                let call = peer.call(method).await;
                peer.refuse(&call, "there is no container web-1").await;
            }
        };
        let (filtered, ()) = tokio::join!(retain(&api, &filters, &mut containers), answers);
        assert!(filtered.is_ok() && containers.is_empty());
    }
}
