//! What a container is given, for PID 1 to write down, and who answers its questions about names.

use std::net::IpAddr;

use super::attachment::Attachment;
use super::{Containers, within};
use crate::dns::server::Served;
use crate::resolver;

/// The name of the link that every machine has.
const LOOPBACK: &str = "lo";

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

impl Containers {
    pub(super) fn attached(&self, attachment: &Attachment) -> Attached {
        // Who is on no bridge does not reach the resolvers on them.
        let servers = if self.resolvers.is_within(&attachment.wanted.name) {
            vec![within::ADDRESS.into()]
        } else if attachment.is_away() {
            self.servers.clone()
        } else {
            let first = attachment.cables.iter().find(|cable| cable.bridged);
            let network = first.and_then(|cable| self.networks.get(&cable.network));
            network.map(|network| network.subnets.gateway4.into()).into_iter().collect::<Vec<_>>()
        };
        Attached { addresses: attachment.addresses(), resolv_conf: resolv_conf(&servers, &self.search) }
    }

    /// Answers names on every bridge.
    pub(super) fn serve_names(&mut self) {
        let served = self.networks.live().map(|(name, network)| Served {
            network: name.clone(),
            bridge: network.bridge_name(),
            addresses: vec![network.subnets.gateway4.into(), network.subnets.gateway6.into()],
            open: !network.settings.internal,
            client: None,
        });
        // The machine itself, which is on no network of containers.
        let host = self.answers_host.then(|| Served {
            network: String::new(),
            bridge: LOOPBACK.to_owned(),
            addresses: vec![resolver::LOCAL.into()],
            open: true,
            client: None,
        });
        self.resolvers.serve(served.chain(host).collect());
    }
}
