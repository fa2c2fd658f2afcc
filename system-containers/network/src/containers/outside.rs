//! Addresses of containers on a link of the machine itself. Other machines there have addresses that nobody here has given,
//! so each is asked about before a container gets it. Nothing here waits for the answer: whoever attaches a container comes
//! again with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use berth_config::Membership;

use super::attachment::Cable;
use super::{AttachError, Containers};
use crate::dhcp::message::Mac;
use crate::link::{Link, LinkTable, text_of};
use crate::report;

/// How many addresses are tried: with more that are taken, the network is given out by somebody else too.
const MOST_TRIES: usize = 8;

/// What the machines on a link are to be asked before a container gets an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The link's number.
    pub link: u32,
    /// The link's hardware address.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
}

/// What was answered for a container so far.
#[derive(Debug, Default)]
pub struct Answers {
    /// Who has an address on the link with this number; `None` if nobody has.
    owners: BTreeMap<(u32, Ipv4Addr), Option<Mac>>,
    /// The last one, of which nothing was said before.
    newest: Option<(u32, Ipv4Addr)>,
}

impl Answers {
    /// Notes the answer to a question.
    pub fn insert(&mut self, question: Question, owner: Option<Mac>) {
        let asked = (question.link, question.address);
        self.owners.insert(asked, owner);
        self.newest = Some(asked);
    }

    fn is_newest(&self, link: u32, address: Ipv4Addr) -> bool {
        self.newest == Some((link, address))
    }
}

impl Containers {
    /// Chooses a container's addresses in a network, others than those of machines outside and than the machine's own.
    pub(super) fn free_cable(
        &self,
        container: &str,
        (network, membership): (&str, &Membership),
        table: &LinkTable,
        answers: &Answers,
    ) -> Result<Cable, AttachError> {
        let parent = self.networks.get(network).and_then(|network| network.settings.parent.as_ref());
        let parent = parent.and_then(|parent| table.by_name(parent.as_str()));
        let mut taken: BTreeSet<IpAddr> = parent.iter().flat_map(|parent| parent.addresses.keys()).copied().collect();
        if let Some((_, address)) = membership.addresses().into_iter().find(|(_, address)| taken.contains(address)) {
            return Err(AttachError::Outside { address, owner: "the machine itself".to_owned() });
        }
        for _ in 0..MOST_TRIES {
            let cable = self.cable(container, network, membership, &taken)?;
            let Some(owner) = owner(parent, &cable, answers)? else { return Ok(cable) };
            let address = IpAddr::V4(cable.ipv4);
            if membership.ipv4_address.is_some() {
                return Err(AttachError::Outside { address, owner });
            }
            // All of before are found taken again each time.
            if parent.is_some_and(|parent| answers.is_newest(parent.index, cable.ipv4)) {
                report::say(format_args!("{container} does not get {address} in {network}: {owner} has it"));
            }
            taken.insert(address);
        }
        Err(AttachError::NoAddress { network: network.to_owned() })
    }
}

/// Who has the address that a container would get, if that was asked.
fn owner(parent: Option<&Link>, cable: &Cable, answers: &Answers) -> Result<Option<String>, AttachError> {
    let Some((link, mac)) = parent.filter(|parent| parent.carrier).and_then(|it| Some((it.index, it.mac?))) else {
        return Ok(None);
    };
    let question = Question { link, mac, address: cable.ipv4 };
    let answer = answers.owners.get(&(link, cable.ipv4)).ok_or(AttachError::Unasked(question))?;
    // A switch that sends back what it hears, and the container's last run.
    let other = answer.filter(|mac| *mac != cable.mac);
    Ok(other.map(|mac| format!("the machine {} outside", text_of(mac))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_answer_is_news() {
        let [first, second] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let mut answers = Answers::default();
        assert!(!answers.is_newest(2, first));
        for address in [first, second] {
            answers.insert(Question { link: 2, mac: [2; 6], address }, Some([3; 6]));
            assert!(answers.is_newest(2, address) && !answers.is_newest(3, address));
        }
        assert!(!answers.is_newest(2, first) && answers.owners.len() == 2);
    }
}
