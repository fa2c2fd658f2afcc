//! `-P` of `berth run` and `berth create`: the ports that an image exposes, each on a port of the machine that leads nowhere
//! yet.

use std::collections::BTreeSet;

use berth_config::{Container, NetworkMode, Protocol, PublishedPorts};
use berth_control::message;
use serde_json::Value;

use super::super::api::Api;
use super::super::error::Error;
use super::super::{answers, format, image, images};
use super::refused;

/// The first port of the machine that is taken for one: above those that the kernel gives the machine's own connections
/// (`ip_local_port_range`, up to 60999).
const FIRST: u16 = 61_000;

/// A port of a program.
pub type Exposed = (u16, Protocol);

/// `--expose`: a port, or a range of them, with its protocol.
pub fn expose(text: &str) -> Result<Vec<Exposed>, String> {
    let (ports, protocol) = format::parse_ports(text)?;
    Ok(ports.map(|port| (port, protocol)).collect())
}

/// What is to be published beside what the container publishes itself. An image that is not here is pulled.
pub async fn ports(
    api: &Api,
    container: &Container,
    more: &[Exposed],
    quiet: bool,
) -> Result<Vec<PublishedPorts>, Error> {
    // As docker's: without a network of its own there is nothing to publish.
    if container.network_mode != NetworkMode::Bridge {
        return Ok(Vec::new());
    }
    let name = container.image.as_ref();
    let texts = match image::end(api.images.inspect(name).await?) {
        Err(Error::Refused(_)) => {
            images::show(api.images.pull(name).await?, quiet, false)?;
            image::end(api.images.inspect(name).await?)?
        }
        texts => texts?,
    };
    let text = texts.first().map_or("{}", String::as_str);
    let mut exposed = exposed(&serde_json::from_str(text).map_err(|error| answers::strange(&error))?);
    exposed.extend(more);
    choose(&exposed, container, &taken(api).await?).ok_or_else(|| refused("no port of the machine is free for -P"))
}

/// Whether one of them leads to a container by now.
pub async fn are_taken(api: &Api, ports: &[PublishedPorts]) -> Result<bool, Error> {
    let taken = if ports.is_empty() { BTreeSet::new() } else { taken(api).await? };
    Ok(ports.iter().flat_map(PublishedPorts::mappings).any(|port| taken.contains(&port.host_port)))
}

/// The ports of the machine that lead to containers.
async fn taken(api: &Api) -> Result<BTreeSet<u16>, Error> {
    let ports = |port: &message::Port| port.host_port..=port.host_port.saturating_add(port.further_ports);
    Ok(api.list().await?.iter().flat_map(|container| &container.ports).flat_map(ports).collect())
}

/// What `berth image inspect` says of them; what is none is left out, as by the engine.
fn exposed(inspected: &Value) -> BTreeSet<(u16, Protocol)> {
    let port = |text: &String| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, Protocol::Tcp.name()));
        Some((number.parse().ok().filter(|number| *number > 0)?, protocol.parse().ok()?))
    };
    let ports = inspected.pointer("/configuration/config/ExposedPorts").and_then(Value::as_object);
    ports.into_iter().flatten().filter_map(|(text, _)| port(text)).collect()
}

/// `None` if there are not enough.
fn choose(
    exposed: &BTreeSet<(u16, Protocol)>,
    container: &Container,
    taken: &BTreeSet<u16>,
) -> Option<Vec<PublishedPorts>> {
    let own: Vec<_> = container.port_mappings().collect();
    let is_free = |port: &u16| !taken.contains(port) && own.iter().all(|mapping| mapping.host_port != *port);
    let mut free = (FIRST..=u16::MAX).filter(is_free);
    let published = |port: u16, protocol| own.iter().any(|own| (own.container_port, own.protocol) == (port, protocol));
    let rest = exposed.iter().filter(|(port, protocol)| !published(*port, *protocol));
    rest.map(|(port, protocol)| format!("{}:{port}/{protocol}", free.next()?).parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(ports: &[&str], taken: &[u16]) -> Vec<String> {
        let image = serde_json::json!({ "configuration": { "config": { "ExposedPorts": {
            "80/tcp": {}, "443": {}, "53/udp": {}, "0/tcp": {}, "9/dccp": {}
        } } } });
        let ports = ports.iter().map(|port| port.parse().unwrap()).collect();
        let container = Container { ports, ..Container::new("a:1".parse().unwrap()) };
        let chosen = choose(&exposed(&image), &container, &taken.iter().copied().collect()).unwrap();
        chosen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_exposed_port_gets_one_that_leads_nowhere_yet() {
        assert_eq!(chosen(&[], &[]), ["61000:53/udp", "61001:80", "61002:443"]);
        assert_eq!(chosen(&[], &[61_000, 61_002]), ["61001:53/udp", "61003:80", "61004:443"]);
        assert_eq!(chosen(&["8080:80", "61000:9"], &[]), ["61001:53/udp", "61002:443"], "80 is published already");
        assert_eq!(exposed(&serde_json::json!({ "configuration": {} })), BTreeSet::new());
        let all: BTreeSet<u16> = (FIRST..=u16::MAX).collect();
        let container = Container::new("a:1".parse().unwrap());
        assert_eq!(choose(&[(80, Protocol::Tcp)].into(), &container, &all), None);
    }
}
