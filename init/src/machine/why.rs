//! `berth why` of what is no container: a link, or the boot.

use berth_config::{Hardware, LinkIdentity, LinkName, LinkSettings, Locations, Network};
use berth_control::message::{Cause, ContainerState, Link, MachineState, Reply, Step};

use super::Machine;
use crate::supervisor::{Applicant, Container};

/// What the boot is called, beside containers and links, which come first.
const BOOT: &str = "boot";

/// Stands in front of a link's name if a container of that name is not meant: no container's has a space.
const LINK: &str = "link ";

/// So many of the steps that took longest are named.
const SLOWEST: usize = 3;

impl Machine {
    /// Answers for what the supervisor does not know.
    pub(super) fn why(&mut self, applicant: Applicant, name: &str) {
        let of_link = name.strip_prefix(LINK);
        let link = self.facts.links.iter().find(|link| link.name == of_link.unwrap_or(name));
        let reply = match (link, of_link) {
            (Some(link), _) => Reply::Why(self.why_link(link)),
            (None, Some(name)) => {
                let names: Vec<&str> = self.facts.links.iter().map(|link| link.name.as_str()).collect();
                Reply::Refused { reason: format!("there is no link {name}; there are: {}", names.join(", ")) }
            }
            (None, None) if name == BOOT => Reply::Why(self.why_boot()),
            (None, None) => Reply::Refused {
                reason: format!(
                    "there is no container and no link {name}; `berth ps --all` and `berth status` list them"
                ),
            },
        };
        self.supervisor.reply_to(applicant, reply);
    }

    fn why_link(&self, link: &Link) -> Vec<Cause> {
        let network = &self.supervisor.configuration.network;
        let mut causes = vec![cause(0, &link.name, condition(link))];
        causes.push(cause(1, &link.name, decision(network, &self.supervisor.locations, link)));
        let service = self.supervisor.find("network").map(Container::describe);
        let service = service.filter(|service| service.state != ContainerState::Running);
        causes.extend(service.map(|service| {
            let separator = if service.reason.is_empty() { "" } else { ": " };
            cause(1, "network", format!("which sets links up, is not running{separator}{}", service.reason))
        }));
        causes.extend(link.missing.iter().map(|text| cause(1, &link.name, text.clone())));
        let about = self.all_problems().into_iter().filter(|problem| problem.contains(&link.name));
        causes.extend(about.map(|problem| cause(1, &link.name, problem)));
        let log = format!("`berth logs network | grep {}` has what came of it, moment by moment", link.name);
        causes.push(cause(1, &link.name, log));
        causes
    }

    fn why_boot(&self) -> Vec<Cause> {
        let state = match self.facts.state {
            MachineState::Booting => "is under way",
            MachineState::Ready => "is over, and everything is as it should be",
            MachineState::Degraded => "is over, and something is wrong",
            MachineState::ShuttingDown => "is over, and the machine is going down",
        };
        let mut causes = vec![cause(0, BOOT, state.to_owned())];
        if self.configuration.is_none() {
            causes.push(cause(1, BOOT, "waits for the configuration".to_owned()));
        }
        let steps = self.timeline.steps();
        causes.extend(steps.iter().filter(|step| step.failed).map(|step| told(step, "failed")));
        causes.extend(slowest(steps).into_iter().map(|step| told(step, "was one of the longest steps")));
        let of_containers = |problem: &String| problem.starts_with("container ");
        let problems = self.all_problems().into_iter().filter(|problem| !of_containers(problem));
        causes.extend(problems.map(|problem| cause(1, "machine", problem)));
        causes.extend(self.supervisor.why_not_up());
        causes
    }
}

fn cause(depth: u32, subject: &str, text: String) -> Cause {
    Cause { depth, subject: subject.to_owned(), text, at_us: 0 }
}

fn told(step: &Step, what: &str) -> Cause {
    let took = std::time::Duration::from_micros(step.duration_us);
    let separator = if step.outcome.is_empty() { "" } else { ": " };
    let text = format!("{what} ({took:.1?}){separator}{}", step.outcome);
    Cause { depth: 1, subject: step.name.clone(), text, at_us: step.start_us }
}

fn slowest(steps: &[Step]) -> Vec<&Step> {
    let mut good: Vec<&Step> = steps.iter().filter(|step| !step.failed).collect();
    good.sort_by_key(|step| std::cmp::Reverse(step.duration_us));
    good.truncate(SLOWEST);
    good
}

fn condition(link: &Link) -> String {
    match (link.carrier, link.addresses.is_empty()) {
        (false, true) => "has no carrier and no address".to_owned(),
        (false, false) => format!("has no carrier; its addresses are {}", link.addresses.join(", ")),
        (true, true) => "has carrier and no address".to_owned(),
        (true, false) => format!("has carrier and the addresses {}", link.addresses.join(", ")),
    }
}

/// What in the configuration is for it, and where that stands.
fn decision(network: &Network, locations: &Locations, link: &Link) -> String {
    let Some((name, settings)) = entry(network, link) else {
        return "no entry of [network.links] is for it: a network card asks DHCP then".to_owned();
    };
    let in_brackets = |place: Option<String>| place.map(|place| format!(" ({place})")).unwrap_or_default();
    let place = |key| in_brackets(locations.find_of_link(name.as_str(), key));
    let begin = in_brackets(locations.of_link(name.as_str()));
    let matching = settings.matching.as_ref().map(|_| format!(" by its match{}", place("match"))).unwrap_or_default();
    let dhcp = if settings.uses_dhcp() { "asks DHCP" } else { "does not ask DHCP" };
    let fixed: Vec<String> = settings.addresses.iter().map(ToString::to_string).collect();
    let fixed = if fixed.is_empty() { String::new() } else { format!(", addresses = {fixed:?}{}", place("addresses")) };
    format!("[network.links.{name}]{begin} is for it{matching}: it {dhcp}{}{fixed}", place("dhcp"))
}

fn entry<'a>(network: &'a Network, link: &Link) -> Option<(&'a LinkName, &'a LinkSettings)> {
    let hardware = Hardware::of_link(&link.name);
    let identity = LinkIdentity { name: &link.name, mac: &link.mac, driver: &hardware.driver, path: &hardware.path };
    // What has no card is told of by its entry's name.
    let without_card = || network.links.get_key_value(link.name.as_str()).filter(|_| link.mac.is_empty());
    network.link_settings(&identity).or_else(without_card)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            name: "eth7".into(),
            mac: "52:54:00:12:34:56".into(),
            carrier: true,
            addresses: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn told_of(text: &str, link: &Link) -> String {
        let loaded = berth_config::load(&[berth_config::Source::new("test.toml", text)]).unwrap();
        decision(&loaded.configuration.network, &loaded.locations, link)
    }

    #[test]
    fn the_line_that_decided_about_a_link_is_named() {
        let by_mac = "\n[network.links.lan]\nmatch = { mac = \"52:54:*\" }\naddresses = [\"10.0.0.2/24\"]\n";
        let expected = "[network.links.lan] (test.toml:2) is for it by its match (test.toml:3): it does not ask DHCP, \
            addresses = [\"10.0.0.2/24\"] (test.toml:4)";
        assert_eq!(told_of(by_mac, &link()), expected);
        let by_name = told_of("[network.links.eth7]\ndhcp = true\n", &link());
        assert_eq!(by_name, "[network.links.eth7] (test.toml:1) is for it: it asks DHCP (test.toml:2)");
        assert!(told_of("[network.links.eth8]\n", &link()).starts_with("no entry"));
        let without_card = Link { name: "lan".into(), mac: String::new(), ..link() };
        assert_eq!(told_of(by_mac, &without_card), expected);
    }

    #[test]
    fn a_link_without_an_address_says_so() {
        assert_eq!(condition(&link()), "has carrier and no address");
        let addresses = vec!["10.0.0.2/24".to_owned()];
        assert_eq!(condition(&Link { addresses, ..link() }), "has carrier and the addresses 10.0.0.2/24");
    }

    #[test]
    fn the_longest_steps_come_first() {
        let step = |name: &str, duration_us, failed| Step {
            name: name.into(),
            start_us: 1,
            duration_us,
            outcome: String::new(),
            failed,
        };
        let steps =
            [step("a", 1, false), step("b", 9, false), step("c", 99, true), step("d", 5, false), step("e", 2, false)];
        let names: Vec<&str> = slowest(&steps).into_iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["b", "d", "e"]);
        assert_eq!(told(&steps[1], "took").text, "took (9.0µs)");
    }
}
