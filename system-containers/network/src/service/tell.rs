//! What others are told: PID 1 of links, networks and names, programs by files.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use berth_config::LinkName;
use berth_control::message::{self, Request};

use super::{Service, ServiceError};
use crate::containers::Attached;
use crate::dns::upstream::Upstream;
use crate::host_link::HostLink;
use crate::link::Link;
use crate::made;
use crate::resolver::{self, Names};
use crate::{clock, files, report};

/// Of a link.
const UNKNOWN: &str = "no entry of [network.links] is for it";

impl Service {
    /// Tells PID 1 and writes files, where anything has changed.
    pub(super) async fn settle(&mut self) -> Result<(), ServiceError> {
        let is_local = self.network.as_ref().is_none_or(|network| network.resolver);
        self.containers.answer_host(is_local);
        self.watch_resolvers();
        let links = self.summary();
        if self.told_links.as_ref() != Some(&links) {
            self.init.send(Request::Links { links: links.clone() }, "to take the links").await?;
            self.told_links = Some(links);
        }
        self.containers.note_overlaps(&self.table);
        let networks = self.containers.networks();
        if self.told_networks != networks {
            self.init.send(Request::Networks { networks: networks.clone() }, "to take the networks").await?;
            self.told_networks = networks;
        }
        let host_name = self.links.values().find_map(|link| link.lease()?.host_name.clone());
        if let Some(name) = host_name.filter(|name| self.told_host_name.as_ref() != Some(name)) {
            self.init.send(Request::HostName { name: name.clone() }, "to take the host name").await?;
            self.told_host_name = Some(name);
        }
        let servers = self.time_servers();
        self.time_servers.send_if_modified(|before| std::mem::replace(before, servers) != *before);
        let sources = self.told_sources();
        let (direct, local) = (resolver::resolv_conf(&sources), resolver::local_resolv_conf(&sources));
        self.write("resolv.conf", if is_local { local } else { direct.clone() }, files::write_in_place);
        self.write("resolv.upstream.conf", direct, files::write_in_place);
        let search = resolver::search_domains(&sources);
        if self.containers.follow_names(self.upstream(&sources), search) {
            for (name, Attached { addresses, resolv_conf }) in self.containers.all() {
                let told = Request::NetworkAttached { name: name.clone(), addresses, resolv_conf };
                self.init.send(told, "to take a container's search domains").await?;
            }
        }
        let hosts = resolver::hosts(resolver::host_name().as_deref());
        self.write("hosts", hosts, |path, text| files::write_atomically(path, text.as_bytes()));
        Ok(())
    }

    /// What PID 1 is told of links, those too that are not there.
    fn summary(&self) -> Vec<message::Link> {
        let mut links = self.table.summary(|link| self.missing_of(link));
        let not_made = self.missing.iter().map(|(name, reason)| (name.as_str(), format!("not made yet: {reason}")));
        let without_card = self.without_card().into_iter().map(|(name, text)| (name.as_str(), text));
        let unanswered = self.containers.unanswered().map(|(link, text)| (link, text.to_owned()));
        for (name, text) in not_made.chain(without_card).chain(unanswered) {
            match links.iter_mut().find(|link| link.name == name) {
                Some(link) => link.missing.push(text),
                None => links.push(message::Link {
                    name: name.to_string(),
                    mac: String::new(),
                    carrier: false,
                    addresses: Vec::new(),
                    missing: vec![text],
                }),
            }
        }
        links
    }

    fn missing_of(&self, link: &Link) -> Vec<String> {
        let host_link = self.links.get(&link.index);
        let mut missing = host_link.map(|host_link| host_link.missing(link)).unwrap_or_default();
        missing.extend(self.misnamed.get(&link.index).cloned());
        missing.extend(self.containers.unfiltered());
        missing.extend(self.containers.overlaps(link));
        missing.extend(self.containers.taken(link));
        missing.extend(self.endpoints.missing(link.index));
        missing.extend(self.troubles.get(&link.index).into_iter().flatten().cloned());
        let is_unknown = self.network.is_some() && !self.entries.contains_key(&link.index) && link.controller.is_none();
        match host_link {
            None if is_unknown => missing.push(format!("{UNKNOWN}: it is left as it is")),
            Some(_) if is_unknown && !missing.is_empty() => missing.push(format!("{UNKNOWN}: a card asks DHCP then")),
            _ => {}
        }
        missing
    }

    /// Entries that are for no link, with what is to be said of them.
    fn without_card(&self) -> Vec<(&LinkName, String)> {
        let entries = self.network.iter().flat_map(|network| &network.links);
        let fits = |name: &LinkName| self.entries.values().any(|entry| entry == name);
        let lost: Vec<&LinkName> =
            entries.filter(|(name, settings)| settings.made().is_none() && !fits(name)).map(|(name, _)| name).collect();
        if lost.is_empty() {
            return Vec::new();
        }
        let described = |link: &Link| {
            let facts =
                made::with_identity(link, |identity| [identity.mac, identity.driver, identity.path].map(str::to_owned));
            let facts: Vec<String> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
            format!("{} ({})", link.name, facts.join(", "))
        };
        let cards: Vec<String> = self.table.iter().filter(|link| self.table.is_card(link)).map(described).collect();
        let cards =
            if cards.is_empty() { "there is none".to_owned() } else { format!("there are {}", cards.join("; ")) };
        lost.into_iter().map(|name| (name, format!("no card fits [network.links.{name}]: {cards}"))).collect()
    }

    /// What others are told of names: what all sources say, or did a moment ago. A router that says something else each time has
    /// containers' files written and kept answers forgotten only now and then.
    fn told_sources(&mut self) -> Vec<Names> {
        let sources = self.name_sources();
        if sources != self.told_names && self.names_pace.take(clock::now()) {
            self.told_names = sources;
        }
        self.told_names.clone()
    }

    /// When there is more to tell of names.
    pub(super) fn names_at(&self) -> Option<Duration> {
        self.names_pace.again_at().filter(|_| self.name_sources() != self.told_names)
    }

    /// What all sources say of names, in the order of their weight.
    fn name_sources(&self) -> Vec<Names> {
        let configured = self.network.as_ref().map_or_else(Names::default, |network| Names {
            servers: network.dns.iter().map(ToString::to_string).collect(),
            search: network.dns_search.iter().map(ToString::to_string).collect(),
        });
        let mut links: Vec<&HostLink> = self.links.values().collect();
        // As their default routes do; servers that cannot be reached come last.
        links.sort_by_key(|link| (!link.has_carrier(), link.metric()));
        std::iter::once(configured).chain(links.into_iter().map(HostLink::names)).collect()
    }

    /// The configuration's, else those of all leases.
    fn time_servers(&self) -> Vec<String> {
        let configured: Vec<_> =
            self.network.iter().flat_map(|network| &network.time_servers).map(ToString::to_string).collect();
        if configured.is_empty() { self.links.values().flat_map(HostLink::time_servers).collect() } else { configured }
    }

    /// Whom the machine's resolver asks.
    fn upstream(&self, sources: &[Names]) -> Upstream {
        let servers = sources.iter().flat_map(|source| &source.servers).filter_map(|server| self.address_of(server));
        let of_domain = |(domain, servers): (&berth_config::HostName, &Vec<IpAddr>)| {
            let servers = servers.iter().map(|address| SocketAddr::new(*address, resolver::PORT));
            (domain.to_string().to_ascii_lowercase(), servers.collect())
        };
        let domains = self.network.iter().flat_map(|network| &network.domains).map(of_domain);
        Upstream::new(servers, domains)
    }

    /// Of a name server, as it stands in resolv.conf.
    fn address_of(&self, server: &str) -> Option<SocketAddr> {
        let (address, link) = server.split_once('%').unwrap_or((server, ""));
        let scope = Some(link).filter(|link| !link.is_empty()).and_then(|link| self.table.by_name(link));
        let scope = scope.map_or(0, |link| link.index);
        Some(match address.parse().ok()? {
            IpAddr::V4(address) => (address, resolver::PORT).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, resolver::PORT, 0, scope).into(),
        })
    }

    fn write(&mut self, name: &'static str, text: String, write: fn(&Path, &str) -> io::Result<()>) {
        if self.written.get(name) == Some(&text) {
            return;
        }
        let path = self.paths.run.join(name);
        if let Err(error) = write(&path, &text) {
            report::say(format_args!("write {}: {error}", path.display()));
        }
        self.written.insert(name, text);
    }
}
