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

pub(super) fn host_address(port: &Port) -> Result<Option<IpAddr>, PortError> {
    let address = port.host_address.as_str();
    let parse = || address.parse().map_err(|_| PortError::Address { address: address.to_owned() });
    if address.is_empty() { Ok(None) } else { parse().map(Some) }
}

pub(super) fn protocol_number(port: &Port) -> Result<u8, PortError> {
    let unknown = |_| PortError::Protocol { protocol: port.protocol.clone() };
    port.protocol.parse::<Protocol>().map(Protocol::number).map_err(unknown)
}

/// Finds ports that are wanted twice. Those of one service are the same on purpose.
pub fn check_ports(ports: &[Port], service: &str, attachments: &Register) -> Result<(), PortError> {
    for (index, port) in ports.iter().enumerate() {
        host_address(port)?;
        if protocol_number(port)? == Protocol::Sctp.number() && !Path::new(SCTP).exists() {
            return Err(PortError::Untranslated);
        }
        if ports.iter().take(index).any(|other| collide(port, other)) {
            return Err(PortError::Repeated { port: port_text(port) });
        }
    }
    for port in ports {
        let mut others = attachments.with_port(port.host_port).filter(|other| other.wanted.service != service);
        if let Some(other) = others.find(|other| other.wanted.ports.iter().any(|theirs| collide(port, theirs))) {
            return Err(PortError::Taken { port: port_text(port), owner: other.wanted.name.clone() });
        }
    }
    Ok(())
}

pub(super) fn port_text(port: &Port) -> String {
    format!("{}/{}", port.host_port, port.protocol)
}

fn collide(one: &Port, two: &Port) -> bool {
    let addresses = match (host_address(one).ok().flatten(), host_address(two).ok().flatten()) {
        (Some(one), Some(two)) if one.is_unspecified() || two.is_unspecified() => one.is_ipv4() == two.is_ipv4(),
        (Some(one), Some(two)) => one == two,
        _ => true,
    };
    addresses && one.host_port == two.host_port && one.protocol == two.protocol
}

#[cfg(test)]
mod tests {
    use super::super::attachment::tests::attachment;
    use super::*;

    fn port(host_address: &str, host_port: u16, protocol: &str) -> Port {
        Port { host_address: host_address.into(), host_port, container_port: 80, protocol: protocol.into() }
    }

    #[test]
    fn a_conflict_names_the_owner_unless_it_is_a_replica() {
        let web = Register::from_iter([attachment("web", vec![port("", 8080, "tcp")])]);
        let wanted = [port("127.0.0.1", 8080, "tcp")];
        let error = check_ports(&wanted, "other", &web).unwrap_err();
        assert!(error.to_string().contains("8080/tcp") && error.to_string().contains("web"), "{error}");
        assert!(check_ports(&wanted, "web", &web).is_ok());
    }

    #[test]
    fn ports_collide_only_where_they_meet() {
        let tcp = |address| port(address, 53, "tcp");
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
