//! The flags of `berth run` and `berth create` about networks, as docker has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_config::{
    ContainerNetwork, HostName, MacAddress, Membership, NetworkMode, Networks, PublishedPorts, ResolverOption,
    SearchDomain,
};
use clap::Args;

use super::super::error::Error;
use super::{publish, refused};

/// Whom it asks for names.
#[derive(Clone, Debug, Args)]
#[group(skip)] // it has no name of its own
pub struct Resolution {
    /// Who is asked for names that are no container's, in place of the machine's servers
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// A domain in which names are looked for, in place of the machine's; . for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<SearchDomain>,
    /// An option of its /etc/resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<ResolverOption>,
}

/// Where it is reached.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// Ports of the machine that lead to ports of the container
    #[arg(short, long = "publish", value_name = "[ADDRESS:]PORT:PORT[/tcp]")]
    pub ports: Vec<PublishedPorts>,
    /// Publish every port that the image exposes, each on a port of the machine that no container has yet
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// A port that -P publishes too, beside those that the image exposes
    #[arg(long = "expose", value_name = "PORT[/tcp]", value_parser = publish::expose)]
    pub exposed: Vec<Vec<publish::Exposed>>,
    /// A name and its address, for its /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    pub add_host: Vec<(HostName, IpAddr)>,
    #[command(flatten)]
    pub resolution: Resolution,
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

/// `NAME:ADDRESS`, or with `=` between them; an address of IPv6 may stand in brackets.
fn host(text: &str) -> Result<(HostName, IpAddr), String> {
    let (name, address) = text.split_once(['=', ':']).ok_or("write it like db:192.0.2.7")?;
    let address = address.trim_matches(['[', ']']);
    if address == "host-gateway" {
        return Err(
            "name the machine's address on the container's network; `berth network ls` lists networks".to_owned()
        );
    }
    let name = name.parse().map_err(|error: berth_config::NameError| error.to_string())?;
    Ok((name, address.parse().map_err(|_| format!("{address:?} is no address"))?))
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
