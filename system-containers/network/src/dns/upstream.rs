//! Which servers are asked for which name.

use std::net::SocketAddr;

use crate::resolver::LOCAL;

/// Where questions go on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// For all names that no domain has, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// For the names of a domain and those below it; the domain in small letters.
    pub domains: Vec<(String, Vec<SocketAddr>)>,
}

impl Upstream {
    /// With these servers, but for the machine's own resolver: one that asks itself would ask for ever.
    pub fn new(
        servers: impl Iterator<Item = SocketAddr>,
        domains: impl Iterator<Item = (String, Vec<SocketAddr>)>,
    ) -> Self {
        let is_other = |server: &SocketAddr| server.ip().to_canonical() != LOCAL;
        let others =
            |(domain, servers): (String, Vec<SocketAddr>)| (domain, servers.into_iter().filter(is_other).collect());
        Self { servers: servers.filter(is_other).collect(), domains: domains.map(others).collect() }
    }

    /// Who knows the name, which is in small letters: of several domains the longest counts.
    pub fn servers_of(&self, name: &str) -> &[SocketAddr] {
        let has = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let fitting = self.domains.iter().filter(|(domain, _)| has(domain));
        fitting.max_by_key(|(domain, _)| domain.len()).map_or(&self.servers, |(_, servers)| servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_resolver_is_asked_for_nothing() {
        let servers = ["127.0.0.53:53", "[::ffff:127.0.0.53]:53", "127.0.0.1:53"].map(|text| text.parse().unwrap());
        let upstream = Upstream::new(servers.into_iter(), [("lab.example".to_owned(), servers.to_vec())].into_iter());
        assert_eq!(upstream.servers, servers[2..]);
        assert_eq!(upstream.servers_of("x.lab.example"), &servers[2..]);
    }

    #[test]
    fn the_longest_domain_decides() {
        let server = |last: u8| SocketAddr::from(([192, 0, 2, last], 53));
        let domains = [("example", 2), ("lab.example", 3)];
        let upstream = Upstream {
            servers: vec![server(1)],
            domains: domains.map(|(domain, last)| (domain.to_owned(), vec![server(last)])).into(),
        };
        let of = |name: &str| upstream.servers_of(name)[0].ip().to_string();
        assert_eq!(of("www.example.org"), "192.0.2.1");
        assert_eq!(of("www.example"), "192.0.2.2");
        assert_eq!(of("notexample"), "192.0.2.1");
        assert_eq!(of("lab.example"), "192.0.2.3");
        assert_eq!(of("x.y.lab.example"), "192.0.2.3");
    }
}
