//! What a container is given, for PID 1 to write down, and who answers its questions about names.

use std::net::IpAddr;

use berth_config::Resolution;

use super::attachment::Attachment;
use super::{Containers, within};
use crate::dns::server::Served;
use crate::resolver;

/// The name of the link that every machine has.
const LOOPBACK: &str = "lo";

/// The option that says how many dots a name has that is asked for as it is.
const DOTS: &str = "ndots:";

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
///
/// What the container says of domains and options counts more, and so does what it says of `ndots`.
pub fn resolv_conf(servers: &[IpAddr], search: &[String], own: &Resolution) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let mut options: Vec<String> = own.options.iter().map(ToString::to_string).collect();
    if !options.iter().any(|option| option.starts_with(DOTS)) {
        options.push(format!("{DOTS}0"));
    }
    Resolution { options: Vec::new(), ..own.clone() }.text(&servers, search, &options)
}

impl Containers {
    pub(super) fn attached(&self, attachment: &Attachment) -> Attached {
        // Who is on no bridge does not reach the resolvers on them.
        let servers = if self.resolvers.is_within(&attachment.wanted.name) {
            vec![within::ADDRESS.into()]
        } else if attachment.is_away() {
            let own = attachment.wanted.resolution.servers.clone();
            if own.is_empty() { self.servers.clone() } else { own }
        } else {
            let first = attachment.cables.iter().find(|cable| cable.bridged);
            let network = first.and_then(|cable| self.networks.get(&cable.network));
            network.map(|network| network.subnets.gateway4.into()).into_iter().collect::<Vec<_>>()
        };
        let resolv_conf = resolv_conf(&servers, &self.search, &attachment.wanted.resolution);
        Attached { addresses: attachment.addresses(), resolv_conf }
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

    /// Tries again where names could not be answered.
    pub fn listen_again(&mut self) {
        self.resolvers.listen_again();
    }

    /// Whether there is anything to be tried again.
    pub fn is_deaf(&self) -> bool {
        self.resolvers.is_deaf()
    }

    /// The links on which names are not answered everywhere, and why, for people.
    pub fn unanswered(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resolvers.unanswered()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_container_stand_beside_the_one_for_short_names() {
        let text = |options: &[&str]| {
            let options = options.iter().map(|option| option.parse().unwrap()).collect();
            let own = Resolution { options, servers: vec!["192.0.2.53".parse().unwrap()], ..Resolution::default() };
            resolv_conf(&["172.30.0.1".parse().unwrap()], &["a.org".to_owned()], &own)
        };
        // Its servers are asked by the resolver, which knows the names of containers.
        assert_eq!(text(&[]), "nameserver 172.30.0.1\nsearch a.org\noptions ndots:0\n");
        assert_eq!(text(&["rotate"]), "nameserver 172.30.0.1\nsearch a.org\noptions rotate ndots:0\n");
        assert_eq!(text(&["ndots:2"]), "nameserver 172.30.0.1\nsearch a.org\noptions ndots:2\n");
    }
}
