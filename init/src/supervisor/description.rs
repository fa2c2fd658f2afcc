//! A container as clients see it.

use berth_control::message::{self, ContainerState, Port};

use super::container::{Container, State};
use super::health::Health;
use crate::printable::printable;

impl Container {
    /// Its published ports, ranges as they are written.
    pub fn ports(&self) -> Vec<Port> {
        let port = |ports: &berth_config::PublishedPorts| Port {
            host_address: ports.host_address().map(|address| address.to_string()).unwrap_or_default(),
            host_port: ports.first_host_port(),
            container_port: ports.first_container_port(),
            further_ports: ports.further_ports(),
            protocol: ports.protocol().name().to_owned(),
        };
        self.user().into_iter().flat_map(|user| &user.ports).map(port).collect()
    }

    /// Its published ports, then those that its image exposes and nothing publishes.
    fn all_ports(&self) -> Vec<Port> {
        let mut ports = self.ports();
        let published = ports.len();
        let exposed = self.image.iter().flat_map(|image| &image.exposed);
        for range in exposed {
            let left = without(range, ports.get(..published).unwrap_or_default());
            ports.extend(left);
        }
        ports
    }

    /// What clients see.
    pub fn describe(&self) -> message::Container {
        message::Container {
            name: self.name.clone(),
            kind: self.kind(),
            state: match self.state {
                State::Declared => ContainerState::Declared,
                State::Preparing => ContainerState::Preparing,
                State::Waiting | State::Scheduled(_) => ContainerState::Waiting,
                State::Creating { .. } | State::Attaching { .. } | State::Executing { .. } => ContainerState::Starting,
                State::Running(_) if self.frozen => ContainerState::Paused,
                State::Running(_) if self.is_getting_ready() => ContainerState::Starting,
                State::Running(_) if self.is_unhealthy() => ContainerState::Unhealthy,
                State::Running(_) => ContainerState::Running,
                State::Stopping { .. } => ContainerState::Stopping,
                State::Backoff { .. } => ContainerState::Backoff,
                State::Stopped => ContainerState::Stopped,
                State::Failed => ContainerState::Failed,
            },
            health: self.health.as_ref().map(Health::status).unwrap_or_default(),
            image: self.user().map(|user| user.image.to_string()).unwrap_or_default(),
            reason: printable(&self.reason).into_owned(),
            pid: self.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
            restarts: self.restarts,
            started_us: self.started_us,
            exit_code: self.exit_code,
            addresses: self.addresses.clone(),
            ports: self.all_ports(),
        }
    }
}

/// What is left of an exposed range beside these.
fn without(range: &Port, published: &[Port]) -> Vec<Port> {
    let ends = |port: &Port| (port.container_port, port.container_port.saturating_add(port.further_ports));
    let mut left = vec![ends(range)];
    for (from, to) in published.iter().filter(|other| other.protocol == range.protocol).map(ends) {
        let beside = |(first, last): (u16, u16)| {
            let before = (first < from).then(|| (first, last.min(from - 1)));
            let after = (last > to).then(|| (first.max(to + 1), last));
            [before, after].into_iter().flatten()
        };
        left = left.into_iter().flat_map(beside).collect();
    }
    let port = |(first, last): (u16, u16)| Port { container_port: first, further_ports: last - first, ..range.clone() };
    left.into_iter().map(port).collect()
}
