//! Containers that run when their time comes: `schedule` and `every`.
//!
//! A time of the calendar moves on [`crate::clock`] when somebody sets the wall clock. A step forward of less than three
//! hours counts as time that has passed, and what was due in it comes once; a greater one, or one as far back, is a
//! correction: the next time is found anew, and nothing is made up for. These are cron's rules.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::{Container, State};

/// From this on a step of the wall clock is a correction.
const CORRECTION: Duration = Duration::from_secs(3 * 3600);

/// When a container runs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    next: Next,
    /// When this was found, on both clocks, so that a correction is noticed.
    found: Duration,
    found_wall: Duration,
    /// How the last run failed.
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    /// By the wall clock.
    Calendar(Duration),
    /// On [`crate::clock`].
    Interval(Duration),
}

impl Timer {
    /// From the end of a run, or before the first one; `None` if this container has no timer, or is to run at once. What the
    /// calendar was due for last is not due again when the clock has been set back a little since.
    pub fn set(container: &Container, failure: Option<String>, now: Duration, wall: Duration) -> Option<Self> {
        let is_behind = |due: &Duration| due.saturating_sub(wall) < CORRECTION;
        let from = container.due.filter(is_behind).map_or(wall, |due| due.max(wall));
        Some(Self { next: Self::find(container.user()?, now, from)?, found: now, found_wall: wall, failure })
    }

    fn find(user: &berth_config::Container, now: Duration, wall: Duration) -> Option<Next> {
        if let Some(schedule) = &user.schedule {
            let seconds = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
            // A schedule without a next time, far beyond every clock, rests like one with a far one.
            let next = schedule.next(seconds).and_then(|next| u64::try_from(next).ok()).unwrap_or(u64::MAX / 2);
            return Some(Next::Calendar(Duration::from_secs(next)));
        }
        user.every.map(|every| Next::Interval(now + every.duration()))
    }

    /// Whether the wall clock was corrected since.
    fn is_outdated(&self, now: Duration, wall: Duration) -> bool {
        let expected = self.found_wall + now.saturating_sub(self.found);
        wall.abs_diff(expected) >= CORRECTION
    }

    /// When something has to be done, on [`crate::clock`].
    pub fn deadline(&self, now: Duration, wall: Duration) -> Duration {
        match self.next {
            Next::Calendar(_) if self.is_outdated(now, wall) => now,
            Next::Calendar(at) => now + at.saturating_sub(wall),
            Next::Interval(at) => at,
        }
    }

    /// How the last run failed.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// For people.
    pub fn reason(&self, now: Duration, wall: Duration) -> String {
        let at = match self.next {
            Next::Calendar(at) => at,
            Next::Interval(at) => wall + at.saturating_sub(now),
        };
        let next = berth_config::utc(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        let failure = self.failure.as_ref().map(|failure| format!("{failure}; ")).unwrap_or_default();
        format!("{failure}next at {next}")
    }
}

impl Supervisor {
    /// The image of a container is there: it waits for its start, or for its time.
    pub(super) fn prepared(&mut self, id: u32) {
        let (now, wall) = (self.now, self.wall);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.reason.clear();
        // What has no calendar begins with a run, and so does what somebody has started, whether he waits for it or not.
        let started = std::mem::take(&mut container.at_once) || container.session.is_some();
        let waits = !started && container.user().is_some_and(|user| user.schedule.is_some());
        match waits.then(|| Timer::set(container, None, now, wall)).flatten() {
            Some(timer) => {
                container.rest_until(timer, now, wall);
                self.changed(id);
            }
            None => container.state = State::Waiting,
        }
    }

    /// Begins a run whose time has come, or finds the time anew after a correction of the clock.
    pub(super) fn look_at_timer(&mut self, id: u32) -> bool {
        let (now, wall) = (self.now, self.wall);
        let Some(container) = self.containers.get(id) else { return false };
        let State::Scheduled(timer) = &container.state else { return false };
        let outdated = timer.is_outdated(now, wall);
        if !outdated && timer.deadline(now, wall) > now {
            return false;
        }
        let next = timer.next;
        let waits = matches!(next, Next::Interval(at) if at > now);
        if !outdated || matches!(next, Next::Interval(_)) && !waits {
            let Some(container) = self.containers.get_mut(id) else { return false };
            if let Next::Calendar(at) = next {
                container.due = Some(at);
            }
            (container.attempt, container.failures) = (0, 0);
            container.reason.clear();
            self.begin_anew(id);
        } else {
            self.find_time(id);
        }
        true
    }

    /// Finds the time of a container anew that waits for one.
    pub(super) fn find_time(&mut self, id: u32) {
        let (now, wall) = (self.now, self.wall);
        let Some(container) = self.containers.get_mut(id) else { return };
        let State::Scheduled(old) = &container.state else { return };
        let Some(mut timer) = Timer::set(container, old.failure.clone(), now, wall) else { return };
        if let (Next::Interval(at), Next::Interval(new)) = (old.next, timer.next) {
            // The wall clock is not an interval's business; only its reason is told in the calendar's words.
            timer.next = Next::Interval(at.min(new));
        }
        container.rest_until(timer, now, wall);
        self.changed(id);
    }
}

impl Container {
    /// Does not run until its time comes.
    pub(super) fn rest_until(&mut self, timer: Timer, now: Duration, wall: Duration) {
        self.reason = timer.reason(now, wall);
        self.state = State::Scheduled(timer);
        self.tried = true;
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::ContainerState::{Backoff, Running, Starting, Stopped, Waiting};
    use berth_control::message::{Ending, Request};

    use super::*;
    use crate::supervisor::world::World;

    /// Sunday, 2026-11-22 00:00.
    const MIDNIGHT: Duration = Duration::from_secs(1_795_305_600);
    const HOUR: Duration = Duration::from_secs(3600);

    /// At midnight.
    fn world(timer: &str) -> World {
        let mut world = World::new("");
        world.supervisor.wall = MIDNIGHT;
        world.apply(&format!("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\n{timer}\n"));
        world.prepare("job");
        world
    }

    #[test]
    fn a_schedule_runs_at_its_times_and_not_before() {
        let mut world = world("schedule = '0 3 * * *'");
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-22 03:00:00 UTC"));
        assert!(world.supervisor.find("job").unwrap().tried);
        assert_eq!(world.supervisor.problems(), [""; 0]);
        assert_eq!(world.supervisor.deadline(), Some(world.supervisor.now + HOUR * 3));
        world.pass(HOUR * 3 - Duration::from_millis(1));
        assert_eq!(world.state("job"), Waiting);
        world.pass(Duration::from_millis(1));
        assert_eq!(world.state("job"), Starting);
        world.run("job");
        // The next time comes while it runs: it passes.
        world.pass(HOUR * 25);
        assert_eq!(world.state("job"), Running);
        world.end("job", 0);
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-24 03:00:00 UTC"));
    }

    #[test]
    fn an_interval_begins_with_a_run_and_counts_from_its_end() {
        let mut world = world("every = '15m'");
        assert_eq!(world.state("job"), Starting);
        world.run("job");
        world.pass(HOUR);
        world.end("job", 0);
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-22 01:15:00 UTC"));
        assert_eq!(world.supervisor.deadline(), Some(world.supervisor.now + HOUR / 4));
        world.pass(HOUR / 4);
        assert_eq!(world.state("job"), Starting);
    }

    #[test]
    fn a_run_that_fails_is_a_problem_until_one_succeeds() {
        let mut world = world("every = '15m'");
        world.run("job");
        world.end("job", 2);
        assert_eq!(world.state("job"), Waiting);
        assert_eq!(world.supervisor.problems(), ["container job: exited with code 2; next at 2026-11-22 00:15:00 UTC"]);
        world.pass(HOUR);
        world.run("job");
        world.end("job", 0);
        assert_eq!(world.supervisor.problems(), [""; 0]);
    }

    #[test]
    fn on_failure_repeats_a_run_before_the_next_time() {
        let mut world = world("every = '15m'\nrestart = 'on-failure:1'");
        for wanted in [Backoff, Waiting, Backoff] {
            world.run("job");
            world.end("job", 1);
            assert_eq!(world.state("job"), wanted);
            world.pass(HOUR);
        }
    }

    #[test]
    fn a_correction_of_the_clock_makes_up_for_nothing() {
        let mut world = World::new("");
        world.supervisor.wall = Duration::from_secs(60);
        world.apply("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nschedule = 'hourly'\n");
        world.prepare("job");
        assert_eq!(world.reason("job"), "next at 1970-01-01 01:00:00 UTC");
        world.supervisor.wall = MIDNIGHT + Duration::from_secs(1);
        world.pass(Duration::ZERO);
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-22 01:00:00 UTC"));
        // And back again.
        world.supervisor.wall = Duration::from_secs(60);
        world.pass(Duration::ZERO);
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 1970-01-01 01:00:00 UTC"));
    }

    #[test]
    fn a_small_step_of_the_clock_brings_what_was_due_in_it_once() {
        let mut world = world("schedule = '*/5 * * * *'");
        world.supervisor.wall += HOUR;
        world.pass(Duration::ZERO);
        assert_eq!(world.state("job"), Starting);
        world.run("job");
        world.end("job", 0);
        assert_eq!(world.reason("job"), "next at 2026-11-22 01:05:00 UTC");
        // Back: what has run does not run again.
        world.supervisor.wall -= HOUR;
        world.pass(HOUR / 12);
        assert_eq!(world.state("job"), Waiting);
    }

    #[test]
    fn a_run_in_which_the_clock_is_set_back_is_not_repeated() {
        let ended_after = |back: Duration| {
            let mut world = world("schedule = '0 3 * * *'");
            world.pass(HOUR * 3);
            world.run("job");
            world.supervisor.wall -= back;
            world.pass(HOUR / 60);
            world.end("job", 0);
            world.reason("job").to_owned()
        };
        assert_eq!(ended_after(HOUR), "next at 2026-11-23 03:00:00 UTC");
        // That was a correction.
        assert_eq!(ended_after(HOUR * 4), "next at 2026-11-22 03:00:00 UTC");
    }

    #[test]
    fn an_interval_does_not_care_for_the_wall_clock() {
        let mut world = world("every = '15m'");
        world.run("job");
        world.end("job", 0);
        world.supervisor.wall += HOUR * 24;
        world.pass(HOUR / 8);
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-23 00:15:00 UTC"));
        world.pass(HOUR / 8);
        assert_eq!(world.state("job"), Starting);
    }

    #[test]
    fn other_times_hold_from_the_moment_they_are_applied() {
        let mut world = world("schedule = 'daily'");
        let with = |timer: &str| format!("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\n{timer}\n");
        world.apply(&with("schedule = 'hourly'"));
        assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-22 01:00:00 UTC"));
        world.apply(&with("every = '5m'"));
        assert_eq!(world.reason("job"), "next at 2026-11-22 00:05:00 UTC");
        world.apply(&with("every = '1m'"));
        assert_eq!(world.reason("job"), "next at 2026-11-22 00:01:00 UTC");
    }

    #[test]
    fn who_starts_it_before_its_image_is_there_waits_for_that_and_not_for_its_time() {
        let by_hand =
            [Request::Start { name: "job".into() }, Request::Restart { name: "job".into(), ending: Ending::default() }];
        for request in by_hand {
            let mut world = World::new("");
            world.supervisor.wall = MIDNIGHT;
            world.apply("[containers.job]\nimage = 'a'\nnetwork_mode = 'none'\nschedule = 'daily'\n");
            world.ask(request);
            world.prepare("job");
            assert_eq!(world.state("job"), Starting);
            world.run("job");
            world.end("job", 0);
            assert_eq!((world.state("job"), world.reason("job")), (Waiting, "next at 2026-11-23 00:00:00 UTC"));
        }
    }

    #[test]
    fn a_start_that_comes_to_nothing_can_be_told_from_waiting() {
        let mut world = world("schedule = 'daily'");
        let began = |world: &World| world.supervisor.find("job").unwrap().describe().started_us;
        assert_eq!((began(&world), world.state("job")), (0, Waiting));
        world.ask(Request::Start { name: "job".into() });
        world.fail("job");
        assert!(began(&world) > 0 && world.state("job") == Waiting);
        assert!(world.reason("job").starts_with("a test says so; next at"), "{}", world.reason("job"));
    }

    #[test]
    fn start_begins_a_run_at_once_and_stop_ends_the_waiting() {
        let mut world = world("schedule = 'daily'");
        world.ask(Request::Start { name: "job".into() });
        assert_eq!(world.state("job"), Starting);
        world.run("job");
        world.end("job", 0);
        world.ask(Request::Stop { name: "job".into(), ending: Ending::default() });
        assert_eq!((world.state("job"), world.supervisor.deadline()), (Stopped, None));
    }
}
