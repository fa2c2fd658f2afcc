//! What a container is given, for PID 1 to write down.

use std::net::Ipv4Addr;

/// To be told to PID 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Without prefix length.
    pub addresses: Vec<String>,
    /// The text of /etc/resolv.conf.
    pub resolv_conf: String,
}

/// The resolver on the container's bridge, and the host's search domains. With `ndots:0`, as Docker has it, a name
/// without a dot is asked for as it is before the domains are tried: it is most often that of a container.
pub fn resolv_conf(server: Option<Ipv4Addr>, search: &[String]) -> String {
    let server = server.map(|server| format!("nameserver {server}\n")).unwrap_or_default();
    let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
    format!("{server}{search}options ndots:0\n")
}
