//! The run of a container whose end somebody waits for.

use super::{Container, ContainerState};

/// The run that a container is in when it is first looked at, or else the next one that begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its process, once it has been seen.
    pid: Option<u32>,
}

impl Run {
    /// Whether it is over, from how the container is now: it was seen with a process and is without, or with another; or
    /// it does not run and is not about to. To be asked at each change.
    pub fn has_ended(&mut self, container: &Container) -> bool {
        use ContainerState::{Backoff, Failed, Stopped, Stopping};
        match container.state {
            Stopped | Failed | Backoff => true,
            _ if container.pid != 0 => *self.pid.get_or_insert(container.pid) != container.pid,
            // The end of the process is told with its exit code.
            state => self.pid.is_some() && state != Stopping,
        }
    }

    /// Whether that is anything new for [`Self::has_ended`]: a beginning or an end.
    pub fn is_told_of(&self, container: &Container) -> bool {
        let mut then = *self;
        then.has_ended(container) || then != *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Health, Kind};

    fn container((state, pid): &(ContainerState, u32)) -> Container {
        Container {
            name: "job".into(),
            kind: Kind::User,
            state: *state,
            image: String::new(),
            health: Health::None,
            reason: String::new(),
            pid: *pid,
            restarts: 0,
            started_us: 0,
            exit_code: 0,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }

    fn ends(states: &[(ContainerState, u32)]) -> Vec<bool> {
        let mut run = Run::default();
        states.iter().map(|state| run.has_ended(&container(state))).collect()
    }

    /// What of it is told, by one who looks at each that is.
    fn news(states: &[(ContainerState, u32)]) -> Vec<bool> {
        let mut run = Run::default();
        let mut is_told = |state| {
            let is_told = run.is_told_of(&container(state));
            run.has_ended(&container(state));
            is_told
        };
        states.iter().map(&mut is_told).collect()
    }

    #[test]
    fn what_is_about_to_run_is_waited_for() {
        use ContainerState::*;
        let states =
            [(Declared, 0), (Preparing, 0), (Waiting, 0), (Starting, 7), (Running, 7), (Stopping, 7), (Stopped, 0)];
        assert_eq!(ends(&states), [false, false, false, false, false, false, true]);
    }

    #[test]
    fn a_run_is_over_when_its_process_is_gone() {
        use ContainerState::*;
        assert_eq!(ends(&[(Running, 7), (Backoff, 0)]), [false, true]);
        // What has a timer waits for its next time.
        assert_eq!(ends(&[(Running, 7), (Waiting, 0)]), [false, true]);
        // The changes in between were left out.
        assert_eq!(ends(&[(Unhealthy, 7), (Running, 8)]), [false, true]);
        assert_eq!(ends(&[(Stopping, 7), (Stopping, 0), (Stopped, 0)]), [false, false, true]);
    }

    #[test]
    fn only_a_beginning_and_an_end_are_news() {
        use ContainerState::*;
        assert_eq!(
            news(&[(Starting, 0), (Starting, 7), (Running, 7), (Unhealthy, 7), (Running, 8)]),
            [false, true, false, false, true]
        );
        assert_eq!(news(&[(Preparing, 0), (Failed, 0)]), [false, true]);
    }

    #[test]
    fn what_does_not_run_is_not_waited_for() {
        for state in [ContainerState::Stopped, ContainerState::Failed, ContainerState::Backoff] {
            assert_eq!(ends(&[(state, 0)]), [true]);
        }
    }
}
