//! What happens when a container ends, or does not get to run.

use std::fs;
use std::time::Duration;

use berth_config::{Ended, RestartPolicy, Role};
use berth_control::message::Notice;
use berth_runtime::cgroup::Removal;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::container::{Container, Goal, State};
use super::execution::could_not_run;
use super::session::NOT_SET_UP;
use super::timer::Timer;
use super::{Supervisor, pods, statistics};

/// The first pause before a restart; it doubles with each run that ends soon, whatever its exit code. Docker's figures.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run of this length ends the series of short ones.
pub(super) const QUIET_TIME: Duration = Duration::from_secs(10);

/// What is said of a run that the kernel has ended for the container's own limit.
pub(super) const AT_LIMIT: &str = "it reached its memory limit";

impl Supervisor {
    /// A child of PID 1 has ended, or was stopped by a signal.
    pub fn ended(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.process_ended(pid.as_raw(), code, format!("exited with code {code}")),
            WaitStatus::Signaled(pid, signal, _) => {
                self.process_ended(pid.as_raw(), 128 + signal as i32, format!("was killed by {signal}"));
            }
            WaitStatus::Stopped(pid, signal) => self.stopped_by_signal(pid, signal),
            _ => {}
        }
    }

    /// Lets a system container go on, for everybody waits for it. What stops a user container is its owner's affair.
    fn stopped_by_signal(&self, pid: Pid, signal: Signal) {
        let is_it = |container: &&Container| container.system().is_some() && container.pid() == Some(pid.as_raw());
        let Some(container) = self.containers.values().find(is_it) else { return };
        log::warn!("container {} was stopped by {signal}: it goes on", container.name);
        // ESRCH: it has been killed meanwhile, which its end is going to tell.
        let _ = kill(pid, Signal::SIGCONT);
    }

    /// A process that may be a container's first one, or one that was executed in it, has ended.
    pub(super) fn process_ended(&mut self, pid: i32, code: i32, how: String) {
        let Some(container) = self.containers.values().find(|container| container.pid() == Some(pid)) else {
            return self.execution_ended(pid, code);
        };
        let id = container.id;
        if matches!(container.state, State::Executing { .. }) {
            // Whether its program could be run may still be in the report.
            self.set_up(id);
            // One that could not be run would have said so before its end. The launcher, which ends by itself, may hold the
            // report open after a program as short as `true` has run.
            self.runs(id);
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        match container.state {
            State::Attaching { .. } => {
                container.exit_code = code;
                let how = reason_of_end(container, how);
                self.set_up_failed(id, format!("its process {how} while it was set up"));
            }
            State::Running(_) | State::Stopping { .. } => {
                container.exit_code = code;
                container.reason = reason_of_end(container, how);
                log::info!("container {} {}", container.name, container.reason);
                self.after_end(id, code == 0);
            }
            _ => {}
        }
    }

    /// A container could not be set up.
    pub(super) fn set_up_failed(&mut self, id: u32, reason: String) {
        self.fail_set_up(id, reason, NOT_SET_UP);
    }

    /// The runtime could not set a container up, or not run its program, which has exit codes of its own.
    pub(super) fn could_not_be_run(&mut self, id: u32, error: &berth_runtime::Error) {
        // The runtime's word for a program that cannot be executed.
        let is_program = berth_runtime::Chain::of(error).texts.iter().any(|text| text.starts_with("exec "));
        let code = if is_program { could_not_run(error).exit_code } else { NOT_SET_UP };
        self.fail_set_up(id, crate::chain(error), code);
    }

    fn fail_set_up(&mut self, id: u32, reason: String, code: u8) {
        let Some(container) = self.containers.get_mut(id) else { return };
        log::warn!("container {} does not start: {reason}", container.name);
        container.reason = reason;
        container.exit_code = i32::from(code);
        container.tried = true;
        let launcher = match &container.state {
            State::Creating { creating, .. } => creating.as_ref().map(berth_runtime::Creating::launcher_pid),
            _ => None,
        };
        if let Some(pid) = container.pid().or(launcher) {
            // It waits for its start or hangs in its set-up; ESRCH means that it has ended by itself.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        self.after_end(id, false);
    }

    /// Clears up after a run and decides what comes next.
    fn after_end(&mut self, id: u32, success: bool) {
        self.give_up_check(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.remember_end(self.now);
        let ran_for = self.now.saturating_sub(Duration::from_micros(container.started_us));
        let quiet = matches!(container.state, State::Running(_)) && ran_for >= QUIET_TIME;
        container.attempt = if quiet { 0 } else { container.attempt.saturating_add(1) };
        container.ready = false;
        container.tried = true;
        if let Some(peer) = container.peer.take() {
            self.reactor.remove(&peer);
        }
        if let State::Creating { creating: Some(creating), .. } = &container.state {
            self.reactor.remove(creating);
        }
        container.health = None;
        container.addresses.clear();
        // Of this run alone.
        container.out_of_memory = None;
        container.give_up_waiting(&self.reactor);
        container.frozen = false;
        container.interaction.end();
        self.close_api(id);
        let Some(container) = self.containers.get(id) else { return };
        self.notify(Role::Logs, Notice::LogRunEnded { container: container.name.clone() });
        let Some(container) = self.containers.get_mut(id) else { return };
        pods::remove_common_memory(container);
        if container.goal == Goal::Run && container.has_lost_its_pod() {
            container.goal = Goal::Restart;
        }
        if container.goal == Goal::Run {
            // What was told to end is no failure, whatever its exit code, and no success.
            container.failures = if success { 0 } else { container.failures.saturating_add(1) };
        }
        let is_engine = container.system().is_some_and(|system| system.role == Some(Role::Engine));
        let attached = container.network.take().is_some();
        let name = container.name.clone();
        let next = next_state(container, success, self.facts.shutting_down, (self.now, self.wall));
        if !matches!(next, State::Backoff { .. }) {
            // Whatever starts it next is no restart by its policy.
            container.attempt = 0;
        }
        container.tell_of_crash_loop();
        match next {
            State::Scheduled(timer) => container.rest_until(timer, self.now, self.wall),
            state => container.state = state,
        }
        let over = matches!(container.state, State::Stopped | State::Scheduled(_));
        container.completed = success && over && container.goal == Goal::Run;
        if container.goal == Goal::Restart {
            container.goal = Goal::Run;
        }
        self.facts.leftovers.push(container.cgroup.clone());
        self.remove_leftovers();
        self.restart_sharers(&name);
        if attached {
            self.notify(Role::Network, Notice::DetachNetwork { name });
        }
        if is_engine {
            self.wait_for_no_removal();
        }
        self.changed(id);
    }

    /// Removes the cgroups of ended containers as soon as the last process in them is gone.
    pub(super) fn remove_leftovers(&mut self) {
        self.facts.leftovers.retain(|cgroup| {
            if matches!(berth_runtime::cgroup::remove(cgroup), Ok(Removal::Done)) {
                return false;
            }
            // What is still alive has lost its container; its end comes back as a SIGCHLD. ENOENT: it is gone.
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            cgroup.exists()
        });
    }
}

impl Container {
    /// How it ended, if it has ended by itself and nothing starts it again.
    pub(super) fn how_it_ended(&self) -> Option<Ended> {
        let rests = self.goal == Goal::Run && self.is_at_rest() && self.user().is_some();
        rests.then_some(Ended { succeeded: matches!(self.state, State::Stopped), failures: self.failures })
    }
}

/// Where a container goes from the end of a run.
fn next_state(container: &Container, success: bool, shutting_down: bool, (now, wall): (Duration, Duration)) -> State {
    match container.goal {
        Goal::Stop | Goal::Remove => return State::Stopped,
        Goal::Run | Goal::Restart if shutting_down => return State::Stopped,
        Goal::Restart => return State::Waiting,
        Goal::Run => {}
    }
    let failure = (!success).then(|| container.reason.clone());
    let timer = Timer::set(container, failure, now, wall);
    let policy = container.user().map(|user| user.restart);
    // Only what has failed is repeated before its time.
    let may = timer.is_none() || matches!(policy, Some(RestartPolicy::OnFailure { .. }));
    let again = may && policy.is_none_or(|policy| policy.goes_on(success, container.failures));
    match (again, timer, success) {
        (true, _, _) => State::Backoff { until: now + pause(container.attempt) },
        (false, Some(timer), _) => State::Scheduled(timer),
        (false, None, true) => State::Stopped,
        (false, None, false) => State::Failed,
    }
}

/// The pause after so many short runs in a row. One that succeeded counts too: a program that ends at once and is always
/// to be started again must not keep the machine busy.
fn pause(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// In one sentence. `how` is what wait(2) says.
fn reason_of_end(container: &mut Container, how: String) -> String {
    let by_us = container.out_of_memory.take();
    if container.exit_code != 128 + 9 {
        return how;
    }
    let read = |file: &str| fs::read_to_string(container.cgroup.join(file)).unwrap_or_default();
    // Of memory.events (cgroup v2): `oom` counts allocations that failed at the container's own limit, `oom_kill` the
    // processes that the kernel has killed, for whichever limit.
    let events = read("memory.events");
    let killed = statistics::value(&events, "oom_kill") > 0;
    if killed && statistics::value(&events, "oom") > 0 {
        return format!("{how}: {AT_LIMIT}");
    }
    let used = by_us.or_else(|| killed.then(|| statistics::number(&read("memory.peak")).unwrap_or_default()));
    match used {
        Some(bytes) => {
            let used = bytes >> 20;
            format!(
                "was killed because the machine ran out of memory: it used {used} MiB; a `memory` limit keeps it in bounds"
            )
        }
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Backoff, Failed, Starting};
    use berth_control::message::{Ending, Request};

    use super::super::world::World;
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        assert_eq!(pause(0), FIRST_PAUSE);
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(2), FIRST_PAUSE * 2);
        assert_eq!(pause(5), FIRST_PAUSE * 16);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_run_that_never_began_leaves_its_want_of_memory_to_no_later_one() {
        let mut world = World::new("[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\n");
        world.prepare("a");
        world.supervisor.find_mut("a").unwrap().out_of_memory = Some(1 << 30);
        world.fail("a");
        world.pass(FIRST_PAUSE);
        world.run("a");
        world.end("a", 128 + 9);
        assert_eq!(world.reason("a"), "exited with code 137");
    }

    #[test]
    fn what_has_ended_has_no_addresses_and_gets_none_that_come_late() {
        let mut world = World::new("[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'no'\n");
        world.prepare("a");
        world.run("a");
        let addresses = || vec!["172.16.0.2".to_owned()];
        world.supervisor.attached("a", addresses(), String::new());
        assert_eq!(world.supervisor.find("a").unwrap().addresses, addresses());
        world.end("a", 0);
        world.supervisor.attached("a", addresses(), String::new());
        assert_eq!(world.supervisor.find("a").unwrap().addresses, [""; 0]);
    }

    #[test]
    fn a_run_that_was_told_to_end_is_no_failure() {
        let mut world = World::new("[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'on-failure:1'\n");
        world.prepare("a");
        for code in [128 + 15, 128 + 9, 1] {
            world.run("a");
            world.ask(Request::Restart { name: "a".into(), ending: Ending::default() });
            world.end("a", code);
            assert_eq!(world.state("a"), Starting);
        }
        world.run("a");
        world.end("a", 1);
        assert_eq!(world.state("a"), Backoff, "the first one");
    }

    #[test]
    fn whoever_starts_a_container_by_hand_begins_to_count_its_failures_anew() {
        let mut world = World::new("[containers.a]\nimage = 'a'\nnetwork_mode = 'none'\nrestart = 'on-failure:1'\n");
        let restart = || Request::Restart { name: "a".into(), ending: Ending::default() };
        let stop = || Request::Stop { name: "a".into(), ending: Ending::default() };
        let start = || Request::Start { name: "a".into() };
        world.prepare("a");
        for requests in [vec![restart()], vec![stop(), start()]] {
            world.run("a");
            world.end("a", 1);
            assert_eq!(world.state("a"), Backoff);
            world.pass(FIRST_PAUSE);
            world.run("a");
            requests.into_iter().for_each(|request| world.ask(request));
            world.end("a", 128 + 15);
        }
        for expected in [Backoff, Failed] {
            world.run("a");
            world.end("a", 1);
            assert_eq!(world.state("a"), expected);
            world.pass(FIRST_PAUSE);
        }
        world.ask(restart());
        world.run("a");
        world.end("a", 1);
        assert_eq!(world.state("a"), Backoff, "from where it had given up");
    }
}
