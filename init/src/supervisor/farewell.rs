//! Containers that were made by hand and are gone: who waits for it is told when nothing is left of them.
//!
//! As docker's, the end of `berth run --rm` and of `berth rm` comes after the removal, so that whoever goes on then finds
//! the image unused and the volumes gone. The engine removes; one that is not there, or ends meanwhile, does it when it is
//! back, and nobody waits for that.

use berth_config::Role;
use berth_control::message::{ExecutionEnd, Notice, Reply, ToClient};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::applicant::Applicant;
use super::container::Container;
use super::output::Output;
use super::session::Session;
use crate::reactor::Reactor;

/// Who is told then.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Farewell {
    applicants: Vec<Applicant>,
    client: Option<Parting>,
}

/// A client that is to be told how its container, which is gone, has ended.
#[derive(Debug, Serialize, Deserialize)]
struct Parting {
    session: Session,
    end: ExecutionEnd,
    /// Open, or the client finds the end of its streams before.
    output: Output,
}

impl Parting {
    /// Listens to the client no longer.
    fn begin(reactor: &Reactor, session: Session, end: ExecutionEnd, output: Output) -> Self {
        reactor.remove(&session.channel);
        Self { session, end, output }
    }

    fn tell(self) {
        let Self { session, end, output } = self;
        // Whoever has gone does not need it.
        let _ = session.channel.send(&ToClient::Ended(end), &[]);
        drop(output);
    }
}

impl Supervisor {
    /// A container that was made is gone from the registry: so is what others keep of it.
    pub(super) fn forget_made(&mut self, container: Container) {
        let end = container.end_for_client();
        let Container { name, made: Some(made), session, output, .. } = container else { return };
        let client = session.zip(end).map(|(session, end)| Parting::begin(&self.reactor, session, end, output));
        self.facts.made_changed |= !made.remove;
        self.facts.forgotten.insert(name.clone(), made.volumes);
        self.notify(Role::Engine, Notice::Forget { name: name.clone(), volumes: made.volumes });
        self.notify(Role::Logs, Notice::LogForget { container: name.clone() });
        let farewell = Farewell { applicants: made.waiting, client };
        if self.service(Role::Engine).is_none() {
            return self.bid(farewell);
        }
        // One of that name that is still waited for has a successor by now.
        let before = self.facts.farewells.insert(name, farewell);
        before.into_iter().for_each(|before| self.bid(before));
    }

    /// Tells the engine again what it may not have removed yet.
    pub(super) fn forget_again(&mut self) {
        for (name, volumes) in self.facts.forgotten.clone() {
            self.notify(Role::Engine, Notice::Forget { name, volumes });
        }
    }

    /// The engine has removed what was left of a container.
    pub(super) fn forgotten(&mut self, name: &str) {
        self.facts.forgotten.remove(name);
        let farewell = self.facts.farewells.remove(name);
        farewell.into_iter().for_each(|farewell| self.bid(farewell));
    }

    /// The engine has ended.
    pub(super) fn wait_for_no_removal(&mut self) {
        let farewells = std::mem::take(&mut self.facts.farewells);
        farewells.into_values().for_each(|farewell| self.bid(farewell));
    }

    fn bid(&mut self, farewell: Farewell) {
        for applicant in farewell.applicants {
            self.reply_to(applicant, Reply::Done);
        }
        farewell.client.into_iter().for_each(Parting::tell);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use berth_control::message::{FromInit, Interest, Request};

    use super::super::made_tests::{WEB, creation, ended, make, once, run, told, world};
    use super::super::world::service;
    use super::*;

    #[test]
    fn a_run_ends_for_its_client_when_nothing_is_left_of_it() {
        let mut world = world("");
        world.supervisor.find_mut("engine").unwrap().ready = true;
        let session = run(&mut world, once("job"), Interest::State);
        world.complete("job", 3);
        assert!(world.supervisor.find("job").is_none());
        assert_eq!(told(&session), [ToClient::Running], "the engine has not removed it yet");
        world.ask_as_engine(Request::Forgotten { name: "job".into() });
        assert_eq!(told(&session), [ended(3, "")]);
        assert!(world.supervisor.facts.farewells.is_empty());
    }

    #[test]
    fn who_listens_hears_of_a_container_that_is_gone_unless_another_one_has_its_name() {
        let mut world = world(WEB);
        world.supervisor.find_mut("control").unwrap().ready = true;
        let _session = run(&mut world, once("job"), Interest::State);
        world.complete("job", 3);
        assert_eq!(world.removals(), [("job".to_owned(), 3)], "it was made to be removed");
        assert_eq!(make(&mut world, creation("tool", "")), Reply::Done);
        world.send(Request::Remove { name: "tool".into(), force: false, volumes: false });
        assert_eq!(world.removals(), [("tool".to_owned(), -1)]);
        world.prepare("web");
        world.run("web");
        world.apply(&WEB.replace("'a'", "'b'"));
        world.end("web", 0);
        assert!(world.supervisor.list().iter().filter(|container| container.name == "web").count() == 1);
        assert_eq!(world.removals(), [], "there is one by that name");
        world.apply("");
        assert_eq!(world.removals(), [("web".to_owned(), -1)], "no configuration declares it any more");
    }

    #[test]
    fn the_log_of_a_container_that_is_gone_ends_for_those_who_follow_it() {
        let mut world = world(WEB);
        let logs = service(&mut world.supervisor, "logs");
        world.supervisor.find_mut("logs").unwrap().ready = true;
        let ends = || -> Vec<Notice> {
            let received = std::iter::from_fn(|| logs.1.receive::<FromInit>().ok());
            let notices = received.filter_map(|(message, _)| match message {
                FromInit::Notice(notice) => Some(notice),
                FromInit::Reply { .. } => None,
            });
            notices.filter(|it| matches!(it, Notice::LogEnded { .. } | Notice::LogForget { .. })).collect()
        };
        world.prepare("web");
        world.run("web");
        world.apply(&WEB.replace("'a'", "'b'"));
        world.end("web", 0);
        assert_eq!(ends(), [], "its successor goes on in it");
        world.apply("");
        assert_eq!(ends(), [Notice::LogEnded { container: "web".into() }]);
        make(&mut world, creation("tool", ""));
        world.send(Request::Remove { name: "tool".into(), force: false, volumes: false });
        assert_eq!(ends(), [Notice::LogForget { container: "tool".into() }]);
    }

    #[test]
    fn who_removes_a_container_waits_for_the_engine_unless_that_ends() {
        let mut world = world("");
        world.supervisor.find_mut("engine").unwrap().ready = true;
        let session = run(&mut world, once("job"), Interest::State);
        world.prepare("job");
        world.run("job");
        world.send(Request::Remove { name: "job".into(), force: true, volumes: false });
        world.end("job", 137);
        assert!(world.answers().is_empty(), "the engine has not removed it yet");
        let mut engine = Command::new("true").spawn().unwrap();
        world.adopt("engine", &engine);
        engine.wait().unwrap();
        world.end("engine", 139);
        assert_eq!(world.answers(), [Reply::Done]);
        assert_eq!(told(&session), [ToClient::Running, ended(137, "")]);
        assert!(world.supervisor.facts.forgotten.contains_key("job"), "the next engine is told again");
    }
}
