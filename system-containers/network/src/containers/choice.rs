//! Which addresses a container gets in a network, and its service with it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_config::{Membership, NetworkDriver};
use berth_control::message;

use super::attachment::Cable;
use super::networks::NetworkError;
use super::{AttachError, Containers, bridge, services};
use crate::dhcp::routes::mask_of;

impl Containers {
    /// Chooses a container's addresses in a network.
    /// `outside`: what others have who are no containers.
    pub(super) fn cable(
        &self,
        container: &str,
        network: &str,
        membership: &Membership,
        outside: &BTreeSet<IpAddr>,
    ) -> Result<Cable, AttachError> {
        let unknown = || NetworkError::Unknown { name: network.to_owned() };
        let settings = self.networks.get(network).ok_or_else(unknown)?;
        let owner = |address| self.attachments.with_address(address);
        for (_, address) in membership.addresses() {
            if let Some(owner) = owner(address) {
                return Err(AttachError::AddressTaken { address, owner: owner.wanted.name.clone() });
            }
        }
        let fixed = (membership.ipv4_address, membership.ipv6_address);
        let is_taken =
            |address| outside.contains(&address) || self.networks.is_reserved(address) || owner(address).is_some();
        let no_address = || AttachError::NoAddress { network: network.to_owned() };
        let (ipv4, ipv6) = settings.subnets.addresses(container, fixed, is_taken).ok_or_else(no_address)?;
        Ok(Cable {
            network: network.to_owned(),
            number: settings.number,
            bridged: settings.settings.driver == NetworkDriver::Bridge,
            place: ipv4.to_bits() & !mask_of(settings.subnets.ipv4.length()),
            ipv4,
            ipv6,
            mac: membership.mac_address.map_or_else(|| bridge::mac_of(ipv4), |mac| mac.bytes()),
            service: None,
        })
    }

    /// Adds the addresses of the container's service, which the first of its replicas chooses. Containers that do not
    /// reach each other reach no service either.
    pub(super) fn with_service(&self, mut cable: Cable, wanted: &message::Attachment) -> Result<Cable, AttachError> {
        let network = self.networks.get(&cable.network).filter(|network| !network.settings.isolated);
        let Some(network) = network.filter(|_| wanted.service_address && cable.bridged) else { return Ok(cable) };
        let is_taken = |address| {
            let taken = self.attachments.with_address(address).is_some();
            taken || address == cable.ipv4 || address == cable.ipv6 || self.networks.is_reserved(address)
        };
        let new = || network.subnets.addresses(&services::seed(&wanted.service), (None, None), is_taken);
        let addresses = services::of_others(&wanted.service, &cable.network, &self.attachments).or_else(new);
        let no_address = || AttachError::NoAddress { network: cable.network.clone() };
        cable.service = Some(addresses.ok_or_else(no_address)?);
        Ok(cable)
    }
}
