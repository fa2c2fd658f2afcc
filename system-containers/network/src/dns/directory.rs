//! Who has which name: containers, their services and aliases, by network. Changes cost what the one container has, not
//! what all have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::upstream::Upstream;

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The network.
    pub network: String,
    /// All the names that it has there, in small letters; the first is its own.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: (Ipv4Addr, Ipv6Addr),
    /// The name and the addresses of its service, if that has its own.
    pub service: Option<(String, (Ipv4Addr, Ipv6Addr))>,
}

/// What is known of a container.
#[derive(Clone, Debug)]
struct Entry {
    members: Vec<Member>,
    serving: bool,
    way_out: bool,
    /// Who is asked for it what is outside, if not the host's.
    servers: Vec<SocketAddr>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    containers: BTreeMap<String, Entry>,
    by_address: BTreeMap<IpAddr, String>,
    /// The containers that have a name on a network.
    by_name: BTreeMap<(String, String), BTreeSet<String>>,
    /// The addresses of services on networks, and how many containers each has there.
    services: BTreeMap<(String, String), ((Ipv4Addr, Ipv6Addr), usize)>,
    /// Of the host.
    pub upstream: Upstream,
}

/// Where a question comes from.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The network that it asked on.
    pub network: &'a str,
    /// Whether that network has a way out.
    pub open: bool,
}

impl Directory {
    /// A container has come, with all its networks. `way_out`: whether one of them leads out.
    pub fn add(&mut self, container: &str, members: Vec<Member>, serving: bool, way_out: bool) {
        self.remove(container);
        for member in &members {
            for address in [IpAddr::V4(member.addresses.0), IpAddr::V6(member.addresses.1)] {
                self.by_address.insert(address, container.to_owned());
            }
            if let Some((name, addresses)) = &member.service {
                let key = (member.network.clone(), name.clone());
                self.services.entry(key).or_insert((*addresses, 0)).1 += 1;
            }
            for name in &member.names {
                let key = (member.network.clone(), name.clone());
                self.by_name.entry(key).or_default().insert(container.to_owned());
            }
        }
        self.containers.insert(container.to_owned(), Entry { members, serving, way_out, servers: Vec::new() });
    }

    /// It has gone.
    pub fn remove(&mut self, container: &str) {
        let Some(entry) = self.containers.remove(container) else { return };
        for member in entry.members {
            for address in [IpAddr::V4(member.addresses.0), IpAddr::V6(member.addresses.1)] {
                self.by_address.remove(&address);
            }
            if let Some((name, _)) = member.service {
                let key = (member.network.clone(), name);
                if let Some((_, count)) = self.services.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.services.remove(&key);
                    }
                }
            }
            for name in member.names {
                let key = (member.network.clone(), name);
                if let Some(holders) = self.by_name.get_mut(&key) {
                    holders.remove(container);
                    if holders.is_empty() {
                        self.by_name.remove(&key);
                    }
                }
            }
        }
    }

    /// It has servers of its own.
    pub fn ask(&mut self, container: &str, servers: Vec<SocketAddr>) {
        if let Some(entry) = self.containers.get_mut(container) {
            entry.servers = servers;
        }
    }

    /// Whether it does its work.
    pub fn serve(&mut self, container: &str, serving: bool) {
        if let Some(entry) = self.containers.get_mut(container) {
            entry.serving = serving;
        }
    }

    /// The addresses behind a name: those of a service that has its own, else of the containers that do their work, or of all that have the name if none
    /// does. `None` if nobody has it on a network of who asks.
    pub fn find(&self, client: Client<'_>, name: &str) -> Option<Vec<(Ipv4Addr, Ipv6Addr)>> {
        self.networks_of(client).into_iter().find_map(|network| {
            let key = (network.to_owned(), name.to_owned());
            if let Some((addresses, _)) = self.services.get(&key) {
                return Some(vec![*addresses]);
            }
            let holders = self.by_name.get(&key)?;
            let entries = holders.iter().filter_map(|holder| self.containers.get(holder));
            let addresses = |entry: &Entry| {
                entry.members.iter().find(|member| member.network == network).map(|member| member.addresses)
            };
            let all: Vec<_> = entries.filter_map(|entry| Some((entry.serving, addresses(entry)?))).collect();
            let any_serves = all.iter().any(|(serving, _)| *serving);
            Some(all.into_iter().filter(|(serving, _)| *serving || !any_serves).map(|(_, it)| it).collect())
        })
    }

    /// The container with this address, if it is on a network of who asks.
    pub fn name_of(&self, client: Client<'_>, address: IpAddr) -> Option<&str> {
        let container = self.by_address.get(&address)?;
        let networks = self.networks_of(client);
        let members = &self.containers.get(container)?.members;
        members.iter().any(|member| networks.contains(&member.network.as_str())).then_some(container.as_str())
    }

    /// The container with this address.
    pub fn container_at(&self, address: IpAddr) -> Option<&str> {
        self.by_address.get(&address).map(String::as_str)
    }

    /// Whether who asks may know what is outside.
    pub fn may_ask_outside(&self, client: Client<'_>) -> bool {
        let known = self.by_address.get(&client.address).and_then(|container| self.containers.get(container));
        known.map_or(client.open, |entry| entry.way_out)
    }

    /// Who is asked for it what is outside, and whether that is its own choice.
    pub fn servers_of(&self, client: Client<'_>, name: &str) -> (&[SocketAddr], bool) {
        let known = self.by_address.get(&client.address).and_then(|container| self.containers.get(container));
        match known.map(|entry| entry.servers.as_slice()) {
            None | Some([]) => (self.upstream.servers_of(name), false),
            Some(own) => (own, true),
        }
    }

    /// All networks of a container; of anybody else that on which it asks.
    fn networks_of<'a>(&'a self, client: Client<'a>) -> Vec<&'a str> {
        let known = self.by_address.get(&client.address).and_then(|container| self.containers.get(container));
        match known {
            Some(entry) => entry.members.iter().map(|member| member.network.as_str()).collect(),
            None => vec![client.network],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(network: &str, names: &[&str], last: u8) -> Member {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let ipv6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into());
        Member { network: network.to_owned(), names, addresses: (Ipv4Addr::new(10, 0, 0, last), ipv6), service: None }
    }

    fn lasts(directory: &Directory, client: u8, name: &str) -> Option<Vec<u8>> {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, client));
        let found = directory.find(Client { address, network: "front", open: true }, name)?;
        Some(found.into_iter().map(|(ipv4, _)| ipv4.octets()[3]).collect())
    }

    #[test]
    fn a_name_is_found_on_any_network_of_who_asks_and_on_no_other() {
        let mut directory = Directory::default();
        directory.add("web", vec![member("front", &["web"], 2), member("back", &["web"], 3)], true, true);
        directory.add("db", vec![member("back", &["db", "sql"], 4)], true, false);
        directory.add("other", vec![member("front", &["other"], 5)], true, true);
        assert_eq!(lasts(&directory, 2, "sql"), Some(vec![4]));
        assert_eq!(lasts(&directory, 4, "web"), Some(vec![3]), "the address that it can reach");
        assert_eq!(lasts(&directory, 5, "db"), None);
        assert_eq!(lasts(&directory, 99, "web"), Some(vec![2]), "a stranger has the network it is on");
        directory.remove("db");
        assert_eq!(lasts(&directory, 2, "sql"), None);
    }

    #[test]
    fn a_service_is_those_that_do_their_work_or_all_if_none_does() {
        let mut directory = Directory::default();
        for last in 1..=3 {
            directory.add(&format!("web-{last}"), vec![member("front", &["web"], last)], last != 2, true);
        }
        assert_eq!(lasts(&directory, 99, "web"), Some(vec![1, 3]));
        directory.serve("web-1", false);
        directory.serve("web-3", false);
        assert_eq!(lasts(&directory, 99, "web"), Some(vec![1, 2, 3]));
        directory.serve("web-2", true);
        assert_eq!(lasts(&directory, 99, "web"), Some(vec![2]));
    }

    #[test]
    fn a_container_may_have_servers_of_its_own() {
        let server = |last: u8| SocketAddr::from(([192, 0, 2, last], 53));
        let mut directory = Directory::default();
        directory.upstream.servers = vec![server(1)];
        directory.upstream.domains = vec![("corp.example".to_owned(), vec![server(2)])];
        for last in [2, 3] {
            directory.add(&format!("web-{last}"), vec![member("front", &["web"], last)], true, true);
        }
        directory.ask("web-3", vec![server(9)]);
        let client = |last| Client { address: Ipv4Addr::new(10, 0, 0, last).into(), network: "front", open: true };
        assert_eq!(directory.servers_of(client(2), "corp.example"), (&[server(2)][..], false));
        assert_eq!(directory.servers_of(client(3), "corp.example"), (&[server(9)][..], true));
        assert_eq!(directory.servers_of(client(4), "a.example"), (&[server(1)][..], false));
        directory.add("web-3", vec![member("front", &["web"], 3)], true, true);
        assert_eq!(directory.servers_of(client(3), "a.example"), (&[server(1)][..], false), "of its last run");
    }

    #[test]
    fn an_address_has_a_name_and_an_internal_network_no_outside() {
        let mut directory = Directory::default();
        directory.add("db", vec![member("back", &["db"], 4)], true, false);
        directory.add("web", vec![member("front", &["web"], 2), member("back", &["web"], 3)], true, true);
        let client = |last| Client { address: Ipv4Addr::new(10, 0, 0, last).into(), network: "back", open: false };
        assert_eq!(directory.name_of(client(4), Ipv4Addr::new(10, 0, 0, 2).into()), Some("web"));
        assert!(!directory.may_ask_outside(client(4)) && directory.may_ask_outside(client(3)));
        assert!(!directory.may_ask_outside(client(77)));
    }
}
