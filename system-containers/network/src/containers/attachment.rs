//! What a container was given, and the files that tell a restarted `network` of it.
//!
//! One file a container, below /run: they vanish with the containers at a reboot, and attaching the five-hundredth
//! writes no more than attaching the first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_control::message::{self, Port};
use serde::{Deserialize, Serialize};

use crate::dns::directory::{Directory, Member};
use crate::files;
use crate::nftables::ruleset::Redirection;

/// A container's link in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cable {
    /// The network.
    pub network: String,
    /// The network's number.
    pub number: u16,
    /// The part of `ipv4` that is not the network's: at most 24 bits.
    pub place: u32,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

impl Cable {
    /// The name of the host's end; at most 15 bytes.
    pub fn link_name(&self) -> String {
        format!("{}{}-{:04x}", crate::link::OWN_PREFIX, self.number, self.place)
    }
}

/// A container's part in its networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What PID 1 wants.
    pub wanted: message::Attachment,
    /// The inode of its network namespace: which run of the container this is.
    pub namespace: u64,
    /// Its links, in the order of `wanted.networks`.
    pub cables: Vec<Cable>,
    /// Which of them leads out, and has the published ports; none if all networks are internal.
    pub way_out: Option<usize>,
    /// Whether all of it was set up. If not, this program ended in the middle, and nothing of it can be relied on.
    pub whole: bool,
}

impl Attachment {
    /// What PID 1 is told.
    pub fn addresses(&self) -> Vec<String> {
        self.cables.iter().flat_map(|cable| [cable.ipv4.to_string(), cable.ipv6.to_string()]).collect()
    }

    /// Makes its names known.
    pub fn enter(&self, directory: &mut Directory) {
        let members = self.cables.iter().zip(&self.wanted.networks).map(|(cable, (_, membership))| {
            let aliases = membership.aliases.iter().map(|alias| alias.as_str().to_ascii_lowercase());
            let own = [self.wanted.name.clone(), self.wanted.service.clone()];
            let addresses = (cable.ipv4, cable.ipv6);
            Member { network: cable.network.clone(), names: own.into_iter().chain(aliases).collect(), addresses }
        });
        directory.add(&self.wanted.name, members.collect(), self.wanted.serving, self.way_out.is_some());
    }

    /// Whether it has the address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.cables.iter().any(|cable| address == cable.ipv4 || address == cable.ipv6)
    }

    /// Its ports as elements of the packet filter's maps.
    pub fn redirections(&self) -> Result<Vec<Redirection>, PortError> {
        let mut redirections = Vec::new();
        let Some(cable) = self.way_out.and_then(|index| self.cables.get(index)) else { return Ok(redirections) };
        for port in &self.wanted.ports {
            let host_address = host_address(port)?;
            let protocol = protocol_number(port)?;
            let families = [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)];
            let wanted = |to: &IpAddr| host_address.is_none_or(|address| address.is_ipv4() == to.is_ipv4());
            redirections.extend(families.into_iter().filter(wanted).map(|to| Redirection {
                host_address: host_address.filter(|address| !address.is_unspecified()),
                host_port: port.host_port,
                protocol,
                to: SocketAddr::new(to, port.container_port),
            }));
        }
        Ok(redirections)
    }
}

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

fn protocol_number(port: &Port) -> Result<u8, PortError> {
    match port.protocol.as_str() {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        other => Err(PortError::Protocol { protocol: other.to_owned() }),
    }
}

/// Finds ports that are wanted twice.
pub fn check_ports<'a>(ports: &[Port], others: impl Iterator<Item = &'a Attachment>) -> Result<(), PortError> {
    for (index, port) in ports.iter().enumerate() {
        host_address(port)?;
        protocol_number(port)?;
        if ports.iter().take(index).any(|other| collide(port, other)) {
            return Err(PortError::Repeated { port: port_text(port) });
        }
    }
    for other in others {
        if let Some(port) = ports.iter().find(|port| other.wanted.ports.iter().any(|theirs| collide(port, theirs))) {
            return Err(PortError::Taken { port: port_text(port), owner: other.wanted.name.clone() });
        }
    }
    Ok(())
}

fn port_text(port: &Port) -> String {
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

/// The files.
#[derive(Clone, Debug)]
pub struct AttachmentStore {
    directory: PathBuf,
}

impl AttachmentStore {
    /// In this directory, which is made when it is needed.
    pub fn new(run: &Path) -> Self {
        Self { directory: run.join("network") }
    }

    /// All of them, by container. What cannot be read is removed: it is of no use to anybody.
    pub fn load(&self) -> BTreeMap<String, Attachment> {
        let mut attachments = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let read = fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Attachment>(&bytes).ok());
            match read.filter(|attachment| self.path(&attachment.wanted.name) == entry.path()) {
                Some(attachment) => drop(attachments.insert(attachment.wanted.name.clone(), attachment)),
                // Should it stay, it is read and refused again at the next start.
                None => drop(fs::remove_file(entry.path())),
            }
        }
        attachments
    }

    /// Keeps one.
    pub fn save(&self, attachment: &Attachment) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        files::write_atomically(&self.path(&attachment.wanted.name), &serde_json::to_vec(attachment)?)
    }

    /// Forgets one.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        // Container names are checked by the configuration and hold no slash; a surprise must not lead elsewhere.
        self.directory.join(format!("{}.json", name.replace('/', "_")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_address: &str, host_port: u16, protocol: &str) -> Port {
        Port { host_address: host_address.into(), host_port, container_port: 80, protocol: protocol.into() }
    }

    fn attachment(name: &str, ports: Vec<Port>) -> Attachment {
        let (ipv4, ipv6) = (Ipv4Addr::new(172, 30, 0, 2), "fd00::2".parse().unwrap());
        let cable = Cable { network: "default".into(), number: 0, place: 2, ipv4, ipv6, mac: [2, 0, 0, 0, 0, 2] };
        let (service, networks) = (name.to_owned(), Vec::new());
        let wanted = message::Attachment { name: name.into(), service, networks, ports, serving: true };
        Attachment { wanted, namespace: 1, cables: vec![cable], way_out: Some(0), whole: true }
    }

    #[test]
    fn a_conflict_names_the_owner() {
        let web = attachment("web", vec![port("", 8080, "tcp")]);
        let error = check_ports(&[port("127.0.0.1", 8080, "tcp")], [&web].into_iter()).unwrap_err();
        assert!(error.to_string().contains("8080/tcp") && error.to_string().contains("web"), "{error}");
    }

    #[test]
    fn ports_collide_only_where_they_meet() {
        let tcp = |address| port(address, 53, "tcp");
        assert!(!collide(&tcp(""), &port("", 53, "udp")));
        assert!(!collide(&tcp("127.0.0.1"), &tcp("10.0.0.1")));
        assert!(!collide(&tcp("0.0.0.0"), &tcp("::1")));
        assert!(collide(&tcp("0.0.0.0"), &tcp("10.0.0.1")));
        assert!(collide(&tcp(""), &tcp("::1")));
        assert!(check_ports(&[tcp(""), tcp("")], std::iter::empty()).is_err());
        assert!(check_ports(&[tcp("elsewhere")], std::iter::empty()).is_err());
        assert!(check_ports(&[port("", 53, "icmp")], std::iter::empty()).is_err());
    }

    #[test]
    fn a_port_for_all_addresses_is_one_for_both_families() {
        let families = |address| attachment("web", vec![port(address, 80, "tcp")]).redirections().unwrap();
        assert_eq!(families("").len(), 2);
        assert_eq!(families("0.0.0.0").len(), 1);
        assert!(families("0.0.0.0")[0].host_address.is_none() && families("0.0.0.0")[0].to.is_ipv4());
        assert!(families("::1")[0].to.is_ipv6() && families("::1")[0].host_address.is_some());
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_broken_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = AttachmentStore::new(directory.path());
        assert!(store.load().is_empty());
        let web = attachment("web", vec![port("", 8080, "tcp")]);
        store.save(&web).unwrap();
        fs::write(directory.path().join("network/db.json"), b"{").unwrap();
        assert_eq!(store.load().into_values().collect::<Vec<_>>(), [web]);
        assert!(!directory.path().join("network/db.json").exists());
        store.remove("web").unwrap();
        store.remove("web").unwrap();
        assert!(store.load().is_empty());
    }

    #[test]
    fn the_cable_has_a_name_that_the_kernel_takes() {
        let longest = Cable { number: 999, place: 0xff_ffff, ..attachment("web", Vec::new()).cables.remove(0) };
        assert!(longest.link_name().len() <= 15);
    }
}
