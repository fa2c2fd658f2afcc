//! Stopping containers: asked first, killed when their time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use berth_config::Role;
use berth_control::message::{Ending, FromInit, Kind, Notice};
use nix::libc::{SIGKILL, SIGTERM};

use super::Supervisor;
use super::container::{Container, Goal, State};

/// What a user container that names no `stop_grace_period` of its own gets when the machine goes down: half of
/// Docker's 10 s, because the whole machine is to be off within that.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why a container does not run that somebody has stopped before it did.
const TOLD: &str = "was told to stop";

impl Supervisor {
    /// Lets a container end as it is declared, for the given goal.
    pub(super) fn stop(&mut self, id: u32, goal: Goal) {
        // Without a signal of its own there is nothing wrong.
        let _ = self.stop_with(id, goal, Ending::default());
    }

    /// Lets a container end like this, for the given goal.
    pub(super) fn stop_with(&mut self, id: u32, goal: Goal, ending: Ending) -> Result<(), String> {
        if let Some(signal) = ending.signal.filter(|signal| !(1..=64).contains(signal)) {
            return Err(format!("there is no signal {signal}"));
        }
        self.end_as_told(id, goal, ending);
        Ok(())
    }

    fn end_as_told(&mut self, id: u32, goal: Goal, ending: Ending) {
        let Some(container) = self.containers.get_mut(id) else { return };
        // What is not declared any more cannot be wanted again.
        if container.goal != Goal::Remove {
            container.goal = goal;
        }
        let declared = grace(container, self.facts.shutting_down);
        let grace = match ending.grace_ms.map(Duration::from_millis) {
            // A machine that goes down waits for nobody longer than it does by itself.
            Some(wanted) if self.facts.shutting_down => wanted.min(declared),
            wanted => wanted.unwrap_or(declared),
        };
        match &mut container.state {
            State::Running(_) => {}
            // Nothing has run yet, so there is nobody to ask.
            State::Creating { .. } | State::Attaching { .. } | State::Executing { .. } => {
                return self.set_up_failed(id, TOLD.to_owned());
            }
            State::Stopping { deadline, .. } => {
                // Who is in more of a hurry than whoever asked first.
                let sooner = ending.grace_ms.map(|_| self.now.saturating_add(grace));
                *deadline = deadline.map(|deadline| sooner.map_or(deadline, |sooner| sooner.min(deadline)));
                return;
            }
            state => {
                let waits = !matches!(state, State::Stopped | State::Failed);
                container.reason.clear();
                if waits && !container.goal.goes_on() {
                    // Whoever waits for it to run is told so.
                    TOLD.clone_into(&mut container.reason);
                }
                container.tried = true;
                container.attempt = 0;
                container.state = State::Stopped;
                if container.goal == Goal::Restart {
                    container.goal = Goal::Run;
                    self.begin_anew(id);
                }
                return self.changed(id);
            }
        }
        // Its check would only find what the end takes away.
        self.put_check_off(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        let signal = ending.signal.unwrap_or_else(|| container.stop_signal());
        let State::Running(running) = std::mem::replace(&mut container.state, State::Stopped) else { return };
        if container.frozen
            && let Err(reason) = container.set_frozen(false)
        {
            log::warn!("container {}: {reason}", container.name);
        }
        let pid = running.pid;
        let deaf = would_ignore(pid, signal);
        let asked = running.signal(signal);
        let deadline = if deaf || asked.is_err() { self.now } else { self.now.saturating_add(grace) };
        container.state = State::Stopping { running, deadline: Some(deadline) };
        container.ready = false;
        self.changed(id);
    }

    /// Sends a signal to a container's first process. One that is to end it, SIGKILL or its stop signal, means that it is not
    /// started again, as docker has it.
    pub(super) fn signal_container(&mut self, id: u32, signal: i32) -> Result<(), String> {
        let Some(container) = self.containers.get_mut(id) else { return Err("the container is gone".to_owned()) };
        let name = container.name.clone();
        let (State::Running(running) | State::Stopping { running, .. }) = &container.state else {
            return Err(format!("container {name} is not running; `berth why {name}` says why"));
        };
        running.signal(signal).map_err(|error| format!("send signal {signal} to {name}: {error}"))?;
        let ends = signal == SIGKILL || signal == container.stop_signal();
        if ends && container.frozen {
            // As docker has it: one that stands still never hears of it.
            if let Err(reason) = container.set_frozen(false) {
                log::warn!("container {name}: {reason}");
            }
            self.put_check_off(id);
            self.changed(id);
        }
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        if ends && container.user().is_some() && container.goal == Goal::Run {
            container.goal = Goal::Stop;
            self.keep_stopped(&name, true);
        }
        Ok(())
    }

    /// Kills everything in a container.
    pub(super) fn kill_now(&mut self, id: u32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let State::Stopping { deadline, .. } = &mut container.state {
            *deadline = None;
        }
        // The cgroup holds all of it, also processes that left its pid namespace; the pidfd is for a kernel or host
        // without cgroup.kill (before 5.14). ESRCH and ENOENT mean that it is gone already.
        let _ = fs::write(container.cgroup.join("cgroup.kill"), "1");
        if let State::Running(running) | State::Stopping { running, .. } = &container.state {
            let _ = running.signal(SIGKILL);
        }
    }

    /// Starts nothing any more, and tells the services that the machine goes down. Those that end already have the time that
    /// the others get, however much they were given before.
    pub fn begin_shutdown(&mut self) {
        self.facts.shutting_down = true;
        for id in self.containers.numbers() {
            let Some(container) = self.containers.get_mut(id) else { continue };
            let latest = self.now.saturating_add(grace(container, true));
            if let State::Stopping { deadline: Some(deadline), .. } = &mut container.state {
                *deadline = latest.min(*deadline);
            }
        }
        let services: Vec<u32> = self
            .containers
            .values()
            .filter(|container| container.peer.is_some())
            .map(|container| container.id)
            .collect();
        for id in services {
            self.send(id, FromInit::Notice(Notice::ShuttingDown), &[]);
        }
    }

    /// Asks those of this kind to end on which nobody depends any more. To be called again whenever something has ended.
    pub fn stop_unneeded(&mut self, kind: Kind) {
        // Those that do not run end at once, which may free others: again until nothing moves.
        loop {
            let ids = self.unneeded(kind);
            if ids.is_empty() {
                return;
            }
            for id in ids {
                self.stop(id, Goal::Stop);
            }
        }
    }

    /// Those that were not asked yet and on which none that still is there depends.
    pub(super) fn unneeded(&self, kind: Kind) -> Vec<u32> {
        let there =
            || self.containers.values().filter(move |container| container.kind() == kind && !container.is_at_rest());
        let names = there().flat_map(Container::dependencies);
        let needed: BTreeSet<String> = names.flat_map(|name| self.instances_of(name)).collect();
        there()
            .filter(|container| !matches!(container.state, State::Stopping { .. }))
            .filter(|container| !needed.contains(&container.name))
            // Who keeps what the others print ends after them.
            .filter(|container| !container.keeps_logs() || there().all(Container::keeps_logs))
            .map(|container| container.id)
            .collect()
    }

    /// Lets containers end and be forgotten, those on which others of them depend after those. To be called while the
    /// configuration in force is the one that declares them.
    pub(super) fn remove_in_order(&mut self, ids: &[u32]) {
        let mut needed_by: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for container in ids.iter().filter_map(|id| self.containers.get(*id)) {
            for name in container.dependencies().flat_map(|name| self.instances_of(name)) {
                needed_by.entry(name).or_default().push(container.id);
            }
        }
        for id in ids {
            let Some(container) = self.containers.get_mut(*id) else { continue };
            container.ends_after = needed_by.remove(&container.name).unwrap_or_default();
            container.goal = Goal::Remove;
            if container.ends_after.is_empty() || !matches!(container.state, State::Running(_)) {
                self.stop(*id, Goal::Remove);
            }
        }
    }

    /// Whether one that runs and is to be forgotten has nobody to wait for any more.
    pub(super) fn may_end(&self, container: &Container) -> bool {
        let is_over = |id: &u32| self.containers.get(*id).is_none_or(Container::is_at_rest);
        container.goal == Goal::Remove && container.ends_after.iter().all(is_over)
    }

    /// Whether any container of this kind still has a process.
    pub fn any_alive(&self, kind: Kind) -> bool {
        self.containers.values().any(|container| container.kind() == kind && container.pid().is_some())
    }

    /// Whether any container but that of the logs still has a process.
    pub fn any_speaks(&self) -> bool {
        self.containers.values().any(|container| !container.keeps_logs() && container.pid().is_some())
    }

    /// Kills every container of this kind that still has a process, but not that of the logs.
    pub fn kill_all(&mut self, kind: Kind) {
        let ids: Vec<u32> = self
            .containers
            .values()
            .filter(|container| container.kind() == kind && !container.keeps_logs())
            .map(|container| container.id)
            .collect();
        for id in ids {
            self.kill_now(id);
        }
    }
}

impl Container {
    /// Whether it is the system container that keeps what the others print.
    fn keeps_logs(&self) -> bool {
        self.system().is_some_and(|system| system.role == Some(Role::Logs))
    }

    /// What asks it to end.
    fn stop_signal(&self) -> i32 {
        let declared = self.image.as_ref().map(|image| image.stop_signal).filter(|signal| *signal != 0);
        declared.unwrap_or(SIGTERM)
    }
}

/// How long a container may take.
fn grace(container: &Container, shutting_down: bool) -> Duration {
    match (container.system(), container.user()) {
        (Some(system), _) => system.stop_timeout().duration(),
        (None, Some(user)) if shutting_down => {
            user.stop_grace_period.map_or(SHUTDOWN_GRACE, |period| period.duration())
        }
        (None, Some(user)) => user.stop_grace_period().duration(),
        (None, None) => Duration::ZERO,
    }
}

/// Whether the kernel would drop this signal: the first process of a pid namespace gets only those for which it has a
/// handler, or which it has blocked to fetch them itself (pid_namespaces(7), proc_pid_status(5)). Waiting would be
/// for nothing then. A process in the machine's own namespace is not one of these.
fn would_ignore(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let bit = 1_u64 << u32::try_from(signal.saturating_sub(1)).unwrap_or_default().min(63);
    let has = |name: &str| u64::from_str_radix(&field(name), 16).is_ok_and(|mask| mask & bit != 0);
    let first_of_namespace = field("NSpid:").split_whitespace().skip(1).last() == Some("1");
    let ignored = has("SigIgn:") && !has("SigBlk:");
    (first_of_namespace && !has("SigCgt:") && !has("SigBlk:")) || ignored
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use berth_control::channel::Channel;
    use berth_control::message::ContainerState::{Backoff, Running, Stopped};
    use berth_control::message::{ExecutionEnd, Request, ToClient};
    use nix::libc::SIGUSR1;

    use super::super::world::World;
    use super::*;

    /// A container that runs, with a process that takes signals.
    fn killable(world: &mut World) -> Child {
        world.run("web");
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        world.adopt("web", &child);
        child
    }

    fn kill(world: &mut World, child: &mut Child, signal: i32) {
        world.ask(Request::Kill { name: "web".into(), signal });
        child.wait().unwrap();
        world.end("web", 128 + signal);
    }

    #[test]
    fn who_kills_a_container_does_not_want_it_again() {
        let text = "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'unless-stopped'\n";
        let mut world = World::new(text);
        world.prepare("web");
        for signal in [SIGKILL, SIGTERM] {
            let mut child = killable(&mut world);
            kill(&mut world, &mut child, signal);
            assert_eq!(world.state("web"), Stopped, "after signal {signal}");
            assert!(world.supervisor.facts.stopped.contains("web"));
            world.ask(Request::Start { name: "web".into() });
        }
        let mut child = killable(&mut world);
        kill(&mut world, &mut child, SIGUSR1);
        assert_eq!(world.state("web"), Backoff, "another signal is between the two of them");
    }

    #[test]
    fn a_paused_container_that_is_killed_goes_on_to_its_end() {
        let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
        world.prepare("web");
        for (signal, thaws) in [(SIGTERM, true), (SIGKILL, true), (SIGUSR1, false)] {
            let mut child = killable(&mut world);
            let folder = tempfile::tempdir().unwrap();
            let cgroup =
                std::mem::replace(&mut world.supervisor.find_mut("web").unwrap().cgroup, folder.path().to_owned());
            world.ask(Request::Pause { name: "web".into() });
            world.ask(Request::Kill { name: "web".into(), signal });
            child.wait().unwrap();
            let freezer = fs::read_to_string(folder.path().join("cgroup.freeze")).unwrap();
            assert_eq!((freezer == "0", world.state("web") == Running), (thaws, thaws), "signal {signal}");
            world.supervisor.find_mut("web").unwrap().cgroup = cgroup;
            world.end("web", 128 + signal);
            world.ask(Request::Start { name: "web".into() });
        }
    }

    #[test]
    fn whoever_waits_for_a_run_that_somebody_stops_before_it_began_is_told() {
        let text = "[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n";
        let mut world = World::new(text);
        let (_, client) = world.ask_for(Request::Attach { name: "web".into(), start: true });
        let client = Channel::from(client.into_iter().next().unwrap());
        world.ask(Request::Restart { name: "web".into(), ending: Ending::default() });
        assert_eq!(world.reason("web"), "");
        world.ask(Request::Stop { name: "web".into(), ending: Ending::default() });
        assert_eq!((world.state("web"), world.reason("web")), (Stopped, TOLD));
        let told = std::iter::from_fn(|| client.receive::<ToClient>().ok().map(|(told, _)| told)).last();
        let end = ExecutionEnd { exit_code: 125, reason: TOLD.to_owned() };
        assert_eq!(told, Some(ToClient::Ended(end)));
    }

    #[test]
    fn a_container_that_survives_its_stop_signal_can_be_wanted_again() {
        let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
        world.prepare("web");
        let mut child = killable(&mut world);
        world.ask(Request::Kill { name: "web".into(), signal: SIGTERM });
        child.wait().unwrap();
        assert_eq!(world.state("web"), Running);
        world.ask(Request::Start { name: "web".into() });
        world.end("web", 1);
        assert_eq!(world.state("web"), Backoff);
    }

    #[test]
    fn who_depends_on_another_that_is_removed_too_ends_before_it() {
        let container =
            |name: &str, keys: &str| format!("[containers.{name}]\nimage = 'a'\nnetwork_mode = 'none'\n{keys}\n");
        let text = container("db", "replicas = 2")
            + &container("web", "depends_on = ['db']")
            + &container("front", "depends_on = ['web']")
            + &container("other", "");
        let mut world = World::new(&text);
        let names = ["db-1", "db-2", "web", "front", "other"];
        for name in names {
            world.prepare(name);
            world.run(name);
        }
        let ending = |world: &World| -> Vec<String> {
            let all = world.supervisor.list().into_iter();
            let ending = all.filter(|container| matches!(container.state, State::Stopping { .. }));
            ending.map(|container| container.name.clone()).collect()
        };
        world.apply("");
        assert_eq!(ending(&world), ["front", "other"]);
        world.end("other", 0);
        assert_eq!(ending(&world), ["front"]);
        world.end("front", 0);
        assert_eq!(ending(&world), ["web"]);
        // One of them ends by itself, and does not begin again.
        world.end("db-2", 1);
        assert!(world.supervisor.find("db-2").is_none());
        world.end("web", 0);
        assert_eq!(ending(&world), ["db-1"]);
        world.end("db-1", 0);
        assert!(names.iter().all(|name| world.supervisor.find(name).is_none()));
    }

    #[test]
    fn a_machine_that_goes_down_does_not_wait_as_long_as_somebody_wanted_to() {
        let text = |keys: &str| format!("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n{keys}\n");
        for (keys, seconds) in [("", 5), ("stop_grace_period = '20s'", 20)] {
            for before in [true, false] {
                let mut world = World::new(&text(keys));
                world.prepare("web");
                let mut child = killable(&mut world);
                let ending = Ending { grace_ms: Some(u64::MAX), ..Ending::default() };
                let stop = Request::Stop { name: "web".into(), ending };
                if before {
                    world.ask(stop);
                    world.supervisor.begin_shutdown();
                } else {
                    world.supervisor.begin_shutdown();
                    world.ask(stop);
                }
                let wanted = world.supervisor.now + Duration::from_secs(seconds);
                assert_eq!(world.supervisor.deadline(), Some(wanted), "{keys} {before}");
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
}
