//! `berth start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`.
//!
//! PID 1 answers when a change is under way; these commands return when it has happened, as docker's do.

use berth_config::Signal;
use berth_control::dbus::Ending;
use berth_control::message::{Container, ContainerState};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::follow::{Change, Changes};
use super::{format, json_text};

/// Which containers.
#[derive(Debug, Args)]
pub struct Names {
    /// The containers
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Which containers, and the signal.
#[derive(Debug, Args)]
pub struct Kill {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = signal)]
    signal: i32,
    #[command(flatten)]
    names: Names,
}

/// Which containers, and how they are asked to end.
#[derive(Debug, Args)]
pub struct End {
    /// How long it may take before it is killed, in seconds; for ever if negative
    #[arg(
        short = 't',
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    time: Option<i64>,
    /// What asks it to end, by name or number
    #[arg(short, long, value_parser = signal)]
    signal: Option<i32>,
    #[command(flatten)]
    names: Names,
}

impl End {
    fn ending(&self) -> Ending {
        let milliseconds =
            |seconds: i64| u64::try_from(seconds).map_or(u64::MAX, |seconds| seconds.saturating_mul(1000));
        Ending { signal: self.signal, grace_ms: self.time.map(milliseconds) }
    }
}

/// Which containers, and how they go.
#[derive(Debug, Args)]
pub struct Remove {
    /// Also those that run: they are killed
    #[arg(short, long)]
    force: bool,
    /// Also the volumes that only their images asked for
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    names: Names,
}

/// What is to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is to run.
    Start,
    /// It is not to run.
    Stop(Ending),
    /// It is to run anew.
    Restart(Ending),
    /// It is to stand still.
    Pause,
    /// It is to go on.
    Unpause,
}

impl Action {
    /// Whether a container may be gone after it: one that was made to be removed goes with its end.
    fn may_be_the_last(&self) -> bool {
        matches!(self, Self::Stop(_))
    }
}

/// Stops each.
pub async fn stop(api: &Api, end: &End, json: bool) -> Result<String, Error> {
    each(api, Action::Stop(end.ending()), &end.names, json).await
}

/// Stops each and starts it again.
pub async fn restart(api: &Api, end: &End, json: bool) -> Result<String, Error> {
    each(api, Action::Restart(end.ending()), &end.names, json).await
}

/// Sends each the signal. There is nothing to wait for, so a client needs no part of the API to listen.
pub async fn kill(api: &Api, arguments: &Kill, json: bool) -> Result<String, Error> {
    let (mut done, mut failed) = (Vec::new(), false);
    for name in &arguments.names.names {
        let sent = async {
            for name in api.containers.instances(name).await? {
                done.push(send(api, arguments.signal, &name).await?);
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = sent.await {
            eprintln!("Error: {error}");
            failed = true;
        }
    }
    end_with(told(&done, json)?, failed)
}

/// One that was made to be removed may be gone with it.
async fn send(api: &Api, signal: i32, name: &str) -> Result<Container, Error> {
    let before = api.inspect(name).await?;
    api.containers.kill(name, signal).await?;
    match api.inspect(name).await {
        Err(Error::Refused(_)) => Ok(before),
        now => now,
    }
}

/// Does it to each and prints the names of those that are done, like docker. One failure does not keep the others. All of
/// them are asked before any is waited for: one may wait for another, and none has to wait for the end of another.
pub async fn each(api: &Api, action: Action, names: &Names, json: bool) -> Result<String, Error> {
    let mut failed = false;
    let mut tell = |error: Error| {
        eprintln!("Error: {error}");
        failed = true;
    };
    let mut changes = Changes::begin(api).await?;
    let mut asked = Vec::new();
    for name in &names.names {
        match changes.during(api.containers.instances(name)).await {
            Ok(instances) => {
                for name in &instances {
                    match Asked::ask(api, &mut changes, &action, name).await {
                        Ok(one) => asked.push(one),
                        Err(error) => tell(error),
                    }
                }
            }
            Err(error) => tell(error.into()),
        }
    }
    asked.iter_mut().for_each(|one| one.look(&action));
    while asked.iter().any(Asked::is_awaited) {
        let change = match changes.next().await {
            Ok(change) => change,
            Err(error) => {
                tell(error);
                break;
            }
        };
        for one in asked.iter_mut().filter(|one| one.is_awaited()) {
            one.hear(api, &mut changes, &change, &action).await;
        }
    }
    let mut done = Vec::new();
    for one in asked {
        match one.outcome {
            Some(Ok(())) => done.push(one.now),
            Some(Err(error)) => tell(error),
            None => {}
        }
    }
    end_with(told(&done, json)?, failed)
}

/// What is printed in any case, and whether that was all.
pub fn end_with(text: String, failed: bool) -> Result<String, Error> {
    if failed {
        print!("{text}");
        return Err(Error::Told);
    }
    Ok(text)
}

/// Removes each that no configuration declares, and prints the names of those that are gone.
pub async fn remove(api: &Api, arguments: &Remove, json: bool) -> Result<String, Error> {
    let (mut gone, mut failed) = (Vec::new(), false);
    for name in &arguments.names.names {
        match api.containers.remove(name, arguments.force, arguments.volumes).await {
            Ok(()) => gone.push(name),
            Err(error) => {
                eprintln!("Error: {}", Error::from(error));
                failed = true;
            }
        }
    }
    let text = if json { json_text(&gone)? } else { gone.iter().map(|name| format!("{name}\n")).collect() };
    end_with(text, failed)
}

fn told(containers: &[Container], json: bool) -> Result<String, Error> {
    if json {
        return json_text(&containers);
    }
    Ok(containers.iter().map(|container| format!("{}\n", container.name)).collect())
}

/// A container that something was asked of.
#[derive(Debug)]
struct Asked {
    /// As it was.
    before: Container,
    now: Container,
    /// What holds it up, as it was told last.
    obstacle: Option<String>,
    /// Whether it has come to an end, one or the other.
    outcome: Option<Result<(), Error>>,
}

impl Asked {
    async fn ask(api: &Api, changes: &mut Changes, action: &Action, name: &str) -> Result<Self, Error> {
        let before = changes.during(api.inspect(name)).await?;
        let asking = async {
            match action {
                Action::Start => api.containers.start(name).await,
                Action::Stop(ending) => api.containers.stop_with(name, ending.clone()).await,
                Action::Restart(ending) => api.containers.restart_with(name, ending.clone()).await,
                Action::Pause => api.containers.pause(name).await,
                Action::Unpause => api.containers.unpause(name).await,
            }
        };
        changes.during(asking).await?;
        let now = changes.during(api.inspect(name)).await;
        let mut asked = Self { now: before.clone(), before, obstacle: None, outcome: None };
        asked.take(now, action);
        Ok(asked)
    }

    fn is_awaited(&self) -> bool {
        self.outcome.is_none()
    }

    /// What was found.
    fn take(&mut self, found: Result<Container, Error>, action: &Action) {
        match found {
            Ok(now) => self.now = now,
            Err(Error::Refused(_)) if action.may_be_the_last() => self.outcome = Some(Ok(())),
            Err(error) => self.outcome = Some(Err(error)),
        }
    }

    /// Whether this is its end. What holds it up is told as soon as it is known.
    fn look(&mut self, action: &Action) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = end(action, &self.before, &self.now);
        let obstacle = obstacle(action, &self.now).filter(|_| self.outcome.is_none());
        if obstacle.is_some() && obstacle != self.obstacle {
            obstacle.iter().for_each(|text| eprintln!("{text}"));
            self.obstacle = obstacle;
        }
    }

    /// Something has changed, here or elsewhere.
    async fn hear(&mut self, api: &Api, changes: &mut Changes, change: &Change, action: &Action) {
        if let Some(found) = changes.after(change, api, &self.now.name).await {
            self.take(found, action);
            self.look(action);
        }
    }
}

/// What a container that is to run waits for, if that is known.
fn obstacle(action: &Action, container: &Container) -> Option<String> {
    let waits =
        matches!(container.state, ContainerState::Waiting | ContainerState::Preparing | ContainerState::Starting);
    let starts = matches!(action, Action::Start | Action::Restart(_));
    let Container { name, reason, state, .. } = container;
    (waits && starts && !reason.is_empty()).then(|| {
        let state = format::container_state(*state);
        format!("{name} is {state}: {reason} (Ctrl-C leaves it to that; `berth why {name}` says more)")
    })
}

/// Whether this is the end of what was asked for, and which.
fn end(action: &Action, before: &Container, now: &Container) -> Option<Result<(), Error>> {
    let failed = |advice: &str| {
        let reason = if now.reason.is_empty() { format!("exit code {}", now.exit_code) } else { now.reason.clone() };
        let state = format::container_state(now.state);
        Some(Err(Error::Refused(format!("{}: {state}: {reason}\n{advice}", now.name))))
    };
    let look = format!("`berth logs {}` shows what it has printed.", now.name);
    let has_begun = now.started_us != before.started_us;
    let anew = *action == Action::Start || has_begun;
    match (action, now.state) {
        (Action::Pause | Action::Unpause, _) => Some(Ok(())),
        (Action::Stop(_), ContainerState::Stopped | ContainerState::Failed) => Some(Ok(())),
        (Action::Stop(_), _) => None,
        (_, ContainerState::Running | ContainerState::Unhealthy | ContainerState::Paused | ContainerState::Stopped)
            if anew =>
        {
            Some(Ok(()))
        }
        // What has a timer waits for its next time when it has ended.
        (_, ContainerState::Waiting) if has_begun && now.exit_code == 0 => Some(Ok(())),
        (_, ContainerState::Waiting) if has_begun => failed(&look),
        (_, ContainerState::Failed) => failed(&look),
        (_, ContainerState::Backoff) => failed(&format!("It will be tried again. {look}")),
        _ => None,
    }
}

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
fn signal(text: &str) -> Result<i32, String> {
    let signal = text.parse::<Signal>().map(Signal::number);
    signal.map_err(|error| format!("{error}; names are like TERM and RTMIN+3, numbers from 1 to 64"))
}

#[cfg(test)]
mod tests;
