//! What it takes to get from one configuration to another: what `berth plan` prints and `berth apply` does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::configuration::{Configuration, ShowError};
use crate::container::{Container, PublishedPorts};

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is new.
    Create,
    /// It is new, and one of its name that was made by hand ends and is forgotten with its log.
    Replace,
    /// It ends, and begins again with its new definition.
    Recreate,
    /// It runs on with its new definition.
    Update,
    /// It runs, ends, and begins again as it is, for its network or a container that it shares namespaces with is another one.
    Restart,
    /// It has ended and would have gone on with its new restart policy, so it begins again.
    Start,
    /// It ends and is forgotten. Its volumes stay.
    Remove,
}

/// A key whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// With dots: `health.interval`.
    pub key: String,
    /// As TOML; empty if there was none.
    pub old: String,
    /// As TOML; empty if there is none.
    pub new: String,
}

/// What happens to one container, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// Why; only for a container that is recreated or updated.
    pub changes: Vec<Change>,
}

/// What a configuration would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The containers that something happens to, by name.
    pub containers: Vec<ContainerPlan>,
    /// The containers that nothing happens to.
    pub untouched: Vec<String>,
    /// What changes beside containers.
    pub settings: Vec<Change>,
    /// What needs a reboot to be as written, a sentence each.
    pub reboot: Vec<String>,
    /// Ports of the machine that a declared container wants and one that was made by hand has, a sentence each. The one that
    /// comes second does not start.
    #[serde(default)]
    pub conflicts: Vec<String>,
}

impl Action {
    /// What a new definition does to a container; `None` if it is the old one.
    pub fn between(old: &Container, new: &Container) -> Option<Self> {
        if old == new {
            return None;
        }
        let updated = old.updated_by(new);
        // What had no timer, or is to have none any more, begins another life.
        let same = updated == *new && old.has_timer() == new.has_timer();
        Some(if same { Self::Update } else { Self::Recreate })
    }
}

/// What there is beside what is declared.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// The containers that were made by hand.
    pub made: Instances,
    /// The names of all containers that run and are to go on.
    pub running: BTreeSet<String>,
    /// Those that have ended by themselves, and that their policy does not start again.
    pub ended: BTreeMap<String, Ended>,
}

/// How the last run of a container ended that is not started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether it ended as intended.
    pub succeeded: bool,
    /// How many runs have failed in a row.
    pub failures: u32,
}

impl Ended {
    /// Whether another definition starts it again: its policy is another one, by which it would have gone on.
    pub fn is_started_by(&self, old: &Container, new: &Container) -> bool {
        old.restart != new.restart && !new.has_timer() && new.restart.goes_on(self.succeeded, self.failures)
    }
}

impl Plan {
    /// From one to the other. Of the containers that no configuration declares only those are named that something happens
    /// to.
    pub fn between(old: &Configuration, new: &Configuration, present: &Present) -> Result<Self, ShowError> {
        let mut plan = Self { settings: settings(old, new)?, ..Self::default() };
        let (mut before, mut after) = (old.instances(), new.instances());
        plan.conflicts = conflicts(new, &after, &present.made);
        for (name, container) in &present.made {
            // One whose name is declared now gives way to what is new.
            if !after.contains_key(name) {
                before.insert(name.clone(), container.clone());
                after.insert(name.clone(), container.clone());
            }
        }
        let actions = actions((old, &before), (new, &after), present);
        for (name, action) in actions {
            let changes = match (before.get(name), after.get(name)) {
                (Some(old), Some(new)) => changes(old, new)?,
                _ => Vec::new(),
            };
            match action {
                Some(action) => plan.containers.push(ContainerPlan { name: name.to_string(), action, changes }),
                None if present.made.contains_key(name) => {}
                None => plan.untouched.push(name.to_string()),
            }
        }
        let gone = old.sysctls.iter().filter(|(name, _)| !new.sysctls.iter().any(|(other, _)| other == *name));
        plan.reboot = gone.map(|(name, _)| format!("the kernel keeps its {name} until then")).collect();
        Ok(plan)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.settings.is_empty()
    }
}

/// Who wants which port that leads to a container that was made by hand and stays.
fn conflicts(new: &Configuration, declared: &Instances, made: &Instances) -> Vec<String> {
    let stays = made.iter().filter(|(name, _)| !declared.contains_key(*name));
    let ports = stays.flat_map(|(name, container)| container.ports.iter().map(move |ports| (name, ports)));
    let conflict = |(made, theirs): (&String, &PublishedPorts)| {
        let of = |container: &Container| container.ports.iter().find_map(|ports| ports.common_host_port(theirs));
        let (name, number) = new.containers.iter().find_map(|(name, container)| Some((name, of(container)?)))?;
        Some(format!(
            "port {number} of the machine leads to container {made}, which was made by hand, and container {name} wants \
             it: `berth rm {made}`, or publish another one"
        ))
    };
    ports.filter_map(conflict).collect()
}

/// Containers by name, replicas each by its own.
pub type Instances = BTreeMap<String, Container>;

/// What happens to each container.
fn actions<'a>(
    (old, before): (&Configuration, &'a Instances),
    (new, after): (&Configuration, &'a Instances),
    present: &Present,
) -> BTreeMap<&'a str, Option<Action>> {
    let (networks_before, networks_after) = (old.networking(), new.networking());
    let networks = networks_after.changed_since(&networks_before);
    let is_on_changed = |container: &Container| container.memberships().iter().any(|(name, _)| networks.contains(name));
    // What does not run is as it was when it is started.
    let runs = |name: &String| present.running.contains(name);
    let action = |name: &String| match (before.get(name), after.get(name)) {
        (None, _) if present.made.contains_key(name) => Some(Action::Replace),
        (None, _) => Some(Action::Create),
        (_, None) => Some(Action::Remove),
        (Some(old), Some(new)) => match Action::between(old, new) {
            None | Some(Action::Update) if runs(name) && is_on_changed(new) => Some(Action::Restart),
            Some(Action::Update) if present.ended.get(name).is_some_and(|ended| ended.is_started_by(old, new)) => {
                Some(Action::Start)
            }
            action => action,
        },
    };
    let names = before.keys().chain(after.keys());
    let mut actions: BTreeMap<&str, _> = names.map(|name| (name.as_str(), action(name))).collect();
    // Who is in the namespaces of one that ends follows it, and others follow that one.
    loop {
        let ends =
            |name: &str| matches!(actions.get(name), Some(Some(Action::Recreate | Action::Restart | Action::Replace)));
        let follows = |container: &Container| container.targets().any(|(_, target)| ends(target.as_str()));
        let runs_on = |name: &str| matches!(actions.get(name), Some(None | Some(Action::Update)));
        let next = after.iter().find(|(name, container)| runs(name) && runs_on(name) && follows(container));
        let Some((name, _)) = next else { return actions };
        actions.insert(name, Some(Action::Restart));
    }
}

/// What differs beside the containers.
fn settings(old: &Configuration, new: &Configuration) -> Result<Vec<Change>, ShowError> {
    let without =
        |configuration: &Configuration| Configuration { containers: BTreeMap::new(), ..configuration.clone() };
    changes(&without(old), &without(new))
}

fn changes<T: Serialize>(old: &T, new: &T) -> Result<Vec<Change>, ShowError> {
    let (old, new) = (leaves(old)?, leaves(new)?);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let text = |leaves: &BTreeMap<String, String>, key: &String| leaves.get(key).cloned().unwrap_or_default();
    let change = |key: &String| Change { key: key.clone(), old: text(&old, key), new: text(&new, key) };
    Ok(keys.into_iter().map(change).filter(|change| change.old != change.new).collect())
}

/// Every value that is no table, by its key with dots.
fn leaves<T: Serialize>(value: &T) -> Result<BTreeMap<String, String>, ShowError> {
    let mut leaves = BTreeMap::new();
    collect(String::new(), &Value::try_from(value)?, &mut leaves);
    Ok(leaves)
}

fn collect(key: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(key, value, leaves);
            }
        }
        leaf => drop(leaves.insert(key, leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn load(text: &str) -> Configuration {
        crate::load(&[Source::new("test.toml", text)]).unwrap().configuration
    }

    /// While everything runs.
    fn plan(old: &str, new: &str) -> Plan {
        let old = load(old);
        let present = Present { running: old.instances().into_keys().collect(), ..Present::default() };
        Plan::between(&old, &load(new), &present).unwrap()
    }

    const WEB: &str = "[containers.web]\nimage = \"web:1\"\nports = [\"8080:80\"]\n";

    #[test]
    fn the_same_configuration_is_nothing_to_do() {
        let plan = plan(WEB, WEB);
        assert!(plan.is_empty());
        assert_eq!(plan.untouched, ["web"]);
    }

    #[test]
    fn every_difference_is_told_with_its_values() {
        let old = format!("hostname = \"a\"\n{WEB}[containers.old]\nimage = \"old\"\n");
        let new = "hostname = \"b\"\n[containers.web]\nimage = \"web:2\"\nports = [\"8080:80\"]\n\
            [containers.web.environment]\nA = \"1\"\n[containers.new]\nimage = \"new\"\n";
        let plan = plan(&old, new);
        let change = |key: &str, old: &str, new: &str| Change { key: key.into(), old: old.into(), new: new.into() };
        assert_eq!(plan.settings, [change("hostname", "\"a\"", "\"b\"")]);
        let actions: Vec<_> = plan.containers.iter().map(|one| (one.name.as_str(), one.action)).collect();
        assert_eq!(actions, [("new", Action::Create), ("old", Action::Remove), ("web", Action::Recreate)]);
        let web = &plan.containers[2];
        assert_eq!(web.changes, [change("environment.A", "", "\"1\""), change("image", "\"web:1\"", "\"web:2\"")]);
    }

    #[test]
    fn what_only_the_supervisor_looks_at_ends_no_container() {
        for keys in [
            "restart = \"no\"\n",
            "depends_on = [\"db\"]\n",
            "stop_grace_period = \"3s\"\n",
            "labels = { a = \"b\" }\n",
            "health = { tcp = 80 }\n",
        ] {
            let with = |keys: &str| format!("[containers.db]\nimage = \"db\"\n{WEB}{keys}");
            let plan = plan(&with(""), &with(keys));
            assert_eq!(plan.containers.first().map(|one| one.action), Some(Action::Update), "{keys}");
        }
    }

    #[test]
    fn another_time_ends_no_container_and_a_timer_does() {
        let action = |old: &str, new: &str| plan(&format!("{WEB}{old}"), &format!("{WEB}{new}")).containers[0].action;
        assert_eq!(action("every = \"1h\"", "schedule = \"daily\""), Action::Update);
        assert_eq!(action("", "every = \"1h\""), Action::Recreate);
        assert_eq!(action("every = \"1h\"", ""), Action::Recreate);
    }

    #[test]
    fn who_is_on_a_network_that_changes_starts_anew_with_those_in_its_namespaces() {
        let text = |network: &str| {
            format!(
                "[networks.back]\n{network}\n[containers.db]\nimage = 'a'\nnetworks = ['back']\n\
                 [containers.side]\nimage = 'a'\nnetwork_mode = 'container:db'\n\
                 [containers.third]\nimage = 'a'\nnetwork_mode = 'container:db'\nrestart = 'no'\n{WEB}"
            )
        };
        let changed = plan(&text("mtu = 1500"), &text("mtu = 1400"));
        let actions: Vec<_> = changed.containers.iter().map(|one| (one.name.as_str(), one.action)).collect();
        assert_eq!(actions, ["db", "side", "third"].map(|name| (name, Action::Restart)));
        assert_eq!(changed.untouched, ["web"]);
        let rules = plan(&text(""), &text("allow = [{ address = '10.0.0.0/8' }]"));
        assert!(rules.containers.is_empty(), "rules are changed under them: {:?}", rules.containers);
        let recreated = plan(&text(""), &text("").replace("db]\nimage = 'a'", "db]\nimage = 'b'"));
        let actions: Vec<_> = recreated.containers.iter().map(|one| (one.name.as_str(), one.action)).collect();
        assert_eq!(actions, [("db", Action::Recreate), ("side", Action::Restart), ("third", Action::Restart)]);
    }

    #[test]
    fn what_does_not_run_is_not_started_anew_for_its_network() {
        let text = |mtu: u32, keys: &str| {
            format!(
                "[networks.back]\nmtu = {mtu}\n[containers.db]\nimage = 'a'\nnetworks = ['back']\n{keys}\n\
                 [containers.side]\nimage = 'a'\nnetwork_mode = 'container:db'\n"
            )
        };
        let plan = |running: &[&str], keys: &str| {
            let running = running.iter().map(|name| (*name).to_owned()).collect();
            let present = Present { running, ..Present::default() };
            let plan = Plan::between(&load(&text(1500, "")), &load(&text(1400, keys)), &present).unwrap();
            plan.containers.into_iter().map(|one| (one.name, one.action)).collect::<Vec<_>>()
        };
        let happens = |name: &str, action| (name.to_owned(), action);
        assert_eq!(plan(&[], ""), []);
        assert_eq!(plan(&["db"], ""), [happens("db", Action::Restart)], "side has completed, say");
        assert_eq!(plan(&[], "restart = 'no'"), [happens("db", Action::Update)]);
        let both = [happens("db", Action::Restart), happens("side", Action::Restart)];
        assert_eq!(plan(&["db", "side"], ""), both);
    }

    #[test]
    fn what_has_given_up_begins_again_if_another_policy_would_have_gone_on() {
        let text = |policy: &str| format!("[containers.db]\nimage = 'a'\nrestart = '{policy}'\n");
        let plan = |succeeded, failures, old: &str, new: &str| {
            let ended = [("db".to_owned(), Ended { succeeded, failures })].into();
            let present = Present { ended, ..Present::default() };
            Plan::between(&load(&text(old)), &load(&text(new)), &present).unwrap().containers[0].action
        };
        for (succeeded, failures, old, new, action) in [
            (false, 1, "no", "always", Action::Start),
            (true, 0, "no", "unless-stopped", Action::Start),
            (false, 3, "on-failure:2", "on-failure:5", Action::Start),
            (false, 3, "on-failure:2", "on-failure:1", Action::Update),
            (true, 0, "no", "on-failure", Action::Update),
            (true, 0, "on-failure", "no", Action::Update),
        ] {
            assert_eq!(plan(succeeded, failures, old, new), action, "{old} {new}");
        }
    }

    #[test]
    fn what_was_made_by_hand_is_named_if_it_starts_anew() {
        let networks = |mtu: u32| format!("[networks.back]\nmtu = {mtu}\n");
        let container = |name: &str, keys: &str| format!("[containers.{name}]\nimage = 'a'\n{keys}\n");
        let made = networks(1500)
            + &container("job", "networks = ['back']")
            + &container("side", "network_mode = 'container:job'")
            + &container("other", "")
            + &container("web", "networks = ['back']");
        let made = load(&made).instances();
        let all = made.keys().cloned().collect::<BTreeSet<_>>();
        let while_running = |running: &BTreeSet<String>, new: &str| {
            let present = Present { made: made.clone(), running: running.clone(), ..Present::default() };
            Plan::between(&load(&networks(1500)), &load(new), &present).unwrap()
        };
        let plan = |new: &str| while_running(&all, new);
        let happens =
            |plan: &Plan| -> Vec<_> { plan.containers.iter().map(|one| (one.name.clone(), one.action)).collect() };
        let restarted =
            |names: &[&str]| -> Vec<_> { names.iter().map(|name| ((*name).to_owned(), Action::Restart)).collect() };
        let changed = plan(&networks(1400));
        assert_eq!(happens(&changed), restarted(&["job", "side", "web"]));
        assert_eq!(changed.untouched, [""; 0]);
        assert!(plan(&networks(1500)).is_empty());
        let declared = plan(&(networks(1500) + &container("job", "")));
        let expected = [("job".to_owned(), Action::Replace), ("side".to_owned(), Action::Restart)];
        assert_eq!(happens(&declared), expected, "which takes the name");
        let none = BTreeSet::new();
        assert!(while_running(&none, &networks(1400)).containers.is_empty(), "what does not run is not started");
        let declared = while_running(&none, &(networks(1500) + &container("job", "")));
        assert_eq!(happens(&declared), expected[..1], "and gives way all the same");
    }

    #[test]
    fn a_port_that_one_made_by_hand_has_is_named() {
        let job = "[containers.job]\nimage = 'a'\nports = ['127.0.0.1:8000-8100:8000-8100', '53:53/udp']\n";
        let present = Present { made: load(job).instances(), ..Present::default() };
        let conflicts = |new: &str| Plan::between(&load(WEB), &load(new), &present).unwrap().conflicts;
        let expected = "port 8080 of the machine leads to container job, which was made by hand, and container web wants \
                        it: `berth rm job`, or publish another one";
        assert_eq!(conflicts(WEB), [expected]);
        assert_eq!(conflicts(&WEB.replace("8080:80", "8080:80/udp")), [""; 0]);
        let renamed = conflicts(&WEB.replace("web", "job"));
        assert_eq!(renamed, [""; 0], "which gives way to what takes its name");
    }

    #[test]
    fn another_number_of_replicas_touches_only_those_that_come_or_go() {
        let web = |replicas: &str| format!("[containers.web]\nimage = \"web:1\"\n{replicas}\n");
        let plan = plan(&web("replicas = 3"), &web("replicas = 2"));
        assert_eq!(plan.untouched, ["web-1", "web-2"]);
        assert_eq!((plan.containers[0].name.as_str(), plan.containers[0].action), ("web-3", Action::Remove));
        assert_eq!(plan.containers.len(), 1);
    }

    #[test]
    fn a_kernel_setting_that_is_left_out_stays_until_the_next_boot() {
        let plan = plan("[sysctls]\n\"vm.swappiness\" = \"10\"\n", "");
        assert_eq!(plan.settings.len(), 1);
        assert!(plan.reboot[0].contains("vm.swappiness"));
    }
}
