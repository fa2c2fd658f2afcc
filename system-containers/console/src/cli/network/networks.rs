//! `berth network ls` and `inspect`: networks of containers, those too that nobody has needed yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_config::{Configuration, ContainerNetwork, NetworkDriver, Prefix};
use berth_control::message::{Container, Network};
use clap::Args;
use serde::Serialize;

use crate::cli::api::Api;
use crate::cli::error::Error;
use crate::cli::{config, json_text, table};

/// Which ones.
#[derive(Debug, Args)]
pub struct Names {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// A network and who is on it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Occupied {
    #[serde(flatten)]
    network: Network,
    /// The addresses of each container.
    containers: BTreeMap<String, Vec<String>>,
}

/// A line for each.
pub async fn list(api: &Api, quiet: bool, json: bool) -> Result<String, Error> {
    let all = all(api).await?;
    match (json, quiet) {
        (true, _) => json_text(&all),
        (false, true) => Ok(all.iter().map(|each| format!("{}\n", each.network.name)).collect()),
        (false, false) => Ok(render(&all)),
    }
}

/// Everything about some.
pub async fn inspect(api: &Api, names: &Names) -> Result<String, Error> {
    let all = all(api).await?;
    let find = |name: &String| {
        let unknown = || Error::Refused(format!("there is no network {name}: `berth network ls` lists them"));
        all.iter().find(|each| each.network.name == *name).ok_or_else(unknown)
    };
    json_text(&names.names.iter().map(find).collect::<Result<Vec<_>, _>>()?)
}

async fn all(api: &Api) -> Result<Vec<Occupied>, Error> {
    let declared = config::in_force(api).await?;
    Ok(occupied(api.describe().await?.networks, &declared, &api.list().await?))
}

/// Adds to the networks that are in use those that are declared, and their containers.
fn occupied(mut networks: Vec<Network>, declared: &Configuration, containers: &[Container]) -> Vec<Occupied> {
    let default = (ContainerNetwork::DEFAULT.to_owned(), ContainerNetwork::default());
    let named = declared.networks.iter().map(|(name, settings)| (name.to_string(), settings.clone()));
    for (name, settings) in named.chain([default]) {
        if networks.iter().all(|network| network.name != name) {
            networks.push(unused(name, &settings));
        }
    }
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let on = |network: Network| {
        let own = containers.iter().map(|container| (container.name.clone(), addresses_on(&network, container)));
        let containers = own.filter(|(_, addresses)| !addresses.is_empty()).collect();
        Occupied { network, containers }
    };
    networks.into_iter().map(on).collect()
}

/// One that is declared, and that nobody has needed.
fn unused(name: String, settings: &ContainerNetwork) -> Network {
    let driver = match settings.driver {
        NetworkDriver::Bridge => "bridge",
        NetworkDriver::Macvlan => "macvlan",
        NetworkDriver::Ipvlan => "ipvlan",
    };
    Network {
        name,
        driver: driver.to_owned(),
        link: settings.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        subnets: settings.subnets.iter().map(ToString::to_string).collect(),
        gateways: settings.gateways.iter().map(ToString::to_string).collect(),
        internal: settings.internal,
        isolated: settings.isolated,
    }
}

/// The addresses that a container has on a network.
fn addresses_on(network: &Network, container: &Container) -> Vec<String> {
    let subnets: Vec<Prefix> = network.subnets.iter().filter_map(|subnet| subnet.parse().ok()).collect();
    let is_in = |text: &&String| {
        let address = text.parse::<IpAddr>();
        address.is_ok_and(|address| subnets.iter().any(|subnet| subnet.contains(address)))
    };
    container.addresses.iter().filter(is_in).cloned().collect()
}

fn render(all: &[Occupied]) -> String {
    let row = |each: &Occupied| {
        let network = &each.network;
        let kinds = [(network.internal, "internal"), (network.isolated, "isolated")];
        let kinds: Vec<&str> = kinds.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
        vec![
            network.name.clone(),
            network.driver.clone(),
            network.link.clone(),
            network.subnets.join(", "),
            kinds.join(", "),
            each.containers.len().to_string(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table::render(&["NAME", "DRIVER", "LINK", "SUBNETS", "KIND", "CONTAINERS"], &rows, table::terminal_width())
}

#[cfg(test)]
mod tests {
    use berth_control::message::{ContainerState, Health, Kind};

    use super::*;
    use berth_config::Source;

    fn container(name: &str, addresses: &[&str]) -> Container {
        Container {
            name: name.into(),
            kind: Kind::User,
            state: ContainerState::Running,
            health: Health::None,
            image: String::new(),
            reason: String::new(),
            pid: 7,
            restarts: 0,
            started_us: 0,
            exit_code: -1,
            addresses: addresses.iter().map(|address| (*address).into()).collect(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn networks_in_use_and_declared_ones_are_listed_with_their_containers() {
        let text = "[networks.back]\ninternal = true\n[networks.later]\nsubnets = ['10.7.0.0/24']\nisolated = true\n";
        let declared = berth_config::load(&[Source::new("text", text)]).unwrap().configuration;
        let back = Network {
            name: "back".into(),
            driver: "bridge".into(),
            link: "berth1".into(),
            subnets: vec!["10.88.0.0/24".into(), "fd00:88::/64".into()],
            gateways: vec!["10.88.0.1".into(), "fd00:88::1".into()],
            internal: true,
            isolated: false,
        };
        let containers =
            [container("web", &["172.30.0.7", "fd09::7", "10.88.0.7", "fd00:88::7"]), container("job", &[])];
        let found = occupied(vec![back], &declared, &containers);
        let names: Vec<&str> = found.iter().map(|each| each.network.name.as_str()).collect();
        assert_eq!(names, ["back", "default", "later"]);
        let on_back = BTreeMap::from([("web".to_owned(), vec!["10.88.0.7".to_owned(), "fd00:88::7".to_owned()])]);
        assert_eq!(found[0].containers, on_back);
        assert!(found[1].containers.is_empty() && found[2].containers.is_empty());
        let shown = render(&found);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("back     bridge  berth1  10.88.0.0/24, fd00:88::/64  internal  1"), "{shown}");
        assert!(lines[3].starts_with("later    bridge          10.7.0.0/24"), "{shown}");
        let json: serde_json::Value = serde_json::from_str(&json_text(&found).unwrap()).unwrap();
        assert_eq!(json[0]["containers"]["web"][0], "10.88.0.7");
        assert_eq!(json[0]["link"], "berth1");
    }
}
