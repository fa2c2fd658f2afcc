//! What a container waits for before it starts.

use berth_config::DependencyCondition;
use berth_control::message::{self, Kind};

use super::Supervisor;
use super::container::{Container, Definition, Goal, State};

/// Why a container cannot start yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// In one sentence.
    pub reason: String,
    /// Whether it will not go away by itself.
    pub lasting: bool,
}

impl Obstacle {
    pub(super) fn passing(reason: String) -> Self {
        Self { reason, lasting: false }
    }
}

/// How many user containers are set up at once. More of them than this only take the processors from each other: a slow
/// machine with a thousand would finish none in time.
pub(super) const AT_ONCE: usize = 16;

impl Supervisor {
    /// What a waiting container waits for.
    pub(super) fn obstacle(&self, container: &Container) -> Option<Obstacle> {
        // To look at everybody who waits for a turn after each event would cost too much, and who is held has none to wait for.
        if self.beginning >= AT_ONCE && container.user().is_some() && !container.held {
            return Some(Obstacle::passing(format!("waits while {AT_ONCE} others are set up")));
        }
        let alive = |other: &Container| {
            other.id != container.id && other.cgroup == container.cgroup && other.may_have_processes()
        };
        // Only what is replaced has a successor of its name. Looking for one is for everybody who waits a look at everybody.
        let previous = || self.replacing && self.containers.values().any(alive);
        if self.facts.leftovers.contains(&container.cgroup) || previous() {
            return Some(Obstacle::passing("waits for the last processes of its previous run".to_owned()));
        }
        if !self.facts.configured && container.system().is_some_and(|system| system.after_configuration) {
            return Some(Obstacle::passing("waits for the configuration".to_owned()));
        }
        let dependency = match &container.definition {
            Definition::System(system) => {
                system.depends_on.iter().find_map(|name| self.unmet(name.as_str(), DependencyCondition::Ready))
            }
            Definition::User(user) => user.depends_on.iter().find_map(|(name, condition)| {
                self.instances_of(name.as_str()).iter().find_map(|name| self.unmet(name, condition))
            }),
        };
        if dependency.is_some() {
            return dependency;
        }
        self.network_obstacle(container).or_else(|| self.pod_obstacle(container))
    }

    /// The containers that a name in `depends_on` stands for: all replicas of one that has them.
    pub(super) fn instances_of(&self, name: &str) -> Vec<String> {
        let declared = self.configuration.containers.get(name);
        declared.map_or_else(|| vec![name.to_owned()], |declared| declared.instances(name).collect())
    }

    /// What is missing of a dependency.
    pub(super) fn unmet(&self, name: &str, condition: DependencyCondition) -> Option<Obstacle> {
        let Some(dependency) = self.find(name) else {
            return Some(Obstacle { reason: format!("waits for {name}, which does not exist"), lasting: true });
        };
        if has_come_to(dependency, condition) {
            return None;
        }
        let (what, lasting) = match dependency.state {
            State::Failed => (", which failed", true),
            State::Stopped => (", which is stopped", true),
            State::Scheduled(_) => (" to complete", true),
            State::Waiting => ("", dependency.held),
            _ if condition == DependencyCondition::Completed => (" to complete", false),
            _ if dependency.ready && dependency.health_settings().is_none() => {
                (", for which neither its configuration nor its image has a health check", true)
            }
            _ if dependency.ready => (", which is not healthy yet", false),
            State::Running(_) if dependency.is_getting_ready() => (", which is not ready yet", dependency.overdue),
            _ => ("", false),
        };
        // What is about to be replaced or forgotten is not what the others wait for.
        Some(Obstacle {
            reason: format!("waits for {name}{what}"),
            lasting: lasting && dependency.goal != Goal::Remove,
        })
    }
}

/// Whether a container has come so far that those that depend on it may start.
fn has_come_to(container: &Container, condition: DependencyCondition) -> bool {
    let health = container.health.as_ref().map(super::health::Health::status);
    let healthy = health == Some(message::Health::Healthy);
    // A system container that this machine has no use for holds nobody up.
    let useless = container.kind() == Kind::System && matches!(container.state, State::Stopped);
    match condition {
        DependencyCondition::Ready => {
            useless || container.completed || container.ready && (healthy || health.is_none())
        }
        DependencyCondition::Started => {
            useless || container.completed || container.ready || container.is_getting_ready()
        }
        DependencyCondition::Healthy => container.ready && healthy,
        DependencyCondition::Completed => container.completed,
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Backoff, Failed, Running, Starting, Stopped, Waiting};
    use berth_control::message::{Ending, PreparedImage, Request};

    use crate::supervisor::world::{self, World};

    fn world(job: &str, condition: &str) -> World {
        let mut world = World::new(&format!(
            "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\n{job}\n\
             [containers.web]\nimage = 'b'\nnetwork_mode = 'none'\ndepends_on = {condition}\n"
        ));
        world.prepare("web");
        assert_eq!(world.state("web"), Waiting);
        world
    }

    #[test]
    fn a_job_has_completed_when_it_ends_with_0() {
        let mut world = world("restart = 'on-failure'", "{ job = { condition = 'completed' } }");
        world.prepare("job");
        world.run("job");
        assert_eq!((world.state("web"), world.reason("web")), (Waiting, "waits for job to complete"));
        world.end("job", 1);
        assert_eq!((world.state("job"), world.state("web")), (Backoff, Waiting));
        world.pass(std::time::Duration::from_secs(1));
        world.run("job");
        world.end("job", 0);
        assert_eq!((world.state("job"), world.state("web")), (Stopped, Starting));
        world.run("web");
        assert_eq!(world.supervisor.problems(), [""; 0]);
    }

    #[test]
    fn a_job_that_fails_is_a_problem_of_those_that_wait_for_it() {
        let mut world = world("restart = 'no'", "{ job = { condition = 'completed' } }");
        world.complete("job", 3);
        assert_eq!((world.state("job"), world.state("web")), (Failed, Waiting));
        assert!(world.supervisor.find("web").unwrap().tried);
        let problems = ["container job: exited with code 3", "container web: waits for job, which failed"];
        assert_eq!(world.supervisor.problems(), problems);
        world.ask(Request::Start { name: "job".into() });
        world.run("job");
        world.end("job", 0);
        assert_eq!(world.state("web"), Starting);
    }

    #[test]
    fn a_job_that_was_stopped_has_not_completed() {
        let mut world = world("restart = 'no'", "{ job = { condition = 'completed' } }");
        world.prepare("job");
        world.run("job");
        world.ask(Request::Stop { name: "job".into(), ending: Ending::default() });
        world.end("job", 0);
        assert_eq!((world.state("job"), world.reason("web")), (Stopped, "waits for job, which is stopped"));
    }

    #[test]
    fn a_job_that_was_faster_than_those_that_wait_for_it_holds_nobody_up() {
        for condition in ["['job']", "{ job = { condition = 'started' } }"] {
            let mut world = World::new(&format!(
                "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n\
                 [containers.web]\nimage = 'b'\nnetwork_mode = 'none'\ndepends_on = {condition}\n"
            ));
            world.complete("job", 0);
            world.prepare("web");
            assert_eq!(world.state("web"), Starting);
        }
    }

    #[test]
    fn started_does_not_wait_for_health_and_healthy_does() {
        let job = "health = { tcp = 80 }";
        for (condition, wanted) in [("started", Starting), ("healthy", Waiting)] {
            let mut world = world(job, &format!("{{ job = {{ condition = '{condition}' }} }}"));
            world.prepare("job");
            world.run("job");
            assert_eq!((world.state("job"), world.state("web")), (Running, wanted));
        }
    }

    #[test]
    fn a_configuration_that_does_not_change_a_job_does_not_run_it_again() {
        let text = "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n";
        let mut world = World::new(text);
        world.complete("job", 0);
        world.apply(&format!("{text}[containers.new]\nimage = 'b'\n"));
        world.prepare("job");
        assert_eq!(world.state("job"), Stopped);
        world.apply(&text.replace("'a'", "'a2'"));
        world.prepare("job");
        assert_eq!(world.state("job"), Starting);
    }

    #[test]
    fn the_next_of_a_name_waits_for_the_end_of_the_last() {
        let text = "[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\n";
        let mut world = World::new(text);
        world.prepare("job");
        world.run("job");
        world.apply(&text.replace("'a'", "'a2'"));
        world.prepare("job");
        assert_eq!((world.state("job"), world.supervisor.list().len()), (Waiting, 4));
        world.end("job", 0);
        assert_eq!((world.state("job"), world.supervisor.list().len()), (Starting, 3));
    }

    #[test]
    fn all_replicas_are_waited_for_and_a_number_more_or_less_touches_no_other() {
        let text = |replicas: u32| {
            format!(
                "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\nreplicas = {replicas}\n\
                 [containers.web]\nimage = 'b'\nnetwork_mode = 'none'\ndepends_on = ['db']\n"
            )
        };
        let mut world = World::new(&text(2));
        ["web", "db-1", "db-2"].iter().for_each(|name| world.prepare(name));
        world.run("db-1");
        assert_eq!(world.reason("web"), "waits for db-2");
        world.run("db-2");
        assert_eq!(world.state("web"), Starting);
        let id = |world: &World, name: &str| world.supervisor.find(name).map(|container| container.id);
        let (one, two) = (id(&world, "db-1"), id(&world, "db-2"));
        world.apply(&text(3));
        assert_eq!((id(&world, "db-1"), id(&world, "db-2")), (one, two));
        let slots: std::collections::BTreeSet<u32> = world.supervisor.containers.values().map(|one| one.slot).collect();
        assert_eq!(slots.len(), world.supervisor.list().len());
        world.apply(&text(1));
        world.end("db-2", 0);
        assert_eq!((id(&world, "db-1"), id(&world, "db-2"), id(&world, "db-3")), (one, None, None));
        assert_eq!(world.state("db-1"), Running);
    }

    #[test]
    fn a_health_check_may_be_the_image_s() {
        let text = "[containers.db]\nimage = 'a'\nnetwork_mode = 'none'\n\
                    [containers.web]\nimage = 'a'\nnetwork_mode = 'none'\ndepends_on = { db = { condition = 'healthy' } }\n";
        let health = world::configuration("[containers.x]\nimage = 'a'\nhealth = { tcp = 80 }\n");
        let health = health.containers.into_values().next().unwrap().health;
        for (health, reason) in [
            (health, "waits for db, which is not healthy yet"),
            (None, "waits for db, for which neither its configuration nor its image has a health check"),
        ] {
            let mut world = World::new(text);
            let (lasts, image) = (health.is_none(), PreparedImage { health, ..PreparedImage::default() });
            world.ask_as_engine(Request::Prepared { name: "db".into(), image: Box::new(image) });
            world.prepare("web");
            world.run("db");
            assert_eq!(world.reason("web"), reason);
            assert_eq!(!world.supervisor.problems().is_empty(), lasts, "{:?}", world.supervisor.problems());
        }
    }
}
