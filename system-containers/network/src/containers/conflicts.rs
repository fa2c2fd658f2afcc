//! Which ports cannot be published: those that are wanted twice, and those that say nothing. What of the machine itself is in
//! the way is for [`super::listeners`].

use std::net::IpAddr;
use std::path::Path;

use berth_config::Protocol;
use berth_control::message::Port;

use super::register::Register;

/// Is there where the kernel follows associations of SCTP (NF_CT_PROTO_SCTP), without which it changes no port of theirs.
const SCTP: &str = "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established";

/// A port that cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("port {port} of the machine is already published by container {owner}: choose another or stop {owner}")]
    Taken {
        /// As `8080/tcp`.
        port: String,
        /// Who has it.
        owner: String,
    },
    /// The machine itself has it.
    #[error("port {port} of the machine is in use by {owner}: choose another")]
    Listening {
        /// As `8080/tcp`.
        port: String,
        /// Who has it.
        owner: String,
    },
    /// Twice in one container's list.
    #[error("port {port} of the machine is published twice")]
    Repeated {
        /// As `8080/tcp`.
        port: String,
    },
    /// Not an address.
    #[error("{address:?} is not an address of the machine")]
    Address {
        /// What it is.
        address: String,
    },
    /// It would pass the machine with its port unchanged.
    #[error(
        "this machine's kernel does not translate SCTP: give the container `network_mode = \"host\"`, or use TCP or UDP"
    )]
    Untranslated,
    /// Not one of the three.
    #[error("{protocol:?} is not tcp, udp or sctp")]
    Protocol {
        /// What it is.
        protocol: String,
    },
}

fn host_address(port: &Port) -> Result<Option<IpAddr>, PortError> {
    let address = port.host_address.as_str();
    let parse = || address.parse().map_err(|_| PortError::Address { address: address.to_owned() });
    if address.is_empty() { Ok(None) } else { parse().map(Some) }
}

/// The ports of the machine that are wanted: one, or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// `None` for all addresses.
    pub address: Option<IpAddr>,
    pub first: u16,
    pub last: u16,
    pub protocol: Protocol,
}

impl Opening {
    pub fn of(port: &Port) -> Result<Self, PortError> {
        let unknown = |_| PortError::Protocol { protocol: port.protocol.clone() };
        let last = port.host_port.saturating_add(port.further_ports);
        let (address, protocol) = (host_address(port)?, port.protocol.parse().map_err(unknown)?);
        Ok(Self { address, first: port.host_port, last, protocol })
    }

    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// As `8080/tcp`.
    pub fn text(&self, port: u16) -> String {
        format!("{port}/{}", self.protocol)
    }

    /// The first port that both want.
    fn common(&self, other: &Self) -> Option<u16> {
        let addresses = match (self.address, other.address) {
            (Some(one), Some(two)) if one.is_unspecified() || two.is_unspecified() => one.is_ipv4() == two.is_ipv4(),
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        let first = self.first.max(other.first);
        (addresses && self.protocol == other.protocol && first <= self.last.min(other.last)).then_some(first)
    }
}

/// Finds ports that are wanted twice. Those of one service are the same on purpose.
pub fn check_ports(ports: &[Port], service: &str, attachments: &Register) -> Result<(), PortError> {
    let openings = ports.iter().map(Opening::of).collect::<Result<Vec<_>, _>>()?;
    for (index, opening) in openings.iter().enumerate() {
        if opening.protocol == Protocol::Sctp && !Path::new(SCTP).exists() {
            return Err(PortError::Untranslated);
        }
        if let Some(port) = openings.iter().take(index).find_map(|other| opening.common(other)) {
            return Err(PortError::Repeated { port: opening.text(port) });
        }
    }
    for opening in &openings {
        let near = attachments.near_ports(opening.first, opening.last);
        for other in near.filter(|other| other.wanted.service != service) {
            let mut theirs = other.wanted.ports.iter().filter_map(|port| Opening::of(port).ok());
            if let Some(port) = theirs.find_map(|theirs| opening.common(&theirs)) {
                return Err(PortError::Taken { port: opening.text(port), owner: other.wanted.name.clone() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::attachment::tests::{attachment, port};
    use super::*;

    #[test]
    fn a_conflict_names_the_owner_unless_it_is_a_replica() {
        let web = Register::from_iter([attachment("web", vec![port("", 8080, "tcp")])]);
        let wanted = [port("127.0.0.1", 8080, "tcp")];
        let error = check_ports(&wanted, "other", &web).unwrap_err();
        assert!(error.to_string().contains("8080/tcp") && error.to_string().contains("web"), "{error}");
        assert!(check_ports(&wanted, "web", &web).is_ok());
    }

    #[test]
    fn a_range_collides_with_a_port_in_it() {
        let range = |first, further_ports| Port { further_ports, ..port("", first, "udp") };
        let sip = Register::from_iter([attachment("sip", vec![range(10_000, 10_000)])]);
        let refused = |wanted: Port| check_ports(&[wanted], "other", &sip).map_err(|error| error.to_string());
        assert!(refused(range(20_000, 5)).unwrap_err().contains("20000/udp"));
        assert!(refused(range(9_000, 1_500)).unwrap_err().contains("10000/udp"));
        assert!(refused(port("", 12_345, "udp")).unwrap_err().contains("published by container sip"));
        assert_eq!(refused(port("", 12_345, "tcp")), Ok(()));
        assert_eq!(refused(range(20_001, 100)), Ok(()));
        assert!(check_ports(&[range(1, 10), range(11, 1)], "other", &sip).is_err(), "twice in one list");
    }

    #[test]
    fn ports_collide_only_where_they_meet() {
        let tcp = |address| port(address, 53, "tcp");
        let collide = |one: &Port, two: &Port| Opening::of(one).unwrap().common(&Opening::of(two).unwrap()) == Some(53);
        assert!(!collide(&tcp(""), &port("", 53, "udp")));
        assert!(!collide(&tcp("127.0.0.1"), &tcp("10.0.0.1")));
        assert!(!collide(&tcp("0.0.0.0"), &tcp("::1")));
        assert!(collide(&tcp("0.0.0.0"), &tcp("10.0.0.1")));
        assert!(collide(&tcp(""), &tcp("::1")));
        assert!(check_ports(&[tcp(""), tcp("")], "web", &Register::default()).is_err());
        assert!(check_ports(&[tcp("elsewhere")], "web", &Register::default()).is_err());
        assert!(check_ports(&[port("", 53, "icmp")], "web", &Register::default()).is_err());
    }
}
