//! Whether a container can be started by hand at all: whoever asks is told at once, and not left waiting for what never comes.

use super::Supervisor;
use super::container::Goal;
use super::requests::unknown;

impl Supervisor {
    /// Whether somebody may start this container; if not, why.
    pub(super) fn may_start(&self, name: &str) -> Result<(), String> {
        let container = self.find(name).ok_or_else(|| unknown(name))?;
        if container.goal == Goal::Remove {
            return Err(unknown(name));
        }
        if container.frozen {
            return Err(format!("container {name} is paused; `berth unpause {name}` lets it go on"));
        }
        self.may_begin(name)
    }

    /// Whether anything begins to run any more; if not, why this container does not.
    pub(super) fn may_begin(&self, name: &str) -> Result<(), String> {
        match self.facts.shutting_down {
            true => Err(format!("the machine goes down, so container {name} is not started")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::{Ending, Reply, Request};

    use super::super::world::World;

    const WEB: &str = "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'unless-stopped'\n";

    fn refusal(world: &mut World, request: Request) -> String {
        match world.ask_for(request).0 {
            Reply::Refused { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn all(name: &str) -> [Request; 2] {
        [Request::Start { name: name.into() }, Request::Attach { name: name.into(), start: true }]
    }

    #[test]
    fn a_paused_container_is_not_started_and_keeps_its_client() {
        let mut world = World::new(WEB);
        world.prepare("web");
        world.run("web");
        let (_, client) = world.ask_for(Request::Attach { name: "web".into(), start: false });
        world.supervisor.find_mut("web").unwrap().frozen = true;
        for request in all("web") {
            assert_eq!(refusal(&mut world, request), "container web is paused; `berth unpause web` lets it go on");
        }
        assert!(world.supervisor.find("web").unwrap().session.is_some() && client.len() == 1);
    }

    #[test]
    fn nothing_is_started_while_the_machine_goes_down_and_who_asks_is_told() {
        let mut world = World::new(WEB);
        world.prepare("web");
        world.run("web");
        world.ask(Request::Stop { name: "web".into(), ending: Ending::default() });
        world.end("web", 0);
        world.supervisor.begin_shutdown();
        let restart = Request::Restart { name: "web".into(), ending: Ending::default() };
        for request in all("web").into_iter().chain([restart]) {
            let reason = refusal(&mut world, request);
            assert_eq!(reason, "the machine goes down, so container web is not started");
        }
        assert!(world.supervisor.facts.stopped.contains("web"), "it stays stopped over the reboot");
    }
}
