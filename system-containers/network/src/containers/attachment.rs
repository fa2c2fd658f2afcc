//! What a container was given, and the files that tell a restarted `network` of it.
//!
//! One file a container, below /run: they vanish with the containers at a reboot, and attaching the five-hundredth
//! writes no more than attaching the first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use berth_control::message;
use serde::{Deserialize, Serialize};

use crate::dns::directory::{Directory, Member};
use crate::files;
use crate::resolver::PORT;

/// Before a service's name it stands for all its containers, whether they have a common address or not; as with Docker.
const ALL_REPLICAS: &str = "tasks.";

/// A container's link in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cable {
    /// The network.
    pub network: String,
    /// The network's number.
    pub number: u16,
    /// Whether its other end is on a bridge of the machine; else it is a link on the network's parent.
    pub bridged: bool,
    /// The part of `ipv4` that is not the network's: at most 24 bits.
    pub place: u32,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The addresses of its service there, if that has its own.
    pub service: Option<(Ipv4Addr, Ipv6Addr)>,
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
            let wanted = &self.wanted;
            let service = cable.service.map(|addresses| (wanted.service.clone(), addresses));
            let own = [wanted.name.clone(), format!("{ALL_REPLICAS}{}", wanted.service)];
            let shared = service.is_none().then(|| wanted.service.clone());
            let names = own.into_iter().chain(shared).chain(aliases).collect();
            Member { network: cable.network.clone(), names, addresses: (cable.ipv4, cable.ipv6), service }
        });
        directory.add(&self.wanted.name, members.collect(), self.wanted.serving, self.way_out.is_some());
        let servers = self.wanted.resolution.servers.iter().map(|server| SocketAddr::new(*server, PORT));
        directory.ask(&self.wanted.name, servers.collect());
    }

    /// Whether it is on no bridge of the machine.
    pub fn is_away(&self) -> bool {
        !self.cables.iter().any(|cable| cable.bridged)
    }
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
pub mod tests {
    use berth_control::message::Port;

    use super::*;

    /// One that leads to the container's port 80.
    pub fn port(host_address: &str, host_port: u16, protocol: &str) -> Port {
        let (host_address, protocol) = (host_address.into(), protocol.into());
        Port { host_address, host_port, container_port: 80, further_ports: 0, protocol }
    }

    /// A container on the default network.
    pub fn attachment(name: &str, ports: Vec<Port>) -> Attachment {
        let (ipv4, ipv6) = (Ipv4Addr::new(172, 30, 0, 2), "fd00::2".parse().unwrap());
        let cable = Cable {
            network: "default".into(),
            number: 0,
            bridged: true,
            place: 2,
            ipv4,
            ipv6,
            mac: [2, 0, 0, 0, 0, 2],
            service: None,
        };
        let (service, networks) = (name.to_owned(), Vec::new());
        let wanted = message::Attachment {
            name: name.into(),
            service,
            networks,
            ports,
            serving: true,
            ..message::Attachment::default()
        };
        Attachment { wanted, namespace: 1, cables: vec![cable], way_out: Some(0), whole: true }
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_broken_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = AttachmentStore::new(directory.path());
        assert!(store.load().is_empty());
        let web = attachment("web", Vec::new());
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
