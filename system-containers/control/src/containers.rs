//! org.berth.Containers1: the containers.

use std::os::fd::AsFd;

use berth_config::ApiPart;
use berth_control::dbus::{ApiError, Cause, Change, Container, Creation, Ending, Execution, LogQuery, Statistics};
use berth_control::images::Query;
use berth_control::logs::{INIT, KERNEL};
use berth_control::message::{self, Interest, Reply, Request, TerminalSize};
use nix::fcntl::OFlag;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::wire::OwnedFd;

use crate::caller::Caller;
use crate::definition;
use crate::ends::{self, Ends};
use crate::images::Engine;
use crate::init::{unavailable, unexpected};
use crate::listing::Listing;
use crate::logs::Logs;

/// Serves the interface to one client.
pub struct Containers1 {
    /// Who knows the answers.
    pub init: Caller,
    /// Where the output is.
    pub logs: Logs,
    /// Who keeps what they write.
    pub engine: Engine,
    /// What it waits for.
    pub ends: Ends,
}

// `spawn = false`: see `Machine1`.
#[zbus::interface(name = "org.berth.Containers1", spawn = false, introspection_docs = false)]
impl Containers1 {
    async fn list(&self, #[zbus(header)] header: Header<'_>) -> Result<Listing, ApiError> {
        let bytes = self.init.listing().await?;
        Listing::for_caller(bytes, &header)
            .ok_or_else(|| unavailable("PID 1 has listed the containers in another form"))
    }

    async fn inspect(&self, name: &str) -> Result<Container, ApiError> {
        ends::find(&self.init, name).await.map(Container::from)
    }

    async fn definition(&self, name: String) -> Result<String, ApiError> {
        self.init.text(Request::Definition { name }).await
    }

    async fn statistics(&self) -> Result<Vec<Statistics>, ApiError> {
        Ok(self.init.statistics().await?.into_iter().map(Statistics::from).collect())
    }

    async fn sizes(&self) -> Result<OwnedFd, ApiError> {
        self.engine.query(Query::Sizes, None).await
    }

    async fn wait(&self, name: String) -> Result<OwnedFd, ApiError> {
        self.ends.wait(self.init.clone(), name).await.map(OwnedFd::from)
    }

    async fn why(&self, name: String) -> Result<Vec<Cause>, ApiError> {
        match self.init.call(Request::Why { name }).await? {
            Reply::Why(causes) => Ok(causes.into_iter().map(Cause::from).collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn create(&self, definition: &str, options: Creation) -> Result<(), ApiError> {
        let (name, container) = definition::read(definition)?;
        let creation = Box::new(options.of(name, container, false));
        self.init.done(Request::Create { creation, session: None }).await
    }

    async fn run(&self, definition: &str, options: Creation, streams: bool) -> Result<OwnedFd, ApiError> {
        let (name, container) = definition::read(definition)?;
        let creation = Box::new(options.of(name, container, true));
        let interest = if streams { Interest::Streams } else { Interest::State };
        self.init.descriptor(Request::Create { creation, session: Some(interest) }).await.map(OwnedFd::from)
    }

    async fn attach(&self, name: String) -> Result<OwnedFd, ApiError> {
        self.init.descriptor(Request::Attach { name, start: false }).await.map(OwnedFd::from)
    }

    async fn start_attached(&self, name: String) -> Result<OwnedFd, ApiError> {
        self.init.check(ApiPart::ContainersStart)?;
        self.init.descriptor(Request::Attach { name, start: true }).await.map(OwnedFd::from)
    }

    async fn changes_since(&self, since_us: u64) -> Result<Vec<Change>, ApiError> {
        self.init.check(ApiPart::Events)?;
        Ok(self.init.changes_since(since_us))
    }

    async fn remove(&self, name: String, force: bool, volumes: bool) -> Result<(), ApiError> {
        self.init.done(Request::Remove { name, force, volumes }).await
    }

    async fn pause(&self, name: String) -> Result<(), ApiError> {
        self.init.done(Request::Pause { name }).await
    }

    async fn unpause(&self, name: String) -> Result<(), ApiError> {
        self.init.done(Request::Unpause { name }).await
    }

    async fn resize(&self, name: String, rows: u16, columns: u16) -> Result<(), ApiError> {
        self.init.done(Request::Resize { name, size: TerminalSize { rows, columns } }).await
    }

    async fn instances(&self, name: String) -> Result<Vec<String>, ApiError> {
        match self.init.call(Request::Instances { name }).await? {
            Reply::Names(names) => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    async fn start(&self, name: String) -> Result<(), ApiError> {
        self.init.done(Request::Start { name }).await
    }

    async fn stop(&self, name: String) -> Result<(), ApiError> {
        self.init.done(Request::Stop { name, ending: message::Ending::default() }).await
    }

    async fn restart(&self, name: String) -> Result<(), ApiError> {
        self.init.done(Request::Restart { name, ending: message::Ending::default() }).await
    }

    async fn stop_with(&self, name: String, ending: Ending) -> Result<(), ApiError> {
        self.init.done(Request::Stop { name, ending: ending.into() }).await
    }

    async fn restart_with(&self, name: String, ending: Ending) -> Result<(), ApiError> {
        self.init.done(Request::Restart { name, ending: ending.into() }).await
    }

    async fn kill(&self, name: String, signal: i32) -> Result<(), ApiError> {
        self.init.done(Request::Kill { name, signal }).await
    }

    async fn logs(&self, name: String, query: LogQuery) -> Result<OwnedFd, ApiError> {
        self.init.check(ApiPart::ContainersLogs)?;
        // A container that has printed nothing and one that is not there look alike to `logs`.
        if ![KERNEL, INIT].contains(&name.as_str()) {
            ends::find(&self.init.for_ourselves(), &name).await?;
        }
        self.logs.query(name, query, self.init.container()).await.map(OwnedFd::from)
    }

    async fn execute(
        &self,
        name: String,
        execution: Execution,
        descriptors: Vec<OwnedFd>,
    ) -> Result<OwnedFd, ApiError> {
        let failed = |error: nix::Error| ApiError::Unavailable(format!("make a pipe for the program's end: {error}"));
        let (end, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let mut passed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        passed.push(writer.as_fd());
        let request = Request::Execute(Box::new(execution.in_container(name)?));
        self.init.done_with(request, &passed).await?;
        Ok(end.into())
    }

    /// The state of a container has changed.
    #[zbus(signal)]
    pub async fn container_changed(emitter: &SignalEmitter<'_>, container: Container) -> zbus::Result<()>;

    /// There is no container of this name any more.
    #[zbus(signal)]
    pub async fn container_removed(emitter: &SignalEmitter<'_>, container: Container) -> zbus::Result<()>;
}
