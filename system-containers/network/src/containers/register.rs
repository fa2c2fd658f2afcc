//! All attachments, and who has an address, a port or a place in a service. Pure.
//!
//! Nothing that attaching a container asks looks through all of them: the five-hundredth is to be attached as fast as the first.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::attachment::Attachment;

/// Names of containers by what they have.
type Holders<K> = BTreeMap<K, BTreeSet<String>>;

/// All of them.
#[derive(Debug, Default)]
pub struct Register {
    attachments: BTreeMap<String, Attachment>,
    /// Replicas share those of their service.
    addresses: Holders<IpAddr>,
    services: Holders<String>,
    /// Of the machine; of a range the first.
    ports: Holders<u16>,
    /// How many ports followed the first of the longest range there was.
    longest: u16,
    /// Those with rules of their own.
    ruled: BTreeSet<String>,
}

impl FromIterator<Attachment> for Register {
    fn from_iter<I: IntoIterator<Item = Attachment>>(attachments: I) -> Self {
        let mut this = Self::default();
        attachments.into_iter().for_each(|attachment| this.insert(attachment));
        this
    }
}

impl Register {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Attachment> {
        self.attachments.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// Takes one in; what was known of a container with its name is forgotten.
    pub fn insert(&mut self, attachment: Attachment) {
        let name = attachment.wanted.name.clone();
        self.remove(&name);
        let wanted = &attachment.wanted;
        for address in addresses(&attachment) {
            self.addresses.entry(address).or_default().insert(name.clone());
        }
        self.services.entry(wanted.service.clone()).or_default().insert(name.clone());
        for port in &wanted.ports {
            self.ports.entry(port.host_port).or_default().insert(name.clone());
            self.longest = self.longest.max(port.further_ports);
        }
        if !wanted.access.is_empty() {
            self.ruled.insert(name.clone());
        }
        self.attachments.insert(name, attachment);
    }

    /// Forgets one.
    pub fn remove(&mut self, name: &str) -> Option<Attachment> {
        let attachment = self.attachments.remove(name)?;
        for address in addresses(&attachment) {
            leave(&mut self.addresses, &address, name);
        }
        leave(&mut self.services, &attachment.wanted.service, name);
        for port in &attachment.wanted.ports {
            leave(&mut self.ports, &port.host_port, name);
        }
        self.ruled.remove(name);
        Some(attachment)
    }

    /// Who has an address, alone or with the other replicas of a service.
    pub fn with_address(&self, address: IpAddr) -> Option<&Attachment> {
        self.held(&self.addresses, &address).next()
    }

    /// The containers of a service.
    pub fn of_service(&self, service: &str) -> impl Iterator<Item = &Attachment> {
        self.held(&self.services, service)
    }

    /// Who may publish a port of the machine with a number between these, of whichever address and protocol: all that do are
    /// among them.
    pub fn near_ports(&self, first: u16, last: u16) -> impl Iterator<Item = &Attachment> {
        let near = self.ports.range(first.saturating_sub(self.longest)..=last).flat_map(|(_, names)| names);
        let names: BTreeSet<&String> = near.collect();
        names.into_iter().filter_map(|name| self.get(name))
    }

    /// Whether any has rules of its own.
    pub fn has_rules(&self) -> bool {
        !self.ruled.is_empty()
    }

    fn held<K, Q>(&self, holders: &Holders<K>, key: &Q) -> std::vec::IntoIter<&Attachment>
    where
        K: Ord + Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let names = holders.get(key).into_iter().flatten();
        names.filter_map(|name| self.get(name)).collect::<Vec<_>>().into_iter()
    }
}

fn leave<K: Ord>(holders: &mut Holders<K>, key: &K, name: &str) {
    if let Some(names) = holders.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            holders.remove(key);
        }
    }
}

/// Its own and those of its service.
fn addresses(attachment: &Attachment) -> impl Iterator<Item = IpAddr> {
    attachment.cables.iter().flat_map(|cable| {
        let of_service = cable.service.into_iter().flat_map(|(ipv4, ipv6)| [ipv4.into(), ipv6.into()]);
        [IpAddr::V4(cable.ipv4), IpAddr::V6(cable.ipv6)].into_iter().chain(of_service)
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use berth_control::message::Port;

    use super::super::attachment::tests::{attachment, port};
    use super::*;

    fn replica(number: u8) -> Attachment {
        let mut replica = attachment(&format!("web-{number}"), vec![port("", 8080, "tcp")]);
        replica.wanted.service = "web".into();
        replica.cables[0].ipv4 = Ipv4Addr::new(10, 0, 0, number);
        replica.cables[0].service = Some((Ipv4Addr::new(10, 0, 0, 100), "fd00::100".parse().unwrap()));
        replica
    }

    fn names<'a>(found: impl Iterator<Item = &'a Attachment>) -> Vec<&'a str> {
        found.map(|attachment| attachment.wanted.name.as_str()).collect()
    }

    #[test]
    fn what_replicas_share_is_held_until_the_last_has_gone() {
        let shared: IpAddr = "fd00::100".parse().unwrap();
        let mut register: Register = [replica(1), replica(2)].into_iter().collect();
        assert_eq!(names(register.of_service("web")), ["web-1", "web-2"]);
        assert_eq!(names(register.near_ports(8080, 8080)), ["web-1", "web-2"]);
        assert_eq!(register.with_address("10.0.0.2".parse().unwrap()).unwrap().wanted.name, "web-2");
        register.remove("web-1").unwrap();
        assert_eq!(register.with_address(shared).unwrap().wanted.name, "web-2");
        assert!(register.with_address("10.0.0.1".parse().unwrap()).is_none());
        register.remove("web-2").unwrap();
        assert!(register.with_address(shared).is_none() && register.iter().next().is_none());
        assert!(names(register.of_service("web")).is_empty() && names(register.near_ports(8080, 8080)).is_empty());
    }

    #[test]
    fn who_has_a_port_in_a_range_is_found() {
        let range = Port { further_ports: 100, ..port("", 9000, "udp") };
        let register: Register = [replica(1), attachment("sip", vec![range])].into_iter().collect();
        assert_eq!(names(register.near_ports(9100, 9100)), ["sip"]);
        assert_eq!(names(register.near_ports(8000, 8999)), ["web-1"]);
        assert_eq!(names(register.near_ports(8000, 9000)), ["sip", "web-1"]);
    }

    #[test]
    fn what_a_container_had_before_is_forgotten() {
        let mut ruled = replica(1);
        ruled.wanted.access.deny = vec![berth_config::Peers::default()];
        let mut register: Register = [ruled].into_iter().collect();
        assert!(register.has_rules());
        let mut other = attachment("web-1", Vec::new());
        other.wanted.service = "shop".into();
        register.insert(other);
        assert!(!register.has_rules());
        assert!(names(register.of_service("web")).is_empty() && names(register.near_ports(8080, 8080)).is_empty());
        assert_eq!(names(register.of_service("shop")), ["web-1"]);
        assert!(register.with_address("10.0.0.1".parse().unwrap()).is_none());
    }
}
