//! What happens to containers, heard without a gap; and `berth wait`, which follows it until they have ended.
//!
//! zbus queues a few signals and then reads nothing more, answers neither, until somebody takes them. So whoever asks
//! while it listens does so by [`Changes::during`]. The API leaves signals out for a client that is slow all the same, and
//! says so: then the state has to be asked for anew.

use std::collections::VecDeque;
use std::pin::Pin;

use berth_control::dbus::{ContainerChanged, ContainerRemoved};
use berth_control::message::{Container, ContainerState, Run};
use futures_util::stream::select;
use futures_util::{Stream, StreamExt};

use super::USAGE;
use super::api::Api;
use super::containers::Names;
use super::error::Error;

/// What is heard.
#[derive(Debug)]
pub enum Change {
    /// A container is like this now.
    Container(Box<Container>),
    /// There is no container of this name any more; as it was last.
    Removed(Box<Container>),
    /// So many changes were left out.
    Missed(u64),
}

/// The changes from the moment of [`Self::begin`], in their order.
pub struct Changes {
    signals: Pin<Box<dyn Stream<Item = zbus::Result<Change>> + Send>>,
    heard: VecDeque<zbus::Result<Change>>,
}

impl Changes {
    /// Listens.
    pub async fn begin(api: &Api) -> Result<Self, Error> {
        // In one stream: one for each signal would lose their order.
        let changed = api.containers.inner().receive_all_signals().await.map_err(Error::Broken)?;
        let missed = api.machine.receive_missed().await.map_err(Error::Broken)?;
        let changed = changed.filter_map(|signal| std::future::ready(change(&signal).transpose()));
        let missed = missed.map(|signal| Ok(Change::Missed(signal.args()?.count)));
        let mut changes = Self { signals: Box::pin(select(changed, missed)), heard: VecDeque::new() };
        changes.during(api.machine.subscribe()).await?;
        Ok(changes)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Result<Change, Error> {
        let next = match self.heard.pop_front() {
            Some(heard) => heard,
            None => self.signals.next().await.ok_or(Error::Gone)?,
        };
        next.map_err(Error::Broken)
    }

    /// Waits for an answer, and listens meanwhile.
    pub async fn during<T>(&mut self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                Some(heard) = self.signals.next() => self.heard.push_back(heard),
            }
        }
    }

    /// The container, as it is after this change, if that may be one of it. What was told may be older than what is known;
    /// asking again is always right, as long as it is there: one that was made to be removed is gone with its end.
    pub async fn after(&mut self, change: &Change, api: &Api, name: &str) -> Option<Result<Container, Error>> {
        let told = match change {
            Change::Container(told) if told.name == name => Some(told),
            Change::Removed(told) if told.name == name => None,
            Change::Container(_) | Change::Removed(_) => return None,
            Change::Missed(_) => None,
        };
        Some(match (self.during(api.inspect(name)).await, told) {
            (Err(Error::Refused(_)), Some(told)) => Ok((**told).clone()),
            (container, _) => container,
        })
    }
}

/// What a signal of the containers' interface tells, if it is known.
fn change(signal: &zbus::Message) -> zbus::Result<Option<Change>> {
    if let Some(changed) = ContainerChanged::from_message(signal.clone()) {
        return Ok(Some(Change::Container(Box::new(changed.args()?.container.into()))));
    }
    let removed = ContainerRemoved::from_message(signal.clone());
    removed.map(|removed| Ok(Change::Removed(Box::new(removed.args()?.container.into())))).transpose()
}

/// Waits until each has ended and prints their exit codes in the order of the names, a line each, as docker's does.
pub async fn wait(api: &Api, names: &Names, json: bool) -> Result<String, Error> {
    let mut changes = Changes::begin(api).await?;
    let mut containers = Vec::new();
    // All of them before any is waited for: one that ends meanwhile may be gone then.
    for name in changes.during(api.instances(&names.names)).await? {
        containers.push(changes.during(api.inspect(&name)).await?);
    }
    let mut runs: Vec<(bool, Run)> = containers.iter().map(begun).collect();
    while runs.iter().any(|(ended, _)| !ended) {
        let change = changes.next().await?;
        for (container, (ended, run)) in containers.iter_mut().zip(&mut runs).filter(|(_, (ended, _))| !ended) {
            let told = match &change {
                Change::Container(told) | Change::Removed(told) if told.name == container.name => Some(told),
                Change::Container(_) | Change::Removed(_) => continue,
                Change::Missed(_) => None,
            };
            *container = match (changes.during(api.inspect(&container.name)).await, told) {
                (Err(Error::Refused(_)), Some(told)) => (**told).clone(),
                (now, _) => now?,
            };
            *ended = run.has_ended(container);
        }
    }
    if json {
        return super::json_text(&containers);
    }
    Ok(containers.iter().map(|container| format!("{}\n", exit_code(container))).collect())
}

/// The exit code of its last run. Of what has never run it is docker's 0, unless it could not.
fn exit_code(container: &Container) -> i32 {
    match (container.exit_code, container.state) {
        (-1, ContainerState::Failed) => i32::from(USAGE),
        (code, _) => code.max(0),
    }
}

/// The run that is waited for, and whether it is over already.
fn begun(container: &Container) -> (bool, Run) {
    let mut run = Run::default();
    (run.has_ended(container), run)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::api::peer::{self, container};
    use super::*;

    fn names(names: &[&str]) -> Names {
        Names { names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn dictionary(container: &Container) -> berth_control::dbus::Container {
        container.clone().into()
    }

    #[test]
    fn what_has_never_run_has_docker_s_code() {
        let code = |exit_code, state| super::exit_code(&Container { exit_code, ..container("job", state) });
        assert_eq!(code(-1, ContainerState::Stopped), 0);
        assert_eq!(code(-1, ContainerState::Failed), 125);
        assert_eq!((code(3, ContainerState::Failed), code(137, ContainerState::Backoff)), (3, 137));
    }

    #[tokio::test]
    async fn an_end_among_changes_that_were_left_out_is_found() {
        let (api, mut peer) = peer::pair().await;
        let waited = tokio::spawn(async move { wait(&api, &names(&["job"]), false).await });
        peer.answer("Subscribe", &()).await;
        peer.answer("Instances", &vec!["job"]).await;
        peer.answer("Inspect", &dictionary(&container("job", ContainerState::Running))).await;
        peer.tell_missed(7).await;
        let answer = dictionary(&container("job", ContainerState::Stopped));
        let answered = tokio::time::timeout(Duration::from_secs(10), peer.answer("Inspect", &answer)).await;
        answered.expect("nobody asks anew");
        assert_eq!(waited.await.unwrap().unwrap(), "3\n");
    }

    #[tokio::test]
    async fn an_answer_comes_through_however_many_changes_are_before_it() {
        let (api, mut peer) = peer::pair().await;
        let waited = tokio::spawn(async move { wait(&api, &names(&["job"]), false).await });
        peer.answer("Subscribe", &()).await;
        peer.answer("Instances", &vec!["job"]).await;
        let call = peer.call("Inspect").await;
        for _ in 0..200 {
            peer.tell(&container("web", ContainerState::Running)).await;
        }
        peer.reply(&call, &dictionary(&container("job", ContainerState::Stopped))).await;
        let waited = tokio::time::timeout(Duration::from_secs(10), waited).await;
        assert_eq!(waited.expect("the answer is behind changes that nobody takes").unwrap().unwrap(), "3\n");
    }

    #[tokio::test]
    async fn changes_and_removals_keep_their_order() {
        let (api, mut peer) = peer::pair().await;
        let begun = tokio::join!(Changes::begin(&api), peer.answer("Subscribe", &()));
        let mut changes = begun.0.unwrap();
        let job = container("job", ContainerState::Stopped);
        for _ in 0..10 {
            peer.tell(&job).await;
            peer.tell_removed(&job).await;
        }
        for _ in 0..10 {
            let both = (changes.next().await.unwrap(), changes.next().await.unwrap());
            let (Change::Container(_), Change::Removed(removed)) = both else { panic!("{both:?}") };
            assert_eq!(*removed, job);
        }
    }

    #[tokio::test]
    async fn who_waits_for_one_that_is_removed_before_it_has_run_waits_no_more() {
        let (api, mut peer) = peer::pair().await;
        let waited = tokio::spawn(async move { wait(&api, &names(&["job"]), false).await });
        peer.answer("Subscribe", &()).await;
        peer.answer("Instances", &vec!["job"]).await;
        let waiting = Container { exit_code: -1, ..container("job", ContainerState::Waiting) };
        peer.answer("Inspect", &dictionary(&waiting)).await;
        peer.tell_removed(&Container { state: ContainerState::Stopped, ..waiting }).await;
        let call = peer.call("Inspect").await;
        peer.refuse(&call, "there is no such container").await;
        assert_eq!(waited.await.unwrap().unwrap(), "0\n");
    }

    #[tokio::test]
    async fn one_that_is_gone_with_its_end_is_waited_for_beside_others() {
        let (api, mut peer) = peer::pair().await;
        let waited = tokio::spawn(async move { wait(&api, &names(&["web", "job"]), false).await });
        peer.answer("Subscribe", &()).await;
        peer.answer("Instances", &vec!["web"]).await;
        peer.answer("Instances", &vec!["job"]).await;
        for name in ["web", "job"] {
            peer.answer("Inspect", &dictionary(&container(name, ContainerState::Running))).await;
        }
        for name in ["job", "web"] {
            peer.tell(&Container { exit_code: 4, ..container(name, ContainerState::Stopped) }).await;
            let call = peer.call("Inspect").await;
            peer.refuse(&call, "there is no such container").await;
        }
        assert_eq!(waited.await.unwrap().unwrap(), "4\n4\n");
    }
}
