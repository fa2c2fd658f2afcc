//! The flags of `berth run` and `berth create` about networks, as docker has them.

use std::net::{Ipv4Addr, Ipv6Addr};

use berth_config::{ContainerNetwork, HostName, MacAddress, Membership, NetworkMode, Networks, PublishedPorts};
use clap::Args;

use super::super::error::Error;
use super::refused;

/// Where it is reached.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// Ports of the machine that lead to ports of the container
    #[arg(short, long = "publish", value_name = "[ADDRESS:]PORT:PORT[/tcp]")]
    pub ports: Vec<PublishedPorts>,
    /// What it sees of networks: bridge, host, none, container:NAME, or networks of the configuration by name
    #[arg(long, visible_alias = "net")]
    network: Vec<String>,
    /// Its address, on the first network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The same of IPv6
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The hardware address of its link, on the first network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<MacAddress>,
    /// A further name that others on the first network find it by
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<HostName>,
}

impl Arguments {
    /// What is no network mode are names of networks, which docker has in the same flag.
    pub fn choice(self) -> Result<(NetworkMode, Networks), Error> {
        let Self { network, ip, ip6, mac_address, network_alias, .. } = self;
        let membership = Membership { ipv4_address: ip, ipv6_address: ip6, mac_address, aliases: network_alias };
        let mode = match network.as_slice() {
            [] => Some(NetworkMode::default()),
            [word] => word.parse().ok(),
            _ => None,
        };
        let mut names = match &mode {
            Some(mode) if membership == Membership::default() => return Ok((mode.clone(), Networks::default())),
            Some(NetworkMode::Bridge) => vec![ContainerNetwork::DEFAULT.to_owned()],
            Some(mode) => {
                return Err(refused(format!(
                    "--ip, --mac-address and --network-alias are for a network of its own, which it has none of with \
                     --network {mode}"
                )));
            }
            None => network,
        }
        .into_iter()
        .map(|name| name.parse().map_err(refused))
        .collect::<Result<Vec<_>, _>>()?;
        if membership == Membership::default() {
            return Ok((NetworkMode::Bridge, Networks::List(names)));
        }
        let first = names.remove(0);
        let others = names.into_iter().map(|name| (name, Membership::default()));
        Ok((NetworkMode::Bridge, Networks::Table(others.chain([(first, membership)]).collect())))
    }
}
