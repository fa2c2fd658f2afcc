//! How many programs are executed in containers at once.

use super::super::Supervisor;
use super::Execution;

/// The most at one time: PID 1's descriptors must not be used up.
const MAXIMUM: usize = 1024;

/// The most that clients have of these, who may start them and forget them. The rest is left to health checks, so that nobody
/// who executes much makes other containers unhealthy.
const OF_CLIENTS: usize = 768;

impl Supervisor {
    /// Whether there may be one more, of a client or of a health check; if not, why.
    pub(super) fn has_room_for_execution(&self, for_client: bool) -> Result<(), String> {
        let of_clients = self.executions.values().filter(|execution| execution.is_client_s()).count();
        has_room(self.executions.count(), of_clients, for_client)
    }
}

impl Execution {
    pub(super) fn is_client_s(&self) -> bool {
        self.result.is_some() || self.detached
    }
}

fn has_room(all: usize, of_clients: usize, for_client: bool) -> Result<(), String> {
    let most = if for_client { OF_CLIENTS } else { MAXIMUM };
    if all >= MAXIMUM || (for_client && of_clients >= OF_CLIENTS) {
        return Err(format!("{most} programs are being executed in containers already; wait until some end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::world::supervisor;
    use super::super::Stage;
    use super::*;

    #[test]
    fn clients_leave_room_for_health_checks() {
        assert!(has_room(OF_CLIENTS - 1, OF_CLIENTS - 1, true).is_ok());
        let refused = has_room(OF_CLIENTS, OF_CLIENTS, true).unwrap_err();
        assert!(refused.starts_with("768 programs"), "{refused}");
        assert!(has_room(MAXIMUM - 1, OF_CLIENTS, false).is_ok());
        assert!(has_room(MAXIMUM, 0, true).is_err() && has_room(MAXIMUM, OF_CLIENTS, false).is_err());
    }

    #[test]
    fn what_health_checks_execute_is_not_the_clients() {
        let mut supervisor = supervisor();
        for _ in 0..OF_CLIENTS {
            supervisor.executions.add(Execution { stage: Stage::Creating(None), result: None, detached: false });
        }
        assert!(supervisor.has_room_for_execution(true).is_ok());
    }
}
