//! The machine for the console's banner: what `berth status` says, and word of its changes.

use std::path::Path;

use berth_control::message::MachineState;
use futures_util::{Stream, StreamExt};

use super::api::Api;
use super::error::Error;
use super::{ps, status};

/// The machine at one moment.
pub struct Snapshot {
    /// For people.
    pub text: String,
    /// Its state.
    pub state: MachineState,
}

/// A connection that learns of changes.
pub struct Watch {
    api: Api,
}

/// The machine as it is now.
pub async fn snapshot(socket: &Path) -> Result<Snapshot, Error> {
    take(&Api::connect(socket).await?).await
}

/// Connects.
pub async fn watch(socket: &Path) -> Result<Watch, Error> {
    Ok(Watch { api: Api::connect(socket).await? })
}

impl Watch {
    /// The machine as it is now.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        take(&self.api).await
    }

    /// An item whenever the machine's state has changed; ends with the connection.
    pub async fn changes(&self) -> Result<impl Stream<Item = ()> + Unpin, Error> {
        let changes = self.api.machine.receive_machine_changed().await.map_err(Error::Broken)?;
        self.api.machine.subscribe().await?;
        Ok(changes.map(drop))
    }
}

async fn take(api: &Api) -> Result<Snapshot, Error> {
    let machine = api.describe().await?;
    let containers = api.list().await?;
    let mut text = status::render(&machine, &containers);
    let users: Vec<_> = containers.into_iter().filter(ps::is_users).map(ps::Listed::from).collect();
    if !users.is_empty() {
        text.push('\n');
        text.push_str(&ps::render(&users, machine.uptime_ms, false, Some(WIDTH)));
    }
    Ok(Snapshot { text, state: machine.state })
}

/// A console's width: what every terminal has.
const WIDTH: usize = 80;
