//! The name servers and search domains of all sources, put together for resolv.conf(5). Pure.

use std::net::{IpAddr, Ipv4Addr};

/// What one source says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Resolvers, as resolv.conf writes them (a link-local one with its link).
    pub servers: Vec<String>,
    /// Domains to search.
    pub search: Vec<String>,
}

/// What resolvers read of a file: musl and glibc take three servers (MAXNS), glibc's limit on domains was six.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;

/// Where the machine's own questions go to: no address that a program would choose for itself.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// Where servers are asked.
pub const PORT: u16 = 53;

/// The domains of all sources, as many as resolvers read.
pub fn search_domains<'a>(sources: impl IntoIterator<Item = &'a Names>) -> Vec<String> {
    let mut search = Vec::new();
    for source in sources {
        collect(&mut search, &source.search);
    }
    search.into_iter().take(MOST_DOMAINS).map(str::to_owned).collect()
}

/// The text of resolv.conf where the machine's own resolver is asked, which asks the others.
pub fn local_resolv_conf<'a>(sources: impl IntoIterator<Item = &'a Names>) -> String {
    let search = search_domains(sources);
    let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
    format!(
        "# Written by the network system container. Whom it asks is in resolv.upstream.conf.\nnameserver {LOCAL}\noptions edns0\n{search}"
    )
}

/// The file's text. The sources come in the order of their weight.
pub fn resolv_conf<'a>(sources: impl IntoIterator<Item = &'a Names>) -> String {
    let (mut servers, mut search): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for source in sources {
        collect(&mut servers, &source.servers);
        collect(&mut search, &source.search);
    }
    let mut text = "# Written by the network system container.\n".to_owned();
    for server in servers.iter().take(MOST_SERVERS) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !search.is_empty() {
        search.truncate(MOST_DOMAINS);
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text
}

fn collect<'a>(all: &mut Vec<&'a str>, more: &'a [String]) {
    for each in more {
        if !all.contains(&each.as_str()) {
            all.push(each);
        }
    }
}

/// A server as resolv.conf writes it: a link-local address is of use only together with its link.
pub fn server_text(address: IpAddr, link: &str) -> String {
    match address {
        IpAddr::V6(inner) if inner.is_unicast_link_local() => format!("{inner}%{link}"),
        other => other.to_string(),
    }
}

/// The machine's name now; nothing if it has none yet.
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name).filter(|name| !name.is_empty())
}

/// The text of /etc/hosts for a machine of this name.
pub fn hosts(host_name: Option<&str>) -> String {
    let own = host_name.map(|name| format!("127.0.1.1 {name}\n")).unwrap_or_default();
    format!(
        "127.0.0.1 localhost\n{own}::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(servers: &[&str], search: &[&str]) -> Names {
        let owned = |list: &[&str]| list.iter().map(|each| (*each).to_owned()).collect();
        Names { servers: owned(servers), search: owned(search) }
    }

    #[test]
    fn sources_are_joined_in_order_without_repetition() {
        let sources = [names(&["10.0.0.1"], &["a.org"]), names(&["10.0.0.2", "10.0.0.1"], &["b.org", "a.org"])];
        let text = resolv_conf(&sources);
        assert!(text.ends_with("nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.org b.org\n"), "{text}");
    }

    #[test]
    fn no_more_than_a_resolver_reads() {
        let text = resolv_conf(&[names(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"], &[])]);
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(!text.contains("search"));
    }

    #[test]
    fn a_link_local_server_names_its_link() {
        assert_eq!(server_text("fe80::1".parse().unwrap(), "eth0"), "fe80::1%eth0");
        assert_eq!(server_text("fd00::1".parse().unwrap(), "eth0"), "fd00::1");
    }
}
