//! Containers that were made by hand, over a reboot: what is kept of them ([`crate::made`]), and what becomes of that at the
//! next boot. What cannot come back as it was stays, and says why.

use berth_config::RestartPolicy;
use berth_control::message::Creation;

use super::Supervisor;
use super::container::{Container, Goal, State};
use crate::made::{Kept, Unread};
use crate::printable::printable;

impl Supervisor {
    /// The containers that were made before a reboot. They run again if they have run and that is their policy.
    pub fn restore_made(&mut self, creations: Vec<Creation>) {
        self.restore_all(creations, true);
    }

    /// The same, but none of them runs: one may be what does harm.
    pub fn restore_made_at_rest(&mut self, creations: Vec<Creation>) {
        self.restore_all(creations, false);
    }

    fn restore_all(&mut self, creations: Vec<Creation>, may_run: bool) {
        self.facts.made_known = true;
        for creation in creations {
            self.restore(creation, may_run);
        }
    }

    fn restore(&mut self, creation: Creation, may_run: bool) {
        if self.name_conflict(&creation.name).is_some() {
            return self.leave_out(&creation, "another container has its name");
        }
        let obstacle = self.has_room().err().or_else(|| self.port_conflict(&creation));
        let Creation { name, container, size, start, .. } = creation.clone();
        let always = matches!(container.restart, RestartPolicy::Always | RestartPolicy::UnlessStopped);
        let stopped = container.restart == RestartPolicy::UnlessStopped && self.facts.stopped.contains(&name);
        let Some(id) = self.add_made(name.clone(), container, false, size) else {
            return self.leave_out(&creation, "its pipes could not be made");
        };
        let Some(container) = self.containers.get_mut(id) else { return };
        container.made.iter_mut().for_each(|made| made.begun = start);
        if start {
            container.reason = format!("has not run since the last boot; `berth start {name}` starts it");
        }
        match obstacle {
            _ if !(may_run && start && always && !stopped) => {}
            None => self.begin_made(id),
            Some(obstacle) => self.cannot_begin(id, obstacle),
        }
        self.offer_pipes(id);
    }

    /// It cannot be there in this boot, and perhaps in the next one.
    fn leave_out(&mut self, creation: &Creation, reason: &str) {
        log::warn!("container {} was made by hand and is left out: {reason}", creation.name);
        match serde_json::to_value(creation) {
            Ok(entry) => self.facts.made_unread.push(Unread { entry, reason: reason.to_owned() }),
            Err(error) => log::error!("container {} is lost: {error}", creation.name),
        }
    }

    /// Who asks for the removal of what is kept and could not come back; whether there is such a one.
    pub(super) fn remove_unread(&mut self, name: &str) -> bool {
        let before = self.facts.made_unread.len();
        self.facts.made_unread.retain(|unread| unread.name() != name);
        let removed = self.facts.made_unread.len() != before;
        self.facts.made_changed |= removed;
        removed
    }

    /// Those that could not come back, a sentence each; without those whose name another one has.
    pub fn lost_made(&self) -> Vec<String> {
        let lost = self.facts.made_unread.iter().filter(|unread| self.find(unread.name()).is_none());
        let told = lost.map(|unread| match unread.name() {
            "" => format!("a container that was made by hand is not there: {}", printable(&unread.reason)),
            name => format!(
                "container {0} was made by hand and is not there: {1}; `berth rm {0}` forgets it",
                printable(name),
                printable(&unread.reason)
            ),
        });
        told.collect()
    }

    /// It would run again, and something is in its way that somebody has to move.
    fn cannot_begin(&mut self, id: u32, obstacle: String) {
        let Some(container) = self.containers.get_mut(id) else { return };
        log::warn!("container {} was made by hand and is not started: {obstacle}", container.name);
        container.reason = obstacle;
        container.state = State::Failed;
        self.changed(id);
    }

    /// What is to be there after a reboot.
    pub fn kept(&self) -> Kept {
        Kept { creations: self.kept_made(), unread: self.facts.made_unread.clone() }
    }

    /// The containers among that; `start` of those that were told to start at least once.
    pub fn kept_made(&self) -> Vec<Creation> {
        let kept = |container: &&Container| {
            container.goal != Goal::Remove && container.made.as_ref().is_some_and(|made| !made.remove)
        };
        let creation = |container: &Container| {
            let (size, start) = (container.interaction.size, container.made.as_ref()?.begun);
            Some(Creation { size, start, ..Creation::plain(container.name.clone(), container.user()?.clone()) })
        };
        self.containers.values().filter(kept).filter_map(creation).collect()
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Declared, Failed, Stopped};
    use berth_control::message::{Creation, Ending, Reply, Request};

    use super::super::made_tests::{creation, make};
    use super::super::world::{World, configuration};

    const WEB: &str = "[containers.web]\nimage = 'a'\nports = ['8080:80']\n";

    /// One that ran, and would run again.
    fn ran(name: &str, keys: &str) -> Creation {
        let text = format!("[containers.{name}]\nimage = 'a'\nrestart = 'always'\n{keys}\n");
        let container = configuration(&text).containers.into_values().next().unwrap();
        Creation { start: true, ..Creation::plain(name.into(), container) }
    }

    fn after_boot(text: &str, kept: &[Creation]) -> World {
        let mut world = World::new(text);
        world.supervisor.restore_made(kept.to_vec());
        world.supervisor.settle();
        world
    }

    #[test]
    fn one_whose_port_leads_to_another_now_is_kept_and_says_so() {
        let job = ran("job", "ports = ['127.0.0.1:8080:80']");
        let mut world = after_boot(WEB, std::slice::from_ref(&job));
        let reason = "port 8080 of the machine leads to container web already; choose another one";
        assert_eq!((world.state("job"), world.reason("job")), (Failed, reason));
        assert_eq!(world.supervisor.problems(), [format!("container job: {reason}")]);
        assert_eq!(world.supervisor.kept_made(), [job]);
        world.apply("");
        world.ask(Request::Start { name: "job".into() });
        assert_eq!((world.state("job"), world.supervisor.problems()), (Declared, Vec::new()));
        // What would not run anyway has nothing in its way.
        let idle = Creation { container: creation("x", "restart = 'no'").container, ..ran("idle", "") };
        let world = after_boot(WEB, &[idle]);
        assert_eq!((world.state("idle"), world.supervisor.problems()), (Stopped, Vec::new()));
    }

    #[test]
    fn those_for_whom_there_is_no_room_any_more_are_kept() {
        let mut world = World::new("");
        world.supervisor.most = world.supervisor.containers.count() + 1;
        let kept = ["one", "two"].map(|name| ran(name, ""));
        world.supervisor.restore_made(kept.to_vec());
        world.supervisor.settle();
        assert_eq!((world.state("one"), world.state("two")), (Declared, Failed));
        assert!(world.reason("two").contains("there are 3 containers already"), "{}", world.reason("two"));
        assert_eq!(world.supervisor.kept_made(), kept);
    }

    #[test]
    fn one_whose_name_is_taken_is_kept_until_somebody_forgets_it() {
        let web = ran("web", "");
        let mut world = after_boot(WEB, std::slice::from_ref(&web));
        assert!(world.supervisor.find("web").unwrap().made.is_none());
        assert_eq!(world.supervisor.lost_made(), [""; 0]);
        let entries: Vec<_> = world.supervisor.kept().unread.into_iter().map(|unread| unread.entry).collect();
        assert_eq!(entries, [serde_json::to_value(&web).unwrap()]);
        world.apply("");
        let told = "container web was made by hand and is not there: another container has its name; `berth rm web` forgets it";
        assert_eq!(world.supervisor.lost_made(), [told]);
        world.supervisor.facts.made_changed = false;
        world.ask(Request::Remove { name: "web".into(), force: false, volumes: false });
        assert!(world.supervisor.facts.made_changed && world.supervisor.kept().unread.is_empty());
        assert_eq!(world.supervisor.lost_made(), [""; 0]);
    }

    #[test]
    fn what_was_never_started_is_not_started_by_a_reboot() {
        let mut world = after_boot("", &[]);
        assert_eq!(make(&mut world, creation("job", "restart = 'always'")), Reply::Done);
        let mut next = after_boot("", &world.supervisor.kept_made());
        assert_eq!((next.state("job"), next.reason("job")), (Stopped, world.reason("job")));
        assert!(!next.supervisor.facts.made_changed);
        next.ask(Request::Start { name: "job".into() });
        assert!(std::mem::take(&mut next.supervisor.facts.made_changed), "the next boot is to know");
        let last = after_boot("", &next.supervisor.kept_made());
        assert_eq!(last.state("job"), Declared);
        assert!(!last.supervisor.facts.made_changed, "which is nothing new");
        next.ask(Request::Stop { name: "job".into(), ending: Ending::default() });
        next.ask(Request::Start { name: "job".into() });
        assert!(!next.supervisor.facts.made_changed);
    }
}
