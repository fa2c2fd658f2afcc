//! `berth wait`: follows what happens to containers until they have ended.

use berth_control::message::{Container, ContainerState};
use futures_util::StreamExt;

use super::api::Api;
use super::containers::Names;
use super::error::Error;

/// Waits until each has ended and prints their exit codes in the order of the names, a line each, as docker's does.
pub async fn wait(api: &Api, names: &Names, json: bool) -> Result<String, Error> {
    let mut changes = api.containers.receive_container_changed().await.map_err(Error::Broken)?;
    api.machine.subscribe().await?;
    let mut ended = Vec::new();
    for name in &names.names {
        let mut container: Container = api.containers.inspect(name).await?.into();
        let run = container.started_us;
        while !has_ended(&container, run) {
            let change = changes.next().await.ok_or_else(gone)?.args().map_err(Error::Broken)?.container;
            // A change of it that was told meanwhile may be older than what is known; asking again is always right, as long
            // as it is there: one that was made to be removed is gone with its end.
            if change.name == *name {
                container = api.containers.inspect(name).await.map_or_else(|_| change.into(), Into::into);
            }
        }
        ended.push(container);
    }
    if json {
        return super::json_text(&ended);
    }
    Ok(ended.iter().map(|container| format!("{}\n", container.exit_code)).collect())
}

/// Whether that run is over: it does not run, or it is another run by now.
fn has_ended(container: &Container, run: u64) -> bool {
    use ContainerState::{Backoff, Failed, Stopped};
    matches!(container.state, Stopped | Failed | Backoff) || container.started_us != run
}

/// The answer of a connection that has ended.
pub fn gone() -> Error {
    Error::Refused("the control API went away while this waited; `berth ps` shows what came of it".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::message::Kind;

    fn container(state: ContainerState, started_us: u64) -> Container {
        Container {
            name: "job".into(),
            kind: Kind::User,
            state,
            health: berth_control::message::Health::None,
            image: String::new(),
            reason: "exited with code 3".into(),
            pid: 0,
            restarts: 0,
            started_us,
            exit_code: 3,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_run_is_over_when_it_has_ended_or_another_has_begun() {
        assert!(!has_ended(&container(ContainerState::Running, 5), 5));
        assert!(!has_ended(&container(ContainerState::Stopping, 5), 5));
        assert!(has_ended(&container(ContainerState::Running, 6), 5));
        assert!(has_ended(&container(ContainerState::Backoff, 5), 5));
    }
}
