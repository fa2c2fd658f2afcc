//! What a container is given, for PID 1 to write down.

use std::net::IpAddr;

/// To be told to PID 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Without prefix length.
    pub addresses: Vec<String>,
    /// The text of /etc/resolv.conf.
    pub resolv_conf: String,
}

/// The resolver on the container's bridge, or the host's servers, and the host's search domains. With `ndots:0`, as Docker has it, a name
/// without a dot is asked for as it is before the domains are tried: it is most often that of a container.
pub fn resolv_conf(servers: &[IpAddr], search: &[String]) -> String {
    let servers: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search = if search.is_empty() { String::new() } else { format!("search {}\n", search.join(" ")) };
    format!("{servers}{search}options ndots:0\n")
}
