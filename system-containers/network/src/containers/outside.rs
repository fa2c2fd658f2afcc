//! Addresses of containers on a link of the machine itself. Other machines there have addresses that nobody here has given,
//! so each is asked about before a container gets it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_config::Membership;

use super::attachment::Cable;
use super::{AttachError, Containers};
use crate::link::{Link, LinkTable, text_of};
use crate::{arp, report};

/// How many addresses are tried: with more that are taken, the network is given out by somebody else too.
const MOST_TRIES: usize = 8;

impl Containers {
    /// Chooses a container's addresses in a network, others than those of machines outside and than the machine's own.
    pub(super) async fn free_cable(
        &self,
        container: &str,
        network: &str,
        membership: &Membership,
        table: &LinkTable,
    ) -> Result<Cable, AttachError> {
        let parent = self.networks.get(network).and_then(|network| network.settings.parent.as_ref());
        let parent = parent.and_then(|parent| table.by_name(parent.as_str()));
        let mut taken: BTreeSet<IpAddr> = parent.iter().flat_map(|parent| parent.addresses.keys()).copied().collect();
        if let Some((_, address)) = membership.addresses().into_iter().find(|(_, address)| taken.contains(address)) {
            return Err(AttachError::Outside { address, owner: "the machine itself".to_owned() });
        }
        for _ in 0..MOST_TRIES {
            let cable = self.cable(container, network, membership, &taken)?;
            let Some(owner) = owner(parent, &cable).await else { return Ok(cable) };
            let address = IpAddr::V4(cable.ipv4);
            if membership.ipv4_address.is_some() {
                return Err(AttachError::Outside { address, owner });
            }
            report::say(format_args!("{container} does not get {address} in {network}: {owner} has it"));
            taken.insert(address);
        }
        Err(AttachError::NoAddress { network: network.to_owned() })
    }
}

/// Who has the address that a container would get.
async fn owner(parent: Option<&Link>, cable: &Cable) -> Option<String> {
    let parent = parent.filter(|parent| parent.carrier)?;
    match arp::port::ask(parent.index, parent.mac?, cable.ipv4).await {
        // A switch that sends back what it hears, and the container's last run.
        Ok(mac) => mac.filter(|mac| *mac != cable.mac).map(|mac| format!("the machine {} outside", text_of(mac))),
        Err(error) => {
            report::say(format_args!("{}: cannot ask who has {}: {error}", parent.name, cable.ipv4));
            None
        }
    }
}
